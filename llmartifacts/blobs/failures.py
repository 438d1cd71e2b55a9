"""What the operating system refuses, as typed errors that say what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from llmartifacts.errors import Conflict, InvalidInput, LlmartifactsError, NotAllowed, Unreachable, UnsafeContent
from llmartifacts.records.arguments import shown

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_PLAIN_FILE = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST})


@contextmanager
def storage_errors(doing: str, where: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an `OSError` inside the block into a typed error.

    Args:
        doing: What was tried, such as `store`; the message says "cannot store …".
        where: The file or folder concerned.

    Raises:
        NotAllowed: The place is full, read-only or somebody else's.
        InvalidInput: Its path is too long.
        UnsafeContent: A symbolic link, or no plain file or folder, lies where one belongs.
        Unreachable: Any other failure of the storage.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing, where) from error


def storage_error(error: OSError, doing: str, where: str | os.PathLike[str]) -> LlmartifactsError:
    """The typed error for an `OSError`; arguments as `storage_errors`."""
    place, reason = os.fspath(where), error.strerror or str(error)
    if error.errno in FULL:
        return NotAllowed(
            f"cannot {doing} {place}: its file system is full ({reason})",
            next_step="Free some space there and try again; nothing was left half-written.",
        )
    if error.errno == errno.ENAMETOOLONG:
        return InvalidInput(f"cannot {doing} {shown(place)}: {reason}", next_step="Use a shorter path.")
    if error.errno in READ_ONLY:
        return NotAllowed(
            f"cannot {doing} {place}: {reason}", next_step="Ask for the right to do that there, or use another place."
        )
    if error.errno in _NO_PLAIN_FILE:
        return UnsafeContent(
            f"cannot {doing} {place}: a symbolic link, or something else that is no plain file, lies in the way",
            file=place,
            next_step="Somebody put it there by hand; remove it, then restore the file or log the content again.",
        )
    return Unreachable(f"cannot {doing} {place}: {reason}", next_step="Look at the disk or mount, then try again.")


def is_full(error: LlmartifactsError) -> bool:
    """Whether an error of the storage is that its file system is full."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL


def changed_meanwhile() -> Conflict:
    """A source that is another one than when it was read first."""
    return Conflict(
        "the bytes changed while they were read", field="source", next_step="Log it again when nobody writes to it."
    )
