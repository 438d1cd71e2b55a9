"""Progress of bytes on their way into or out of a registry, on a terminal only."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from llmartifacts.cli.output import Output

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from rich.progress import Progress

    from llmartifacts.records.backend import Backend, BlobBackend, Content, Earlier, Staging
    from llmartifacts.records.digest import Blob
    from llmartifacts.registry import Registry

Advance = Callable[[int], None]


@contextmanager
def metered(registry: Registry, out: Output, label: str, total: int | None = None) -> Iterator[None]:
    """Show the bytes that a registry moves meanwhile.

    Args:
        registry: The registry.
        out: Where to show it; nothing is shown but on a terminal.
        label: What is being done.
        total: Bytes to come; None if nobody knows.
    """
    if not out.shows_progress:
        yield
        return
    backend = registry.backend
    with _bar(out) as progress:
        task = progress.add_task(label, total=total)
        registry.backend = cast("Backend", _Metered(backend, lambda count: progress.advance(task, count)))
        outside = progress.add_task("from outside", total=None, visible=False)
        registry.on_external = lambda count: progress.update(outside, advance=count, visible=True)
        try:
            with _travelling(backend.blobs, progress):
                yield
        finally:
            registry.backend, registry.on_external = backend, None


def _travelling(blobs: BlobBackend, progress: Progress) -> AbstractContextManager[None]:
    """Show what goes to a server and comes from it, each once it does; the bytes of a directory do not travel."""
    watched = getattr(blobs, "watched", None)
    if watched is None:
        return nullcontext()
    sending = progress.add_task("sending", total=None, visible=False)
    receiving = progress.add_task("receiving", total=None, visible=False)

    def received(count: int) -> None:
        progress.update(receiving, advance=count, visible=True)

    made: AbstractContextManager[None] = watched(
        lambda done, total: progress.update(sending, completed=done, total=total, visible=True), received
    )
    return made


@contextmanager
def measured(out: Output, label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar; gives the function to call with the bytes done and in all, None where nothing is shown."""
    if not out.shows_progress:
        yield None
        return
    with _bar(out) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _bar(out: Output) -> Progress:
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), text, BarColumn(24), DownloadColumn(), TimeElapsedColumn())
    return Progress(*columns, console=out.progress_console(), transient=True)


class _Metered:
    """A backend whose blobs are counted; all else is the backend itself."""

    def __init__(self, backend: Backend, advance: Advance) -> None:
        self._backend = backend
        self.blobs = _MeteredBlobs(backend.blobs, advance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


class _MeteredBlobs:
    def __init__(self, blobs: BlobBackend, advance: Advance) -> None:
        self._blobs = blobs
        self._advance = advance

    def read(self, blob: Blob) -> bytes:
        data = self._blobs.read(blob)
        self._advance(len(data))
        return data

    def open(self, blob: Blob) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_MeteredReader(self._blobs.open(blob), self._advance), 1 << 20))

    def path(self, blob: Blob) -> Path:
        found = self._blobs.path(blob)
        self._advance(blob.size)
        return found

    @contextmanager
    def stage(self) -> Iterator[Staging]:
        staged: AbstractContextManager[Staging] = self._blobs.stage()
        with staged as staging:
            yield cast("Staging", _MeteredStaging(staging, self._advance))


class _MeteredStaging:
    def __init__(self, staging: Staging, advance: Advance) -> None:
        self._staging = staging
        self._advance = advance

    def add(self, source: Content, like: Earlier = tuple) -> Blob:
        blob = self._staging.add(source, like)
        self._advance(blob.size)
        return blob

    def __getattr__(self, name: str) -> Any:
        return getattr(self._staging, name)


class _MeteredReader(io.RawIOBase):
    def __init__(self, source: BinaryIO, advance: Advance) -> None:
        self._source = source
        self._advance = advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read(len(view))
        view[: len(data)] = data
        self._advance(len(data))
        return len(data)

    def close(self) -> None:
        self._source.close()
        super().close()
