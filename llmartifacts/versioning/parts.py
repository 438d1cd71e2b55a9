"""What the verbs share: the stores, and manifests read and verified."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import Damaged, DigestMismatch, TooLarge
from llmartifacts.metadata import projects, versions
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.digest import Blob, Digest, digest_of
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.version import Found

REMEMBERED = 1024
"""Manifests kept parsed; they are immutable and were verified."""
REMEMBERED_BYTES = 16 * 1024 * 1024
"""Bytes of those as JSON, which parsed take several times as many; one of more than a quarter of it is not kept."""
AT_ONCE = 64 * 1024 * 1024
"""Bytes of manifests as JSON that one request from outside may need together."""


@dataclass
class Parts:
    """The stores of one embedded registry.

    Attributes:
        metadata: Where records are.
        blobs: Where bytes are.
        location: The directory.
        authenticated: Whether who acts had to prove it, as on a server. Then what comes from outside is checked anew,
            nobody approves as somebody else, and a project is made by those who may, not by the first log.
        allowed_gates: Functions that gates of the kind `python` may run here; None for any.
        shared: Whether several servers work on the database or the place of the bytes.
        mark: What the place of the bytes is marked with; empty where nothing marks it.
    """

    metadata: MetadataStore
    blobs: BlobStore
    location: str
    authenticated: bool = False
    allowed_gates: frozenset[str] | None = None
    mark: str = ""
    shared: bool = False
    _manifests: OrderedDict[Digest, Manifest] = field(default_factory=OrderedDict)
    _held: int = 0
    _lock: Lock = field(default_factory=Lock)

    def home(self, s: Session, project: str) -> tuple[int, int]:
        """Id and revision of a project to write into; made if it is not there, where nobody has to ask for it.

        Raises:
            NotFound: It is not there, and not made by writing into it.
        """
        return projects.lock_project(s, project) if self.authenticated else projects.ensure_project(s, project)

    def manifest(self, s: Session, digest: Digest, body: bytes | None) -> Manifest:
        """A verified manifest, from its bytes, or from the blob where the database keeps none.

        Raises:
            DigestMismatch: The bytes are another manifest's; names the versions concerned.
        """
        known = self._manifests.get(digest)
        if known is not None:
            return known
        data = self.manifest_bytes(s, digest, body)
        try:
            manifest = Manifest.from_bytes(data, expect=digest, origin=self.location)
        except Damaged as error:
            raise replace(error, versions=self.needing(s, digest)) from error
        self._remember(digest, manifest)
        return manifest

    def manifest_bytes(self, s: Session, digest: Digest, body: bytes | None = None) -> bytes:
        """The canonical bytes of a manifest, held against its digest and not parsed. Raises as `manifest`."""
        known = self._manifests.get(digest)
        if known is not None:
            return known.to_bytes()
        try:
            if body is None:
                found = versions.manifest_body(s, digest)
                if found is None:
                    raise DigestMismatch(f"the manifest {digest} is not in the database", digest=digest)
                body = found[0] if found[0] is not None else self.blobs.read(Blob(digest, found[1]))
            if digest_of(body) != digest:
                raise DigestMismatch("the manifest's bytes in the database were altered", digest=digest)
        except Damaged as error:
            raise replace(error, versions=self.needing(s, digest)) from error
        return body

    def _remember(self, digest: Digest, manifest: Manifest) -> None:
        size = len(manifest.to_bytes())
        if size > REMEMBERED_BYTES // 4:
            return
        with self._lock:
            if digest in self._manifests:
                return
            self._manifests[digest] = manifest
            self._held += size
            while len(self._manifests) > REMEMBERED or self._held > REMEMBERED_BYTES:
                self._held -= len(self._manifests.popitem(last=False)[1].to_bytes())

    def forget(self, digests: Sequence[Digest]) -> None:
        """Let go of parsed manifests."""
        with self._lock:
            for digest in digests:
                known = self._manifests.pop(digest, None)
                self._held -= 0 if known is None else len(known.to_bytes())

    def needing(self, s: Session, blob: Digest) -> tuple[str, ...]:
        """Versions that need a blob, for an error; none where they may lie in projects that not everybody may see."""
        return () if self.authenticated else versions.needing(s, blob)

    def manifests(self, s: Session, digests: Sequence[Digest]) -> dict[Digest, Manifest]:
        """Verified manifests by digest; one that is not there is left out. Raises `TooLarge` as `check_room`."""
        made: dict[Digest, Manifest] = {}
        size = 0
        for digest in dict.fromkeys(digests):
            found = versions.manifest_body(s, digest)
            if found is not None:
                size += found[1]
                self.check_room(size)
                made[digest] = self.manifest(s, digest, found[0])
        return made

    def check_room(self, size: int) -> None:
        """Refuse a stranger's request that needs so many bytes of manifests at once. Raises `TooLarge`."""
        if self.authenticated and size > AT_ONCE:
            raise TooLarge(
                f"this needs more than {AT_ONCE:,} bytes of manifests at once",
                field="references",
                next_step="Ask for fewer versions at a time.",
            )

    def found(self, s: Session, row: VersionRow) -> Found:
        """A version with its manifest, tags and aliases."""
        manifest = self.manifest(s, row.version.digest, row.body)
        return Found(versions.complete(s, [row])[0], manifest, row.move)
