"""What an evaluation is about, pinned before anything is asked: suite, dataset, target, baseline, what asks them.

Everything that can be wrong with a call is found here, so that it costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from llmartifacts import packing
from llmartifacts.errors import InvalidInput, LlmartifactsError, NotFound, WrongKind
from llmartifacts.evals.recorded import Recorded
from llmartifacts.evals.retrieving import Retrieved
from llmartifacts.evals.targets import Maker, identity_of, is_runnable, maker_of, maker_of_name
from llmartifacts.kinds.eval_dataset.value import EvalDataset
from llmartifacts.kinds.eval_suite import EvalSuite
from llmartifacts.kinds.eval_suite.config import SuiteConfig
from llmartifacts.kinds.files import Files
from llmartifacts.kinds.report import Report
from llmartifacts.records.digest import Digest
from llmartifacts.records.evidence import report_facts
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.names import DEFAULT_PROJECT, check_name, is_alias
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found, Version
from llmartifacts.registry import Registry

NO_BASELINE = "none"
REPORTS = "-report"
"""What the collection of a suite's reports is called after the suite."""
_YAML = (".yaml", ".yml")
_RECORDS = (".jsonl", ".ndjson")
_HOW = "Write outputs: {runnable: package.module:name} in the suite, or give outputs=… in Python or --outputs FILE."


@dataclass(frozen=True)
class Side:
    """The target, or the baseline.

    Attributes:
        version: Its version.
        value: Its loaded value.
        maker: What makes its outputs.
    """

    version: Version
    value: Any
    maker: Maker


@dataclass(frozen=True)
class Plan:
    """Everything an evaluation is about.

    Attributes:
        suite: The suite, as it will be run.
        suite_digest: Manifest digest of it.
        suite_version: Its version; None if it is not logged yet.
        dataset: Version of the dataset.
        items: The items, of the suite's split.
        target: What is evaluated.
        baseline: What it is compared with; None if with nothing, or with `earlier`.
        earlier: A report on the baseline, where its outputs are a record that only the report has.
        compared_with: Version of the baseline; None if with nothing.
        uncompared: Why it is compared with nothing; empty if it is compared.
        is_expected: Whether that is as it should be: the alias serves nothing yet, or nobody asked for a comparison.
        remarks: What somebody should know besides.
    """

    suite: EvalSuite
    suite_digest: Digest
    suite_version: Version | None
    dataset: Version
    items: EvalDataset
    target: Side
    baseline: Side | None = None
    earlier: Report | None = None
    compared_with: Version | None = None
    uncompared: str = ""
    is_expected: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def report_name(self) -> str:
        """The collection of its reports, with the project."""
        return f"{self.target.version.project}/{self.suite.name}{REPORTS}"


def plan_of(
    registry: Registry,
    suite: EvalSuite | str | os.PathLike[str] | Reference,
    target: str | Reference | None,
    *,
    baseline: str | Reference | None,
    outputs: Any,
    repeats: int | None,
    cache_name: str = "",
) -> Plan:
    """Pin and load everything, and check that it fits.

    Raises:
        InvalidInput: The suite is wrong, or says not enough.
        NotFound: A file, a version, a module or an object is not there.
        WrongKind: A version is of another kind than is wanted, or the names of suite and report are taken by others.
        Incompatible: An embedder is not the index's.
    """
    chosen, suite_version = suite_of(registry, suite)
    if repeats is not None and (type(repeats) is not int or repeats != chosen.repeats):
        chosen, suite_version = _with_repeats(chosen, repeats), None
    named = target if target is not None else chosen.target
    if named is None:
        raise InvalidInput("no target is named", field="target", next_step="Name one: --target support-kb:v2.")
    evaluated = registry.find(Reference.parse(named, field="target"))
    _check_names(registry, evaluated.version.project, chosen.name)
    dataset = _found(registry, chosen.dataset, "dataset", "eval_dataset")
    items = cast(EvalDataset, registry.load(dataset.manifest))
    if chosen.split is not None:
        items = items.split(chosen.split)
    mine, others = _makers(registry, chosen, outputs, cache_name)
    side = Side(evaluated.version, registry.load(evaluated.manifest), mine)
    everyone = list(items)
    mine.prepare(side.value, everyone)
    digest = packing.pack(packing.kind_of(chosen), chosen, cast(Any, None)).digest
    plan = Plan(chosen, digest, suite_version, dataset.version, items, side)
    wanted = chosen.baseline if baseline is None else baseline
    if wanted is None or wanted == NO_BASELINE:
        return replace(plan, uncompared="no comparison was asked for", is_expected=True)
    found = _baseline(registry, wanted, evaluated.version, is_asked=baseline is not None)
    if found is None:
        alias = f"{evaluated.version.name}:{wanted}"
        return replace(
            plan, uncompared=f"{alias} does not exist yet, so there is nothing to be worse than", is_expected=True
        )
    if found.version.digest == evaluated.version.digest:
        told = f"{found.version} is the baseline itself"
        return replace(plan, compared_with=None, uncompared=told, is_expected=True)
    if found.version.kind != evaluated.version.kind:
        raise WrongKind(
            f"the baseline {found.version} is a {found.version.kind}, the target a {evaluated.version.kind}",
            field="baseline",
        )
    if others is None:
        return _with_earlier(registry, plan, found.version)
    other = Side(found.version, registry.load(found.manifest), others)
    try:
        others.prepare(other.value, everyone)
    except LlmartifactsError as error:
        step = error.hint() or "Evaluate without it: --baseline none."
        raise type(error).of(error, origin=error.origin or f"the baseline {found.version}", next_step=step) from None
    return replace(plan, baseline=other, compared_with=found.version)


def suite_of(
    registry: Registry, suite: EvalSuite | str | os.PathLike[str] | Reference
) -> tuple[EvalSuite, Version | None]:
    """A suite, and its version where it comes from the registry.

    Args:
        registry: The registry.
        suite: An `EvalSuite`; the path of a YAML file (a text that ends in `.yaml` or `.yml`, or a `Path`); or a
            reference, without a selector to the latest version.

    Raises:
        InvalidInput: It is no suite.
        NotFound: There is no such file or version.
        WrongKind: The version is no suite.
    """
    if isinstance(suite, EvalSuite):
        return suite, None
    if not isinstance(suite, Reference) and (not isinstance(suite, str) or suite.endswith(_YAML)):
        return EvalSuite.from_file(suite), None
    if isinstance(suite, str) and "/" in suite and Path(suite).is_file():
        return EvalSuite.from_file(suite), None
    found = _found(registry, suite, "suite", "eval_suite")
    return cast(EvalSuite, registry.load(found.manifest)), found.version


def at_home(version: Version) -> Reference:
    """The pinned reference of a version with its project, whatever project the registry is open at."""
    return replace(version.pinned, project=version.project)


def _found(registry: Registry, reference: str | Reference, field: str, kind: str) -> Found:
    found = registry.find(Reference.parse(reference, field=field))
    if found.version.kind != kind:
        raise WrongKind(f"{found.version} is a {found.version.kind}, not an {kind}", field=field)
    return found


def _with_repeats(suite: EvalSuite, repeats: int) -> EvalSuite:
    if type(repeats) is not int or not 1 <= repeats <= 1000:
        raise InvalidInput(f"{repeats!r:.40} is no number of repeats", field="repeats", next_step="From 1 to 1000.")
    # How often an item is asked is part of what the suite is: evidence of another number is evidence of another suite.
    # Under a name of its own, so that the suite that gates ask for does not change by it.
    changes = {"repeats": repeats, "name": f"{suite.name}-x{repeats}"}
    return EvalSuite.from_config(SuiteConfig.model_validate({**suite.to_config(), **changes}))


def _check_names(registry: Registry, project: str, name: str) -> None:
    for wanted, kind in ((name, "eval_suite"), (name + REPORTS, "report")):
        check_name(wanted, field="name")
        (item,) = registry.read(Reference(wanted, project)).items
        if isinstance(item, Found) and item.version.kind != kind:
            raise WrongKind(
                f"the collection {wanted!r} has the kind {item.version.kind}, and an evaluation logs its {kind} there",
                field="name",
                next_step="Give the suite another name.",
            )


def _baseline(registry: Registry, wanted: str | Reference, target: Version, *, is_asked: bool) -> Found | None:
    """The version of the baseline; None where it is an alias that the target's collection does not have yet."""
    if isinstance(wanted, str) and is_alias(wanted) and ":" not in wanted:
        try:
            return registry.find(Reference(target.name, target.project, alias=wanted))
        except NotFound as error:
            if is_asked and error.near:  # a slip of the pen, which would pass for want of a baseline
                raise
            return None
    return registry.find(Reference.parse(wanted, field="baseline"))


def _makers(registry: Registry, suite: EvalSuite, outputs: Any, cache_name: str) -> tuple[Maker, Maker | None]:
    """What makes the outputs of the target, and of the baseline; None where those are a record."""
    if outputs is None:
        if suite.outputs is None:
            raise InvalidInput("the suite does not say how outputs are made", field="outputs", next_step=_HOW)
        if "runnable" in suite.outputs:
            made: Maker = maker_of_name(suite.outputs["runnable"])
            return made, made
        if "retrieve" in suite.outputs:
            made = Retrieved(**suite.outputs["retrieve"])
            return made, made
        return _recorded(registry, suite.outputs["recorded"], suite.origin), None
    if isinstance(outputs, str | os.PathLike):
        return _recorded(registry, outputs, ""), None
    if isinstance(outputs, Mapping):
        return Recorded.from_mapping(outputs), None
    identity = {"named": cache_name} if cache_name else identity_of(outputs)
    told = getattr(outputs, "__qualname__", None) or type(outputs).__name__
    made = maker_of(outputs, identity, f"{'a Runnable' if is_runnable(outputs) else 'a function'}, {told:.200}")
    return made, made


def _recorded(registry: Registry, place: str | os.PathLike[str], suite_file: str) -> Recorded:
    text = os.fspath(place)
    if not isinstance(place, str) or text.endswith(_RECORDS) or Path(text).is_file():
        beside = Path(suite_file).parent / text
        return Recorded.from_file(beside if suite_file and beside.is_file() else text)
    found = _found(registry, text, "outputs.recorded", "files")
    files = cast(Files, registry.load(found.manifest))
    named: Sequence[str] = [path for path in files if path.endswith(_RECORDS)]
    if len(named) != 1:
        raise InvalidInput(
            f"{found.version} has {len(named)} files that end in {' or '.join(_RECORDS)}, and one is wanted",
            field="outputs.recorded",
        )
    return Recorded.from_bytes(files.read(named[0]), f"{found.version} {named[0]}")


def _with_earlier(registry: Registry, plan: Plan, baseline: Version) -> Plan:
    """The plan with the newest report of this suite on the baseline, for outputs that nobody can make again."""
    graph = registry.lineage(at_home(baseline), "down")
    reports = [node for node in graph.nodes.values() if node.kind == "report"]
    references = [Reference.parse(node.id).within(DEFAULT_PROJECT) for node in reports]
    for reference in sorted(references, key=lambda r: r.number or 0, reverse=True):
        found = registry.find(reference)
        if _is_alike(found.manifest, plan, baseline):
            report = cast(Report, registry.load(found.manifest))
            if report.items:
                return replace(plan, earlier=report, compared_with=baseline, remarks=_same_record(plan, report, found))
    told = f"the outputs are a record, and no report of this suite on the baseline {baseline} has the baseline's"
    return replace(plan, uncompared=f"{told}; evaluate it with its own record first")


def _same_record(plan: Plan, earlier: Report, found: Found) -> tuple[str, ...]:
    if earlier.environment.get("outputs") != plan.target.maker.told:
        return ()
    return (f"this is the very record that {found.version} was made of: are these the outputs of the target?",)


def _is_alike(manifest: Manifest, plan: Plan, baseline: Version) -> bool:
    facts = report_facts(manifest.config)
    return (facts.suite_digest, facts.dataset, set(facts.targets.values())) == (
        plan.suite_digest,
        plan.dataset.digest,
        {baseline.digest},
    )
