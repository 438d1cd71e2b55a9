"""Is a cache right? Every object hashed against its name, whatever was noted of it; nothing is changed.

A record beside an object (`trust.py`) spares a process the hash for a week, also where the disk loses a bit without any
write. So nobody's word is taken here: all bytes are read.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llmartifacts.blobs.base import PIECE
from llmartifacts.blobs.disk import FOLDER, READ_FILE, is_at
from llmartifacts.blobs.eviction import objects_in
from llmartifacts.blobs.failures import storage_error
from llmartifacts.blobs.trust import Record
from llmartifacts.blobs.verify import Sha256
from llmartifacts.errors import Damaged, DigestMismatch, LlmartifactsError, UnsafeContent
from llmartifacts.records.digest import Digest, digest_from_hex

_PAUSE, _TRIES = 0.02, 5
FETCHED_AGAIN = "Remove the file: that is safe, it is fetched again when it is needed."
"""What to do about a damaged object of a cache."""
_FORGET = (
    "Remove the file: that is safe, the object beside it is hashed when it is used next, and a new one is written."
)


@dataclass(frozen=True, slots=True)
class Checked:
    """One object of a cache, read to its end.

    Attributes:
        digest: What its name says.
        path: Its file.
        size: Bytes that were read.
        problem: What is wrong with it; None if it is what its name says.
        record_problem: What is wrong with its record; None if that is whole, or there is none.
    """

    digest: Digest
    path: Path
    size: int
    problem: LlmartifactsError | None = None
    record_problem: LlmartifactsError | None = None


def object_path(root: Path, digest: Digest) -> Path:
    """Where an object lies in the cache that has this folder."""
    return root / "sha256" / digest[7:9] / digest[7:]


def check_objects(
    root: Path, next_step: str = FETCHED_AGAIN, progress: Callable[[int, int], None] | None = None
) -> Iterator[Checked]:
    """Read and hash every object of a cache, in the order of their names.

    What is evicted or fetched meanwhile is passed over or read anew. Locks, and parts that a builder has not finished,
    are no objects: nobody reads them.

    Args:
        root: The cache's folder.
        next_step: What to do about an object that is damaged.
        progress: Called with the bytes read and the bytes in all.

    Raises:
        UnsafeContent: A link, or no folder, lies in the place of the objects' folder.
        NotAllowed: It cannot be listed.
    """
    place = root / "sha256"
    try:
        os.close(os.open(place, FOLDER))
        found = sorted(objects_in(root))
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, "list", place) from error
    total = sum(_size(path) for path in found)
    done = 0
    for path in found:
        one = check_object(path, next_step)
        if one is None:
            continue
        done += one.size
        if progress is not None:
            progress(done, max(done, total))
        yield one


def check_object(path: Path, next_step: str) -> Checked | None:
    """Read and hash one object; None where it is not there.

    Args:
        path: Its file.
        next_step: What to do about it where it is damaged.
    """
    digest = digest_from_hex(path.name)
    size, problem = 0, None
    for _ in range(_TRIES):
        try:
            fd = os.open(path, READ_FILE)
        except FileNotFoundError:
            return None
        except OSError as error:
            problem = storage_error(error, "read", path)
            break
        try:
            size, problem = _read(fd, path, digest, next_step)
            if problem is None or is_at(fd, path):
                break
        finally:
            os.close(fd)
    return Checked(digest, path, size, problem, _of_record(path))


def _read(fd: int, path: Path, digest: Digest, next_step: str) -> tuple[int, LlmartifactsError | None]:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return 0, UnsafeContent(f"{path} is no plain file", digest=digest, file=str(path), next_step=next_step)
    seen = Sha256()
    try:
        while data := os.read(fd, PIECE):
            seen.update(data)
    except OSError as error:
        return seen.size, storage_error(error, "read", path)
    if seen.blob.digest == digest:
        return seen.size, None
    told = f"the file {path} holds {seen.blob.digest}, not {digest}"
    return seen.size, DigestMismatch(told, digest=digest, file=str(path), next_step=next_step)


def _of_record(path: Path) -> LlmartifactsError | None:
    """What is wrong with the record of an object. One that another process writes just now is read again."""
    record = Record(path)
    for _ in range(_TRIES):
        if record.whole(digest_from_hex(path.name)):
            return None
        time.sleep(_PAUSE)
    told = f"the record {record.path} of what was hashed was altered; nobody believes it"
    return Damaged(told, digest=digest_from_hex(path.name), file=str(record.path), next_step=_FORGET)


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.lstat().st_size
    return 0
