"""An export read to its end and checked, before anything of it is used.

Checked is that the file is whole; that every file in it is what its digest says; that every version is one that could
be logged, by the same rules as a stranger's; that what versions need is there, and came before them; that a collection
has one kind and no version twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmartifacts.errors import LlmartifactsError, NewerFormat
from llmartifacts.records.arguments import check_line, check_text
from llmartifacts.records.backend import Draft
from llmartifacts.records.digest import Digest, digest_bytes, digest_from_bytes
from llmartifacts.records.export import ExportedVersion, ExportHeader, damaged
from llmartifacts.versioning.drafts import Installed, check_parsed
from llmartifacts.versioning.exports.frames import Frame, FrameReader
from llmartifacts.versioning.exports.ledger import Ledger, Twice


@dataclass
class Contents:
    """What an export holds.

    Attributes:
        header: What it is.
        ledger: Its collections, versions and files.
        digest: SHA-256 of all of it but its end.
        signature: The envelope that signs it; empty if it is not signed.
        signed: SHA-256 of what the envelope signs.
    """

    header: ExportHeader
    ledger: Ledger
    digest: Digest
    signature: bytes
    signed: Digest


def open_export(file: Path) -> tuple[FrameReader, Contents]:
    """Open an export and check all of it. The reader and the ledger are to be closed.

    Raises:
        NotFound: There is no such file.
        InvalidInput: It is no export.
        Damaged: It is not whole, was altered, or somebody made it up.
        NewerFormat: A newer release wrote it.
        NotAllowed: The temporary folder is full.
    """
    reader = FrameReader(file)
    try:
        ledger = Ledger()
        try:
            return reader, _Survey(reader, ledger).run()
        except BaseException:
            ledger.close()
            raise
    except BaseException:
        reader.close()
        raise


class _Survey:
    """One pass over an export."""

    def __init__(self, reader: FrameReader, ledger: Ledger) -> None:
        self._reader = reader
        self._ledger = ledger
        self._installed = Installed()

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
                told = hashlib.sha256(frame.body).digest()
                self._version(ExportedVersion.from_bytes(frame.body, self._reader.name), told)
            elif frame.kind == b"S" and frame.body:
                signature, signed = frame.body, frame.before
            elif frame.kind != b"E":
                raise self._wrong(f"a frame {frame.kind!r} is out of place")
        if not self._ledger.versions:
            raise self._wrong("it holds no version")
        if self._ledger.has_unused_file():
            raise self._wrong("it holds files that no version needs")
        try:
            self._ledger.seal()
        except Twice:
            raise self._wrong("a collection has the same content twice") from None
        return Contents(
            header,
            self._ledger,
            digest_from_bytes(last.before),
            signature,
            digest_from_bytes(signed or bytes(32)),
        )

    def _blob(self, frame: Frame, frames: Iterator[Frame]) -> None:
        blob = self._reader.blob_of(frame)
        try:
            self._ledger.file(digest_bytes(blob.digest), blob.size)
        except Twice:
            raise self._wrong(f"the file {blob.digest} is there twice") from None
        for _ in self._reader.content(blob, frames):
            pass

    def _version(self, given: ExportedVersion, told: bytes) -> None:
        manifest = given.manifest
        try:
            one, kind, last = self._ledger.collection(given.project, given.name, manifest.kind)
        except Twice:
            raise self._wrong(f"{given.label} differs from another name in case only") from None
        if kind != manifest.kind:
            raise self._wrong(f"{given.label} is a {manifest.kind}, and others under its name are of kind {kind}")
        if given.number <= last:
            raise self._wrong(f"{given.label} is there twice, or out of order")
        for file in manifest.files:
            if file.url is None and not self._ledger.use(digest_bytes(file.digest), file.size):
                raise self._wrong(f"{given.label} needs {file.digest}, which did not come before it")
        self._check(given)
        self._ledger.version(one, given.number, digest_bytes(manifest.digest), told)
        if given.latest:
            try:
                self._ledger.latest(one, given.number)
            except Twice:
                raise self._wrong(f"{given.name} has two versions that were logged last") from None
        for alias in given.aliases:
            try:
                self._ledger.alias(one, alias, given.number)
            except Twice:
                raise self._wrong(f"{given.name}:{alias} points at two versions") from None

    def _check(self, given: ExportedVersion) -> None:
        """By the rules for what a stranger logs; and the parts of a bundle are those that its manifest names."""
        try:
            commit = check_line(given.git_commit, field="git_commit")
            draft = Draft(given.name, given.manifest, given.message, given.tags, git_commit=commit)
            check_parsed(draft, self._installed)
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
