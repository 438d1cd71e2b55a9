"""`RemoteBlobs`: the bytes of a server, over the same store, codecs, checks and cache as those of a local registry."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llmartifacts.blobs.cache import IN_MEMORY, BlobCache
from llmartifacts.blobs.scratch import sweep
from llmartifacts.blobs.store import BlobStore
from llmartifacts.client.calls import Calls
from llmartifacts.client.driver import HttpDriver
from llmartifacts.client.index import RemoteIndex
from llmartifacts.client.session import HttpSession
from llmartifacts.client.sides import Sides
from llmartifacts.errors import Damaged, LlmartifactsError, NewerFormat
from llmartifacts.records.backend import Progress, Staging
from llmartifacts.records.digest import Blob

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.encode import Known


class RemoteBlobs(BlobStore):
    """The bytes on a server that this session may read. Safe to use from several threads.

    What is fetched is verified as from any store, and kept in the cache; of a large blob only those chunks travel that
    no cached version of it has.

    Args:
        session: The connections.
        cache: Where fetched files are; by default the user's.
        progress: Told the bytes that are sent, and those in all, of what is logged.
    """

    def __init__(
        self, session: HttpSession, *, cache: BlobCache | None = None, progress: Progress | None = None
    ) -> None:
        cache = cache or BlobCache()
        index = RemoteIndex()
        self.http = HttpDriver(session, index, Sides(cache, index))
        super().__init__(self.http, cache=cache, scratch=Path(), index=lambda _: index)
        self._session = session
        self.progress = progress

    @contextmanager
    def watched(self, sent: Progress, received: Callable[[int], None]) -> Iterator[None]:
        """Tell of what travels meanwhile.

        Args:
            sent: Takes the bytes sent of a log and those in all.
            received: Takes the bytes of each piece that arrives; called from several threads.
        """
        before = self.progress, self.http.received
        self.progress, self.http.received = sent, received
        try:
            yield
        finally:
            self.progress, self.http.received = before

    def _cached(self, blob: Blob) -> Path:
        self.http.spool = self._aside
        return super()._cached(blob)

    def read(self, blob: Blob) -> bytes:
        """The bytes, in memory; from the cache, where they are there. Raises as `BlobStore.read`."""
        with suppress(LlmartifactsError):
            return self.cache.read(blob)
        data = super().read(blob)
        with suppress(LlmartifactsError):
            if len(data) <= IN_MEMORY:
                self.cache.put(blob, data)
        return data

    def known(self, blob: Blob) -> Known | None:
        """An earlier version to encode against; what is kept of it here is not asked for again."""
        from llmartifacts.blobs.chunks.encode import Known as KnownRecipe

        kept = self._nearby(blob.digest) if self.http.kept(blob.digest) else None
        if kept is not None and kept[0].size == blob.size:
            return KnownRecipe(blob.digest, kept[0])
        try:
            return super().known(blob)
        except (Damaged, NewerFormat):
            return None

    # --- in

    @contextmanager
    def stage(self) -> Iterator[Any]:
        """Begin to add bytes; `send` sends them. Nothing of them is left here after the block."""
        from llmartifacts.client.staging import RemoteStaging
        from llmartifacts.client.upload import Uploads

        uploads = Uploads(Calls(self._session), lambda: self.cache.root / "uploads", self.progress)
        staging = RemoteStaging(self, self._aside, uploads)
        try:
            yield staging
        finally:
            staging.close()

    def send(self, project: str, staging: Staging) -> str | None:
        """Send what was staged and a project of the server lacks.

        Args:
            project: Name of the project.
            staging: What `stage` gave.

        Returns:
            The upload, for `commit`; None where nothing had to be sent.

        Raises:
            LlmartifactsError: As `RemoteStaging.send`.
        """
        sent: str | None = cast("Any", staging).send(project)
        return sent

    @cached_property
    def _aside(self) -> Path:
        """A folder for what is staged: beside the cache, which has room for large files, if that can be written."""
        for root in (self.cache.root, Path(tempfile.gettempdir()) / f"llmartifacts-{os.geteuid()}"):
            aside = root / "tmp"
            with suppress(OSError):
                aside.mkdir(parents=True, exist_ok=True, mode=0o700)
                if os.access(aside, os.W_OK | os.X_OK) and aside.stat().st_uid == os.geteuid():
                    sweep(aside)
                    return aside
        return self.cache.root / "tmp"
