"""Policies in a registry, over each database: what a protected alias refuses, and what is kept of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from llmartifacts import plugins
from llmartifacts.errors import (
    AliasMoved,
    Busy,
    Conflict,
    GateRefused,
    InvalidReference,
    InvalidValue,
    LlmartifactsError,
    NotFound,
    Refused,
    Yanked,
)
from llmartifacts.gates.base import Answers, Candidate
from llmartifacts.limits import Outcome
from llmartifacts.records.backend import Draft, Input, PromotionRequest, Target
from llmartifacts.records.digest import digest_of
from llmartifacts.records.evidence import suite_facts
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import Decision, GateResult, PolicyRecord, Verdict
from llmartifacts.records.promotion import Promotion
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros
from llmartifacts.records.version import Version
from llmartifacts.versioning import approve, evidence
from llmartifacts.versioning.judge import answering


class Governed:
    """The backend with a policy, in few words."""

    def __init__(self, short: Any) -> None:
        self.short = short
        self.backend = short.backend

    def set(self, *gates: Any, alias: str = "prod", project: str = "default", **rules: Any) -> PolicyRecord:
        body = {"name": "p", "aliases": {alias: {**rules, "kinds": {"*": list(gates)}}}}
        made: PolicyRecord = self.backend.set_policy(project, body, message="so", actor="root")
        return made

    def request(self, *references: str, to: str = "prod", **more: Any) -> PromotionRequest:
        return PromotionRequest(tuple(Target(Reference.parse(r), to) for r in references), **more)

    def promote(self, *references: str, actor: str = "bob", **more: Any) -> Promotion:
        made: Promotion = self.backend.promote("default", self.request(*references, **more), actor=actor)
        return made

    def gate(self, *references: str, actor: str = "bob", **more: Any) -> Decision:
        made: Decision = self.backend.gate("default", self.request(*references, **more), actor=actor)
        return made

    def verdict(self, *references: str, **more: Any) -> str:
        return self.gate(*references, **more).verdict.value

    def entries(self) -> list[Any]:
        return list(self.backend.audit())

    def run(self, sql: str, **parameters: Any) -> None:
        with self.backend._parts.metadata.writing() as s:
            s.run(sql, parameters)


@pytest.fixture
def governed(short: Any) -> Governed:
    for content in "123":
        short.log("a", content)
        short.log("b", content)
    return Governed(short)


# --- protected and free


def test_a_protected_alias_refuses_and_an_unprotected_one_moves_freely(governed: Governed) -> None:
    governed.set("reason")
    before = len(governed.entries())
    with pytest.raises(GateRefused) as caught:
        governed.promote("a:v1")
    assert caught.value.verdict == "INCONCLUSIVE"
    assert caught.value.problems == ("INCONCLUSIVE reason: no reason is given",)
    assert len(governed.entries()) == before
    assert (governed.short.at("a:prod"), governed.backend.revision("default")) == ("-", 0)
    assert governed.promote("a:v1", to="staging").policy == ""
    made = governed.promote("a:v1", reason="better")
    assert made.policy == governed.backend.policies("default")[0].digest
    assert [r.rule for r in made.results] == ["reason"]
    assert governed.backend.promotions("default", limit=1)[0].policy == made.policy


def test_logging_straight_to_a_protected_alias_logs_nothing(governed: Governed) -> None:
    governed.set({"stage": {"after": "staging"}})
    before = len(governed.entries())
    with pytest.raises(GateRefused):
        governed.short.log("a", "4", aliases=("prod",))
    with pytest.raises(GateRefused):
        governed.short.log("new", "1", aliases=("staging", "prod"))
    assert len(governed.entries()) == before
    assert governed.short.at("a:latest") == "v3"
    with pytest.raises(NotFound):
        governed.backend.history("default", Reference.parse("new:latest"))
    assert governed.short.log("a", "4", aliases=("staging",)).number == 4


def test_of_several_aliases_one_that_is_denied_stops_all(governed: Governed) -> None:
    governed.set("reason")
    targets = (Target(Reference.parse("a:v1"), "staging"), Target(Reference.parse("b:v1"), "prod"))
    with pytest.raises(GateRefused):
        governed.backend.promote("default", PromotionRequest(targets), actor="bob")
    assert (governed.short.at("a:staging"), governed.short.at("b:prod")) == ("-", "-")


def test_stages_must_be_passed_in_order_one_move_after_the_other(governed: Governed) -> None:
    aliases = {
        "staging": {"after": "dev", "kinds": {"*": ["reason"]}},
        "prod": {"after": "staging", "kinds": {"*": ["reason"]}},
    }
    governed.backend.set_policy("default", {"name": "p", "aliases": aliases}, message="", actor="root")
    with pytest.raises(GateRefused, match="stage"):
        governed.promote("a:v1", reason="x")
    governed.promote("a:v1", to="dev")
    both = tuple(Target(Reference.parse("a:v1"), alias) for alias in ("staging", "prod"))
    with pytest.raises(GateRefused, match="stage"):
        governed.backend.promote("default", PromotionRequest(both, "x"), actor="bob")
    governed.promote("a:v1", to="staging", reason="x")
    governed.promote("a:v2", to="dev")
    governed.promote("a:v2", to="staging", reason="x")
    governed.promote("a:v1", reason="staging once served it")
    with pytest.raises(GateRefused, match="b:v1"):
        governed.promote("b:v1", reason="another collection")


def test_tickets_are_asked_for_and_kept(governed: Governed) -> None:
    governed.set({"ticket": {"pattern": "CHG-[0-9]+"}})
    assert governed.verdict("a:v1") == "INCONCLUSIVE"
    assert governed.verdict("a:v1", ticket="x") == "FAIL"
    assert governed.promote("a:v1", ticket="CHG-7").results[0].evidence == ("CHG-7",)


def test_the_dry_run_says_what_the_promotion_does_and_moves_nothing(governed: Governed) -> None:
    governed.set("reason", "ticket")
    before = governed.entries()
    dry = governed.gate("a:v1", "b:v2", reason="x")
    assert (dry.verdict, dry.protected, dry.policy_number) == (Verdict.INCONCLUSIVE, ("prod",), 1)
    assert dry.moves == ("a:prod nothing -> v1", "b:prod nothing -> v2")
    assert [(r.rule, r.verdict.value, r.subject) for r in dry.results] == [
        ("reason", "PASS", "a:v1"),
        ("ticket", "INCONCLUSIVE", "a:v1"),
        ("reason", "PASS", "b:v2"),
        ("ticket", "INCONCLUSIVE", "b:v2"),
    ]
    assert governed.entries() == before
    wet = governed.gate("a:v1", "b:v2", reason="x", ticket="T").results
    assert governed.promote("a:v1", "b:v2", reason="x", ticket="T").results == wet


def test_what_is_there_already_is_not_judged_again(governed: Governed) -> None:
    governed.promote("a:v1", "b:v1")
    governed.set("ticket")
    made = governed.promote("a:v1")
    assert (made.id, [r.rule for r in made.results]) == ("", ["served-already"])
    dry = governed.gate("a:v1", "b:v2")
    assert [(r.rule, r.verdict.value) for r in dry.results] == [("served-already", "PASS"), ("ticket", "INCONCLUSIVE")]
    assert dry.protected == ("prod",)


def test_withdrawn_versions_and_names_given_twice_are_refused_by_the_dry_run_too(governed: Governed) -> None:
    governed.backend.yank("default", Reference.parse("a:v2"), reason="leaks", actor="ann")
    for ask in (governed.gate, governed.promote):
        with pytest.raises(Yanked):
            ask("a:v2")
        with pytest.raises(InvalidReference):
            ask("a:v1", "a:v3")


def test_compare_and_swap_still_holds(governed: Governed) -> None:
    governed.set("reason")
    governed.promote("a:v1", reason="x", expect={"a": None})
    with pytest.raises(AliasMoved):
        governed.promote("a:v2", reason="x", expect={"a": "v3"})
    governed.promote("a:v2", reason="x", expect={"a": "v1"})


# --- break glass


def test_only_those_whom_the_policy_names_break_the_glass_and_only_with_a_reason(governed: Governed) -> None:
    governed.set("ticket", break_glass={"people": ["ada"]})
    for actor, reason, told in (("bob", "fire", "bob may not break"), ("ada", " ", "needs a reason")):
        with pytest.raises(GateRefused) as caught:
            governed.promote("a:v1", actor=actor, reason=reason, break_glass=True)
        assert any(told in p for p in caught.value.problems)
    assert governed.backend.revision("default") == 0
    made = governed.promote("a:v1", actor="ada", reason="fire", break_glass=True)
    assert (made.break_glass, made.reviewed_by, made.policy) == (
        True,
        "",
        governed.backend.policies("default")[0].digest,
    )
    (entry,) = governed.backend.history("default", Reference.parse("a:prod"))
    assert (entry.break_glass, entry.reviewed_by) == (True, "")
    assert "INCONCLUSIVE" in {r.verdict for r in entry.results}
    assert governed.gate("a:v2", actor="ada", reason="fire", break_glass=True).break_glass
    assert not governed.gate("a:v2", actor="ada", reason="fire").break_glass


def test_glass_is_not_broken_where_nothing_denies_or_nothing_is_protected(governed: Governed) -> None:
    governed.set("reason", break_glass=True)
    assert not governed.promote("a:v1", reason="x", break_glass=True).break_glass
    assert not governed.promote("b:v1", to="free", break_glass=True).break_glass


def test_every_protected_alias_must_let_the_glass_be_broken(governed: Governed) -> None:
    rules = {"kinds": {"*": ["ticket"]}}
    aliases = {"prod": {**rules, "break_glass": True}, "eu": rules}
    governed.backend.set_policy("default", {"name": "p", "aliases": aliases}, message="", actor="root")
    both = tuple(Target(Reference.parse("a:v1"), alias) for alias in ("eu", "prod"))
    with pytest.raises(GateRefused, match="break-glass"):
        governed.backend.promote("default", PromotionRequest(both, "x", break_glass=True), actor="bob")
    assert governed.short.at("a:prod") == "-"


@pytest.mark.parametrize("told", ["tampered", "incompatible", "withdrawn"])
def test_no_glass_is_broken_over_tampering_misfits_and_withdrawn_versions(
    governed: Governed, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Says:
        name = told

        def judge(self, candidate: Candidate) -> GateResult:
            return GateResult(told, told, Verdict.TAMPERED if told == "tampered" else Verdict.FAIL, "no")

    monkeypatch.setitem(plugins._LOADED, ("gates", "ticket"), lambda **_: Says())
    governed.set("ticket" if told == "tampered" else "reason", break_glass=True)
    if told == "incompatible":
        monkeypatch.setattr("llmartifacts.versioning.judge.ALWAYS", ("ticket",))
    if told == "withdrawn":
        governed.backend.yank("default", Reference.parse("a:v1"), reason="leaks", actor="ann")
    with pytest.raises(Refused):
        governed.promote("a:v1", reason="fire", break_glass=True)
    assert governed.short.at("a:prod") == "-"


def test_broken_glass_stays_visible_until_somebody_else_reviews_it(governed: Governed) -> None:
    governed.set("ticket", break_glass=True)
    made = governed.promote("a:v1", actor="Ada  Lovelace", reason="fire", break_glass=True)
    review = governed.backend.review
    for actor in ("Ada  Lovelace", "ada lovelace"):
        with pytest.raises(Refused):
            review("default", made.id, reason="fine", actor=actor)
    for unknown in ("default@r9", "default@r01", "other@r1", "r1", "default@r-1", "default@r" + "1" * 99):
        with pytest.raises(NotFound):
            review("default", unknown, reason="fine", actor="bob")
    plain = governed.promote("b:v1", to="free")
    with pytest.raises(Conflict, match="did not break the glass"):
        review("default", plain.id, reason="fine", actor="bob")
    seen = review("default", made.id, reason="it burned", actor="bob")
    assert (seen.reviewed_by, seen.review, seen.break_glass) == ("bob", "it burned", True)
    assert governed.backend.history("default", Reference.parse("a:prod"))[0].reviewed_by == "bob"
    assert governed.entries()[-1]["verb"] == "review"
    with pytest.raises(Conflict, match="reviewed already, by bob"):
        review("default", made.id, reason="fine", actor="cat")


# --- rollback and removal


def test_a_rollback_needs_no_new_evidence_and_says_what_let_it_pass(governed: Governed) -> None:
    governed.promote("a:v1")
    governed.set("ticket", break_glass=True)
    governed.promote("a:v2", ticket="T-1")
    governed.promote("a:v3", actor="ada", reason="fire", break_glass=True)
    made = governed.short.rollback("a:prod")
    (record,) = made.results
    assert (record.rule, record.verdict, record.subject) == ("served-before", Verdict.PASS, "a:v2")
    assert record.evidence[0] == "default@r2"
    again = governed.short.rollback("a:prod", to="a:v3")
    assert "which broke the glass (not reviewed yet)" in again.results[0].message
    with pytest.raises(Refused, match="never was"):
        governed.short.rollback("b:prod", to="b:v1")


def test_a_protected_alias_is_not_removed(governed: Governed) -> None:
    governed.promote("a:v1")
    governed.promote("a:v1", to="free")
    governed.set("ticket")

    def remove(reference: str) -> Promotion:
        made: Promotion = governed.backend.remove_alias("default", Reference.parse(reference), reason="x", actor="bob")
        return made

    before = len(governed.entries())
    with pytest.raises(Refused, match="is protected by the policy default@p1"):
        remove("a:prod")
    assert (governed.short.at("a:prod"), len(governed.entries())) == ("v1", before)
    assert remove("a:free").verb == "remove"


# --- policies


def test_policies_are_numbered_audited_and_taken_away(governed: Governed) -> None:
    first = governed.set("reason")
    again = governed.set("reason")
    assert (first.number, again.number, again.at) == (1, 1, first.at)
    second = governed.set("ticket")
    assert second.number == 2
    entry = governed.entries()[-1]
    assert (entry["verb"], entry["subject"], entry["actor"]) == ("policy", "default@p2", "root")
    gone = governed.backend.set_policy("default", None, message="over", actor="root")
    assert (gone.number, gone.body) == (3, {})
    governed.promote("a:v1")
    assert [p.number for p in governed.backend.policies("default")] == [3, 2, 1]
    with pytest.raises(Conflict):
        governed.backend.set_policy("default", None, message="over", actor="root")
    assert governed.set("reason").number == 4


def test_a_policy_that_is_none_changes_nothing(governed: Governed) -> None:
    before = len(governed.entries())
    for body in ({"name": "p"}, {"name": "p", "aliases": {"prod": {"kinds": {"*": ["no-such-gate"]}}}}, {}):
        with pytest.raises(InvalidValue):
            governed.backend.set_policy("default", body, message="", actor="root")
    assert (governed.backend.policies("default"), len(governed.entries())) == ([], before)


def test_projects_do_not_see_each_others_policies(governed: Governed) -> None:
    governed.backend.create_project("acme", actor="ann")
    governed.set("ticket", project="acme")
    assert governed.backend.policies("default") == []
    governed.promote("a:v1")
    governed.backend.commit("acme", [Draft("a", Manifest.build("unknown-kind", {}))], actor="ann")
    with pytest.raises(GateRefused):
        governed.backend.promote("acme", PromotionRequest((Target(Reference.parse("acme/a:v1"), "prod"),)), actor="b")


@pytest.mark.parametrize(
    ("damage", "verdict"),
    [
        ("""{"name":"p","aliases":{"prod":{"kinds":{"*":["gone-gate"]}}}}""", "ERROR"),
        ("""{"name":"p"}""", "ERROR"),
        ("not json", "ERROR"),
        ("[]", "ERROR"),
        ("null", "ERROR"),
        ("{}", "ERROR"),
        ("[" * 100_000, "ERROR"),
        ("""{"name":"p","aliases":{"prod":{"kinds":{"*":["reason"]}}}}""", "TAMPERED"),
        ("""{"name":"p","aliases":{"free":{"kinds":{"*":["reason"]}}}}""", "TAMPERED"),
    ],
)
def test_a_stored_policy_that_cannot_be_read_or_was_altered_denies_and_can_be_set_anew(
    governed: Governed, damage: str, verdict: str
) -> None:
    governed.promote("b:v1")
    governed.set("ticket", break_glass=True)
    governed.run("update policy set body = :b", b=damage)
    for more in ({}, {"reason": "x", "break_glass": True}):
        dry = governed.gate("a:v1", **more)
        assert (dry.verdict, dry.break_glass) == (verdict, False)
        with pytest.raises(GateRefused) as caught:
            governed.promote("a:v1", **more)
        assert "policy set FILE" in caught.value.hint()
    with pytest.raises(Refused):
        governed.backend.remove_alias("default", Reference.parse("b:prod"), reason="x", actor="bob")
    assert governed.set("reason").number == 2
    governed.promote("a:v1", reason="mended")


# --- evidence, as it is recorded

SUITE = {
    "name": "suite",
    "dataset": "data:latest",
    "scorers": [{"metric": "m", "type": "equals", "lo": 0.0, "hi": 1.0, "higher_is_better": True}],
    "thresholds": {"m": {"at_least": 0.5}},
}


class Evidence:
    """A suite, its dataset, and reports of it on versions of `a`."""

    def __init__(self, governed: Governed) -> None:
        self.governed = governed
        self.scorer = suite_facts(SUITE).scorers["m"].scorer
        self.data = self.log("data", Manifest.build("eval_dataset", {"n": 1}))
        self.suite = self.log("suite", Manifest.build("eval_suite", SUITE))

    def log(self, name: str, manifest: Manifest, *inputs: Version) -> Version:
        edges = tuple(Input(v.pinned, "evaluated_with") for v in inputs)
        made: Version = self.governed.backend.commit("default", [Draft(name, manifest, inputs=edges)], actor="ci")[0]
        return made

    def find(self, reference: str) -> Version:
        item = self.governed.backend.read("default", [Reference.parse(reference)]).items[0]
        found: Version = item.version
        return found

    def config(self, target: str, value: float = 0.9, ended: str = "", baseline: str = "") -> dict[str, Any]:
        on = self.find(target)
        metric = {
            "name": "m", "value": value, "lower": value - 0.05, "upper": value + 0.05, "n": 400, "lo": 0.0, "hi": 1.0,
            "higher_is_better": True, "alpha": 0.05, "scorer": self.scorer,
        }  # fmt: skip
        made: dict[str, Any] = {
            "suite": {"name": "suite", "digest": self.suite.digest},
            "targets": {target: on.digest},
            "dataset": self.data.digest,
            "metrics": [metric],
            "ended": ended,
        }
        return made | ({"baseline": self.find(baseline).digest} if baseline else {})

    def report(self, target: str, *more: str, name: str = "suite-report", **numbers: Any) -> Version:
        manifest = Manifest.build("report", self.config(target, **numbers))
        return self.log(name, manifest, self.find(target), *map(self.find, more))


@pytest.fixture
def tested(governed: Governed) -> Evidence:
    made = Evidence(governed)
    governed.set({"eval": {"suite": "suite", "max_age": "30d"}})
    return made


def test_a_report_opens_the_alias_for_what_it_is_on_and_for_nothing_else(tested: Evidence) -> None:
    assert tested.governed.verdict("a:v1") == "INCONCLUSIVE"
    report = tested.report("a:v1")
    made = tested.governed.promote("a:v1")
    assert made.results[0].evidence == (str(report.pinned),)
    assert tested.governed.verdict("a:v2") == "INCONCLUSIVE"
    version, found = tested.governed.backend.evidence("default", Reference.parse("a:v1"))
    assert (str(version), [str(r.version) for r in found]) == ("a:v1", ["suite-report:v1"])


def test_the_newest_report_decides_and_logging_the_old_one_again_does_not_make_it_new(tested: Evidence) -> None:
    tested.report("a:v1", ended="2026-01-01T00:00:00Z")
    tested.report("a:v1", value=0.3)
    assert tested.governed.verdict("a:v1") == "FAIL"
    for name in ("suite-report", "elsewhere"):
        tested.report("a:v1", ended="2026-01-01T00:00:00Z", name=name)
        assert tested.governed.verdict("a:v1") == "FAIL"
    assert len(tested.governed.backend.evidence("default", Reference.parse("a:v1"))[1]) == 2


def test_an_old_report_logged_today_is_still_old(tested: Evidence) -> None:
    tested.report("a:v1", ended="2020-01-01T00:00:00Z")
    (found,) = tested.governed.gate("a:v1").results
    assert (found.verdict, "it is stale" in found.message) == (Verdict.INCONCLUSIVE, True)


def test_a_withdrawn_report_counts_no_more_under_whatever_name_it_is_logged(tested: Evidence) -> None:
    report = tested.report("a:v1")
    tested.governed.backend.yank("default", report.reference, reason="wrong key", actor="ann")
    assert tested.governed.verdict("a:v1") == "INCONCLUSIVE"
    tested.report("a:v1", name="elsewhere")
    assert tested.governed.verdict("a:v1") == "INCONCLUSIVE"


def test_a_withdrawn_suite_or_dataset_is_no_evidence(tested: Evidence) -> None:
    tested.report("a:v1")
    assert tested.governed.verdict("a:v1") == "PASS"
    tested.governed.backend.yank("default", tested.data.reference, reason="leaked", actor="ann")
    (found,) = tested.governed.gate("a:v1").results
    assert (found.verdict, "data:v1, was withdrawn: leaked" in found.message) == (Verdict.INCONCLUSIVE, True)
    tested.governed.backend.yank("default", tested.suite.reference, reason="wrong", actor="ann")
    assert "suite:v1 was withdrawn" in tested.governed.gate("a:v1").results[0].message


def test_a_report_on_what_was_compared_with_this_is_no_report_on_this(tested: Evidence) -> None:
    for n in range(120):
        tested.report("a:v2", "a:v1", baseline="a:v1", ended=f"2026-02-01T00:00:{n % 60:02}Z", value=0.6 + n / 1000)
    assert tested.governed.backend.evidence("default", Reference.parse("a:v1"))[1] == ()
    assert len(tested.governed.backend.evidence("default", Reference.parse("a:v2"))[1]) == evidence.MAX_REPORTS
    tested.report("a:v1")
    assert tested.governed.verdict("a:v1") == "PASS"


def test_an_altered_report_is_tampered_with_until_it_is_withdrawn(tested: Evidence) -> None:
    bad = tested.report("a:v1", value=0.4)
    body = Manifest.build("report", tested.config("a:v1", value=0.95)).to_bytes()
    tested.governed.run("update manifest set body = :b where digest = :d", b=body, d=bytes.fromhex(bad.digest[7:]))
    tested.governed.backend._parts._manifests.clear()
    (found,) = tested.governed.gate("a:v1").results
    assert (found.verdict, "suite-report:v1: it was altered" in found.message) == (Verdict.TAMPERED, True)
    tested.governed.set({"eval": {"suite": "suite"}}, break_glass=True)
    with pytest.raises(GateRefused, match="break-glass"):
        tested.governed.promote("a:v1", reason="fire", break_glass=True)
    tested.governed.backend.yank("default", bad.reference, reason="altered", actor="ann")
    tested.report("a:v1")
    assert tested.governed.verdict("a:v1") == "PASS"


def test_a_report_that_no_release_would_write_is_an_error_and_not_a_crash(tested: Evidence) -> None:
    config = tested.config("a:v1")
    config["metrics"][0]["lower"] = 2.0
    tested.log("suite-report", Manifest.build("report", config), tested.find("a:v1"))
    assert tested.governed.verdict("a:v1") == "ERROR"


def test_an_altered_suite_is_tampered_with(tested: Evidence) -> None:
    tested.report("a:v1")
    body = Manifest.build("eval_suite", SUITE | {"thresholds": {"m": {"at_least": 0.0}}}).to_bytes()
    key = bytes.fromhex(tested.suite.digest[7:])
    tested.governed.run("update manifest set body = :b where digest = :d", b=body, d=key)
    tested.governed.backend._parts._manifests.clear()
    assert tested.governed.verdict("a:v1") == "TAMPERED"


def test_a_rollback_to_nothing_is_no_way_around_the_comparison(tested: Evidence) -> None:
    margin = {"m": {"margin": 0.05}}
    tested.governed.set({"eval": {"suite": "suite", "thresholds": margin}})
    tested.report("a:v1")
    tested.governed.promote("a:v1")
    tested.governed.short.rollback("a:prod")
    assert tested.governed.short.at("a:prod") == "-"
    tested.report("a:v2", value=0.6)
    (found,) = tested.governed.gate("a:v2").results
    assert (found.verdict, "which prod served last" in found.message) == (Verdict.INCONCLUSIVE, True)


def test_what_an_approval_must_be_for_is_the_same_for_the_gate_and_for_who_signs(governed: Governed) -> None:
    policy = governed.set("ticket")
    governed.promote("a:v1", ticket="T")
    parts, request = governed.backend._parts, governed.request("b:v2", "a:v3")
    with parts.metadata.reading() as s:
        steps = evidence.steps(s, parts, 1, "default", request, lock=False)
        gates = evidence.bindings(s, "default", [step.moving for step in steps], policy.digest)
    assert list(gates.values()) == approve.bindings(parts, "default", request)


def test_what_a_version_came_from_is_told_with_its_own_project(governed: Governed) -> None:
    governed.backend.create_project("acme", actor="ann")
    governed.backend.commit("acme", [Draft("docs", Manifest.build("files", {}))], actor="zoe")
    governed.short.log("a", "4", inputs=("acme/docs:v1",))
    governed.set("lineage")
    (found,) = governed.gate("a:v4").results
    assert (found.verdict, found.message) == (Verdict.PASS, "it came from acme/docs:v1")


# --- at once


def test_no_move_slips_past_a_policy_that_is_set_at_the_same_time(governed: Governed) -> None:
    strict = {"name": "strict", "aliases": {"prod": {"kinds": {"*": ["ticket"]}}}}
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        return run

    def moves() -> None:
        for n in range(20):
            try:
                governed.promote(f"a:v{n % 3 + 1}")
            except LlmartifactsError as error:
                assert isinstance(error, GateRefused)  # noqa: PT017

    def policies() -> None:
        for n in range(10):
            governed.backend.set_policy("default", strict if n % 2 == 0 else None, message="x", actor="root")

    threads = [threading.Thread(target=guarded(work)) for work in (moves, policies, moves)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    protected = False
    moved = 0
    for entry in governed.entries():
        if entry["verb"] == "policy":
            protected = bool(entry["body"]["protects"])
        if entry["verb"] == "promote":
            moved += 1
            assert not protected, entry
    assert moved


def test_a_policy_waits_for_a_promotion_that_has_read_the_one_before(
    governed: Governed, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go = threading.Event(), threading.Event()

    class Slow:
        name = "slow"

        def judge(self, candidate: Candidate) -> GateResult:
            reading.set()
            go.wait(10)
            return GateResult("slow", "slow", Verdict.PASS, "at last")

    monkeypatch.setitem(plugins._LOADED, ("gates", "ticket"), lambda **_: Slow())
    governed.set("ticket")
    mover = threading.Thread(target=governed.promote, args=("a:v1",))
    setter = threading.Thread(target=governed.set, args=("reason",))
    mover.start()
    assert reading.wait(10)
    setter.start()
    setter.join(0.3)
    assert setter.is_alive()
    go.set()
    mover.join()
    setter.join()
    verbs = [e["verb"] for e in governed.entries()]
    assert verbs[-2:] == ["promote", "policy"]
    assert governed.short.at("a:prod") == "v1"


def test_times_and_digests_of_a_policy_are_what_they_say(governed: Governed) -> None:
    made = governed.set("reason")
    assert made == governed.backend.policies("default")[0]
    assert from_micros(0) < made.at
    assert made.digest != digest_of(b"{}")
    assert replace(made, message="so") == made


def test_a_function_of_the_teams_own_is_asked_before_the_queue_and_once_where_nothing_changed(
    short: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue: list[str] = []
    store = short.backend._parts.metadata
    writing = store.writing

    @contextmanager
    def watched() -> Iterator[Any]:
        with writing() as s:
            queue.append("in")
            yield s
        queue.append("out")

    def answer(function: str, payload: Any, **limits: Any) -> Outcome:
        queue.append("asked")
        return Outcome(value=True)

    short.log("a", "1")
    rules = {"kinds": {"*": [{"python": {"function": "team.gates:ready"}}]}}
    short.backend.set_policy("default", {"name": "p", "aliases": {"prod": rules}}, message="", actor="ann")
    monkeypatch.setattr("llmartifacts.limits.run_limited", answer)
    monkeypatch.setattr(store, "writing", watched)
    assert short.promote("a:v1").moves
    assert queue == ["asked", "in", "out"]


# --- reports that count


def log_as(tested: Evidence, actor: str, config: dict[str, Any], *on: str, vouched: bool, name: str = "r") -> Version:
    edges = tuple(Input(tested.find(one).pinned, "evaluated_with") for one in on)
    draft = Draft(name, Manifest.build("report", config), inputs=edges)
    made: Version = tested.governed.backend.commit("default", [draft], actor=actor, vouched=vouched)[0]
    return made


def test_a_report_of_somebody_who_may_not_vouch_for_it_opens_nothing_until_an_evaluator_logs_it_too(
    tested: Evidence,
) -> None:
    config = tested.config("a:v1")
    report = log_as(tested, "wendy", config, "a:v1", vouched=False)
    found = tested.governed.gate("a:v1")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "r:v1 does not count: wendy logged it" in found.results[0].message
    assert "Let an evaluator" in found.results[0].next_step
    _, reports = tested.governed.backend.evidence("default", Reference.parse("a:v1"))
    assert [r.vouched for r in reports] == [False]
    again = log_as(tested, "eve", config, "a:v1", vouched=True)
    assert (again.number, again.created) == (report.number, False)
    assert tested.governed.verdict("a:v1") == "PASS"
    assert tested.governed.backend.verify().problems == ()


def test_the_same_report_under_another_name_counts_once_an_evaluator_logged_it_there(tested: Evidence) -> None:
    config = tested.config("a:v1")
    log_as(tested, "wendy", config, "a:v1", vouched=False)
    log_as(tested, "eve", config, "a:v1", vouched=True, name="other")
    assert tested.governed.verdict("a:v1") == "PASS"
    log_as(tested, "wendy", config, "a:v1", vouched=False, name="third")
    assert tested.governed.verdict("a:v1") == "PASS"


def test_a_report_that_does_not_count_neither_hides_nor_spoils_one_that_does(tested: Evidence) -> None:
    tested.report("a:v1", value=0.9)
    log_as(tested, "wendy", tested.config("a:v1", value=0.1), "a:v1", vouched=False)
    broken = tested.config("a:v1") | {"metrics": [{"name": "m", "value": "high"}]}
    log_as(tested, "wendy", broken, "a:v1", vouched=False)
    assert tested.governed.verdict("a:v1") == "PASS"
    tested.report("a:v2", value=0.1)
    log_as(tested, "wendy", tested.config("a:v2", value=0.99), "a:v2", vouched=False)
    assert tested.governed.verdict("a:v2") == "FAIL"


def test_however_many_reports_do_not_count_one_that_does_is_found(
    tested: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "MAX_REPORTS", 3)
    monkeypatch.setattr(evidence, "MAX_LOOKED", 3)
    monkeypatch.setattr(evidence, "MAX_UNVOUCHED", 2)
    tested.report("a:v1", value=0.9)
    for i in range(8):
        log_as(tested, "wendy", tested.config("a:v1", value=0.2 + i / 100), "a:v1", vouched=False)
    assert tested.governed.verdict("a:v1") == "PASS"
    _, reports = tested.governed.backend.evidence("default", Reference.parse("a:v1"))
    assert [str(r.version) for r in reports] == ["r:v8", "r:v7", "suite-report:v1"]


def test_other_kinds_need_nobody_to_vouch_for_them(short: Any) -> None:
    short.backend.commit("default", [short.draft("a", "1")], actor="wendy", vouched=False)
    assert "vouched" not in list(short.backend.audit())[-1]["body"]


def test_the_audit_tells_who_vouches_and_a_report_that_is_made_to_count_is_found(tested: Evidence) -> None:
    log_as(tested, "wendy", tested.config("a:v1"), "a:v1", vouched=False)
    assert list(tested.governed.backend.audit())[-1]["body"]["vouched"] is False
    assert tested.governed.backend.verify().problems == ()
    tested.governed.run("update version set vouched = 1")
    told = [str(p) for p in tested.governed.backend.verify().problems]
    assert any("r:v1 counts as evidence, and the audit tells of nobody who vouches for it" in line for line in told)


# --- functions of others, and transactions


def readied(short: Any, monkeypatch: pytest.MonkeyPatch, allowed: Any = None) -> tuple[Any, list[str]]:
    """A backend whose policy asks a function of the team's own; and what happened, in order."""
    short.log("a", "1")
    rules = {"kinds": {"*": [{"python": {"function": "team.gates:ready"}}]}}
    short.backend.set_policy("default", {"name": "p", "aliases": {"prod": rules}}, message="", actor="ann")
    seen: list[str] = []
    store = short.backend._parts.metadata
    reading, writing = store.reading, store.writing

    def watched(name: str, begin: Any) -> Any:
        @contextmanager
        def transaction() -> Iterator[Any]:
            with begin() as s:
                seen.append(name)
                try:
                    yield s
                finally:
                    seen.append(f"/{name}")

        return transaction

    def answer(function: str, payload: Any, **limits: Any) -> Outcome:
        seen.append(f"asked v{payload['moving'][0]['version']}")
        return Outcome(value=True)

    monkeypatch.setattr("llmartifacts.limits.run_limited", answer)
    monkeypatch.setattr(store, "writing", watched("write", writing))
    monkeypatch.setattr(store, "reading", watched("read", reading))
    return short.backend, seen


def outside(seen: list[str]) -> bool:
    """Whether nobody was asked anything while a transaction was open."""
    depth = 0
    for one in seen:
        depth += 0 if one.startswith("asked") else -1 if one.startswith("/") else 1
        if one.startswith("asked") and depth:
            return False
    return any(one.startswith("asked") for one in seen)


def test_no_function_is_asked_while_a_transaction_is_open(short: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, seen = readied(short, monkeypatch)
    asked = PromotionRequest((Target(Reference.parse("a:v1"), "prod"),))
    assert backend.gate("default", asked, actor="bob").verdict is Verdict.PASS
    assert outside(seen)
    seen.clear()
    assert short.promote("a:v1").moves
    assert outside(seen)


def test_logging_to_an_alias_asks_about_the_version_to_be_and_then_logs_it_once(
    short: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, seen = readied(short, monkeypatch)
    made = short.log("a", "2", aliases=("prod",))
    assert (made.number, made.created, short.at("a:prod")) == (2, True, "v2")
    assert outside(seen)
    assert [s for s in seen if s.startswith("asked")] == ["asked v2"]
    assert [str(v) for v in backend.versions("default", "a")] == ["a:v2", "a:v1"]


def test_inside_a_transaction_of_the_caller_answers_are_given_and_what_changed_is_asked_again(
    short: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, seen = readied(short, monkeypatch)
    request = PromotionRequest((Target(Reference.parse("a:latest"), "prod"),))
    given = backend.asked("default", request, actor="bob")
    short.log("a", "2")

    def unit_of_work(answers: Answers) -> Promotion:
        with backend.parts.metadata.writing():
            made: Promotion = backend.promote("default", request, actor="bob", answers=answers)
            return made

    made = answering(unit_of_work, given)
    assert made.moves[0].new == 2
    assert outside(seen)
    assert [s for s in seen if s.startswith("asked")] == ["asked v1", "asked v2"]


def test_what_keeps_changing_is_given_up_and_nothing_moves(short: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, _ = readied(short, monkeypatch)
    request = PromotionRequest((Target(Reference.parse("a:latest"), "prod"),))

    def attempt(answers: Answers) -> Promotion:
        short.log("a", f"{len(answers)} once more")
        made: Promotion = backend.promote("default", request, actor="bob", answers=answers)
        return made

    with pytest.raises(Busy, match="must be asked first"):
        answering(attempt)
    assert short.at("a:prod") == "-"


def test_a_server_runs_no_function_but_those_that_its_operator_allowed(
    short: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, seen = readied(short, monkeypatch)
    request = PromotionRequest((Target(Reference.parse("a:v1"), "prod"),))
    decided = backend.guarded().gate("default", request, actor="bob")
    assert decided.verdict is Verdict.ERROR
    assert "does not allow team.gates:ready" in decided.results[0].message
    assert "--allow-gate" in decided.results[0].next_step
    with pytest.raises(GateRefused):
        backend.guarded(allowed_gates=["team.gates:other"]).promote("default", request, actor="bob")
    assert not any(s.startswith("asked") for s in seen)
    allowed = backend.guarded(allowed_gates=["team.gates:ready"])
    assert allowed.promote("default", request, actor="bob").moves


def test_a_policy_that_names_a_function_that_is_not_allowed_is_refused_when_it_is_set(short: Any) -> None:
    gate = {"any_of": [{"ticket": {}}, {"python": {"function": "os:getcwd"}}]}
    body = {"name": "p", "aliases": {"prod": {"kinds": {"*": [gate]}}}}
    short.log("a", "1")
    guarded = short.backend.guarded(allowed_gates=["team.gates:ready"])
    with pytest.raises(InvalidValue, match="does not allow os:getcwd") as caught:
        guarded.set_policy("default", body, message="", actor="root")
    assert "--allow-gate" in caught.value.hint()
    assert guarded.policies("default") == []
