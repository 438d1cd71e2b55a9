"""log: drafts -> versions, with their edges, tags, aliases and audit entries, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace

from llmartifacts.blobs.forms import FORMS, RECIPE, key_of
from llmartifacts.errors import Damaged
from llmartifacts.gates.base import Answers
from llmartifacts.metadata import audit, condemned, graph, projects, removals, runs, versions
from llmartifacts.metadata.aliases import move_latest, save_head
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.projects import CollectionRow
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.backend import Draft, PromotionRequest, Staging, Target
from llmartifacts.records.digest import Blob
from llmartifacts.records.manifest import INLINE_BYTES
from llmartifacts.records.names import LATEST
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros
from llmartifacts.records.version import Version
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.drafts import check_drafts, lacking
from llmartifacts.versioning.judge import answering
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.promote import promote_in
from llmartifacts.versioning.removal import refuse_erased

REPORT = "report"


@dataclass(frozen=True, slots=True)
class _Logger:
    """Who logs.

    Attributes:
        actor: Their name.
        vouched: Whether their reports count as evidence.
        visible: Whether they may see a project; None where they may see all.
    """

    actor: str
    vouched: bool
    visible: Callable[[str], bool] | None


def commit(
    parts: Parts,
    project: str,
    drafts: Sequence[Draft],
    *,
    actor: str,
    staging: Staging | None = None,
    vouched: bool = True,
    visible: Callable[[str], bool] | None = None,
    answers: Answers | None = None,
) -> list[Version]:
    """Log versions, all or none.

    The staged bytes are published last, when nothing else can refuse, and before the transaction ends: a crash leaves
    bytes that nobody names, never a version whose bytes are missing.

    Args:
        parts: The stores. Where who acts had to prove it, the drafts are checked as a stranger's.
        project: Name of the project.
        drafts: What to log.
        actor: Who logs it.
        staging: Bytes on their way in.
        vouched: Whether reports among them count as evidence; one that is known counts from now on, if it did not.
        visible: Whether who logs it may see a project; None where they may see all.
        answers: What functions of others say of the moves. Whoever has a transaction open gives them, and calls by way
            of `judge.answering`; None to have them asked here.

    Raises:
        Unanswered: Some of the answers given are missing; they are left open, and nothing was logged.
    """
    who = _Logger(actor, vouched, visible)
    with _manifests(parts, drafts) as own:
        staged = [one for one in (staging, own) if one is not None]

        def attempt(known: Answers) -> list[Version]:
            with parts.metadata.writing() as s:
                return _commit(s, parts, project, drafts, who, staged, known)

        return answering(attempt) if answers is None else attempt(answers)


@contextmanager
def _manifests(parts: Parts, drafts: Sequence[Draft]) -> Iterator[Staging | None]:
    """The manifests that are kept as blobs, staged: a stranger's are what is logged here, not what was sent along."""
    large = [d.manifest.to_bytes() for d in drafts if parts.authenticated and len(d.manifest.to_bytes()) > INLINE_BYTES]
    if not large:
        yield None
        return
    with parts.blobs.stage() as staging:
        for body in large:
            staging.add(body)
        yield staging


def _commit(
    s: Session,
    parts: Parts,
    project: str,
    drafts: Sequence[Draft],
    who: _Logger,
    staged: Sequence[Staging],
    answers: Answers,
) -> list[Version]:
    project_id, revision = parts.home(s, project)
    if parts.authenticated:
        drafts = check_drafts(s, parts, project_id, project, drafts, actor=who.actor)
    now = s.now()
    collections: dict[str, CollectionRow] = {}
    made: list[Version] = []
    targets: list[Target] = []
    for draft in drafts:
        collection = collections.get(draft.name)
        if collection is None or collection.kind != draft.manifest.kind:
            collection = projects.ensure_collection(s, project_id, draft.name, draft.manifest.kind, now)
            collections[draft.name] = collection
        row, created, restored = _version(s, project, collection, draft, who, now)
        move_latest(s, collection, row.version.number, revision=revision, at=now, actor=who.actor)
        inputs = _describe(s, project_id, project, row, draft, created, who)
        more: dict[str, object] = {} if _counts(draft, who) else {"vouched": False}
        more |= {"restored": True} if restored else {}
        more |= {"git_commit": draft.git_commit, "run": draft.run} if created else {}
        audit.record(
            s,
            project_id,
            project,
            actor=who.actor,
            verb="log",
            subject=str(row.version.reference),
            at=now,
            digest=row.version.digest,
            created=created,
            message=draft.message,
            inputs=inputs,
            tags=dict(draft.tags),
            **more,
        )
        targets += [Target(Reference(draft.name, project, number=row.version.number), a) for a in draft.aliases]
        made.append(_returned(s, row, draft, created))
    for collection in collections.values():
        save_head(s, collection)
    if targets:
        request = PromotionRequest(tuple(_last_of_each(targets)), drafts[0].message)
        new = {draft.manifest.digest: draft.manifest for draft in drafts}
        promote_in(s, parts, project_id, project, request, actor=who.actor, verb="log", answers=answers, new=new)
    if staged:
        with chunks_recorded_in(parts, s):
            for one in staged:
                one.publish()
    if condemned.any_of(s):
        needed = {digest: n for draft in drafts for digest, n in versions.needed(draft.manifest).items()}
        spare(parts, s, [Blob(digest, n) for digest, n in needed.items()])
    return made if len(made) == 1 else _with_final_aliases(drafts, made)


def spare(parts: Parts, s: Session, blobs: Iterable[Blob]) -> None:
    """Let nothing of some stored blobs be condemned any more: a version, or an upload, relies on them from now on."""
    if not condemned.any_of(s):
        return
    large = {key_of(blob.digest, RECIPE): blob for blob in blobs}
    for key, blob in large.items():
        condemned.spare(s, [key_of(blob.digest, form) for form in FORMS if form != RECIPE])
        if condemned.spare(s, [key]):  # then its packs may be condemned too; looking up its chunks spares those
            with chunks_recorded_in(parts, s), suppress(Damaged):
                parts.blobs.check(blob, read_data=False)


def chunks_recorded_in(parts: Parts, s: Session) -> AbstractContextManager[None]:
    """What is stored of chunks meanwhile is recorded in this transaction."""
    index = parts.blobs.index
    return index.within(s) if isinstance(index, RecordedIndex) else nullcontext()


def _version(
    s: Session, project: str, collection: CollectionRow, draft: Draft, who: _Logger, now: int
) -> tuple[VersionRow, bool, bool]:
    """The version that a draft is or becomes; whether it is new, and whether it had been removed and is back."""
    restored = False
    known = versions.by_digest(s, project, collection.id, draft.manifest.digest) if collection.head else None
    if known is not None and known.version.removed_at is not None:
        refuse_erased(known)
        versions.insert_manifest(s, draft.manifest)
        removals.restore(s, known.id)
        known = versions.by_digest(s, project, collection.id, draft.manifest.digest) or known
        restored = True
    if known is not None:
        if draft.manifest.kind == REPORT and who.vouched:
            versions.vouch(s, known.id)
        return known, False, restored
    versions.insert_manifest(s, draft.manifest)
    version_id = versions.insert(
        s,
        collection,
        draft.manifest,
        author=who.actor,
        message=draft.message,
        git_commit=draft.git_commit,
        run=draft.run,
        now=now,
        vouched=_counts(draft, who),
    )
    version = Version(
        project,
        collection.name,
        collection.kind,
        collection.head,
        draft.manifest.digest,
        from_micros(now),
        who.actor,
        draft.message,
        draft.manifest.size,
        draft.git_commit,
        draft.run,
    )
    return VersionRow(version_id, collection.id, version), True, False


def _counts(draft: Draft, who: _Logger) -> bool:
    """Whether what is logged counts as evidence; only of a report does it mean anything."""
    return who.vouched or draft.manifest.kind != REPORT


def _describe(
    s: Session, project_id: int, project: str, row: VersionRow, draft: Draft, created: bool, who: _Logger
) -> list[str]:
    """Edges, tags and the run: all outside identity, so known content may gain them. Returns the inputs, pinned."""
    if draft.tags:
        versions.set_tags(s, row.id, draft.tags)
    pinned = []
    for given in draft.inputs if created else lacking(s, row, draft.inputs):
        parent = versions.find_anywhere(s, project_id, project, given.reference, who.visible)
        pinned.append(str(parent.version.pinned))
        if parent.id != row.id:
            graph.add_edge(s, row.id, parent.id, given.relation, given.role)
    if draft.run:
        runs.require_running(s, project_id, project, draft.run)
        runs.attach(s, draft.run, row.id, "produced")
    return pinned


def _returned(s: Session, row: VersionRow, draft: Draft, created: bool) -> Version:
    if created:
        names = tuple(sorted({*draft.aliases, LATEST}))
        return replace(row.version, tags=dict(draft.tags), aliases=names, created=True)
    version = versions.complete(s, [row])[0]
    names = tuple(sorted({*version.aliases, *draft.aliases, LATEST}))
    return replace(version, aliases=names)


def _with_final_aliases(drafts: Sequence[Draft], made: list[Version]) -> list[Version]:
    """In a batch, of several versions of one collection the last that was given an alias has it."""
    holder = {(v.name, a): v.number for d, v in zip(drafts, made, strict=True) for a in (*d.aliases, LATEST)}
    return [
        replace(v, aliases=tuple(a for a in v.aliases if holder.get((v.name, a), v.number) == v.number)) for v in made
    ]


def _last_of_each(targets: Sequence[Target]) -> list[Target]:
    return list({(t.reference.name, t.alias): t for t in targets}.values())
