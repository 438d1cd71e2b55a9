"""Blobs on their way in, as codecs see them: a view of everything, or pieces in order."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Any

from llmartifacts.blobs.base import PIECE
from llmartifacts.records.digest import Blob, digest_from_hex

HEAD = 64 * 1024
_STRIDE = 8 * PIECE
_WAITING = 8


class ViewSource:
    """A blob that is in memory or mapped. Nobody may change it meanwhile."""

    again = True

    def __init__(self, view: memoryview) -> None:
        self.view = view

    @property
    def head(self) -> bytes:
        """Its first bytes."""
        return bytes(self.view[:HEAD])

    def pieces(self) -> Iterator[Any]:
        """All of it in order."""
        for at in range(0, len(self.view), PIECE):
            yield self.view[at : at + PIECE]


class SourceFailed(Exception):
    """A source cannot be read: not to be mistaken for the trouble of a codec. Never leaves this layer.

    Attributes:
        error: What it raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class PieceSource:
    """A blob that is read in order.

    Args:
        first: What was read of it already.
        rest: Gives the following bytes, at most so many; none at the end.
        rewind: Goes back to its beginning; None where that cannot be done.
    """

    view = None

    def __init__(self, first: bytes, rest: Callable[[int], bytes], rewind: Callable[[], None] | None) -> None:
        self._first = first
        self._rest = rest
        self._rewind = rewind
        self._read = False

    @property
    def again(self) -> bool:
        """Whether it can be read more than once."""
        return self._rewind is not None

    @property
    def head(self) -> bytes:
        """Its first bytes."""
        return self._first[:HEAD]

    def pieces(self) -> Iterator[Any]:
        """All of it in order."""
        if self._read:
            if self._rewind is None:
                raise RuntimeError("this source can be read once")
            self._rewind()
        else:
            yield self._first
        self._read = True
        while piece := self._next():
            yield piece

    def _next(self) -> bytes:
        try:
            return self._rest(PIECE)
        except Exception as error:
            raise SourceFailed(error) from error


class Hashing:
    """SHA-256 and size of a blob, made in a thread beside the work on its bytes: hashing lets others run."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size = 0
        self._pieces: queue.Queue[Any] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None

    def all_of(self, view: memoryview) -> None:
        """Begin to hash a view."""
        self._size = len(view)
        self._begin(lambda: self._strides(view))

    def passing(self, pieces: Iterator[Any]) -> Generator[Any, None, None]:
        """The same pieces, hashed on their way."""
        self._begin(self._queued)
        try:
            for piece in pieces:
                self._size += len(piece)
                self._pieces.put(piece)
                yield piece
        finally:
            self._pieces.put(None)

    def blob(self) -> Blob:
        """The address, once all of it has passed."""
        if self._thread is not None:
            self._thread.join()
        return Blob(digest_from_hex(self._hash.hexdigest()), self._size)

    def _begin(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=work, name="llmartifacts-hash", daemon=True)
        self._thread.start()

    def _strides(self, view: memoryview) -> None:
        for at in range(0, len(view), _STRIDE):
            self._hash.update(view[at : at + _STRIDE])

    def _queued(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._hash.update(piece)


def let_go(view: memoryview, start: int, end: int) -> None:
    """Take pages of a map out of this process's memory; they stay in the file and come back when touched."""
    import mmap

    if isinstance(view.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = end // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            with suppress(ValueError, OSError):
                view.obj.madvise(mmap.MADV_DONTNEED, first, last - first)
