"""Compatibility rules: pure functions, run when a bundle is logged and promoted, and when a set is resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from llmartifacts.errors import Incompatible
from llmartifacts.records.digest import Digest
from llmartifacts.records.manifest import Manifest

Severity = Literal["error", "warning", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Member:
    """One component of the set that is checked.

    Attributes:
        label: What people call it: a collection, a role or a field.
        manifest: What it is.
        collection: Name of its collection; empty if unknown.
        contains: For a bundle: role -> name of the collection the part came from.
    """

    label: str
    manifest: Manifest
    collection: str = ""
    contains: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule.

    Attributes:
        rule: Id of the rule, such as `index-dimension`.
        severity: `error` refuses, `warning` is shown, `inconclusive` means that it cannot be told.
        digests: The digests concerned.
        message: What does not fit, one sentence.
        mend: How to mend it.
    """

    rule: str
    severity: Severity
    digests: tuple[Digest, ...]
    message: str
    mend: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}"


def check_set(members: Sequence[Member], parts: Mapping[Digest, Manifest | None]) -> list[Problem]:
    """Check a set of components, bundles unfolded.

    Args:
        members: What is moved or resolved together.
        parts: Manifests of the parts of every bundle among them; None where one is missing.

    Returns:
        Every broken rule; empty if all fit.
    """
    return []


def refuse_misfits(members: Sequence[Member], parts: Mapping[Digest, Manifest | None]) -> list[Problem]:
    """`check_set`, raising on errors.

    Returns:
        The problems that do not refuse: warnings, and what cannot be told.

    Raises:
        Incompatible: At least one rule of severity `error` is broken; all are listed.
    """
    problems = check_set(members, parts)
    errors = [p for p in problems if p.severity == "error"]
    if errors:
        raise Incompatible(
            errors[0].message,
            problems=tuple(map(str, errors)),
            next_step=" ".join(dict.fromkeys(p.mend for p in errors if p.mend)),
        )
    return problems
