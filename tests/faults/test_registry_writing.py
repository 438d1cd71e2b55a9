"""log, promote and rollback that fail or are killed at any system call that writes.

What was acknowledged is there, what was not is not there in part, the registry verifies, and the same call works when
it is made again.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

import llmartifacts as la

WORK = """
import random, sys
import llmartifacts as la

large = random.Random(1).randbytes(1_500_000)
content = la.Files({"text.txt": b"words and words " * 1000, "binary.bin": bytes(range(256)) * 400, "large": large})

def done(step):
    print(step, flush=True)

try:
    registry = la.connect(sys.argv[1])
    registry.log("docs", content, aliases="staging", inputs="source:v1")
    done("log")
    registry.promote(["docs:staging", "source:v2"], to="prod", reason="go")
    done("promote")
    registry.rollback("source:prod", whole=True, reason="back")
    done("rollback")
except la.LlmartifactsError as error:
    print("refused", error.code, error.hint() and "hint", flush=True)
    sys.exit(3)
"""
CONTENT = {
    "text.txt": b"words and words " * 1000,
    "binary.bin": bytes(range(256)) * 400,
    "large": random.Random(1).randbytes(1_500_000),
}
STEPS = ("log", "promote", "rollback")
CALLS = ("pwrite64", "write", "fdatasync", "fsync", "rename", "link", "ftruncate", "openat", "mkdir")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    registry = la.init(tmp_path / "r")
    registry.log("source", la.Files({"a": b"1"}))
    registry.log("source", la.Files({"a": b"2"}))
    registry.promote("source:v1", to="prod")
    registry.close()
    return tmp_path / "r"


def _run(strace: str, place: Path, inject: str) -> tuple[list[str], int]:
    trace = [strace, "-f", "-qq", "-o", "/dev/null", *_only(place), "-e", f"inject={inject}"]
    work = [sys.executable, "-B", "-c", WORK, str(place)]
    done = subprocess.run([*trace, *work], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.split("\n"), done.returncode


def _only(place: Path) -> list[str]:
    """Trace only what concerns the registry, so that the interpreter's own start is left alone."""
    names = ["", "registry.db", "registry.db-wal", "registry.db-shm", "registry.db.lock", "blobs", "tmp"]
    return [word for name in names for word in ("-P", str(place / name))]


def _check(place: Path, acknowledged: list[str]) -> None:
    with la.connect(place) as registry:
        found = registry.verify(read_data=True)
        assert found.ok, found.problems
        names = {c.name for c in registry.collections()}
        prod = {name: entry.version.number for name, entry in registry.state("prod").items()}
        if "log" in acknowledged:
            logged = registry.resolve("docs:staging", la.Files)
            assert {path: logged.read(path) for path in logged.paths()} == CONTENT
        if "docs" in names:
            assert registry.get("docs:staging").number == 1, "an alias given with log comes with it, or not at all"
            assert registry.lineage("docs:v1").edges
        assert prod in ({"source": 1}, {"source": 2, "docs": 1}), "all components or none"
        if "rollback" in acknowledged:
            assert prod == {"source": 1}
        elif "promote" in acknowledged:
            assert len(registry.history("source:prod")) >= 2
        verbs = [e["verb"] for e in registry.backend.audit(None)]
        assert verbs.count("log") == 2 + ("docs" in names)

        # and the same again works
        registry.log("docs", la.Files(CONTENT))
        registry.promote(["docs:v1", "source:v2"], to="prod")
        assert registry.resolve("docs:prod", la.Files).read("large") == CONTENT["large"]
        assert registry.verify(read_data=True).ok
        assert not list((place / "tmp").rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("nth", [2, *(pytest.param(n, marks=pytest.mark.matrix) for n in (1, 3, 5, 8))])
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_a_system_call_it_leaves_all_or_nothing(strace: str, place: Path, call: str, nth: int) -> None:
    told, code = _run(strace, place, f"{call}:signal=KILL:when={nth}")
    acknowledged = [step for step in STEPS if step in told]
    assert code in (0, -9), told
    _check(place, acknowledged)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "error"),
    [
        *[("pwrite64", "EIO"), ("fdatasync", "ENOSPC"), ("rename", "EIO")],
        *[("link", "ENOSPC"), ("openat", "EIO"), ("write", "ENOSPC")],
        *[
            pytest.param(call, error, marks=pytest.mark.matrix)
            for calls, error in ((("pwrite64", "rename", "openat"), "ENOSPC"), (("fdatasync", "link", "write"), "EIO"))
            for call in calls
        ],
    ],
)
def test_a_failing_system_call_is_a_typed_error_and_leaves_all_or_nothing(
    strace: str, place: Path, call: str, error: str
) -> None:
    told, code = _run(strace, place, f"{call}:error={error}:when=1+")
    acknowledged = [step for step in STEPS if step in told]
    assert code in (0, 3), told
    if code == 3:
        assert any(line.startswith("refused") and line.endswith("hint") for line in told), told
    _check(place, acknowledged)
