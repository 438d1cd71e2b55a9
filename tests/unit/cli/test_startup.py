from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"faiss", "numpy", "langchain_core", "pyarrow", "fastapi", "scipy"}


@pytest.mark.parametrize("line", [["--help"], ["ls"], ["show", "docs"], ["history", "docs:latest"], ["ls", "--json"]])
def test_looking_imports_nothing_heavy(cli, log, tmp_path: Path, line: list[str]) -> None:  # type: ignore[no-untyped-def]
    cli("init")
    log("docs", "text")
    code = (
        "import sys; from llmartifacts.cli.main import main; code = main(sys.argv[1:]); "
        f"found = sorted({HEAVY!r} & set(sys.modules)); print(found, file=sys.stderr); sys.exit(code or bool(found))"
    )
    ended = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_help_needs_no_registry_and_opens_none(tmp_path: Path) -> None:
    code = (
        "import sys; from llmartifacts.cli.main import main; main(['promote', '--help']); "
        "sys.exit('llmartifacts.registry' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.iterdir()) == []
