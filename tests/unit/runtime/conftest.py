"""Real embedded registries with small contents, and a registry that can be made to hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with `agent` and `kb`, two versions each, of which `prod` is the first."""
    with la.init(tmp_path / "registry") as made:
        for name in ("agent", "kb"):
            for number in (1, 2):
                made.log(name, la.Files({f"{name}.txt": f"{name} {number} ".encode() * 100}))
            made.promote(f"{name}:v1", to="prod", reason="first")
        yield made


class Gate:
    """Stands before single calls of a backend: lets them through, holds them until the test ends, or raises."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._free = threading.Event()
        self.held: set[str] = set()
        self.error: BaseException | None = None
        self.calls: list[str] = []

    def pass_through(self, name: str) -> None:
        self.calls.append(name)
        if self.error is not None:
            raise self.error
        if name in self.held:
            if self._free.wait(60) and not self.ended.is_set():
                return
            raise ConnectionError("the test is over")

    def let_go(self) -> None:
        """Let those go on that are held, and hold nobody from now on."""
        self.held.clear()
        self._free.set()

    def end(self) -> None:
        self.ended.set()
        self._free.set()


class Gated:
    """A backend, or its blobs, behind a gate."""

    def __init__(self, inner: Any, gate: Gate, prefix: str = "") -> None:
        self._inner, self._gate, self._prefix = inner, gate, prefix

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "blobs":
            return Gated(found, self._gate, "blobs.")
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._gate.pass_through(self._prefix + name)
            return found(*args, **kwargs)

        return call


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.end()


@pytest.fixture
def gated(registry: Registry, gate: Gate) -> Registry:
    """The registry behind the gate."""
    return Registry(Gated(registry.backend, gate), project=registry.project, actor="tester")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent registry is given up after a moment instead of 3 s."""
    monkeypatch.setattr("llmartifacts.runtime.start.SILENCE", 0.1)


@pytest.fixture
def flip() -> Callable[[Path], None]:
    """Flips one bit in a read-only file."""

    def flip_bit(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.chmod(0o644)
        file.write_bytes(data)
        file.chmod(0o444)

    return flip_bit


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Waits for something that is to come soon; gives what it was at the end."""

    def wait(holds: Callable[[], Any]) -> Any:
        end = time.monotonic() + 30
        while not (found := holds()) and time.monotonic() < end:
            time.sleep(0.005)
        assert found, "it did not come"
        return found

    return wait


class Clock:
    """A monotonic clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    place = tmp_path / "cache"
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(place))
    return place
