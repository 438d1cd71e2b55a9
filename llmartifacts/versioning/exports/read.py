"""An export read to its end and checked, before anything of it is used.

Checked is that the file is whole; that every file in it is what its digest says; that every version is one that could
be logged, by the same rules as a stranger's; that what versions need is there, and came before them; that a collection
has one kind and no version twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from llmartifacts.errors import LlmartifactsError, NewerFormat
from llmartifacts.records.arguments import check_line, check_text
from llmartifacts.records.backend import Draft
from llmartifacts.records.digest import Digest, digest_bytes, digest_from_bytes
from llmartifacts.records.export import ExportedVersion, ExportHeader, damaged
from llmartifacts.versioning.drafts import checked
from llmartifacts.versioning.exports.frames import Frame, FrameReader


@dataclass
class ExportedCollection:
    """A collection of an export.

    Attributes:
        project: Its project.
        name: Its name.
        kind: Its kind.
        versions: Number -> 32 bytes of the digest, in the order of the file.
        latest: Number of the version that was last logged; None where that is not in the file.
        aliases: Alias -> number.
    """

    project: str
    name: str
    kind: str
    versions: dict[int, bytes] = field(default_factory=dict)
    latest: int | None = None
    aliases: dict[str, int] = field(default_factory=dict)


@dataclass
class Contents:
    """What an export holds.

    Attributes:
        header: What it is.
        collections: Project and name -> collection.
        digest: SHA-256 of all of it but its end.
        signature: The envelope that signs it; empty if it is not signed.
        signed: SHA-256 of what the envelope signs.
    """

    header: ExportHeader
    collections: dict[tuple[str, str], ExportedCollection]
    digest: Digest
    signature: bytes
    signed: Digest

    @property
    def versions(self) -> int:
        """How many versions."""
        return sum(len(one.versions) for one in self.collections.values())

    @property
    def projects(self) -> list[str]:
        """Names of the projects, sorted."""
        return sorted({project for project, _ in self.collections})


def open_export(file: Path) -> tuple[FrameReader, Contents]:
    """Open an export and check all of it.

    Raises:
        NotFound: There is no such file.
        InvalidInput: It is no export.
        Damaged: It is not whole, was altered, or somebody made it up.
        NewerFormat: A newer release wrote it.
    """
    reader = FrameReader(file)
    try:
        return reader, _Survey(reader).run()
    except BaseException:
        reader.close()
        raise


class _Survey:
    """One pass over an export."""

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader
        self._collections: dict[tuple[str, str], ExportedCollection] = {}
        self._folded: dict[tuple[str, str], str] = {}
        self._blobs: dict[bytes, int] = {}
        self._unused: set[bytes] = set()
        self._digests: dict[tuple[str, str], set[bytes]] = {}

    def run(self) -> Contents:
        """Check everything; what there is."""
        frames = self._reader.frames()
        first = next(frames)
        if first.kind != b"H":
            raise self._wrong("it does not begin with what it is")
        header = ExportHeader.from_bytes(first.body, self._reader.name)
        signature, signed, last = b"", b"", first
        for frame in frames:
            last = frame
            if signature and frame.kind != b"E":
                raise self._wrong("something comes after its signature")
            if frame.kind == b"B":
                self._blob(frame, frames)
            elif frame.kind == b"V":
                self._version(ExportedVersion.from_bytes(frame.body, self._reader.name))
            elif frame.kind == b"S" and frame.body:
                signature, signed = frame.body, frame.before
            elif frame.kind != b"E":
                raise self._wrong(f"a frame {frame.kind!r} is out of place")
        if not self._collections:
            raise self._wrong("it holds no version")
        if self._unused:
            raise self._wrong("it holds files that no version needs")
        return Contents(
            header,
            self._collections,
            digest_from_bytes(last.before),
            signature,
            digest_from_bytes(signed or bytes(32)),
        )

    def _blob(self, frame: Frame, frames: Iterator[Frame]) -> None:
        blob = self._reader.blob_of(frame)
        key = digest_bytes(blob.digest)
        if key in self._blobs:
            raise self._wrong(f"the file {blob.digest} is there twice")
        for _ in self._reader.content(blob, frames):
            pass
        self._blobs[key] = blob.size
        self._unused.add(key)

    def _version(self, given: ExportedVersion) -> None:
        manifest = given.manifest
        key = (given.project, given.name)
        one = self._collections.get(key)
        if one is None:
            folded = (given.project.casefold(), given.name.casefold())
            if folded in self._folded or any(
                p != given.project and p.casefold() == folded[0] for p, _ in self._collections
            ):
                raise self._wrong(f"{given.label} differs from another name in case only")
            self._folded[folded] = given.name
            one = self._collections[key] = ExportedCollection(given.project, given.name, manifest.kind)
        if one.kind != manifest.kind:
            raise self._wrong(f"{given.label} is a {manifest.kind}, and others under its name are of kind {one.kind}")
        if given.number in one.versions or (one.versions and given.number < next(reversed(one.versions))):
            raise self._wrong(f"{given.label} is there twice, or out of order")
        digest = digest_bytes(manifest.digest)
        digests = self._digests.setdefault(key, set())
        if digest in digests:
            raise self._wrong(f"the content of {given.label} is there twice")
        digests.add(digest)
        for file in manifest.files:
            if file.url is None:
                raw = digest_bytes(file.digest)
                if self._blobs.get(raw) != file.size:
                    raise self._wrong(f"{given.label} needs {file.digest}, which did not come before it")
                self._unused.discard(raw)
        self._check(given)
        one.versions[given.number] = digest
        if given.latest:
            if one.latest is not None:
                raise self._wrong(f"{given.name} has two versions that were logged last")
            one.latest = given.number
        for alias in given.aliases:
            if one.aliases.setdefault(alias, given.number) != given.number:
                raise self._wrong(f"{given.name}:{alias} points at two versions")

    def _check(self, given: ExportedVersion) -> None:
        """By the rules for what a stranger logs; and the parts of a bundle are those that its manifest names."""
        try:
            commit = check_line(given.git_commit, field="git_commit")
            checked(Draft(given.name, given.manifest, given.message, given.tags, git_commit=commit))
            if given.yanked is not None:
                check_text(given.yanked, field="yanked")
        except NewerFormat:
            raise
        except LlmartifactsError as error:
            raise self._wrong(f"{given.label}: {error}") from error
        contains = {i.role: i for i in given.inputs if i.relation == "contains"}
        components = {c.role: c.digest for c in given.manifest.components}
        if {role: i.digest for role, i in contains.items()} != components or any(
            i.project != given.project for i in contains.values()
        ):
            raise self._wrong(f"{given.label}: its parts are not those of its manifest")
        for one in given.inputs:
            if one.relation == "produced_by" or (one.relation != "contains" and one.role):
                raise self._wrong(f"{given.label}: an edge is none that a version has")

    def _wrong(self, what: str) -> LlmartifactsError:
        return damaged(what, self._reader.name)
