"""Objects in memory: for tests, and for registries that live as long as their process."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import BinaryIO

from llmartifacts.blobs.base import Driver, Source, check_key
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.errors import BlobMissing


class MemoryDriver(Driver):
    """A dictionary of objects, shared by the threads of one process."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """Open an object for reading."""
        data = self._objects.get(check_key(key))
        if data is None:
            raise BlobMissing(f"there is no object {key}", file=self.where(key))
        return io.BytesIO(data[start : None if length is None else start + length])

    def put_if_absent(self, key: str, source: Source) -> bool:
        """Store an object unless there is one."""
        data = _bytes(source)
        with self._lock:
            if check_key(key) in self._objects:
                return False
            self._objects[key] = data
        return True

    def replace(self, key: str, source: Source) -> None:
        """Store an object in place of a damaged one."""
        data = _bytes(source)
        with self._lock:
            self._objects[check_key(key)] = data

    def delete(self, key: str) -> bool:
        """Remove an object."""
        with self._lock:
            return self._objects.pop(check_key(key), None) is not None

    def size(self, key: str) -> int | None:
        """Bytes of an object, or None."""
        data = self._objects.get(check_key(key))
        return None if data is None else len(data)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Key and size of every object whose key begins with a prefix, sorted by key."""
        with self._lock:
            found = sorted((k, len(v)) for k, v in self._objects.items() if k.startswith(prefix))
        return iter(found)

    def where(self, key: str) -> str:
        """Where an object lies, for messages."""
        return f"memory:{key}"


def _bytes(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source
    with storage_errors("read", source):
        return source.read_bytes()
