"""`file://`: files of this machine, below folders that the reader has opened, without following a link.

A version may name any file of the machine of whoever reads it. So nothing is read unless the reader has said where,
and on the way from there no link leads elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath

from llmartifacts.errors import BlobMissing, InvalidInput, NotAllowed, TooLarge, Unreachable
from llmartifacts.outbound.source import PIECE, Opened
from llmartifacts.records.external import Place

VARIABLE = "LLMARTIFACTS_FILE_ROOTS"
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def roots_from_environment() -> tuple[str, ...]:
    """The folders of `$LLMARTIFACTS_FILE_ROOTS`, separated by colons; none if it is not set.

    Raises:
        InvalidInput: One is no absolute path.
    """
    return check_roots([r for r in os.environ.get(VARIABLE, "").split(os.pathsep) if r.strip()], field=f"${VARIABLE}")


def check_roots(roots: Sequence[str | os.PathLike[str]], *, field: str = "file_roots") -> tuple[str, ...]:
    """Folders below which `file://` may be read. Raises `InvalidInput`: one is no absolute path."""
    made = tuple(os.path.normpath(os.fspath(root)) for root in roots)
    for root in made:
        if not os.path.isabs(root):
            raise InvalidInput(f"{root[:200]!r} is no absolute path", field=field, next_step="Write it from / on.")
    return made


@contextmanager
def opened(place: Place, *, start: int, limit: int, roots: Sequence[str]) -> Iterator[Opened]:
    """Open a file of this machine.

    Args:
        place: Its `file://` URL.
        start: First byte to read.
        limit: Bytes that it may have.
        roots: Folders below which it must lie.

    Raises:
        NotAllowed: It lies below none of them, or behind a link, is no plain file, or cannot be read.
        BlobMissing: There is no such file.
        TooLarge: It has more bytes.
        Unreachable: The disk fails.
    """
    path = PurePosixPath(place.key)
    root = next((r for r in roots if path.is_relative_to(r) and path != PurePosixPath(r)), None)
    if root is None:
        raise NotAllowed(
            f"{place} lies below no folder that is open for references",
            next_step=f"If it may be read, name a folder above it in ${VARIABLE}.",
        )
    with ExitStack() as stack:
        try:
            handle = os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
            stack.callback(os.close, handle)
            *folders, name = path.relative_to(root).parts
            for folder in folders:
                handle = os.open(folder, _FLAGS | os.O_DIRECTORY, dir_fd=handle)
                stack.callback(os.close, handle)
            handle = os.open(name, _FLAGS, dir_fd=handle)
            stack.callback(os.close, handle)
            about = os.fstat(handle)
        except OSError as error:
            raise _refused(place, error) from None
        if not stat.S_ISREG(about.st_mode):
            raise NotAllowed(f"{place} is no plain file")
        file = open(handle, "rb", buffering=0, closefd=False)  # noqa: SIM115 - the descriptor is closed above
        if about.st_size > limit:
            raise TooLarge(f"{place} has more than the {limit:,} bytes that it may have")

        def pieces() -> Iterator[bytes]:
            left = limit - start
            try:
                file.seek(start)
                while piece := file.read(PIECE):
                    left -= len(piece)
                    if left < 0:
                        raise TooLarge(f"{place} has more than the {limit:,} bytes that it may have")
                    yield piece
            except OSError as error:
                raise Unreachable(f"{place} cannot be read: {error.strerror or error}") from None

        yield Opened(pieces(), about.st_size)


def _refused(place: Place, error: OSError) -> BlobMissing | NotAllowed | Unreachable:
    if error.errno == errno.ENOENT:
        return BlobMissing(f"{place} is gone", file=str(place))
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return NotAllowed(
            f"{place} lies behind a symbolic link, or behind a file", next_step="Name the file by its real path."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.ENXIO):
        return NotAllowed(f"{place} cannot be read: {error.strerror}")
    return Unreachable(f"{place} cannot be read: {error.strerror or error}")
