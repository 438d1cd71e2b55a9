"""Bodies of recorded reports: what gates and pages read of them."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from llmartifacts.records import evidence
from llmartifacts.wire.bodies.base import Body, Count, Many, Model
from llmartifacts.wire.bodies.versions import Version


class Comparison(Body[evidence.Comparison]):
    """How a target differs from its baseline on one metric."""

    RECORD: ClassVar[type[Any]] = evidence.Comparison

    delta: float
    lower: float
    upper: float
    family_upper: float
    n: Count
    sd: float
    alpha: float = evidence.ALPHA
    metrics: Count = 1


class Measured(Body[evidence.Measured]):
    """One metric of a report."""

    RECORD: ClassVar[type[Any]] = evidence.Measured

    name: str
    value: float | None
    lower: float | None
    upper: float | None
    n: Count
    lo: float = 0.0
    hi: float = 1.0
    higher_is_better: bool = True
    alpha: float = evidence.ALPHA
    sd: float | None = None
    errors: Count = 0
    scorer: str = ""
    comparison: Comparison | None = None


class ReportFacts(Body[evidence.ReportFacts]):
    """What a gate reads of a report's config."""

    RECORD: ClassVar[type[Any]] = evidence.ReportFacts

    suite: str = ""
    suite_digest: str = ""
    targets: dict[str, str] = Field(default_factory=dict)
    dataset: str = ""
    baseline: str = ""
    metrics: dict[str, Measured] = Field(default_factory=dict)
    started: str = ""
    ended: str = ""
    problem: str = ""


class Signer(Body[evidence.Signer]):
    """Who signed a report."""

    RECORD: ClassVar[type[Any]] = evidence.Signer

    person: str
    roles: Many[str] = ()
    problem: str = ""


class RecordedReport(Body[evidence.RecordedReport]):
    """A report as the registry has it."""

    RECORD: ClassVar[type[Any]] = evidence.RecordedReport

    version: Version
    facts: ReportFacts
    problem: str = ""
    signers: Many[Signer] = ()
    vouched: bool = True


class Evidence(Model):
    """A version, and the reports on it, the newest first."""

    version: Version
    reports: Many[RecordedReport]


class Signers(Model):
    """Who signed a report."""

    signers: Many[Signer]
