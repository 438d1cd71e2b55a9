"""The gate `dataset-pinned`: the questions cannot change behind the suite's back."""

from __future__ import annotations

from typing import Any

from llmartifacts.errors import InvalidReference
from llmartifacts.gates import options
from llmartifacts.gates.base import Candidate, SuiteNow
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.reference import Reference


class DatasetPinnedGate:
    """Passes if a suite names its dataset by version or digest, and, where the policy names one, exactly that.

    Args:
        suite: Reference of the suite.
        dataset: Reference of the dataset by version or digest; None for any.

    Raises:
        InvalidValue: An option cannot be taken.
    """

    name = "dataset-pinned"

    def __init__(self, **given: Any) -> None:
        options.check_known(self.name, given, ("suite", "dataset"))
        self.suite = options.reference(self.name, "suite", given.get("suite"))
        wanted = given.get("dataset")
        self.dataset = None if wanted is None else options.reference(self.name, "dataset", wanted)
        if self.dataset is not None and not _is_pinned(self.dataset):
            step = "Name it by version or digest, such as support-eval:v3."
            raise options.refused(self.name, "dataset", f"{self.dataset} may move", step)

    @property
    def suites(self) -> tuple[str, ...]:
        """Suites that it has to know."""
        return (self.suite,)

    def judge(self, candidate: Candidate) -> GateResult:
        """Judge what the suite says now."""
        suite = candidate.suites.get(
            self.suite, SuiteNow(self.suite, problem=f"the suite {self.suite} was not looked up")
        )
        if suite.tampered:
            return GateResult(self.name, self.name, Verdict.TAMPERED, suite.problem, "Find out who did that.")
        if suite.version is None or suite.dataset is None or suite.problem or suite.facts.problem:
            told = suite.problem or suite.facts.problem or "there is no such suite"
            return GateResult(self.name, self.name, Verdict.INCONCLUSIVE, told, "Log the suite and its dataset.")
        named = suite.facts.dataset
        if not _is_pinned(named):
            told = f"{suite.version} asks {named}, which may move without the suite"
            step = f"Write {suite.dataset} in the suite."
            return GateResult(self.name, self.name, Verdict.FAIL, told, step)
        if self.dataset is not None and not _is_same(self.dataset, suite):
            told = f"{suite.version} asks {suite.dataset}, and the policy wants {self.dataset}"
            return GateResult(self.name, self.name, Verdict.FAIL, told, "Change the suite or the policy.")
        told = f"{suite.version} asks {suite.dataset} and nothing else"
        return GateResult(self.name, self.name, Verdict.PASS, told, evidence=(str(suite.dataset.pinned),))


def _is_pinned(reference: str) -> bool:
    try:
        parsed = Reference.parse(reference)
    except InvalidReference:
        return False
    return parsed.number is not None or parsed.digest is not None


def _is_same(wanted: str, suite: SuiteNow) -> bool:
    parsed, found = Reference.parse(wanted), suite.dataset
    if found is None or parsed.name != found.name:
        return False
    return parsed.number in (None, found.number) and parsed.digest in (None, found.digest)
