"""What a gate is: one condition, judged on recorded facts alone, that answers with a verdict.

A gate is pure: the candidate carries all it may look at. It never calls a model, never opens an index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol, TypeGuard

from llmartifacts.errors import Busy, GateRefused
from llmartifacts.records.approval import Approval, Binding
from llmartifacts.records.arguments import told_by
from llmartifacts.records.digest import Digest
from llmartifacts.records.evidence import RecordedReport, SuiteFacts
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import GateResult, Verdict, all_of, any_of
from llmartifacts.records.version import Version
from llmartifacts.records.wording import printable

MOST_STEPS = 2
"""Things to do that a refusal lists; the dry run lists all."""
MOST_TEXT = 4000
"""Characters of one text of an answer."""
MOST_EVIDENCE = 1000
_TEXTS = ("gate", "rule", "message", "next_step", "subject")


class Answers(dict[str, Any]):
    """What functions of others answered, by what they were asked; what nobody asked yet is left open.

    A function of somebody else may take long, and a transaction must not wait for it. So a gate that needs an answer
    that is not here leaves its question, the transaction ends without a move, `ask` runs what is open, and the move is
    tried again; where nothing changed meanwhile, every answer is here then.
    """

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        super().__init__({} if given is None else given)
        self.open: dict[str, Callable[[], Any]] = {}

    def ask(self) -> None:
        """Run what is open, and keep the answers."""
        while self.open:
            key, function = self.open.popitem()
            self[key] = function()


class Unanswered(Busy):
    """A gate needs an answer that has to be asked for outside of a transaction; nothing was changed."""

    default_hint = "What the gate is asked about keeps changing; try again."


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A version that another came from, or one that it contains.

    Attributes:
        version: The version.
        relation: How the nearer one is related to it.
    """

    version: Version
    relation: str


@dataclass(frozen=True, slots=True)
class Trail:
    """Where a version comes from.

    Attributes:
        ancestors: Every version that it came from, nearest first.
        run_status: Status of the run that logged it; empty if none did.
    """

    ancestors: tuple[Ancestor, ...] = ()
    run_status: str = ""


@dataclass(frozen=True, slots=True)
class SuiteNow:
    """What the name of a suite means now.

    Attributes:
        reference: As the gate has it.
        version: The version it names; None if there is none.
        facts: What its config says.
        dataset: The version that its dataset's name means now; None if there is none.
        problem: Why there is no suite, or no dataset; empty if all is there.
        tampered: Whether the suite is not what it claims to be.
    """

    reference: str
    version: Version | None = None
    facts: SuiteFacts = field(default_factory=SuiteFacts)
    dataset: Version | None = None
    problem: str = ""
    tampered: bool = False


@dataclass(frozen=True, slots=True)
class Moving:
    """One alias that is about to move.

    Attributes:
        alias: The alias.
        version: The version it shall point at.
        manifest: What that is.
        serving: The version it points at now; None if it does not exist.
        contains: Of a bundle: role -> name of the collection the part came from.
        move: The alias's own move number now; 0 if it never was.
        stages: Other aliases of the collection that point at the version, or once did.
        trail: Where the version comes from.
        reports: Reports on exactly this version, the newest first.
        parts: Of a bundle: every version that it contains, at any depth.
        before: The version that the alias pointed at last, where it points at none now; None if it never did.
    """

    alias: str
    version: Version
    manifest: Manifest
    serving: Version | None
    contains: Mapping[str, str] = field(default_factory=dict)
    move: int = 0
    stages: frozenset[str] = frozenset()
    trail: Trail = field(default_factory=lambda: Trail())
    reports: tuple[RecordedReport, ...] = ()
    before: Version | None = None
    parts: tuple[Version, ...] = ()

    @property
    def baseline(self) -> Version | None:
        """What a comparison must be with: what the alias serves; where that was taken away, what it served last."""
        return self.serving or self.before

    @property
    def moves(self) -> bool:
        """Whether it has to move at all."""
        return self.serving is None or self.serving.number != self.version.number


@dataclass(frozen=True)
class Candidate:
    """Everything a gate may look at.

    Attributes:
        project: Name of the project.
        moving: The aliases about to move.
        parts: Manifest digest -> manifest of every part of the bundles among them; None where it is missing.
        actor: Who asks.
        reason: Why.
        ticket: Ticket of the change.
        at: When, UTC, by the registry's clock.
        subject: The one of `moving` that is judged; None where all of them are.
        suites: Reference as a gate has it -> the suite that it names now.
        binding: What an approval of this move must be for; None where nobody asks.
        approvals: Approvals that concern any of the digests.
        policy: Digest of the policy that asks; None without one.
        answers: What functions of others answered a moment ago, by what they were asked. In an `Answers`, a gate that
            takes long leaves its question where the answer is not there; else it is asked at once.
        allowed: Functions of others that may be run here, as `package.module:function`; None where any may.
    """

    project: str
    moving: tuple[Moving, ...]
    parts: Mapping[Digest, Manifest | None] = field(default_factory=dict)
    actor: str = ""
    reason: str = ""
    ticket: str = ""
    at: datetime | None = None
    subject: Moving | None = None
    suites: Mapping[str, SuiteNow] = field(default_factory=dict)
    binding: Binding | None = None
    approvals: tuple[Approval, ...] = ()
    policy: Digest | None = None
    answers: MutableMapping[str, Any] = field(default_factory=dict)
    allowed: frozenset[str] | None = None

    @property
    def judged(self) -> tuple[Moving, ...]:
        """What a gate on one component judges: the subject, or all that moves."""
        return self.moving if self.subject is None else (self.subject,)

    def about(self, subject: Moving) -> Candidate:
        """The same, to judge one of those that move."""
        return replace(self, subject=subject)


class Gate(Protocol):
    """One condition. A gate of a policy is made with the options that the policy gives."""

    @property
    def name(self) -> str:
        """Its name."""

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge a candidate; pure, and never raises for a candidate that is merely bad."""


@dataclass(frozen=True, slots=True)
class AllOf:
    """Passes if every gate passes; the worst verdict otherwise. Of no gates at all: ERROR.

    Attributes:
        gates: The gates.
        name: Its name.
    """

    gates: Sequence[Gate]
    name: str = "all-of"

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge by every gate."""
        return _combined(self.name, [judge(g, candidate) for g in self.gates], all_of)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Passes if some gate passes and none is tampered with; the best verdict otherwise. Of no gates at all: ERROR.

    Attributes:
        gates: The gates.
        name: Its name.
    """

    gates: Sequence[Gate]
    name: str = "any-of"

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge by every gate."""
        return _combined(self.name, [judge(g, candidate) for g in self.gates], any_of)


def judge(gate: Gate, candidate: Candidate) -> GateResult:
    """A gate's answer; one that crashes or answers with something else is an ERROR, which denies."""
    name, about = type(gate).__name__, "" if candidate.subject is None else str(candidate.subject.version)
    try:
        name = printable(str(getattr(gate, "name", name)))[:MOST_TEXT]
        result: object = gate.judge(candidate)
        if _is_result(result):
            return _plain(result, about)
        told = f"the gate answered with a {type(result).__name__}, not with a verdict"
    except Exception as error:  # noqa: BLE001 - whatever a gate does, it denies
        told = f"the gate could not be computed: {told_by(error)}"
    step = "Mend the gate, or take it out of the policy."
    return GateResult(name, name, Verdict.ERROR, printable(told)[:MOST_TEXT], step, about)


def _is_result(result: object) -> TypeGuard[GateResult]:
    """Whether an answer has the form of one: it may be a plug-in's, and is kept for good."""
    return (
        isinstance(result, GateResult)
        and isinstance(result.verdict, Verdict)
        and all(isinstance(getattr(result, name), str) for name in _TEXTS)
        and isinstance(result.evidence, tuple)
        and all(isinstance(one, str) for one in result.evidence)
    )


def _plain(result: GateResult, about: str) -> GateResult:
    """An answer with a subject, every text on one line that a terminal and a database take, and not without end."""
    texts: dict[str, Any] = {name: _cut(printable(getattr(result, name))) for name in _TEXTS}
    evidence = tuple(_cut(printable(one)) for one in result.evidence[:MOST_EVIDENCE])
    return replace(result, **{**texts, "subject": texts["subject"] or about}, evidence=evidence)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"


def _combined(name: str, results: Sequence[GateResult], combine: Callable[[Sequence[Verdict]], Verdict]) -> GateResult:
    verdict = combine([r.verdict for r in results])
    counted = [r for r in results if verdict is not Verdict.PASS or r.verdict is Verdict.PASS]
    evidence = tuple(dict.fromkeys(e for r in counted for e in r.evidence))
    if not results:
        return GateResult(name, name, verdict, "no condition was given", "Name at least one gate.")
    if verdict is Verdict.PASS:
        told = "; ".join(str(r) for r in results if r.verdict is Verdict.PASS)
        return GateResult(name, name, verdict, told, evidence=evidence)
    bad = [r for r in results if r.verdict is not Verdict.PASS]
    steps = " ".join(dict.fromkeys(r.next_step for r in bad if r.next_step))
    return GateResult(name, name, verdict, "; ".join(map(str, bad)), steps, evidence=evidence)


def require_pass(results: Sequence[GateResult]) -> None:
    """Refuse unless every result is PASS.

    Raises:
        GateRefused: Some are not; each is listed.
    """
    bad = [r for r in results if r.verdict is not Verdict.PASS]
    if bad:
        verdict = all_of([r.verdict for r in bad])
        found = list(dict.fromkeys(r.next_step for r in bad if r.next_step))
        more = [] if len(found) <= MOST_STEPS else ["`llmartifacts gate` with the same arguments says the rest."]
        steps = "\n".join([*found[:MOST_STEPS], *more])
        raise GateRefused(
            f"refused by {', '.join(dict.fromkeys(r.rule for r in bad))}: {bad[0].message}",
            verdict=verdict.value,
            problems=tuple(map(str, bad)),
            next_step=steps,
        )
