"""What the verbs share: the stores, and manifests read and verified."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

from llmartifacts.blobs.store import BlobStore
from llmartifacts.errors import Damaged, DigestMismatch
from llmartifacts.metadata import projects, versions
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.digest import Blob, Digest, digest_of
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.version import Found

REMEMBERED = 1024
"""Manifests kept parsed; they are immutable and were verified."""


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
    """

    metadata: MetadataStore
    blobs: BlobStore
    location: str
    authenticated: bool = False
    allowed_gates: frozenset[str] | None = None
    _manifests: OrderedDict[Digest, Manifest] = field(default_factory=OrderedDict)
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
        try:
            if body is None:
                found = versions.manifest_body(s, digest)
                if found is None:
                    raise DigestMismatch(f"the manifest {digest} is not in the database", digest=digest)
                body = found[0] if found[0] is not None else self.blobs.read(Blob(digest, found[1]))
            if digest_of(body) != digest:
                raise DigestMismatch("the manifest's bytes in the database were altered", digest=digest)
            manifest = Manifest.from_bytes(body, expect=digest, origin=self.location)
        except Damaged as error:
            raise replace(error, versions=self.needing(s, digest)) from error
        with self._lock:
            self._manifests[digest] = manifest
            while len(self._manifests) > REMEMBERED:
                self._manifests.popitem(last=False)
        return manifest

    def needing(self, s: Session, blob: Digest) -> tuple[str, ...]:
        """Versions that need a blob, for an error; none where they may lie in projects that not everybody may see."""
        return () if self.authenticated else versions.needing(s, blob)

    def manifests(self, s: Session, digests: Sequence[Digest]) -> dict[Digest, Manifest]:
        """Verified manifests by digest; one that is not there is left out."""
        made: dict[Digest, Manifest] = {}
        for digest in digests:
            found = versions.manifest_body(s, digest)
            if found is not None:
                made[digest] = self.manifest(s, digest, found[0])
        return made

    def found(self, s: Session, row: VersionRow) -> Found:
        """A version with its manifest, tags and aliases."""
        manifest = self.manifest(s, row.version.digest, row.body)
        return Found(versions.complete(s, [row])[0], manifest, row.move)
