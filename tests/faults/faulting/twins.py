"""Broken twins: each leaves one thing out that durability rests on, so that a blind check is found."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any


def no_sync_of_files() -> None:
    """The bytes of an object or a pack are not made durable before it has its name."""
    os.fdatasync = lambda fd: None


def no_sync_of_folders() -> None:
    """The names of objects, of packs and of the registry itself are not made durable."""
    sync = os.fsync
    os.fsync = lambda fd: None if stat.S_ISDIR(os.stat(fd).st_mode) else sync(fd)


def no_sync_of_folders_above() -> None:
    """The folder of an object is made durable, and the folder that names that one is not."""
    from llmartifacts.blobs import local

    local._unsettled = lambda folder, settled: iter(())


def name_before_data() -> None:
    """An object has its name before its bytes are written."""
    from llmartifacts.blobs import local

    def placed(self: Any, key: str, source: Any, give_name: Any) -> bool:
        data = source.read_bytes() if isinstance(source, Path) else source
        with self._folder(key, make=True) as (folder, name):
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=folder)
            os.fsync(folder)
            os.write(fd, data)
            os.close(fd)
        return True

    local.LocalDriver._place = placed


def commit_before_bytes() -> None:
    """The transaction is committed, and the bytes that it names are stored afterwards."""
    from llmartifacts.blobs.staging import BlobStaging
    from llmartifacts.metadata.store import MetadataStore

    late: list[Callable[[], None]] = []
    publish, writing = BlobStaging.publish, MetadataStore.writing

    class Then:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __enter__(self) -> Any:
            return self.inner.__enter__()

        def __exit__(self, *exc: Any) -> Any:
            done = self.inner.__exit__(*exc)
            while late and exc[0] is None:
                late.pop()()
            return done

    BlobStaging.publish = lambda self: late.append(lambda: publish(self))
    MetadataStore.writing = lambda self: Then(writing(self))


def no_sync_of_the_database() -> None:
    """A transaction is acknowledged before it is durable."""
    from llmartifacts.metadata import sqlite

    prepared = sqlite._prepared

    def careless(connection: Any, *more: Any) -> Any:
        made = prepared(connection, *more)
        made.execute("pragma synchronous=normal")
        return made

    sqlite._prepared = careless


TWINS: dict[str, Callable[[], None]] = {
    made.__name__: made
    for made in (
        no_sync_of_files,
        no_sync_of_folders,
        no_sync_of_folders_above,
        name_before_data,
        commit_before_bytes,
        no_sync_of_the_database,
    )
}
