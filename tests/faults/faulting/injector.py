"""Runs a verb with a fault at one system call, and says what came of it.

count    run it once, traced: which calls that write it makes, and how often
inject   run it again and again, each time with a fault at another of them
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faulting import order
from faulting.operations import surroundings
from faulting.verbs import OPERATIONS

CALLS = (
    "write,writev,pwrite64,pwritev,pwritev2,sendfile,copy_file_range,fsync,fdatasync,sync_file_range,msync,rename,"
    "renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,ftruncate,truncate,fallocate,creat,openat,"
    "open,mkdir,mkdirat,chmod,fchmod,fchmodat"
)
"""Every call that changes what a disk holds; of the opens, only those that make or empty a file."""
SECONDS = 60.0
FAULTS = {"kill": "signal=KILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC"}
CRASHED = 70
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")


@dataclass(frozen=True, slots=True)
class Point:
    """One fault.

    Attributes:
        fault: One of `FAULTS`.
        call: The system call.
        nth: Which of these calls of a thread, from 1.
    """

    fault: str
    call: str
    nth: int

    def __str__(self) -> str:
        return f"{self.fault} at {self.call} {self.nth}"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended.

    Attributes:
        status: Exit code, or minus the signal.
        done: What it acknowledged.
        refused: Code, message and hint of the error; empty if there was none.
        crashed: A traceback that nobody caught.
    """

    status: int
    done: list[str]
    refused: list[str]
    crashed: str


class Injector:
    """A fork server, and `strace` on its children.

    Args:
        strace: The program.
    """

    def __init__(self, strace: str, errors: Path) -> None:
        self._strace = strace
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("LLMARTIFACTS_", "PYTEST", "COV_"))}
        environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._errors = errors
        with errors.open("wb") as told:
            self._server = subprocess.Popen(
                [sys.executable, "-B", str(Path(__file__).with_name("zygote.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
                env=environ,
            )
        self._answer()

    def close(self) -> None:
        """End the fork server."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(SECONDS)
        self._server.stdout.close()

    def __enter__(self) -> Injector:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(
        self, work: str, place: Path, *, point: Point | None = None, trace: Path | None = None, twin: str = ""
    ) -> Ended:
        """Run a verb once.

        Args:
            work: Name of the verb.
            place: Where.
            point: The fault, if any.
            trace: A file that is told every call that writes, with the paths.
            twin: Name of a broken twin to run in its stead.
        """
        how: list[str] = []
        if point is not None:
            how = ["-o", "/dev/null", "-e", f"inject={point.call}:{FAULTS[point.fault]}:when={point.nth}"]
        elif trace is not None:
            how = ["-y", "-s", "64", "-o", str(trace), "-e", f"trace={CALLS},sendto", "-e", "signal=none"]
        self._ask({"work": work, "place": str(place), "twin": twin, "environ": surroundings(place)})
        pid = self._answer()["pid"]
        with self._traced(how, pid) if how else _nothing():
            late = threading.Timer(SECONDS, os.kill, (pid, signal.SIGKILL))
            late.start()
            self._tell("go")
            found = self._answer()
            hung = not late.is_alive()
            late.cancel()
        assert not hung, f"{work} did not end in {SECONDS:g} s, with {point}"
        told = [json.loads(line) for line in found["told"]]
        return Ended(
            found["status"],
            [words[1] for words in told if words[0] == "done"],
            next((words[1:] for words in told if words[0] == "refused"), []),
            next((words[1] for words in told if words[0] == "crashed"), ""),
        )

    def points(self, work: str, place: Path, trace: Path) -> tuple[list[tuple[str, int]], Ended]:
        """Every call that writes: (call, which of its thread)."""
        ended = self.run(work, place, trace=trace)
        counts: Counter[tuple[str, str]] = Counter()
        found: dict[tuple[str, int], None] = {}
        for line in trace.read_text().splitlines():
            parsed = _CALL.match(line)
            if parsed is None or parsed[2] == "sendto":
                continue
            thread, call, rest = parsed.groups()
            counts[thread, call] += 1
            if call in ("openat", "open") and not re.search(r"O_CREAT|O_TRUNC", rest):
                continue
            found[call, counts[thread, call]] = None
        return list(found), ended

    @contextmanager
    def _traced(self, how: list[str], pid: int) -> Iterator[None]:
        tracer = subprocess.Popen(
            [self._strace, "-f", *how, "-p", str(pid)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert tracer.stderr is not None
        try:
            line = tracer.stderr.readline()
            assert b"attached" in line, line
            drain = threading.Thread(target=tracer.stderr.read, daemon=True)
            drain.start()
            yield
            tracer.wait(SECONDS)
            drain.join()
        finally:
            if tracer.poll() is None:
                tracer.kill()
                tracer.wait()
            tracer.stderr.close()

    def _ask(self, wanted: dict[str, Any]) -> None:
        self._tell(json.dumps(wanted))

    def _tell(self, line: str) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()

    def _answer(self) -> Any:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, f"the fork server ended:\n{self._errors.read_text()}"
        return json.loads(line)


@contextmanager
def working_folder(otherwise: Path) -> Iterator[Path]:
    """A new folder in memory, gone at the end; where there is no such file system, another one."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 1 << 29:
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="llmartifacts-faults-") as made:
        yield Path(made)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class Judge:
    """Tries faults on one verb, and holds what is left against what is promised.

    Args:
        injector: Runs it.
        name: Name of the verb.
        folder: Where to work.

    Attributes:
        before: What is seen before.
        after: What is seen when it was done.
        calls: The calls with which it writes.
        disorder: What is wrong with their order, as `order.py` has it.
    """

    def __init__(self, injector: Injector, name: str, folder: Path) -> None:
        self._injector = injector
        self.operation = OPERATIONS[name]
        self._folder = folder
        self._template = folder / "template"
        self._place = folder / "place"  # the same path each time, as work may keep absolute ones
        self.outcomes: Counter[tuple[str, str]] = Counter()
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir(parents=True)
        with self._surrounded():
            self.operation.prepare(self._place)
            self._place.rename(self._template)
            self._copy()
            self.before = self.operation.state(self._place)
            self._known = self._problems() if (self._place / "registry").exists() else []
            self._copy()
            there = [path for path in self._place.rglob("*") if path.is_file()]
            self.calls, ended = injector.points(name, self._place, folder / "trace")
            self.disorder = order.problems(folder / "trace", there)
            assert ended == Ended(0, [name], [], ""), ended
            self.after = self.operation.state(self._place)
            self._judge(ended, None)

    def attempt(self, point: Point) -> str:
        """One fault; what came of it: `killed`, `refused` or `done`."""
        self._copy()
        ended = self._injector.run(self.operation.name, self._place, point=point)
        with self._surrounded():
            outcome = self._judge(ended, point)
        self.outcomes[point.fault, outcome] += 1
        return outcome

    def _judge(self, ended: Ended, point: Point | None) -> str:
        told = f"{self.operation.name}, {point}: {ended}"
        assert not ended.crashed, f"{told}\n{ended.crashed}"
        operation, place = self.operation, self._place
        operation.whole(place)
        found = operation.state(place)
        assert found in (self.before, self.after), f"{told}: partly done: {found}"
        if ended.done:
            assert found == self.after, f"{told}: acknowledged, and lost: {found}"
        if ended.status == -signal.SIGKILL:
            assert point is not None, told
            assert point.fault == "kill", told
            outcome = "killed"
        elif ended.refused:
            _, message, hint = ended.refused
            assert ended.status not in (0, CRASHED), told
            assert message, told
            assert hint, f"{told}: does not say what to do"
            outcome = "refused"
        else:
            assert ended.status == 0, told
            assert ended.done, told
            outcome = "done"
        if (place / "registry").exists():
            self._sound(told, ended=False)
        operation.again(place)
        assert operation.state(place) == self.after, f"{told}: the next try made something else"
        operation.whole(place)
        operation.finished(place)
        self._sound(told, ended=True)
        left = list((place / "registry" / "tmp").rglob("*"))
        assert left == [], f"{told}: {left}"
        return outcome

    def _sound(self, told: str, *, ended: bool) -> None:
        found = self._problems()
        assert self.operation.sound(self._known, found, ended=ended), f"{told}: {found}"

    def _problems(self) -> list[str]:
        import llmartifacts as la

        with la.connect(self._place / "registry") as registry:
            return sorted(
                {str(p) for p in (*registry.verify(read_data=True).problems, *registry.verify_audit().problems)}
            )

    def _copy(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        shutil.copytree(self._template, self._place, symlinks=True)

    @contextmanager
    def _surrounded(self) -> Iterator[None]:
        before = {name: os.environ.get(name) for name in surroundings(self._place)}
        os.environ.update(surroundings(self._place))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
