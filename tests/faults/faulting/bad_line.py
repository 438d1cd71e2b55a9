"""An object store in memory, reached over a line that is slow, lies, or fails."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from llmartifacts.blobs.base import Driver, Source
from llmartifacts.blobs.memory import MemoryDriver
from llmartifacts.errors import Unreachable

T = TypeVar("T")


class Faulty(Driver):
    """A driver in memory, reached over a bad line.

    Attributes:
        inner: What is really stored.
        fails: Part of the calls that fail, before or after they did their work.
        waits: Seconds that each call takes.
        bends: Changes what is read: (key, bytes) -> bytes.
        sizes: Changes the sizes that are told.
        hides: Whether an object that is listed cannot be read.
    """

    def __init__(self, seed: int = 0) -> None:
        self.inner = MemoryDriver()
        self.fails = 0.0
        self.waits = 0.0
        self.bends: Callable[[str, bytes], bytes] = lambda key, data: data
        self.sizes: Callable[[str, int], int] = lambda key, size: size
        self.hides: Callable[[str], bool] = lambda key: False
        self.failed = 0
        self._chance = random.Random(seed)

    def _call(self, what: str, key: str, work: Callable[[], T]) -> T:
        time.sleep(self.waits)
        late = self._chance.random() < 0.5
        if self._chance.random() >= self.fails:
            return work()
        self.failed += 1
        if late:
            work()  # it was done, and the answer got lost
        raise Unreachable(f"cannot {what} {key}: the connection was reset", next_step="Try again.")

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        if self.hides(key):
            return self.inner.get("gone/" + key[-64:].lower().replace("/", "-"))
        with self._call("get", key, lambda: self.inner.get(key)) as stream:
            whole = self.bends(key, stream.read())
        return Breaking(whole[start:] if length is None else whole[start : start + length], self)

    def put_if_absent(self, key: str, source: Source) -> bool:
        return self._call("put", key, lambda: self.inner.put_if_absent(key, source))

    def replace(self, key: str, source: Source) -> None:
        self._call("replace", key, lambda: self.inner.replace(key, source))

    def delete(self, key: str) -> bool:
        return self._call("delete", key, lambda: self.inner.delete(key))

    def size(self, key: str) -> int | None:
        size = self._call("look at", key, lambda: self.inner.size(key))
        return None if size is None else self.sizes(key, size)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        found = self._call("list", prefix, lambda: list(self.inner.list(prefix)))
        return iter([(key, self.sizes(key, size)) for key, size in found])

    def where(self, key: str) -> str:
        return f"bucket/{key}"


class Patient(Faulty):
    """One that tries each call three times, as drivers of real object stores do; a download it does not try again."""

    def _call(self, what: str, key: str, work: Callable[[], T]) -> T:
        for _ in range(2):
            try:
                return super()._call(what, key, work)
            except Unreachable:
                continue
        return super()._call(what, key, work)


class Breaking(io.BytesIO):
    """A download that may break off in the middle, with an error of the system."""

    def __init__(self, data: bytes, driver: Faulty) -> None:
        super().__init__(data)
        self._driver = driver

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() and self._driver._chance.random() < self._driver.fails:
            self._driver.failed += 1
            raise ConnectionResetError(104, "Connection reset by peer")
        return super().read(size)
