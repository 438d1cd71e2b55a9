"""Where the bytes of one file of a `Files` value are now."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from llmartifacts.errors import InvalidValue, NotFound
from llmartifacts.kinds.base import FileView
from llmartifacts.kinds.disk import open_regular
from llmartifacts.kinds.files.external import External


class Source(Protocol):
    """Where one file's bytes are now."""

    def open(self) -> BinaryIO:
        """Open it for reading."""

    def size(self) -> int:
        """Its bytes."""

    def on_disk(self) -> Path:
        """A file on disk that has them."""


@dataclass(frozen=True, slots=True)
class Inline:
    """Bytes in memory."""

    path: str
    data: bytes

    def open(self) -> BinaryIO:
        """Open it for reading."""
        return io.BytesIO(self.data)

    def size(self) -> int:
        """Its bytes."""
        return len(self.data)

    def on_disk(self) -> Path:
        """A file on disk that has them."""
        raise InvalidValue(
            f"{self.path!r} is in memory, not on disk", field="path", next_step="Read it, or export() the files first."
        )


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A file of the caller's."""

    file: Path
    given: object
    """What the caller named it by: a path out of a cache holds its file as long as that very object lives."""

    def open(self) -> BinaryIO:
        """Open it for reading."""
        return open_regular(self.file)

    def size(self) -> int:
        """Its bytes."""
        with open_regular(self.file) as stream:
            return os.fstat(stream.fileno()).st_size

    def on_disk(self) -> Path:
        """A file on disk that has them."""
        return self.file


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A file that stays where it is, before it is logged."""

    path: str
    file: External

    def open(self) -> BinaryIO:
        """Open it for reading."""
        raise self._unread()

    def size(self) -> int:
        """Its bytes."""
        if self.file.size is None:
            raise InvalidValue(
                f"how large {self.path!r} is, is not known before it is logged",
                field=f"external.{self.path}",
                next_step="Give its size: External(url, digest, size).",
            )
        return self.file.size

    def on_disk(self) -> Path:
        """A file on disk that has them."""
        raise self._unread()

    def _unread(self) -> NotFound:
        return NotFound(
            f"{self.path!r} is kept outside the registry, at {self.file.place}",
            what="file",
            name=self.path,
            next_step="Log these files and resolve them: then it is fetched, and verified, when it is read.",
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of a registry, or one that it names elsewhere."""

    view: FileView
    path: str

    def open(self) -> BinaryIO:
        """Open it for reading."""
        return self.view.open(self.path)

    def size(self) -> int:
        """Its bytes."""
        return self.view.size(self.path)

    def on_disk(self) -> Path:
        """A file on disk that has them."""
        return self.view.as_path(self.path)
