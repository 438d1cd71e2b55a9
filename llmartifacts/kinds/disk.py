"""Files and folders on the caller's disk, read without following what they do not name."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from llmartifacts.errors import Conflict, InvalidPath, InvalidValue, NotAllowed, NotFound, TooLarge
from llmartifacts.kinds.base import FileSink
from llmartifacts.records.arguments import shown
from llmartifacts.records.manifest import MAX_FILES
from llmartifacts.records.names import near_names

AnyPath = str | os.PathLike[str]
_PIECE = 1024 * 1024
_MARK = "llmartifacts-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def walk(folder: Path) -> dict[str, Path]:
    """Every file below a folder, by relative path in order; hidden ones too.

    Raises:
        InvalidPath: There is a symbolic link, a device, a socket or a pipe; it is named.
        InvalidValue: There is no file.
        TooLarge: There are more files than a manifest takes.
    """
    found: dict[str, Path] = {}
    waiting = [(folder, "")]
    while waiting:
        place, prefix = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_symlink():
                        raise InvalidPath(
                            f"{path!r} is a symbolic link",
                            field="paths",
                            origin=str(folder),
                            next_step="Put the file in its place, or name it yourself: Files({path: file}).",
                        )
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((Path(entry.path), path + "/"))
                    elif entry.is_file(follow_symlinks=False):
                        found[path] = Path(entry.path)
                    else:
                        raise InvalidPath(
                            f"{path!r} is a device, a socket or a pipe", field="paths", origin=str(folder)
                        )
        except OSError as error:
            raise _refused(place, error, "paths") from None
        if len(found) > MAX_FILES:
            raise TooLarge(f"more than {MAX_FILES} files", field="paths", origin=str(folder))
    if not found:
        raise InvalidValue("the folder holds no file", field="paths", origin=str(folder))
    return dict(sorted(found.items()))


def is_folder(place: Path, *, field: str = "paths") -> bool:
    """Whether a path is a folder; one that is not there is none.

    Raises:
        InvalidPath: It cannot be looked at.
    """
    try:
        return place.is_dir()
    except OSError as error:
        raise _refused(place, error, field) from None


def find_regular(file: AnyPath, *, field: str = "files") -> Path:
    """The real place of a file that the caller named; links on the way are followed.

    Raises:
        NotFound: It is not there.
        InvalidPath: It is no ordinary file.
        NotAllowed: It cannot be looked at.
    """
    place = Path(os.fsdecode(file))
    try:
        real = place.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links; ValueError: NUL
        raise _refused(place, error, field) from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device, a socket or a pipe"
        raise InvalidPath(f"{str(place)!r} is {what}, not a file", field=field, next_step="Name an ordinary file.")
    return real


def open_regular(file: Path) -> BinaryIO:
    """Open an ordinary file; what became a link or a pipe meanwhile is refused.

    Raises:
        NotFound: It is gone.
        InvalidPath: It is no ordinary file any more.
        NotAllowed: It cannot be read.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(file, error, "files") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InvalidPath(f"{str(file)!r} is not an ordinary file", field="files")
    return os.fdopen(handle, "rb")


def read_regular(file: Path, limit: int, *, field: str = "files") -> bytes:
    """The bytes of an ordinary file, at most one beyond the limit, so that a parser can refuse what is too large.

    Raises:
        NotAllowed: It cannot be read.
        LlmartifactsError: As `open_regular`.
    """
    with open_regular(file) as stream:
        try:
            return stream.read(limit + 1)
        except OSError as error:
            raise NotAllowed(f"{str(file)!r} cannot be read: {error.strerror}", field=field) from None


def add_file(files: FileSink, path: str, file: Path) -> int:
    """Store one file from disk and return its size.

    Raises:
        InvalidValue: It changed while it was read.
        NotAllowed: It cannot be read.
    """
    with open_regular(file) as stream:
        before = os.fstat(stream.fileno())
        try:
            files.add(path, stream)
        except OSError as error:
            told = f"{str(file)!r} cannot be read: {error.strerror or error}"
            step = "Look at the disk that it lies on, or copy it elsewhere."
            raise NotAllowed(told, field=f"files.{path}", next_step=step) from error
        after = os.fstat(stream.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise InvalidValue(
            "the file changed while it was read",
            field=f"files.{path}",
            origin=str(file),
            next_step="Log it when nothing writes to it.",
        )
    return after.st_size


@contextmanager
def filling(directory: Path) -> Iterator[Path]:
    """Make a directory whole or not at all: gives a folder beside it, which takes its place if the block ends well.

    Args:
        directory: Made if it does not exist; it must be empty.

    Raises:
        Conflict: Something lies there already.
        NotAllowed: It cannot be written there.
    """
    _sweep(directory)
    try:
        if directory.is_symlink() or (directory.exists() and (not directory.is_dir() or any(directory.iterdir()))):
            raise Conflict(
                f"{directory} is not an empty directory", field="directory", next_step="Name another, or empty it."
            )
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _aside(directory) as aside:
            made = aside / "files"
            made.mkdir()
            yield made
            made.replace(directory)
    except OSError as error:
        raise NotAllowed(
            f"{shown(str(directory), 200)} cannot be written: {error.strerror or error}",
            field="directory",
            next_step="Name a directory that may be written, on a file system with room.",
        ) from None


@contextmanager
def _aside(directory: Path) -> Iterator[Path]:
    """A private folder beside a directory, locked as long as it is used, and gone at the end."""
    while True:
        aside = directory.parent / f".{directory.name}.{_MARK}{os.urandom(8).hex()}"
        aside.mkdir(mode=0o700)
        try:
            held = os.open(aside, _FOLDER)
        except FileNotFoundError:
            continue  # a sweep came between mkdir and here; it cannot once the lock is held
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not aside.is_dir():
                continue
            yield aside
            return
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            os.close(held)


def _sweep(directory: Path) -> None:
    """Remove what killed processes left beside a directory. Never fails: it is only tidying."""
    ours = re.compile(re.escape(f".{directory.name}.{_MARK}") + "[0-9a-f]{16}")
    with suppress(OSError):
        with os.scandir(directory.parent) as entries:
            found = [entry.path for entry in entries if ours.fullmatch(entry.name)]
        for path in found:
            with suppress(OSError):
                held = os.open(path, _FOLDER)
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its process has ended, however it did
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(held)


def write_new(place: Path, stream: BinaryIO) -> None:
    """Write a new file from a stream; the folders above it are made."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("xb") as out:
        shutil.copyfileobj(stream, out, _PIECE)


def _refused(place: Path, error: Exception, field: str) -> NotFound | NotAllowed | InvalidPath:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        try:
            beside = [p.name for p in place.parent.iterdir()]
        except OSError:
            beside = []
        near = near_names(place.name, beside)
        return NotFound(f"no file {str(place)!r}", what="file", name=str(place), near=near, field=field)
    if isinstance(error, PermissionError):
        return NotAllowed(f"{str(place)!r} cannot be read", field=field)
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InvalidPath(f"{shown(str(place), 200)} cannot be opened: {told}", field=field)
