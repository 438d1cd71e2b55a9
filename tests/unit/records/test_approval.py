"""An approval lapses when a bound field changes, names which, and lapses for nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidInput, InvalidReference
from llmartifacts.records.approval import (
    Binding,
    Serving,
    Subject,
    approval_id,
    approval_number,
    check_person,
    check_roles,
    mismatches,
    same_person,
)
from llmartifacts.records.digest import digest_of


def d(text: str):
    return digest_of(text.encode())


AGENT = Subject("agent", 2, d("agent 2"))
KB = Subject("kb", 5, d("kb 5"))
BOUND = Binding(
    "default",
    "prod",
    (AGENT, KB),
    {"agent": Serving(d("agent 1"), 4), "kb": Serving(None, 0)},
    d("policy"),
    "llmartifacts/0123456789abcdef",
)


def test_nothing_changed_so_nothing_is_told() -> None:
    assert mismatches(BOUND, BOUND) == []
    assert mismatches(BOUND, replace(BOUND, subjects=BOUND.subjects[::-1])) == [], "the order is no part of it"


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (
            replace(BOUND, registry="llmartifacts/fedcba9876543210"),
            "it is for the registry llmartifacts/0123456789abcdef, and this is llmartifacts/fedcba9876543210",
        ),
        (replace(BOUND, project="acme"), "it is for the project default, not for acme"),
        (replace(BOUND, alias="staging"), "it is for prod, not for staging"),
        (replace(BOUND, subjects=(Subject("agent", 3, d("agent 3")), KB)), "agent is v3 now, the approval is for v2"),
        (replace(BOUND, subjects=(AGENT,)), "the approval covers kb:v5 too, which does not move"),
        (
            replace(BOUND, subjects=(AGENT, KB, Subject("docs", 1, d("docs")))),
            "docs:v1 moves too, and the approval does not cover it",
        ),
        (
            replace(BOUND, serving={**BOUND.serving, "agent": Serving(d("agent 1"), 5)}),
            "prod of agent has moved since (move 4, now 5)",
        ),
        (
            replace(BOUND, serving={**BOUND.serving, "agent": Serving(d("agent 0"), 4)}),
            "prod of agent serves something else than when it was approved",
        ),
        (
            replace(BOUND, serving={**BOUND.serving, "kb": Serving(d("kb 1"), 1)}),
            "prod of kb has moved since (move 0, now 1)",
        ),
        (replace(BOUND, policy=d("stricter")), "the policy has changed since"),
        (replace(BOUND, policy=None), "no policy is in force any more"),
    ],
)
def test_each_bound_field_lapses_it_and_is_named(now: Binding, told: str) -> None:
    assert mismatches(BOUND, now) == [told]


def test_a_policy_that_comes_into_force_lapses_it() -> None:
    before = replace(BOUND, policy=None)
    assert mismatches(before, BOUND) == ["a policy is in force now, and there was none"]


def test_the_same_number_with_another_digest_is_another_version() -> None:
    forged = replace(BOUND, subjects=(Subject("agent", 2, d("else")), KB))
    (told,) = mismatches(BOUND, forged)
    assert told.startswith("agent:v2 has the digest ")


def test_a_collection_named_twice_never_fits() -> None:
    twice = replace(BOUND, subjects=(AGENT, KB, KB))
    assert mismatches(twice, BOUND)
    assert mismatches(BOUND, twice)


names = st.sampled_from(["agent", "kb", "docs"])
servings = st.builds(Serving, st.none() | st.sampled_from([d("1"), d("2")]), st.integers(0, 2))


@st.composite
def binding(draw: st.DrawFn) -> Binding:
    of = sorted(draw(st.sets(names, min_size=1)))
    numbers = {name: draw(st.integers(1, 2)) for name in of}
    subjects = tuple(Subject(name, numbers[name], d(f"{name} {numbers[name]}")) for name in of)
    serving = {name: draw(servings) for name in of}
    alias, project = draw(st.sampled_from(["prod", "staging"])), draw(st.sampled_from(["a", "b"]))
    policy, registry = draw(st.none() | st.sampled_from([d("p"), d("q")])), draw(st.sampled_from(["r", "s"]))
    return Binding(project, alias, subjects, serving, policy, registry)


@given(binding(), binding())
def test_an_approval_holds_exactly_while_every_bound_field_is_equal(then: Binding, now: Binding) -> None:
    assert (mismatches(then, now) == []) is (then == now)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada", "ada"),
        ("Ada Lovelace", "ada  lovelace "),
        ("J\u00f6rg", "Jo\u0308rg"),
        ("STRASSE", "stra\u00dfe"),
        ("ada", "\uff41\uff44\uff41"),
        ("ada", "a\u0301da".replace("\u0301", "\u034f")),
        ("ada", "ada\ufe0f"),
        ("ada", "\u3164ada"),
        ("\ufb01nn", "Finn"),
        ("\u0130pek", "i\u0307pek"),
    ],
)
def test_one_person_by_two_spellings_is_one(one: str, other: str) -> None:
    assert same_person(one) == same_person(other)


@given(st.text())
def test_a_name_that_was_compared_stays_as_it_is(name: str) -> None:
    assert same_person(same_person(name)) == same_person(name)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a" * 300, 7, None, "\x1b[2J"])
def test_a_person_is_a_short_line_of_text(name: object) -> None:
    with pytest.raises(InvalidInput):
        check_person(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("roles", [["ML Lead"], ["a,b"], [""], [7], {"a": 1}, 7, ["x" * 65], ["ml-lead\n"]])
def test_a_role_is_a_lower_case_word(roles: object) -> None:
    with pytest.raises(InvalidInput):
        check_roles(roles)


def test_roles_are_sorted_and_one_string_is_one_role() -> None:
    assert check_roles(["b", "a", "b"]) == ("a", "b")
    assert check_roles("ml-lead") == ("ml-lead",)


def test_an_approval_is_named_by_its_project_and_number() -> None:
    assert approval_id("acme", 12) == "acme@a12"
    for text in ("acme@a12", "a12", "12"):
        assert approval_number(text, "acme") == 12


@pytest.mark.parametrize("text", ["default@a12", "acme@r12", "", "a", "a0", "-1", "acme@a1x", "1" * 30, "٣"])
def test_what_is_no_approval_of_the_project_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        approval_number(text, "acme")
