"""import: what an export holds becomes versions here, each as if whoever imports had logged it.

The whole file is checked first, and what it holds against what is here; then it is read again and logged. A version
whose content is here already is left as it is, so importing twice adds nothing, and an import that was cut off goes on
where it stopped. Up to 10,000 versions are logged in one transaction of an embedded registry, all or none.

Who logs is whoever imports: approvals and gates go by that, and a file cannot say otherwise. Where a version came from
is kept in its tags, `imported.origin`, `imported.version` and `imported.author`, and with them in the audit. Reports in
a file are no evidence for gates, unless a key that the registry trusts signed it: else whoever makes up a file could
bring a candidate together with its good marks. On a server that goes by the rights of whoever imports, as always there.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from llmartifacts.errors import InvalidInput, InvalidReference, InvalidValue, NotFound, Refused, WrongKind
from llmartifacts.gates.base import Answers
from llmartifacts.metadata.bulk import many_rows
from llmartifacts.records.backend import Backend, Draft, Input, PromotionRequest, Staging, Target
from llmartifacts.records.compatibility import Member, refuse_misfits
from llmartifacts.records.digest import Blob, Digest, digest_bytes, digest_from_bytes
from llmartifacts.records.export import ExportedInput, ExportedVersion
from llmartifacts.records.manifest import INLINE_BYTES, Manifest
from llmartifacts.records.names import check_name
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found
from llmartifacts.signing.exporting import Signer, check_signature
from llmartifacts.versioning.commit import REPORT
from llmartifacts.versioning.drafts import BUNDLE
from llmartifacts.versioning.exports.frames import FrameReader
from llmartifacts.versioning.exports.here import Here, HereInDatabase, HereOnServer
from llmartifacts.versioning.exports.ledger import Place
from llmartifacts.versioning.exports.read import Contents, open_export

if TYPE_CHECKING:
    from llmartifacts.versioning.parts import Parts

BATCH = 10_000
"""Versions that are logged in one transaction."""
_BATCH_BYTES = 64 * 1024 * 1024
"""Bytes of manifests after which a transaction takes no more."""
ORIGIN, VERSION, AUTHOR = "imported.origin", "imported.version", "imported.author"
"""Tags that say where a version came from."""


@dataclass(frozen=True, slots=True)
class ImportedCollection:
    """What became of one collection.

    Attributes:
        project: Project here.
        name: Its name.
        kind: Its kind.
        new: Versions that were logged.
        present: Versions that were here already.
        renumbered: Of the new ones, those that have another number here.
    """

    project: str
    name: str
    kind: str
    new: int
    present: int
    renumbered: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an export.

    Attributes:
        dry_run: Whether nothing was done; then the numbers say what would be.
        origin: Which registry it is of.
        by: Who exported it.
        digest: SHA-256 of the export.
        signed: Who signed it, where that is known.
        collections: What became of each collection.
        beyond: Edges to versions that are neither in the file nor here, and so were left out.
        yanked: New versions that are withdrawn, as they were there.
        aliases: Aliases that moved, as `project/name:alias`.
    """

    dry_run: bool
    origin: str
    by: str
    digest: str
    signed: Signer | None
    collections: tuple[ImportedCollection, ...]
    beyond: int = 0
    yanked: int = 0
    aliases: tuple[str, ...] = ()

    @property
    def new(self) -> int:
        """Versions that were logged."""
        return sum(one.new for one in self.collections)

    @property
    def present(self) -> int:
        """Versions that were here already."""
        return sum(one.present for one in self.collections)


def import_export(
    backend: Backend,
    file: Path,
    *,
    project: str | None = None,
    aliases: bool = False,
    dry_run: bool = False,
    require_signature: bool = False,
    actor: str,
) -> Imported:
    """Log what an export holds.

    Args:
        backend: The registry, embedded or remote.
        file: The export.
        project: Project for all of it; by default each collection goes to the project of its own project's name.
        aliases: Also move the aliases that it knows, each project's in one promotion that gates may refuse; the
            versions are logged before that, and stay.
        dry_run: Check everything, and change nothing.
        require_signature: Refuse a file that nobody signed whose key the registry trusts.
        actor: Who imports.

    Raises:
        Damaged: The file is not whole, was altered, or somebody made it up; nothing was logged.
        NewerFormat: A newer release wrote it.
        WrongKind: A collection here has another kind; nothing was logged.
        InvalidReference: One differs in case only; nothing was logged.
        InvalidInput: It holds several projects, and one was named for all.
        Refused: It has no signature that counts; or a gate refuses a move of aliases, or it would be judged by reports
            of the same file; or content was erased here.
        NotAllowed: No right to log here.
    """
    if project is not None:
        check_name(project, field="project")
    reader, contents = open_export(file)
    try:
        signer = _signer(backend, contents, reader.name, require_signature)
        importer = _Importer(backend, reader, contents, project, actor, vouched=bool(signer and signer.person))
        importer.plan()
        if aliases:
            importer.refuse_own_marks()
        if not dry_run:
            importer.run()
        moved = importer.move() if aliases and not dry_run else ()
        return Imported(
            dry_run,
            contents.header.origin,
            contents.header.by,
            contents.digest,
            signer,
            tuple(
                ImportedCollection(
                    importer.target(one.project), one.name, one.kind, one.fresh, one.count - one.fresh, one.renumbered
                )
                for one in contents.ledger.collections()
            ),
            importer.beyond,
            importer.yanked,
            moved,
        )
    finally:
        contents.ledger.close()
        reader.close()


def _signer(backend: Backend, contents: Contents, file: str, required: bool) -> Signer | None:
    signer = None
    if contents.signature:
        trusted = backend.trusted_keys()
        signer = check_signature(contents.signature, contents.signed, contents.header.origin, trusted, file=file)
    if required and (signer is None or not signer.person):
        told = "nobody signed the export" if not contents.signature else "its signature is of no key that counts here"
        raise Refused(
            told, field="signature", origin=file, next_step="Have it signed (export --sign) and the key trusted here."
        )
    return signer


@dataclass
class _Batch:
    """Versions that are logged together.

    Attributes:
        project: Name of their project here.
        drafts: What is logged.
        numbers: Collection and number in the file of each; None for one that is logged again.
        manifests: Digest -> manifest of each.
        withdrawn: Those that are withdrawn, and why.
        size: Bytes of the manifests.
    """

    project: str = ""
    drafts: list[Draft] = field(default_factory=list)
    numbers: list[tuple[int, int] | None] = field(default_factory=list)
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    withdrawn: list[tuple[Reference, str]] = field(default_factory=list)
    size: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the export, and its parts, which are to be read before what follows."""

    blob: Blob
    parts: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class _Version:
    """A version of the export, not parsed yet, and what is known of it."""

    place: Place
    body: bytes


class _Importer:
    """One import."""

    def __init__(
        self,
        backend: Backend,
        reader: FrameReader,
        contents: Contents,
        project: str | None,
        actor: str,
        *,
        vouched: bool,
    ) -> None:
        self._ledger = contents.ledger
        projects = self._ledger.projects()
        if project is not None and len(projects) > 1:
            raise InvalidInput(
                f"the export holds {len(projects)} projects, and they cannot all become {project}",
                field="--project",
                next_step="Leave --project out, or export them one by one.",
            )
        self._backend = backend
        self._parts: Parts | None = getattr(backend, "parts", None)
        self._reader = reader
        self._contents = contents
        self._project = project
        self._actor = actor
        self._vouched = vouched
        self.beyond = self.yanked = 0
        self._elsewhere: dict[tuple[str, str, Digest], Reference | None] = {}
        self._batch = _Batch()
        self._stack = ExitStack()
        self._staging: Staging | None = None

    def target(self, project: str) -> str:
        """The project here for one in the file."""
        return self._project or project

    # --- before

    def plan(self) -> None:
        """Hold what the file has against what is here. Raises as `import_export`."""
        if self._parts is None:
            self._hold_against(HereOnServer(self._backend))
        else:
            with self._parts.metadata.reading() as s:
                self._hold_against(HereInDatabase(s))
        self._ledger.settle()

    def _hold_against(self, here: Here) -> None:
        for given in self._ledger.collections():
            project = self.target(given.project)
            found = here.collection(project, given.name)
            if found is None:
                continue
            name, kind = found
            if name != given.name:
                raise InvalidReference(
                    f"{given.name!r} differs from the collection {name!r} in case only",
                    field="name",
                    origin=self._reader.name,
                    next_step="Import it into another project: --project.",
                )
            if kind != given.kind:
                raise WrongKind(
                    f"{project}/{given.name} holds {kind} versions, and in the export it is a {given.kind}",
                    field="name",
                    origin=self._reader.name,
                    next_step="Import it into another project: --project.",
                )
            self._ledger.here(given.id, here.digests(project, name))

    def refuse_own_marks(self) -> None:
        """Refuse to move aliases by reports that came in the same file, where they would count. Raises `Refused`."""
        if self._parts is None and not self._vouched and self._ledger.brings(REPORT):
            raise Refused(
                "the export brings reports of its own, and nobody signed it whose key counts here",
                field="--aliases",
                origin=self._reader.name,
                next_step="Import it without its aliases, see what it brought, and promote it then.",
            )

    # --- log

    def run(self) -> None:
        """Log what is new."""
        fresh = self._ledger.fresh
        if not fresh:
            return
        whole = fresh == self._ledger.versions
        if not whole:
            self._find_needed()
        with nullcontext() if self._parts is None else many_rows(self._parts.metadata.database), self._stack:
            for one in self._read():
                if isinstance(one, _Version):
                    if one.place.fresh:
                        self._add(self._known(one), one.place)
                elif whole or self._ledger.is_needed(digest_bytes(one.blob.digest)):
                    self._stage(cast(BinaryIO, io.BufferedReader(_Parts(one.parts), 1 << 20)), one.blob.digest)
                else:
                    _pass_over(one)
            self._log_late()
            self._log_newest()
            self._flush()

    def _find_needed(self) -> None:
        """Find the files that new versions need, where some versions are here."""
        self._ledger.only_needed()
        for one in self._read():
            if isinstance(one, _File):
                _pass_over(one)
            elif one.place.fresh:
                for file in self._known(one).manifest.files:
                    if file.url is None:
                        self._ledger.use(digest_bytes(file.digest), file.size)

    def _read(self) -> Iterator[_File | _Version]:
        """The files and the versions of the export once more, in order."""
        places = self._ledger.each()
        frames = self._reader.frames()
        for frame in frames:
            if frame.kind == b"B":
                blob = self._reader.blob_of(frame)
                yield _File(blob, self._reader.content(blob, frames))
            elif frame.kind == b"V":
                place = next(places, None)
                if place is None:
                    raise self._changed()
                yield _Version(place, frame.body)

    def _known(self, one: _Version) -> ExportedVersion:
        """A version of the file; it is the very one that was checked."""
        if hashlib.sha256(one.body).digest() != one.place.told:
            raise self._changed()
        return ExportedVersion.known(one.body)

    def _changed(self) -> InvalidInput:
        return InvalidInput("the export was changed while it was read", field="FILE", next_step="Import it again.")

    def _stage(self, content: BinaryIO | bytes, digest: Digest) -> None:
        if self._staging is None:
            self._staging = self._stack.enter_context(self._backend.blobs.stage())
        if self._staging.add(content).digest != digest:
            raise self._changed()

    def _add(self, given: ExportedVersion, place: Place) -> None:
        manifest, project = given.manifest, self.target(given.project)
        own = {one.digest for one in given.inputs if one.relation == "contains"} & self._batch.manifests.keys()
        if self._batch.drafts and (
            self._batch.project != project
            or len(self._batch.drafts) >= BATCH
            or self._batch.size >= _BATCH_BYTES
            or (own and self._parts is None)  # a server looks for the parts of a bundle before it logs
        ):
            self._flush()
        inputs = []
        for i, one in enumerate(given.inputs):
            found = self._input(place, i, one)
            if found is not None:
                inputs.append(Input(found, one.relation, one.role))
            elif one.relation == "contains":
                told = f"{given.label} contains {one.name}:v{one.number}, which is neither in the export nor here"
                raise NotFound(told, what="version", name=f"{one.name}:v{one.number}")
        if self._parts is not None and manifest.components:
            self._check_bundle(given)
        tags = {ORIGIN: self._contents.header.origin, VERSION: given.label, AUTHOR: given.author}
        draft = Draft(
            given.name,
            manifest,
            given.message,
            {**given.tags, **{name: value for name, value in tags.items() if value}},
            inputs=tuple(inputs),
            git_commit=given.git_commit,
        )
        self._put(project, draft, (place.collection, given.number))
        if given.yanked is not None:
            reason = given.yanked or "withdrawn where it was exported"
            self._batch.withdrawn.append((Reference(given.name, digest=manifest.digest), reason))

    def _put(self, project: str, draft: Draft, number: tuple[int, int] | None) -> None:
        body = draft.manifest.to_bytes()
        if len(body) > INLINE_BYTES:
            self._stage(body, draft.manifest.digest)
        batch = self._batch
        batch.project = project
        batch.drafts.append(draft)
        batch.numbers.append(number)
        batch.manifests[draft.manifest.digest] = draft.manifest
        batch.size += len(body)

    def _input(self, place: Place, number: int, one: ExportedInput) -> Reference | None:
        """The version here that an edge leads to; None where there is none, or none yet."""
        project = self.target(one.project)
        own = self._ledger.place(one.project, one.name, one.number, digest_bytes(one.digest))
        if own is not None:
            if own <= place.seq:
                return Reference(one.name, project, digest=one.digest)
            if one.relation != "contains":
                self._ledger.later(place.seq, number)
                return None
        found = self._local(project, one)
        if found is None:
            self.beyond += 1
        return found

    def _local(self, project: str, one: ExportedInput) -> Reference | None:
        key = (project, one.name, one.digest)
        if key not in self._elsewhere:
            reference = Reference(one.name, digest=one.digest)
            try:
                item = self._backend.read(project, [reference]).items[0]
            except NotFound:
                item = None
            if len(self._elsewhere) >= BATCH:
                self._elsewhere.clear()
            self._elsewhere[key] = replace(reference, project=project) if isinstance(item, Found) else None
        return self._elsewhere[key]

    def _check_bundle(self, given: ExportedVersion) -> None:
        """As a server does with a stranger's: the parts fit each other, and none is a bundle."""
        inner: dict[Digest, Manifest | None] = {}
        for part in given.manifest.components:
            found = self._batch.manifests.get(part.digest)
            found = found or self._backend.manifests([part.digest]).get(part.digest)
            if found is None or found.kind != part.kind:
                raise InvalidValue(f"{given.label}: its part {part.role} is no {part.kind}", field="components")
            if found.components or found.kind in (given.manifest.kind, BUNDLE):
                raise InvalidValue(f"{given.label}: a bundle holds no bundle", field="components")
            inner[part.digest] = found
        names = {one.role: one.name for one in given.inputs if one.relation == "contains"}
        refuse_misfits([Member(BUNDLE, given.manifest, contains=names)], inner)

    def _log_late(self) -> None:
        """Add edges to versions that came later in the file."""
        for seq, given in self._again(self._ledger.late()):
            for one in (given.inputs[i] for i in self._ledger.late_of(seq)):
                reference = Reference(one.name, self.target(one.project), digest=one.digest)
                inputs = (Input(reference, one.relation, one.role),)
                self._log_again(given, Draft(given.name, given.manifest, inputs=inputs))

    def _log_newest(self) -> None:
        """Let `latest` be what it was there."""
        for _, given in self._again(self._ledger.once_more()):
            self._log_again(given, Draft(given.name, given.manifest))

    def _again(self, wanted: Iterator[int]) -> Iterator[tuple[int, ExportedVersion]]:
        """Versions of the file once more, by their places in order."""
        left = next(wanted, None)
        if left is None:
            return
        for one in self._read():
            if isinstance(one, _File):
                _pass_over(one)
            elif one.place.seq == left:
                yield left, self._known(one)
                left = next(wanted, None)
                if left is None:
                    return

    def _log_again(self, given: ExportedVersion, draft: Draft) -> None:
        project = self.target(given.project)
        if self._batch.drafts and (
            self._batch.project != project or len(self._batch.drafts) >= BATCH or self._batch.size >= _BATCH_BYTES
        ):
            self._flush()
        self._put(project, draft, None)

    def _flush(self) -> None:
        """Log what waits, and withdraw what is withdrawn, in one transaction where the database is ours."""
        batch, self._batch = self._batch, _Batch()
        if not batch.drafts:
            return
        # A server knows by who asks whether reports count. No alias moves, so no gate asks anybody.
        own: dict[str, Any] = {} if self._parts is None else {"vouched": self._vouched, "answers": Answers()}
        # Only where it must be: a transaction inside of another keeps a copy of each page that it changes.
        outer = self._parts.metadata.writing() if self._parts is not None and batch.withdrawn else nullcontext()
        with outer:
            made = self._backend.commit(batch.project, batch.drafts, actor=self._actor, staging=self._staging, **own)
            for reference, reason in batch.withdrawn:
                self._backend.yank(batch.project, reference, reason=reason, actor=self._actor)
        self._staging = None
        self._stack.close()
        moved = [
            number[0]
            for version, number in zip(made, batch.numbers, strict=True)
            if number is not None and version.number != number[1]
        ]
        self._ledger.renumber(moved)
        self.yanked += len(batch.withdrawn)

    # --- aliases

    def move(self) -> tuple[str, ...]:
        """Move the aliases that the file knows, and that are elsewhere here. Raises as a promotion does."""
        moved: list[str] = []
        targets: dict[str, list[Target]] = {}
        for given, name, alias, raw in self._ledger.aliases():
            project, digest = self.target(given), digest_from_bytes(raw)
            now = self._backend.read(project, [Reference(name, alias=alias)]).items[0]
            if not isinstance(now, Found) or now.version.digest != digest:
                targets.setdefault(project, []).append(Target(Reference(name, digest=digest), alias))
                moved.append(f"{project}/{name}:{alias}")
        for project, some in targets.items():
            reason = f"imported from {self._contents.header.origin}"
            self._backend.promote(project, PromotionRequest(tuple(some), reason), actor=self._actor)
        return tuple(moved)


def _pass_over(file: _File) -> None:
    for _ in file.parts:
        pass


class _Parts(io.RawIOBase):
    """A file of an export as a stream."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._held = memoryview(part)
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._held))
        view[:count] = self._held[:count]
        self._held = self._held[count:]
        return count
