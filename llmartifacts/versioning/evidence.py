"""Gathers what gates may look at: every fact of it is read in the transaction that will move the aliases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from llmartifacts.errors import Damaged, InvalidReference, LlmartifactsError, Yanked
from llmartifacts.gates.base import Ancestor, Gate, Moving, SuiteNow, Trail
from llmartifacts.metadata import aliases, audit, evidence, graph, projects, versions
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.projects import CollectionRow
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.approval import Binding, Serving, Subject, bind
from llmartifacts.records.backend import PromotionRequest
from llmartifacts.records.digest import Digest
from llmartifacts.records.evidence import RecordedReport, ReportFacts, Signer, report_facts, suite_facts
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Version
from llmartifacts.versioning.attest import signers
from llmartifacts.versioning.parts import Parts

SUITE_KIND = "eval_suite"
MAX_REPORTS = 100
"""Reports on one version that gates look at, the newest first."""
MAX_LOOKED = 1000
"""Reports that are opened to find those; others have it as their baseline only."""
MAX_UNVOUCHED = 20
"""Reports beside those that do not count, the newest first: they are told of, and no more."""


@dataclass(frozen=True, slots=True)
class Step:
    """One alias that somebody wants to move, with the rows behind it."""

    collection: CollectionRow
    row: VersionRow
    moving: Moving


def steps(
    s: Session,
    parts: Parts,
    project_id: int,
    project: str,
    request: PromotionRequest,
    *,
    lock: bool = True,
    new: Mapping[Digest, Manifest] = MappingProxyType({}),
) -> list[Step]:
    """What a request would move, in its order.

    Args:
        s: A transaction.
        parts: The stores.
        project_id: Id of the project.
        project: Its name.
        request: The move.
        lock: Whether the aliases may move next; false where the transaction only reads.
        new: Manifests that are logged in this transaction: large ones are not in the store before its end.

    Raises:
        NotFound: A version does not exist.
        InvalidReference: An alias of a collection is named twice.
        Yanked: A version, or a part of a bundle, was withdrawn.
        TooLarge: Asked for from outside, the manifests are too many bytes to look at together.
    """
    made: dict[tuple[str, str], Step] = {}
    size = 0
    for target in request.targets:
        key = target.reference.name, target.alias
        if key in made:
            raise InvalidReference(f"{':'.join(key)} is named twice in one promotion", field="references")
        row = versions.find(s, project_id, project, target.reference)
        refuse_withdrawn(s, row)
        collection = projects.find_collection(s, project_id, target.reference.name)
        now = aliases.current(s, collection.id, target.alias, lock=lock)
        serving = None if now.number is None else versions.by_number(s, project, collection.id, now.number).version
        last = evidence.last_served(s, collection.id, target.alias, now.move) if now.number is None else None
        before = None if last is None else versions.by_number(s, project, collection.id, last).version
        contains = {role: part[0] for role, part in graph.parts(s, row.id).items()}
        manifest = new.get(row.version.digest) or parts.manifest(s, row.version.digest, row.body)
        size += len(manifest.to_bytes())
        parts.check_room(size)
        moving = Moving(target.alias, row.version, manifest, serving, contains, now.move, before=before)
        made[key] = Step(collection, row, moving)
    return list(made.values())


def refuse_withdrawn(s: Session, row: VersionRow) -> None:
    """Refuse a version that was withdrawn, or a bundle with such a part. Raises `Yanked`."""
    if row.version.yanked_at is not None:
        raise Yanked(f"{row.version} was withdrawn: {row.version.yank_reason}", field=str(row.version.reference))
    for role, (name, number, withdrawn) in graph.parts(s, row.id).items():
        if withdrawn:
            raise Yanked(
                f"the part {role!r} of {row.version}, {name}:v{number}, was withdrawn",
                field=str(row.version.reference),
                next_step="Log the bundle anew with another version of that part.",
            )


def bindings(s: Session, project: str, moving: Iterable[Moving], policy: Digest | None) -> dict[str, Binding]:
    """Alias -> what an approval of moving it must be for."""
    ones = (
        (m.alias, Subject.of(m.version), Serving(None if m.serving is None else m.serving.digest, m.move))
        for m in moving
    )
    return bind(audit.origin(s), project, policy, ones)


def trail(s: Session, row: VersionRow) -> Trail:
    """Where a version comes from."""
    found = evidence.ancestors(s, row.id)
    return Trail(
        tuple(Ancestor(ancestor, relation) for ancestor, relation in found),
        evidence.run_status(s, row.version.run),
    )


def reports(s: Session, parts: Parts, project_id: int, project: str, digest: Digest) -> tuple[RecordedReport, ...]:
    """Reports on a content, the newest first, each verified against its digest; those that cannot be read, too."""
    found = {
        row: report
        for vouched, most, looked in ((True, MAX_REPORTS, MAX_LOOKED), (False, MAX_UNVOUCHED, MAX_UNVOUCHED))
        for row, report in _reports(s, parts, project_id, project, digest, vouched, most, looked)
    }
    return tuple(found[row] for row in sorted(found, reverse=True))


def _reports(
    s: Session, parts: Parts, project_id: int, project: str, digest: Digest, vouched: bool, most: int, looked: int
) -> Iterator[tuple[int, RecordedReport]]:
    """Reports with the ids of their rows, at most so many, and at most so many opened to find them."""
    made, before = 0, 1 << 62
    while looked > 0 and (page := evidence.reports_on(s, project_id, project, digest, before, vouched=vouched)):
        before = page[-1].id
        for row in page:
            looked -= 1
            one = _report(s, parts, project_id, row.version, vouched)
            if one.problem or one.facts.problem or digest in one.facts.targets.values():
                made += 1
                yield row.id, one
            if made == most:
                return


def _report(s: Session, parts: Parts, project_id: int, version: Version, vouched: bool) -> RecordedReport:
    try:
        manifest = parts.manifests(s, [version.digest]).get(version.digest)
        if manifest is None:
            problem = "its manifest is gone from the database"
            return RecordedReport(version, ReportFacts(), problem=problem, vouched=vouched)
        facts = report_facts(manifest.config)
        signed = tuple(Signer(*o) for o in signers(s, project_id, version.digest))
        return RecordedReport(version, facts, signers=signed, vouched=vouched)
    except Damaged as error:
        return RecordedReport(version, ReportFacts(), problem=f"it was altered: {error.message}", vouched=vouched)
    except LlmartifactsError as error:
        unread = ReportFacts(problem=f"it cannot be read: {error.message}")
        return RecordedReport(version, unread, vouched=vouched)


def of_version(parts: Parts, project: str, reference: Reference) -> tuple[Version, tuple[RecordedReport, ...]]:
    """A version, and the reports on it, the newest first. Raises `NotFound`."""
    with parts.metadata.reading() as s:
        project_id, _ = projects.find_project(s, project)
        row = versions.find(s, project_id, project, reference)
        version = versions.complete(s, [row])[0]
        return version, reports(s, parts, project_id, project, version.digest)


def suites_now(s: Session, parts: Parts, project_id: int, project: str, gates: Sequence[Gate]) -> dict[str, SuiteNow]:
    """What the suites that some gates name mean now."""
    wanted = dict.fromkeys(name for gate in gates for name in _suites_of(gate))
    return {name: _suite(s, parts, project_id, project, name) for name in wanted}


def _suites_of(gate: Gate) -> tuple[str, ...]:
    """The suites that a gate says it needs; a plug-in's that says nonsense needs none, and has to do without."""
    try:
        return tuple(name for name in getattr(gate, "suites", ()) if isinstance(name, str))
    except Exception:  # noqa: BLE001 - a stranger's property
        return ()


def _suite(s: Session, parts: Parts, project_id: int, project: str, name: str) -> SuiteNow:
    try:
        row = versions.find(s, project_id, project, Reference.parse(name))
        if row.version.kind != SUITE_KIND:
            return SuiteNow(name, problem=f"{row.version} is a {row.version.kind}, not an {SUITE_KIND}")
        if row.version.yanked_at is not None:
            return SuiteNow(name, problem=f"the suite {row.version} was withdrawn: {row.version.yank_reason}")
        facts = suite_facts(parts.manifest(s, row.version.digest, row.body).config)
        if facts.problem:
            return SuiteNow(name, row.version, facts)
    except Damaged as error:
        return SuiteNow(name, problem=f"the suite {name} was altered: {error.message}", tampered=True)
    except LlmartifactsError as error:
        return SuiteNow(name, problem=f"the suite {name}: {error.message}")
    try:
        asked = Reference.parse(facts.dataset).or_latest().within(project)
        dataset = versions.find(s, project_id, project, asked).version
    except LlmartifactsError as error:
        return SuiteNow(name, row.version, facts, problem=f"the dataset of {row.version}: {error.message}")
    if dataset.yanked_at is not None:
        told = f"the dataset of {row.version}, {dataset}, was withdrawn: {dataset.yank_reason}"
        return SuiteNow(name, row.version, facts, dataset, told)
    return SuiteNow(name, row.version, facts, dataset)
