"""strace, where it is and may trace; the injector; and the table of what was tried."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from faulting import table
from faulting.injector import Injector, working_folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-table", help="Markdown page whose table is written anew from what was tried.")
    parser.addoption("--faults-most", type=int, help="Most points of a verb and a fault, evenly; else all are tried.")


@pytest.fixture(scope="session")
def strace() -> str:
    found = shutil.which("strace")
    if not found:
        pytest.skip("STRACE MISSING: faults of system calls are not tested (apt-get install strace)")
    probe = subprocess.run(
        [found, "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"STRACE CANNOT TRACE here: {probe.stderr.strip()}")
    return found


@pytest.fixture(scope="session")
def injector(strace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Injector]:
    """One process that has imported everything, for all tests of this one."""
    with Injector(strace, tmp_path_factory.mktemp("injector") / "errors") as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder to work in, in memory where that can be had: thousands of copies of a registry are made and removed."""
    with working_folder(tmp_path) as made:
        yield made


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = [
        json.loads(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == table.PROPERTY and getattr(report, "when", "") == "call"
    ]
    if rows:
        terminalreporter.section("faults")
        text = table.markdown(rows)
        terminalreporter.write_line(text)
        page = config.getoption("--faults-table", default=None)
        if page:
            table.write(Path(page), rows)
