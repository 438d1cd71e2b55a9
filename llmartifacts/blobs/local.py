"""Objects as files below a folder: `<root>/sha256/ab/<hex>`, mode 0444, never followed through a symbolic link.

Written aside, made durable, then given their name by `link` (which refuses a taken name, so that of many processes one
stores) or `rename` (which replaces whole files only). So a file under a key is complete, and is never written to again.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from llmartifacts.blobs.base import PIECE, Driver, Limited, Source, check_key
from llmartifacts.blobs.disk import FOLDER, READ_FILE, create_file, sync_data, sync_folder, write_file
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.scratch import Scratch, sweep
from llmartifacts.errors import BlobMissing, UnsafeContent

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
_ASIDE = ".incoming"
_GiveName = Callable[[Path, int, str], bool]


class LocalDriver(Driver):
    """Files below a folder of a local file system, shared by any number of processes.

    Every folder below the root is opened by its name in the one before (`openat`, `O_NOFOLLOW`), so a symbolic link
    planted anywhere in the store is refused, also one planted while we look. New folders and files take the usual
    modes 0777 and 0444 less the umask: a team shares a store by its umask and group.

    Args:
        root: The folder; made when the first object is stored.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()
        self._settled: set[str] = set()

    # --- read

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """Open an object for reading."""
        stream: BinaryIO = open(self._open(key), "rb", buffering=0)  # noqa: SIM115 (the caller closes it)
        if start:
            stream.seek(start)
        return stream if length is None else cast(BinaryIO, Limited(stream, length))

    def file(self, key: str) -> tuple[BinaryIO, Path]:
        """An object as an open file and its path."""
        return open(self._open(key), "rb", buffering=0), self.root / key

    def size(self, key: str) -> int | None:
        """Bytes of an object, or None."""
        try:
            with storage_errors("look at", self.where(key)), self._folder(key) as (folder, name):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except BlobMissing:
            return None
        return self._plain(key, found).st_size

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Key and size of every object whose key begins with a prefix, sorted by key."""
        with storage_errors("list", self.root):
            try:
                root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            yield from self._walk(root, "", prefix)

    def where(self, key: str) -> str:
        """Path of the file that holds an object."""
        return str(self.root / key)

    # --- write

    def put_if_absent(self, key: str, source: Source) -> bool:
        """Store an object unless there is one."""
        return self.put_many([(key, source)])[0]

    def put_many(self, items: Sequence[tuple[str, Source]]) -> Sequence[bool]:
        """Store objects unless they are there: all links first, then one `fsync` for each folder concerned."""
        stored = [self._place(key, source, self._link) for key, source in items]
        self.settle(key for key, _ in items)
        return stored

    def replace(self, key: str, source: Source) -> None:
        """Store an object in place of a damaged one."""
        self._place(key, source, _rename)
        self.settle([key])

    def settle(self, keys: Iterable[str]) -> None:
        """`fsync` the folder of each key, and once per process the folders above it."""
        for folder in dict.fromkeys(key.rpartition("/")[0] for key in keys):
            with storage_errors("store into", self.root / folder):
                sync_folder(self.root / folder)
                for above in _unsettled(folder, self._settled):
                    sync_folder((self.root / above).parent)
                    self._settled.add(above)

    def delete(self, key: str) -> bool:
        """Remove an object."""
        with storage_errors("delete", self.where(key)):
            try:
                with self._folder(key) as (folder, name):
                    os.unlink(name, dir_fd=folder)
                    os.fsync(folder)
            except BlobMissing:
                return False
        return True

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove objects: all names first, then one `fsync` for each folder concerned."""
        gone: dict[str, None] = {}
        try:
            for key in keys:
                with storage_errors("delete", self.where(key)), suppress(BlobMissing):
                    with self._folder(key) as (folder, name):
                        os.unlink(name, dir_fd=folder)
                    gone[key.rpartition("/")[0]] = None
        finally:
            for path in gone:
                with storage_errors("delete from", self.root / path):
                    sync_folder(self.root / path)

    # --- one object

    def _open(self, key: str) -> int:
        with storage_errors("open", self.where(key)), self._folder(key) as (folder, name):
            fd = os.open(name, READ_FILE, dir_fd=folder)
            try:
                self._plain(key, os.fstat(fd))
            except BaseException:
                os.close(fd)
                raise
        return fd

    def _plain(self, key: str, found: os.stat_result) -> os.stat_result:
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeContent(f"{self.where(key)} is no plain file", file=self.where(key))
        return found

    def _place(self, key: str, source: Source, give_name: _GiveName) -> bool:
        """Give a file its name in the store; bytes, and files of another file system, are written aside first."""
        with storage_errors("store", self.where(key)), self._folder(key, make=True) as (folder, name):
            if isinstance(source, Path):
                try:
                    return give_name(source, folder, name)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
            sweep(self.root / _ASIDE)
            aside = Scratch(self.root / _ASIDE)
            try:
                copy = aside.new_file()
                if isinstance(source, Path):
                    _copy(source, copy)
                else:
                    write_file(copy, source)
                return give_name(copy, folder, name)
            finally:
                aside.close()

    def _link(self, source: Path, folder: int, name: str) -> bool:
        try:
            os.link(source, name, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # No hard links here (exFAT, some FUSE). Two that both see no file store the same bytes: keys are digests.
            with suppress(FileNotFoundError):
                os.stat(name, dir_fd=folder, follow_symlinks=False)
                return False
            return _rename(source, folder, name)
        return True

    # --- folders

    @contextmanager
    def _folder(self, key: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The folder of a key, opened, and the name in it. Raises `BlobMissing` where something is not there."""
        *parts, name = check_key(key).split("/")
        try:
            fd = self._root(make)
            try:
                for part in parts:
                    fd = _step(fd, part, make)
                yield fd, name
            finally:
                os.close(fd)
        except FileNotFoundError as error:
            if make:
                raise
            raise BlobMissing(f"there is no file {self.where(key)}", file=self.where(key)) from error

    def _root(self, make: bool) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # the root itself may be a link: its owner chose it
        try:
            return os.open(self.root, flags)
        except FileNotFoundError:
            if not make:
                raise
            self.root.mkdir(parents=True, exist_ok=True)
            return os.open(self.root, flags)

    def _walk(self, folder: int, path: str, prefix: str) -> Iterator[tuple[str, int]]:
        """Objects below one open folder, which is closed at the end; foreign names and links are passed over."""
        try:
            with os.scandir(folder) as found:
                entries = sorted((e for e in found if not e.name.startswith(".")), key=_sort_key)
            for entry in entries:
                key = path + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                        with suppress(FileNotFoundError):
                            yield from self._walk(os.open(entry.name, FOLDER, dir_fd=folder), f"{key}/", prefix)
                elif key.startswith(prefix) and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        yield key, entry.stat(follow_symlinks=False).st_size
        finally:
            os.close(folder)


def _step(folder: int, name: str, make: bool) -> int:
    """Open a folder inside an open one, which is closed."""
    try:
        inner = os.open(name, FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
        inner = os.open(name, FOLDER, dir_fd=folder)
    os.close(folder)
    return inner


def _unsettled(folder: str, settled: set[str]) -> Iterator[str]:
    """A folder and those above it, up to the root (""), whose own names may not be durable yet."""
    while folder not in settled:
        yield folder
        if not folder:
            return
        folder = folder.rpartition("/")[0]


def _rename(source: Path, folder: int, name: str) -> bool:
    os.rename(source, name, dst_dir_fd=folder)
    return True


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb", buffering=0) as reader, open(create_file(target), "wb", buffering=0) as writer:
        shutil.copyfileobj(reader, writer, PIECE)
        sync_data(writer.fileno())


def _sort_key(entry: os.DirEntry[str]) -> str:
    return f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
