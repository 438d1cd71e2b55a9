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

import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from llmartifacts.errors import InvalidInput, InvalidReference, InvalidValue, NotFound, Refused, WrongKind
from llmartifacts.records.backend import Backend, Draft, Input, PromotionRequest, Staging, Target
from llmartifacts.records.compatibility import Member, refuse_misfits
from llmartifacts.records.digest import Digest, digest_bytes, digest_from_bytes
from llmartifacts.records.export import ExportedInput, ExportedVersion
from llmartifacts.records.manifest import INLINE_BYTES, Manifest
from llmartifacts.records.names import check_name
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found
from llmartifacts.signing.exporting import Signer, check_signature
from llmartifacts.versioning.commit import REPORT
from llmartifacts.versioning.drafts import BUNDLE
from llmartifacts.versioning.exports.frames import FrameReader
from llmartifacts.versioning.exports.read import Contents, ExportedCollection, open_export

BATCH = 10_000
"""Versions that are logged in one transaction."""
_BATCH_BYTES = 64 * 1024 * 1024
"""Bytes of manifests after which a transaction takes no more."""
_PAGE = 1000
ORIGIN, VERSION, AUTHOR = "imported.origin", "imported.version", "imported.author"
"""Tags that say where a version came from."""
_Key = tuple[str, str]


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
                    importer.target(plan.given.project),
                    plan.given.name,
                    plan.given.kind,
                    len(plan.new),
                    len(plan.given.versions) - len(plan.new),
                    plan.renumbered,
                )
                for plan in importer.plans.values()
            ),
            importer.beyond,
            importer.yanked,
            moved,
        )
    finally:
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
class _Plan:
    """What is to be done with one collection.

    Attributes:
        given: What the file has.
        there: Whether the collection is here already.
        new: Numbers of the versions, in the file, that are not here.
        renumbered: How many of them got another number.
    """

    given: ExportedCollection
    there: bool
    new: set[int]
    renumbered: int = 0


@dataclass
class _Batch:
    """Versions that are logged together.

    Attributes:
        project: Name of their project here.
        drafts: What is logged.
        numbers: Number in the file of each, and its plan; None for one that is logged again.
        manifests: Digest -> manifest of each.
        size: Bytes of the manifests.
    """

    project: str = ""
    drafts: list[Draft] = field(default_factory=list)
    numbers: list[tuple[_Plan, int] | None] = field(default_factory=list)
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    size: int = 0


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
        if project is not None and len(contents.projects) > 1:
            raise InvalidInput(
                f"the export holds {len(contents.projects)} projects, and they cannot all become {project}",
                field="--project",
                next_step="Leave --project out, or export them one by one.",
            )
        self._backend = backend
        self._embedded = getattr(backend, "parts", None) is not None
        self._reader = reader
        self._contents = contents
        self._project = project
        self._actor = actor
        self._vouched = vouched
        self.plans: dict[_Key, _Plan] = {}
        self.beyond = self.yanked = 0
        self._last: dict[_Key, int] = {}
        self._late: dict[_Key, list[tuple[ExportedVersion, ExportedInput]]] = {}
        self._newest: dict[_Key, Manifest] = {}
        self._withdrawn: list[tuple[_Key, Digest, str]] = []
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
        known: dict[str, dict[str, Any]] = {}
        for key, given in self._contents.collections.items():
            project = self.target(given.project)
            if project not in known:
                known[project] = self._collections(project)
            found = known[project].get(given.name.casefold())
            if found is not None and found.name != given.name:
                raise InvalidReference(
                    f"{given.name!r} differs from the collection {found.name!r} in case only",
                    field="name",
                    origin=self._reader.name,
                    next_step="Import it into another project: --project.",
                )
            if found is not None and found.kind != given.kind:
                raise WrongKind(
                    f"{project}/{given.name} holds {found.kind} versions, and in the export it is a {given.kind}",
                    field="name",
                    origin=self._reader.name,
                    next_step="Import it into another project: --project.",
                )
            here = self._digests(project, given.name) if found is not None else set()
            new = {number for number, digest in given.versions.items() if digest not in here}
            self.plans[key] = _Plan(given, found is not None, new)

    def refuse_own_marks(self) -> None:
        """Refuse to move aliases by reports that came in the same file, where they would count. Raises `Refused`."""
        brings = any(plan.new and plan.given.kind == REPORT for plan in self.plans.values())
        if brings and not self._embedded and not self._vouched:
            raise Refused(
                "the export brings reports of its own, and nobody signed it whose key counts here",
                field="--aliases",
                origin=self._reader.name,
                next_step="Import it without its aliases, see what it brought, and promote it then.",
            )

    def _collections(self, project: str) -> dict[str, Any]:
        try:
            return {one.name.casefold(): one for one in self._backend.collections(project)}
        except NotFound:
            if not self._embedded:  # there, the first log makes a project
                raise
            near = [p.name for p in self._backend.projects() if p.name.casefold() == project.casefold()]
            if near:
                raise InvalidReference(
                    f"the project {project!r} differs from {near[0]!r} in case only",
                    field="project",
                    next_step=f"Import it there: --project {near[0]}.",
                ) from None
            return {}

    def _digests(self, project: str, name: str) -> set[bytes]:
        found: set[bytes] = set()
        before: int | None = None
        while page := self._backend.versions(project, name, limit=_PAGE, before=before):
            found |= {digest_bytes(v.digest) for v in page if v.removed_at is None}
            before = page[-1].number
        return found

    # --- log

    def run(self) -> None:
        """Log what is new."""
        if not any(plan.new for plan in self.plans.values()):
            return
        needed = self._needed()
        try:
            frames = self._reader.frames()
            for frame in frames:
                if frame.kind == b"B":
                    blob = self._reader.blob_of(frame)
                    content = self._reader.content(blob, frames)
                    if needed is None or digest_bytes(blob.digest) in needed:
                        self._stage(cast(BinaryIO, io.BufferedReader(_Parts(content), 1 << 20)), blob.digest)
                    else:
                        for _ in content:
                            pass
                elif frame.kind == b"V":
                    self._version(ExportedVersion.from_bytes(frame.body, self._reader.name))
            self._finish()
            self._flush()
        finally:
            self._stack.close()
        for key, digest, reason in self._withdrawn:
            project = self.target(key[0])
            self._backend.yank(project, Reference(key[1], digest=digest), reason=reason, actor=self._actor)
            self.yanked += 1

    def _needed(self) -> set[bytes] | None:
        """What new versions need; None where all are new, and so everything is needed."""
        if all(len(plan.new) == len(plan.given.versions) for plan in self.plans.values()):
            return None
        needed: set[bytes] = set()
        for frame in self._reader.frames():
            if frame.kind == b"V":
                given = ExportedVersion.from_bytes(frame.body, self._reader.name)
                if given.number in self._plan(given).new:
                    needed |= {digest_bytes(file.digest) for file in given.manifest.files if file.url is None}
        return needed

    def _plan(self, given: ExportedVersion) -> _Plan:
        """The plan for a version; the file is the one that was checked."""
        plan = self.plans.get((given.project, given.name))
        if plan is None or plan.given.versions.get(given.number) != digest_bytes(given.manifest.digest):
            raise InvalidInput("the export was changed while it was read", field="FILE", next_step="Import it again.")
        return plan

    def _stage(self, content: BinaryIO | bytes, digest: Digest) -> None:
        if self._staging is None:
            self._staging = self._stack.enter_context(self._backend.blobs.stage())
        if self._staging.add(content).digest != digest:
            raise InvalidInput("the export was changed while it was read", field="FILE", next_step="Import it again.")

    def _version(self, given: ExportedVersion) -> None:
        key, plan = (given.project, given.name), self._plan(given)
        if given.number == self._newest_of(plan):
            self._newest[key] = given.manifest
        if given.number in plan.new:
            self._add(given, plan)
        self._last[key] = given.number

    def _add(self, given: ExportedVersion, plan: _Plan) -> None:
        manifest, project = given.manifest, self.target(given.project)
        own = {one.digest for one in given.inputs if one.relation == "contains"} & self._batch.manifests.keys()
        if self._batch.drafts and (
            self._batch.project != project
            or len(self._batch.drafts) >= BATCH
            or self._batch.size >= _BATCH_BYTES
            or (own and not self._embedded)  # a server looks for the parts of a bundle before it logs
        ):
            self._flush()
        inputs = []
        for one in given.inputs:
            found = self._input(given, one)
            if found is not None:
                inputs.append(Input(found, one.relation, one.role))
            elif one.relation == "contains":
                told = f"{given.label} contains {one.name}:v{one.number}, which is neither in the export nor here"
                raise NotFound(told, what="version", name=f"{one.name}:v{one.number}")
        if self._embedded and manifest.components:
            self._check_bundle(given)
        if len(manifest.to_bytes()) > INLINE_BYTES:
            self._stage(manifest.to_bytes(), manifest.digest)
        tags = {ORIGIN: self._contents.header.origin, VERSION: given.label, AUTHOR: given.author}
        draft = Draft(
            given.name,
            manifest,
            given.message,
            {**given.tags, **{name: value for name, value in tags.items() if value}},
            inputs=tuple(inputs),
            git_commit=given.git_commit,
        )
        self._put(project, draft, (plan, given.number))
        if given.yanked is not None:
            reason = given.yanked or "withdrawn where it was exported"
            self._withdrawn.append(((given.project, given.name), manifest.digest, reason))

    def _put(self, project: str, draft: Draft, number: tuple[_Plan, int] | None) -> None:
        batch = self._batch
        batch.project = project
        batch.drafts.append(draft)
        batch.numbers.append(number)
        batch.manifests[draft.manifest.digest] = draft.manifest
        batch.size += len(draft.manifest.to_bytes())

    def _input(self, given: ExportedVersion, one: ExportedInput) -> Reference | None:
        """The version here that an edge leads to; None where there is none, or none yet."""
        key, project = (one.project, one.name), self.target(one.project)
        own = self._contents.collections.get(key)
        if own is not None and own.versions.get(one.number) == digest_bytes(one.digest):
            if one.number <= self._last.get(key, 0):
                return Reference(one.name, project, digest=one.digest)
            if one.relation != "contains":
                self._late.setdefault((given.project, given.name), []).append((given, one))
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

    def _finish(self) -> None:
        """Add edges to versions that came later in the file, and let `latest` be what it was there."""
        again: dict[_Key, None] = {}
        for key, late in self._late.items():
            for given, one in late:
                reference = Reference(one.name, self.target(one.project), digest=one.digest)
                draft = Draft(given.name, given.manifest, inputs=(Input(reference, one.relation, one.role),))
                self._log_again(key, draft)
            again[key] = None
        for key, plan in self.plans.items():
            newest = max(plan.new, default=0)
            if key in again or (newest and not plan.there and newest != self._newest_of(plan)):
                self._log_again(key, Draft(key[1], self._newest[key]))

    def _log_again(self, key: _Key, draft: Draft) -> None:
        project = self.target(key[0])
        if self._batch.drafts and self._batch.project != project:
            self._flush()
        if len(draft.manifest.to_bytes()) > INLINE_BYTES:
            self._stage(draft.manifest.to_bytes(), draft.manifest.digest)
        self._put(project, draft, None)

    def _newest_of(self, plan: _Plan) -> int:
        """Number of the version that `latest` means afterwards."""
        given = plan.given
        if given.latest is None or (plan.there and given.latest not in plan.new):
            return max(plan.new, default=0) or max(given.versions)
        return given.latest

    def _flush(self) -> None:
        batch, self._batch = self._batch, _Batch()
        if not batch.drafts:
            return
        own: dict[str, Any] = {"vouched": self._vouched} if self._embedded else {}  # a server knows by who asks
        made = self._backend.commit(batch.project, batch.drafts, actor=self._actor, staging=self._staging, **own)
        self._staging = None
        self._stack.close()
        for version, number in zip(made, batch.numbers, strict=True):
            if number is not None and version.number != number[1]:
                number[0].renumbered += 1

    # --- aliases

    def move(self) -> tuple[str, ...]:
        """Move the aliases that the file knows, and that are elsewhere here. Raises as a promotion does."""
        moved: list[str] = []
        targets: dict[str, list[Target]] = {}
        for plan in self.plans.values():
            project = self.target(plan.given.project)
            for alias, number in sorted(plan.given.aliases.items()):
                digest = digest_from_bytes(plan.given.versions[number])
                now = self._backend.read(project, [Reference(plan.given.name, alias=alias)]).items[0]
                if not isinstance(now, Found) or now.version.digest != digest:
                    targets.setdefault(project, []).append(Target(Reference(plan.given.name, digest=digest), alias))
                    moved.append(f"{project}/{plan.given.name}:{alias}")
        for project, some in targets.items():
            reason = f"imported from {self._contents.header.origin}"
            self._backend.promote(project, PromotionRequest(tuple(some), reason), actor=self._actor)
        return tuple(moved)


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
