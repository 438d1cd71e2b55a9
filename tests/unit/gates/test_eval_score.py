"""The gate `eval`: which report counts, and what it comes to."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llmartifacts.errors import InvalidValue
from llmartifacts.gates.base import Candidate, Moving, SuiteNow, judge
from llmartifacts.gates.eval_score import EvalGate
from llmartifacts.records.digest import digest_of
from llmartifacts.records.evidence import (
    Comparison,
    Graded,
    Measured,
    RecordedReport,
    ReportFacts,
    Signer,
    SuiteFacts,
    Threshold,
    report_facts,
    suite_facts,
    threshold,
)
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.version import Version

NOW = datetime(2026, 3, 3, 9, tzinfo=UTC)
SCORER = digest_of(b"recall@5 as defined")
METRIC = "recall@5"


def version(name: str, number: int = 1, kind: str = "vector_index", *, days: float = 1.0) -> Version:
    content = digest_of(f"{name}:v{number}".encode())
    return Version("default", name, kind, number, content, NOW - timedelta(days=days), author="ann")


KB, PROD, SUITE, DATA = version("kb", 2), version("kb", 1), version("support", 3, "eval_suite"), version("questions", 4)
BETTER = Comparison(0.02, -0.01, 0.05, 0.06, 400, 0.2)
MEASURED = Measured(METRIC, 0.8, 0.75, 0.85, 400, scorer=SCORER, comparison=BETTER)
FACTS = ReportFacts("support", SUITE.digest, {str(KB): KB.digest}, DATA.digest, PROD.digest, {METRIC: MEASURED}, "", "")


def report(number: int = 1, *, days: float = 1.0, **changed: Any) -> RecordedReport:
    own = {k: changed.pop(k) for k in ("problem", "signers") if k in changed}
    return RecordedReport(version("support-report", number, "report", days=days), replace(FACTS, **changed), **own)


def measured(**changed: Any) -> dict[str, Measured]:
    return {METRIC: replace(MEASURED, **changed)}


def compared(**changed: Any) -> dict[str, Measured]:
    return measured(comparison=replace(BETTER, **changed))


def moving(*reports: RecordedReport, serving: Version | None = PROD, **more: Any) -> Moving:
    return Moving("prod", KB, Manifest.build("vector_index", {}), serving, reports=reports, **more)


def suite_now(**changed: Any) -> SuiteNow:
    facts = SuiteFacts(
        "support", "questions:latest", {METRIC: Graded(SCORER, 0.0, 1.0, True)}, {METRIC: Threshold(0.05)}
    )
    return replace(SuiteNow("support:latest", SUITE, facts, DATA), **changed)


def ask(*reports: RecordedReport, suite: SuiteNow | None = None, serving: Version | None = PROD, **options: Any) -> Any:
    one = moving(*reports, serving=serving)
    return ask_about(one, suite=suite, **options)


def ask_about(one: Moving, *, suite: SuiteNow | None = None, together: tuple[Moving, ...] = (), **options: Any) -> Any:
    gate = EvalGate(suite="support", **options)
    candidate = Candidate("default", (one, *together), at=NOW, subject=one, suites={gate.suite: suite or suite_now()})
    found = judge(gate, candidate)
    assert isinstance(found, GateResult)
    assert found.rule == "eval:support"
    assert found.subject == "kb:v2"
    return found


def thresholds(**demanded: Any) -> SuiteNow:
    now = suite_now()
    return replace(now, facts=replace(now.facts, thresholds={METRIC: threshold(demanded)}))


# --- what counts


def test_a_report_on_exactly_this_that_holds_the_margin_passes_and_is_named_as_evidence() -> None:
    found = ask(report())
    assert found.verdict is Verdict.PASS
    assert found.evidence == (str(report().version.pinned),)
    assert "recall@5 +0.020 against kb:v1 [-0.010, +0.050], n = 400: not worse by more than 0.05" in found.message
    assert found.next_step == ""


OTHER = digest_of(b"another")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"suite_digest": OTHER}, "the suite has changed since: support:latest is support:v3"),
        ({"dataset": OTHER}, "the dataset has changed since: questions:latest is questions:v4"),
        ({"metrics": measured(scorer=OTHER)}, "the scorer of recall@5 has changed since"),
        ({"metrics": measured(hi=2.0)}, "its scale of recall@5 is not the suite's"),
        ({"metrics": measured(higher_is_better=False)}, "its scale of recall@5 is not the suite's"),
        ({"targets": {"kb:v9": OTHER}}, "it is on another version (kb:v9), not on kb:v2"),
        ({"baseline": OTHER}, f"it compares with {OTHER[7:19]}, and the baseline is kb:v1"),
        ({"baseline": ""}, "it compares with nothing, and the baseline is kb:v1"),
        ({"targets": {"kb:v2": KB.digest, "agent:v7": OTHER}}, "together with agent:v7, which does not move with it"),
    ],
)
def test_a_report_with_another_bound_field_no_longer_counts_and_the_message_says_which(
    changed: dict[str, Any], told: str
) -> None:
    found = ask(report(**changed))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "the newest report on kb:v2 does not count" in found.message
    assert told in found.message
    assert found.next_step == "Run it: llmartifacts eval run support --target kb:v2 --baseline kb:prod."


@pytest.mark.parametrize(
    ("suite", "told"),
    [
        (suite_now(version=version("support", 4, "eval_suite")), "the suite has changed since: support:latest is supp"),
        (suite_now(dataset=version("questions", 5)), "the dataset has changed since: questions:latest is questions:v5"),
        (replace(suite_now(), facts=replace(suite_now().facts, scorers={})), "the suite has no scorer of recall@5 any"),
    ],
)
def test_a_suite_or_dataset_that_moved_on_voids_the_report_that_was_good(suite: SuiteNow, told: str) -> None:
    found = ask(report(), suite=suite)
    assert (found.verdict, told in found.message) == (Verdict.INCONCLUSIVE, True)


def test_a_report_on_a_set_counts_where_the_whole_set_moves() -> None:
    agent = version("agent", 7, "prompt")
    other = Moving("prod", agent, Manifest.build("prompt", {}), None)
    one = moving(report(targets={"kb:v2": KB.digest, "agent:v7": agent.digest}))
    assert ask_about(one, together=(other,)).verdict is Verdict.PASS
    assert ask_about(one).verdict is Verdict.INCONCLUSIVE


def test_a_move_of_what_the_report_does_not_bind_voids_nothing() -> None:
    one = moving(report(), move=17, stages=frozenset({"staging"}))
    assert ask_about(one).verdict is Verdict.PASS


def test_without_a_report_it_says_what_to_run() -> None:
    found = ask()
    assert found.verdict is Verdict.INCONCLUSIVE
    assert f"no report of the suite support on kb:v2 ({KB.digest[7:19]}" in found.message
    assert "llmartifacts eval run support --target kb:v2" in found.next_step


def test_reports_of_another_suite_are_no_reports_of_this_one() -> None:
    assert "no report of the suite support" in ask(report(suite="latency")).message


def test_the_newest_report_that_counts_decides_whatever_an_older_one_said() -> None:
    bad = report(2, metrics=compared(delta=-0.1, lower=-0.15, upper=-0.05, family_upper=-0.04))
    found = ask(bad, report(1))
    assert found.verdict is Verdict.FAIL
    assert found.evidence == (str(bad.version.pinned),)
    assert ask(report(2), replace(bad, version=report(1).version)).verdict is Verdict.PASS


def test_a_newer_report_that_does_not_count_leaves_the_older_one_that_does() -> None:
    assert ask(report(2, dataset=OTHER), report(1)).verdict is Verdict.PASS
    found = ask(report(2, dataset=OTHER), report(1, dataset=OTHER))
    assert "does not count, and 1 older one neither" in found.message


# --- altered, unreadable, stale, unsigned


def test_a_damaged_report_is_tampered_with_even_beside_good_ones() -> None:
    found = ask(report(2), report(1, problem="it was altered: bytes are others", suite=""))
    assert found.verdict is Verdict.TAMPERED
    assert "support-report:v1: it was altered" in found.message
    assert "yank" in found.next_step


def test_a_newest_report_that_cannot_be_read_is_an_error_and_an_older_one_is_no_excuse() -> None:
    unread = RecordedReport(version("support-report", 2, "report"), ReportFacts("support", problem="its config: NaN"))
    found = ask(unread, report(1))
    assert (found.verdict, "NaN" in found.message) == (Verdict.ERROR, True)
    assert ask(report(3), unread).verdict is Verdict.PASS
    other = replace(unread, facts=replace(unread.facts, suite="latency"))
    assert ask(other, report(1)).verdict is Verdict.PASS


def test_a_stale_report_does_not_count_and_says_how_old_it_is() -> None:
    found = ask(report(days=31), max_age="30d")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "it is stale: 31 days old, and 30 days are allowed" in found.message
    assert ask(report(days=30), max_age="30d").verdict is Verdict.PASS


def test_logging_an_old_report_again_makes_it_no_younger() -> None:
    again = report(days=0, ended="2026-01-01T00:00:00Z")
    assert again.at == datetime(2026, 1, 1, tzinfo=UTC)
    assert "it is stale" in ask(again, max_age="30d").message
    assert report(days=2, ended="2030-01-01T00:00:00Z").at == NOW - timedelta(days=2)
    assert report(days=2, ended="yesterday").at == NOW - timedelta(days=2)


def test_with_signed_by_somebody_with_that_role_must_have_signed_it() -> None:
    def signed(*signers: Signer) -> GateResult:
        return ask(report(signers=signers), signed_by="evaluator")

    assert signed(Signer("ada", ("evaluator",))).verdict is Verdict.PASS
    assert signed(Signer("bob", ("ops",)), Signer("ada", ("evaluator",))).verdict is Verdict.PASS
    assert "nobody with the role evaluator signed it" in signed().message
    assert "bob: has not that role" in signed(Signer("bob", ("ops",))).message
    revoked = signed(Signer("ada", ("evaluator",), "the key was revoked"))
    assert (revoked.verdict, "ada: the key was revoked" in revoked.message) == (Verdict.INCONCLUSIVE, True)


def test_a_forged_signature_is_tampering_where_signatures_count() -> None:
    forged = report(signers=(Signer("ada", ("evaluator",)), Signer("eve", (), "tampered: the signature is forged")))
    assert ask(forged, signed_by="evaluator").verdict is Verdict.TAMPERED
    assert ask(forged).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("suite", "verdict", "told"),
    [
        (
            SuiteNow("support:latest", problem="the suite support:latest: there is none"),
            "INCONCLUSIVE",
            "there is none",
        ),
        (suite_now(problem="the dataset was withdrawn"), "INCONCLUSIVE", "withdrawn"),
        (suite_now(facts=SuiteFacts(problem="no scorers")), "INCONCLUSIVE", "no scorers"),
        (suite_now(problem="the suite was altered", tampered=True), "TAMPERED", "altered"),
    ],
)
def test_without_a_readable_suite_nothing_passes(suite: SuiteNow, verdict: str, told: str) -> None:
    found = ask(report(), suite=suite)
    assert (found.verdict, told in found.message) == (verdict, True)


# --- what it comes to


@pytest.mark.parametrize(
    ("numbers", "verdict", "told"),
    [
        ({"delta": -0.03, "lower": -0.049, "upper": -0.01, "family_upper": -0.01}, "PASS", "not worse by more than"),
        (
            {"delta": -0.08, "lower": -0.1, "upper": -0.06, "family_upper": -0.05},
            "FAIL",
            "worse, and by more than 0.05",
        ),
        ({"delta": -0.04, "lower": -0.08, "upper": -0.01, "family_upper": -0.005}, "FAIL", "worse"),
        ({"delta": -0.01, "lower": -0.06, "upper": 0.04, "family_upper": 0.05}, "INCONCLUSIVE", "it may be worse"),
        ({"delta": -0.04, "lower": -0.08, "upper": -0.01, "family_upper": 0.01}, "INCONCLUSIVE", "it may be worse"),
        ({"lower": -0.05}, "INCONCLUSIVE", "it may be worse"),
        ({"alpha": 0.06}, "INCONCLUSIVE", "wrong with probability 0.06, and 0.05 is allowed"),
        ({"lower": math.nan}, "ERROR", "nan"),
    ],
)
def test_a_comparison_passes_fails_or_leaves_it_open(numbers: dict[str, float], verdict: str, told: str) -> None:
    found = ask(report(metrics=compared(**numbers)))
    assert (found.verdict, told in found.message.lower()) == (verdict, True), found.message


def test_an_open_comparison_says_about_how_many_items_would_decide() -> None:
    found = ask(report(metrics=compared(delta=-0.01, lower=-0.06, upper=0.04, family_upper=0.05, n=100, sd=0.3)))
    assert found.next_step == "About 243 items would decide about an equal candidate; there are 100."


def test_too_few_items_say_how_many_are_needed() -> None:
    found = ask(report(metrics=compared(n=40)))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "40 independent items are too few, 60 are needed" in found.message
    assert "at least 20 items" in found.next_step
    assert ask(report(metrics=compared(n=40)), thresholds={METRIC: {"min_samples": 40}}).verdict is Verdict.PASS


def test_a_scorer_that_crashed_on_some_items_is_an_error() -> None:
    found = ask(report(metrics=measured(errors=3)))
    assert (found.verdict, "could not be computed for 3 items" in found.message) == (Verdict.ERROR, True)


def test_the_first_promotion_has_nothing_to_compare_with_and_needs_enough_items_only() -> None:
    alone = measured(comparison=None)
    found = ask(report(baseline="", metrics=alone), serving=None)
    assert (found.verdict, "prod never served what to compare with" in found.message) == (Verdict.PASS, True)
    few = ask(report(baseline="", metrics=measured(comparison=None, n=59)), serving=None)
    assert "59 independent items are too few, 60 are needed" in few.message
    none = measured(comparison=None, n=60, value=None, lower=None, upper=None)
    assert ask(report(baseline="", metrics=none), serving=None).verdict is Verdict.INCONCLUSIVE


def test_an_alias_that_was_taken_away_is_no_first_promotion() -> None:
    one = moving(report(baseline="", metrics=measured(comparison=None)), serving=None, before=PROD, move=2)
    found = ask_about(one)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "the baseline is kb:v1" in found.message
    assert "which prod served last" in found.message
    assert "--baseline kb:v1" in found.next_step
    assert ask_about(replace(one, reports=(report(),))).verdict is Verdict.PASS


def test_a_report_without_comparison_does_not_hold_a_margin() -> None:
    found = ask(report(metrics=measured(comparison=None)))
    assert (found.verdict, "recall@5 was not compared" in found.message) == (Verdict.INCONCLUSIVE, True)


@pytest.mark.parametrize(
    ("demand", "changed", "verdict"),
    [
        ({"at_least": 0.75}, {}, "PASS"),
        ({"at_least": 0.76}, {}, "INCONCLUSIVE"),
        ({"at_least": 0.86}, {}, "FAIL"),
        ({"at_least": 0.8, "estimate": "point"}, {}, "PASS"),
        ({"at_least": 0.81, "estimate": "point"}, {}, "FAIL"),
        ({"at_most": 0.85}, {}, "PASS"),
        ({"at_most": 0.84}, {}, "INCONCLUSIVE"),
        ({"at_most": 0.7}, {}, "FAIL"),
        ({"at_most": 0.8, "estimate": "point"}, {}, "PASS"),
        ({"at_least": 0.7, "at_most": 0.9}, {}, "PASS"),
        ({"at_least": 0.7, "at_most": 0.74}, {}, "FAIL"),
        ({"at_least": 0.5}, {"n": 59}, "INCONCLUSIVE"),
        ({"at_least": 0.5, "min_samples": 59}, {"n": 59}, "PASS"),
        ({"at_least": 0.5}, {"value": None, "lower": None, "upper": None, "n": 0}, "INCONCLUSIVE"),
        ({"at_least": 0.5}, {"alpha": 0.2}, "INCONCLUSIVE"),
        ({"at_least": 0.5, "estimate": "point"}, {"alpha": 0.2}, "PASS"),
        ({"at_least": 0.5}, {"value": math.nan}, "ERROR"),
    ],
)
def test_an_absolute_threshold_is_held_against_the_bound_or_the_mean(
    demand: dict[str, Any], changed: dict[str, Any], verdict: str
) -> None:
    found = ask(report(baseline="", metrics=measured(comparison=None, **changed)), suite=thresholds(**demand))
    assert found.verdict == verdict, found.message


def test_an_absolute_threshold_needs_no_baseline_and_shows_the_interval() -> None:
    found = ask(report(baseline=OTHER), suite=thresholds(at_least=0.9))
    assert found.verdict is Verdict.FAIL
    assert "recall@5 0.800 [0.750, 0.850], n = 400, misses at least 0.9" in found.message


def test_of_several_thresholds_the_worst_decides_and_every_one_that_did_not_pass_is_told() -> None:
    now = suite_now()
    graded = {METRIC: Graded(SCORER, 0.0, 1.0, True), "mrr": Graded(SCORER, 0.0, 1.0, True)}
    asked = {METRIC: threshold({"at_least": 0.9}), "mrr": Threshold(), "speed": threshold({"at_most": 1})}
    now = replace(now, facts=replace(now.facts, scorers=graded, thresholds=asked))
    both = {METRIC: MEASURED, "mrr": replace(MEASURED, name="mrr", errors=1)}
    found = ask(report(metrics=both), suite=now)
    assert found.verdict is Verdict.ERROR
    assert found.message.index("mrr could not be computed") < found.message.index("at least 0.9")
    assert "speed was not measured" in found.message


def test_margin_and_absolute_of_one_metric_are_both_held() -> None:
    assert ask(report(), suite=thresholds(margin=0.05, at_least=0.7)).verdict is Verdict.PASS
    assert ask(report(), suite=thresholds(margin=0.05, at_least=0.9)).verdict is Verdict.FAIL
    worse = compared(delta=-0.2, lower=-0.3, upper=-0.1, family_upper=-0.1)
    assert ask(report(metrics=worse), suite=thresholds(margin=0.05, at_least=0.7)).verdict is Verdict.FAIL


def test_thresholds_of_the_policy_take_the_place_of_the_suites() -> None:
    assert ask(report(), thresholds={METRIC: {"at_least": 0.9}}).verdict is Verdict.FAIL
    none = replace(suite_now(), facts=replace(suite_now().facts, thresholds={}))
    found = ask(report(), suite=none)
    assert (found.verdict, "what to hold kb:v2 against" in found.message) == (Verdict.ERROR, True)
    assert ask(report(), suite=none, thresholds={METRIC: {"margin": 0.05}}).verdict is Verdict.PASS


# --- options, and what is read without trust


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "suite"),
        ({"suite": "a b"}, "suite"),
        ({"suite": "other/support"}, "suite"),
        ({"suite": "support", "max_age": "soon"}, "max_age"),
        ({"suite": "support", "max_age": 3}, "max_age"),
        ({"suite": "support", "signed_by": ""}, "signed_by"),
        ({"suite": "support", "treshold": {}}, "treshold"),
        ({"suite": "support", "thresholds": {}}, "thresholds"),
        ({"suite": "support", "thresholds": {"m": {"margin": math.nan}}}, "thresholds.margin"),
        ({"suite": "support", "thresholds": {"m": {"margin": 0}}}, "thresholds.margin"),
        ({"suite": "support", "thresholds": {"m": {"margin": None}}}, "thresholds.margin"),
        ({"suite": "support", "thresholds": {"m": {"at_lest": 1}}}, "thresholds.at_lest"),
        ({"suite": "support", "thresholds": {"m": {"min_samples": 0}}}, "thresholds.min_samples"),
        ({"suite": "support", "thresholds": {"m": {"estimate": "guess"}}}, "thresholds.estimate"),
        ({"suite": "support", "thresholds": {"m": 3}}, "thresholds"),
    ],
)
def test_options_that_cannot_be_taken_are_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        EvalGate(**options)
    assert caught.value.field == field
    assert caught.value.message.startswith("gate eval: ")


CONFIG = {
    "suite": {"name": "support", "digest": SUITE.digest},
    "targets": {"kb:v2": KB.digest},
    "dataset": DATA.digest,
    "baseline": PROD.digest,
    "metrics": [
        {"name": METRIC, "value": 0.8, "lower": 0.75, "upper": 0.85, "n": 400, "lo": 0.0, "hi": 1.0, "scorer": SCORER}
    ],
}


def with_metric(**changed: Any) -> dict[str, Any]:
    return {**CONFIG, "metrics": [{**CONFIG["metrics"][0], **changed}]}  # type: ignore[dict-item]


def test_a_config_of_a_report_is_read() -> None:
    facts = report_facts(CONFIG)
    assert (facts.problem, facts.suite, facts.metrics[METRIC].n) == ("", "support", 400)


COMPARED = {"delta": 0.0, "lower": -0.1, "upper": 0.1, "family_upper": 0.2, "n": 9, "sd": 0.1, "alpha": 0.05}


@pytest.mark.parametrize(
    "config",
    [
        with_metric(value=math.nan),
        with_metric(lower=math.inf),
        with_metric(value="0.9"),
        with_metric(value=True),
        with_metric(value=10**400),
        with_metric(n=1.5),
        with_metric(n=-1),
        with_metric(errors=True),
        with_metric(lower=0.9),
        with_metric(upper=1.5),
        with_metric(lower=None),
        with_metric(lo=1.0),
        with_metric(alpha=0.0),
        with_metric(higher_is_better="no"),
        with_metric(name=["recall@5"]),
        with_metric(comparison={**COMPARED, "lower": 0.5}),
        with_metric(comparison={**COMPARED, "upper": 0.3}),
        with_metric(comparison={**COMPARED, "n": 0}),
        with_metric(comparison={**COMPARED, "n": "9"}),
        with_metric(comparison={**COMPARED, "alpha": 1}),
        with_metric(comparison={**COMPARED, "sd": math.nan}),
        with_metric(comparison={**COMPARED, "sd": -1}),
        with_metric(comparison={"delta": 0.0}),
        with_metric(comparison={**COMPARED, "more": 1}),
        with_metric(comparison=[1]),
        {**CONFIG, "metrics": []},
        {**CONFIG, "metrics": [*with_metric()["metrics"], *with_metric()["metrics"]]},
        {**CONFIG, "targets": ["kb:v2"]},
        {**CONFIG, "suite": "support"},
        {**CONFIG, "dataset": None},
        {},
    ],
)
def test_a_config_whose_numbers_are_none_or_contradict_themselves_is_a_problem_and_never_raises(config: Any) -> None:
    assert report_facts(config).problem


def test_of_a_report_with_bad_numbers_it_is_still_known_what_it_is_about() -> None:
    facts = report_facts(with_metric(value=math.nan))
    assert (facts.suite, facts.targets) == ("support", {"kb:v2": KB.digest})
    found = ask(RecordedReport(version("support-report", 2, "report"), facts), report(1))
    assert (found.verdict, "not a finite number" in found.message) == (Verdict.ERROR, True)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"name": "s", "dataset": "d", "scorers": [{"metric": 3}]},
        {"name": "s", "dataset": "d", "scorers": [{"metric": "m", "lo": 10**400, "hi": 1, "higher_is_better": True}]},
        {"name": "s", "dataset": "d", "scorers": [], "thresholds": {"m": {"margin": -1}}},
        {"name": "s", "dataset": None, "scorers": []},
        {"name": "s", "dataset": "d", "scorers": 7},
    ],
)
def test_a_config_of_a_suite_that_cannot_be_read_is_a_problem_and_never_raises(config: Any) -> None:
    assert suite_facts(config).problem
