"""Policies: what one may say, what is wrong with one, and what its gates come to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmartifacts import plugins
from llmartifacts.errors import InvalidInput, InvalidValue, TooLarge
from llmartifacts.gates.base import AllOf, AnyOf, Candidate, Moving, judge
from llmartifacts.gates.policy import MAX_GATES, MAX_NESTING, Policy, within
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.version import Version


def body(*gates: Any, kind: str = "*", **rules: Any) -> dict[str, Any]:
    return {"name": "p", "aliases": {"prod": {**rules, "kinds": {kind: list(gates)}}}}


def moving(kind: str = "prompt", alias: str = "prod", **more: Any) -> Moving:
    manifest = Manifest.build(kind, {})
    made = Version("default", "agent", kind, 2, manifest.digest, datetime(2026, 1, 1, tzinfo=UTC))
    return Moving(alias, made, manifest, None, **more)


def ask(policy: Policy, one: Moving | None = None, **more: Any) -> list[GateResult]:
    one = one or moving()
    return policy.judge(Candidate("default", (one,), **more), one)


def verdicts(policy: Policy, one: Moving | None = None, **more: Any) -> list[tuple[str, str]]:
    return [(r.gate, r.verdict.value) for r in ask(policy, one, **more)]


class Plugged:
    """A gate as another package brings one: options of its own, declared as arguments."""

    name = "plugged"

    def __init__(self, *, level: int = 1, mode: str = "") -> None:
        if mode == "broken":
            raise ZeroDivisionError("no level \x1b[31m")
        self.level, self.mode = level, mode

    def judge(self, candidate: Candidate) -> Any:
        return {
            "": GateResult("plugged", "plugged", Verdict.PASS, f"level {self.level}"),
            "list": GateResult("plugged", "plugged", Verdict.PASS, "yes", evidence=["x"]),  # type: ignore[arg-type]
            "long": GateResult("plugged", "plugged", Verdict.FAIL, "\x1b[2J\ud800" * 9999, evidence=("e",) * 9999),
            "text": GateResult("plugged", "plugged", "PASS", "yes"),  # type: ignore[arg-type]
        }[self.mode]


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The gate is installed; returns what uninstalls it."""
    monkeypatch.setitem(plugins._LOADED, ("gates", "plugged"), Plugged)
    names = plugins.names
    here = {"gates": ["plugged"]}
    monkeypatch.setattr(plugins, "names", lambda socket: sorted([*names(socket), *here.get(socket, [])]))

    def uninstall() -> None:
        here.clear()
        monkeypatch.delitem(plugins._LOADED, ("gates", "plugged"))

    return uninstall


# --- what the gates of a policy say


def test_an_alias_that_is_not_named_is_free_and_one_that_is_asks_its_gates() -> None:
    policy = Policy.of(body("reason"))
    assert ask(policy, moving(alias="staging")) == []
    assert verdicts(policy) == [("reason", "INCONCLUSIVE")]
    assert verdicts(policy, reason="better") == [("reason", "PASS")]
    assert policy.protected == ("prod",)


def test_a_kind_takes_its_own_gates_or_those_of_the_star_and_without_any_nothing_passes() -> None:
    rules = {"prompt": ["reason"], "*": ["ticket"], "bundle": []}
    policy = Policy.of({"name": "p", "aliases": {"prod": {"kinds": rules}}})
    assert verdicts(policy)[0][0] == "reason"
    assert verdicts(policy, moving("files"))[0][0] == "ticket"
    (empty,) = ask(policy, moving("bundle"), reason="x", ticket="y")
    assert (empty.verdict, empty.rule) == (Verdict.ERROR, "policy")
    assert empty.next_step == "Add them under aliases.prod.kinds, or under '*'."
    for bare in ({}, {"kinds": {}}, {"reason": True}, {"after": "staging"}):
        policy = Policy.of({"name": "p", "aliases": {"prod": bare}})
        assert verdicts(policy, moving(stages=frozenset({"staging"})), reason="x") == [("policy", "ERROR")]


def test_stages_and_reasons_are_asked_besides_the_gates() -> None:
    policy = Policy.of(body("ticket", after="staging", reason=True))
    assert [v for _, v in verdicts(policy)] == ["INCONCLUSIVE"] * 3
    passed = verdicts(policy, moving(stages=frozenset({"staging"})), reason="x", ticket="CHG-1")
    assert passed == [("stage", "PASS"), ("reason", "PASS"), ("ticket", "PASS")]


def test_any_of_and_all_of_nest_and_name_what_denied() -> None:
    spec = {"any_of": [{"ticket": {"pattern": "EMERGENCY-[0-9]+"}}, {"all_of": ["reason", {"stage": {"after": "qa"}}]}]}
    policy = Policy.of(body(spec))
    assert verdicts(policy, ticket="EMERGENCY-7") == [("any-of", "PASS")]
    assert verdicts(policy, moving(stages=frozenset({"qa"})), reason="x") == [("any-of", "PASS")]
    (denied,) = ask(policy, ticket="CHG-1", reason="x")
    assert denied.verdict is Verdict.FAIL
    assert "'CHG-1' is no such ticket" in denied.message
    assert "qa never served agent:v2" in denied.message
    kinds = [type(g) for g in within(policy.gates("prod", "prompt"))]
    assert kinds[0] is AnyOf
    assert kinds[2] is AllOf


def test_any_of_lists_only_the_evidence_of_what_passed() -> None:
    class Says:
        def __init__(self, verdict: Verdict) -> None:
            self.name = verdict.value

        def judge(self, candidate: Candidate) -> GateResult:
            return GateResult(self.name, self.name, Verdict(self.name), "so", evidence=(self.name,))

    one = Candidate("default", (moving(),))
    assert AnyOf([Says(Verdict.FAIL), Says(Verdict.PASS)]).judge(one).evidence == ("PASS",)
    assert AnyOf([Says(Verdict.FAIL), Says(Verdict.ERROR)]).judge(one).evidence == ("FAIL", "ERROR")


@pytest.mark.parametrize("rules", [{"any_of": []}, {"all_of": []}, {"all_of": None}, {"any_of": "reason"}])
def test_an_empty_combination_cannot_be_written(rules: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match="is a list of 1 to 200 gates"):
        Policy.of(body(rules))


def test_break_glass_is_for_those_who_are_named() -> None:
    def may(allowed: Any, person: str, *roles: str) -> bool:
        return Policy.of(body("reason", break_glass=allowed)).may_break_glass("prod", person, roles)

    assert may({"people": ["ada"]}, "ada")
    assert may({"roles": ["on-call"]}, "bob", "on-call", "ops")
    assert may(True, "anybody")
    for closed in (False, {}, {"people": []}, {"people": ["ada"]}):
        assert not may(closed, "bob", "ops")
    assert not Policy.of(body("reason")).may_break_glass("prod", "ada", ())
    assert not Policy.of(body("reason", break_glass=True)).may_break_glass("staging", "ada", ())


# --- what is wrong is told with field, line and near names


@pytest.mark.parametrize(
    ("text", "line", "field", "hint"),
    [
        ("nam: p\naliases: {prod: {kinds: {'*': [reason]}}}\n", 1, "nam", "name"),
        ("name: p\naliases:\n  prod:\n    kind: {}\n", 4, "aliases.prod.kind", "kinds"),
        (
            "name: p\naliases:\n  prod:\n    break_glass: {peple: [ada]}\n",
            4,
            "aliases.prod.break_glass.peple",
            "people",
        ),
        (
            "name: p\naliases:\n  prod:\n    kinds:\n      '*':\n      - reason\n      - aproval: {}\n",
            7,
            "aliases.prod.kinds.*[1]",
            "approvals",
        ),
        (
            "name: p\naliases:\n  prod:\n    kinds:\n      '*':\n      - approvals:\n          cuont: 2\n",
            7,
            "aliases.prod.kinds.*[0].approvals.cuont",
            "count",
        ),
        (
            "name: p\naliases:\n  prod:\n    kinds:\n      '*':\n      - any_of:\n        - reason\n        - ticket:\n"
            "            pattern: '('\n",
            9,
            "aliases.prod.kinds.*[0].any_of[1].ticket.pattern",
            "",
        ),
        (
            "name: p\naliases:\n  prod:\n    kinds: {vector_indx: [reason]}\n",
            4,
            "aliases.prod.kinds.vector_indx",
            "index",
        ),
        ("name: p\naliases:\n  prod:\n    after: Staging\n", 4, "aliases.prod.after", ""),
        ("name: p\naliases:\n  prod:\n    after: latest\n", 4, "aliases.prod.after", ""),
        ("name: p\naliases:\n  prod:\n    after: prod\n", 4, "aliases.prod.after", ""),
        ("name: p\naliases:\n  Prod: {}\n", 3, "aliases.Prod", "lower case"),
        ("name: p\naliases:\n  latest: {}\n", 3, "aliases.latest", "prod or staging"),
        ("name: p\naliases:\n  prod:\n    kinds:\n      '*': reason\n", 5, "aliases.prod.kinds.*", ""),
        ("name: p\naliases:\n  prod:\n    reason: 'yes'\n", 4, "aliases.prod.reason", ""),
        ("name: p\naliases: {}\n", 2, "aliases", ""),
        ("name: p\n", 1, "aliases", ""),
        ("name: ''\naliases: {prod: {}}\n", 1, "name", ""),
        ("- 1\n", 1, "policy", ""),
    ],
)
def test_a_slip_is_told_with_its_line_its_field_and_what_may_be_meant(
    text: str, line: int, field: str, hint: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        Policy.from_yaml(text.encode(), origin="p.yaml")
    error = caught.value
    assert (error.field, error.origin) == (field, f"p.yaml, line {line}")
    assert hint in error.hint()


def test_yaml_that_is_none_is_told_with_its_line() -> None:
    for text in (b"name: [\n", b"name: &a p\n", b"name: p\nname: q\n", b"\xff"):
        with pytest.raises(InvalidValue):
            Policy.from_yaml(text, origin="p.yaml")


def nested(depth: int) -> Any:
    spec: Any = "reason"
    for _ in range(depth):
        spec = {"all_of": [spec]}
    return spec


@pytest.mark.parametrize(
    "hostile",
    [
        body(*["reason"] * 10_000),
        body({"any_of": [{"any_of": ["reason"] * 150}, {"any_of": ["reason"] * 150}]}),
        body(nested(MAX_NESTING + 1)),
        body(nested(30)),
        body(nested(2000)),
        body({"ticket": {"pattern": "x" * 300_000}}),
        body({"ticket": {"pattern": "*"}}),
        body({"ticket": {"pattern": "("}}),
        body({"ticket": {"pattern": "a{99999999999}"}}),
        body({"ticket": {"pattern": 7}}),
        body({"ticket": {"pattern": ""}}),
        body({"no-such-gate": {}}),
        body({"llmartifacts.gates.words:TicketGate": {}}),
        body({"__init__": {}}),
        body({"reason": {"self": 1}}),
        body({"approvals": {"count": math.nan}}),
        body({"approvals": {"count": 2.0}}),
        body({"approvals": {"count": 0}}),
        body({"python": {"function": "os:system; x", "seconds": 1}}),
        body({"python": {"function": "os:system", "seconds": 1e9}}),
        body({"python": {"function": "os:system", "seconds": math.inf}}),
        body({"reason": [1]}),
        body({"reason": {}, "ticket": {}}),
        body(None),
        body(7),
        body([]),
        body("reason", kind="a b"),
        body("reason", kind=""),
        {"name": "p", "aliases": {f"a{i}": {} for i in range(65)}},
        {"name": "p" * 129, "aliases": {"prod": {}}},
        {"name": "p", "aliases": {"prod": {}}, "description": "x" * 5000},
        {"name": "\ud800", "aliases": {"prod": {}}},
        {"name": "p", "aliases": {"prod": {"after": "\x1b[2J"}}},
        {1: "p"},
        [],
        None,
        "reason",
    ],
)
def test_a_hostile_policy_is_refused_in_words(hostile: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        Policy.of(hostile)
    assert caught.value.message


def test_a_huge_file_is_refused_before_it_is_parsed() -> None:
    with pytest.raises((TooLarge, InvalidValue)):
        Policy.from_yaml(b"name: p\n" + b"# " + b"x" * 300_000)
    deep = "aliases: " + "{a: " * 100 + "1" + "}" * 100
    with pytest.raises((TooLarge, InvalidValue)):
        Policy.from_yaml(deep.encode())


def test_as_many_gates_as_are_allowed_are_taken() -> None:
    assert len(Policy.of(body(*["reason"] * MAX_GATES)).gates("prod", "prompt")) == MAX_GATES
    assert Policy.of(body(nested(MAX_NESTING))).protected == ("prod",)


def test_reading_a_policy_of_built_in_gates_looks_for_no_plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_entry_points", lambda socket: pytest.fail("that takes milliseconds for each gate"))
    Policy.of(body(*["reason", "ticket", {"eval": {"suite": "s"}}] * 60, kind="prompt", after="staging"))


# --- identity


def test_the_digest_ignores_description_key_order_and_defaults_written_out() -> None:
    one = Policy.of({"name": "p", "aliases": {"prod": {"reason": True, "kinds": {"*": ["reason"]}}}})
    for same in (
        {"aliases": {"prod": {"kinds": {"*": ["reason"]}, "reason": True}}, "name": "p", "description": "read me"},
        {
            "name": "p",
            "aliases": {
                "prod": {
                    "reason": True,
                    "after": None,
                    "break_glass": False,
                    "kinds": one.plain["aliases"]["prod"]["kinds"],
                }
            },
        },
    ):
        assert Policy.of(same).digest == one.digest


@pytest.mark.parametrize(
    "other",
    [
        {"name": "q", "aliases": {"prod": {"reason": True, "kinds": {"*": ["reason"]}}}},
        {"name": "p", "aliases": {"prod": {"kinds": {"*": ["reason"]}}}},
        {"name": "p", "aliases": {"prod": {"reason": True, "kinds": {"prompt": ["reason"]}}}},
        {"name": "p", "aliases": {"prod": {"reason": True, "kinds": {"*": ["reason", "reason"]}}}},
        {"name": "p", "aliases": {"prod": {"reason": True, "kinds": {"*": [{"ticket": {}}]}}}},
        {"name": "p", "aliases": {"prod": {"reason": True, "break_glass": True, "kinds": {"*": ["reason"]}}}},
        {"name": "p", "aliases": {"qa": {"reason": True, "kinds": {"*": ["reason"]}}}},
    ],
)
def test_the_digest_changes_with_anything_else(other: dict[str, Any]) -> None:
    one = Policy.of({"name": "p", "aliases": {"prod": {"reason": True, "kinds": {"*": ["reason"]}}}})
    assert Policy.of(other).digest != one.digest


def test_the_order_of_gates_is_part_of_a_policy() -> None:
    assert Policy.of(body("reason", "ticket")).digest != Policy.of(body("ticket", "reason")).digest


def test_a_policy_comes_back_from_plain_json_as_it_was(repository: Path) -> None:
    for file in sorted((repository / "policies").glob("*.yaml")):
        policy = Policy.from_yaml(file.read_bytes(), origin=file.name)
        again = Policy.of(policy.plain)
        assert (again.plain, again.digest) == (policy.plain, policy.digest)


# --- gates that other packages bring


def test_a_gate_of_another_package_takes_its_own_options(plugged: Any) -> None:
    policy = Policy.of(body({"plugged": {"level": 3}}))
    assert [r.message for r in ask(policy)] == ["level 3"]
    with pytest.raises(InvalidValue, match="lvl") as caught:
        Policy.of(body({"plugged": {"lvl": 3}}))
    assert caught.value.field == "aliases.prod.kinds.*[0].plugged"


def test_a_gate_that_fails_while_it_is_made_is_told_in_words_that_act_on_nothing(plugged: Any) -> None:
    with pytest.raises(InvalidValue, match="ZeroDivisionError: no level") as caught:
        Policy.of(body({"plugged": {"mode": "broken"}}))
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("mode", ["list", "text"])
def test_a_gate_whose_answer_has_not_the_form_of_one_is_an_error(plugged: Any, mode: str) -> None:
    (found,) = ask(Policy.of(body({"plugged": {"mode": mode}})))
    assert found.verdict is Verdict.ERROR
    assert hash(found)


def test_a_gate_that_says_too_much_is_cut_and_what_it_says_acts_on_nothing(plugged: Any) -> None:
    (found,) = ask(Policy.of(body({"plugged": {"mode": "long"}})))
    assert len(found.message) <= 4000
    assert len(found.evidence) <= 1000
    assert found.message.isprintable()


def test_a_gate_that_is_gone_makes_the_policy_unreadable(plugged: Callable[[], None]) -> None:
    plain = Policy.of(body("plugged")).plain
    plugged()
    with pytest.raises(InvalidValue, match="no gate is called 'plugged'"):
        Policy.of(plain)


def test_a_crash_in_a_gate_is_an_error_whose_text_acts_on_nothing() -> None:
    class Crashes:
        @property
        def name(self) -> str:
            raise RuntimeError("\x1b[2J\ud800")

        def judge(self, candidate: Candidate) -> GateResult:
            raise AssertionError

    one = moving()
    found = judge(Crashes(), replace(Candidate("default", (one,)), subject=one))
    assert (found.verdict, found.subject) == (Verdict.ERROR, "agent:v2")
    assert found.message.isprintable()
    found.message.encode()
