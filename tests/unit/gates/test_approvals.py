"""The gate `approvals`: who counts, who does not, and that each refusal names its reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llmartifacts.errors import InvalidValue
from llmartifacts.gates.approvals import ApprovalsGate
from llmartifacts.gates.base import Ancestor, Candidate, Moving, Trail
from llmartifacts.records.approval import Approval, Binding, Serving, Subject
from llmartifacts.records.digest import digest_of
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.policy import Verdict
from llmartifacts.records.version import Version

NOW = datetime(2026, 3, 3, 9, tzinfo=UTC)
MANIFEST = Manifest.build("prompt", {"text": "hello"})
VERSION = Version("default", "agent", "prompt", 2, MANIFEST.digest, NOW, author="zoe")
BOUND = Binding(
    "default",
    "prod",
    (Subject("agent", 2, MANIFEST.digest),),
    {"agent": Serving(digest_of(b"v1"), 4)},
    digest_of(b"policy"),
)
CANDIDATE = Candidate(
    "default", (Moving("prod", VERSION, MANIFEST, None),), actor="zoe", at=NOW, binding=BOUND, policy=BOUND.policy
)


def yes(person: str, number: int = 1, *, roles: tuple[str, ...] = (), **more: Any) -> Approval:
    made = Approval(f"default@a{number}", BOUND, person, f"{number:064x}", roles, "fine", NOW - timedelta(hours=1))
    return replace(made, **more)


def judged(*approvals: Approval, candidate: Candidate = CANDIDATE, **options: Any) -> Any:
    return ApprovalsGate(**options).judge(replace(candidate, approvals=approvals))


def test_one_person_other_than_the_author_is_enough_by_default() -> None:
    result = judged(yes("ada", roles=("ml-lead",)))
    assert result.verdict is Verdict.PASS
    assert result.message == "approved by ada (ml-lead)"
    assert result.evidence == ("default@a1",)


def test_without_any_approval_the_next_step_is_the_command_to_type() -> None:
    result = judged()
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.message == "0 of 1 approval for agent:v2 -> prod"
    assert "llmartifacts approve agent:v2 --to prod --key NAME" in result.next_step
    elsewhere = replace(CANDIDATE, project="acme", binding=replace(BOUND, project="acme"))
    assert "approve acme/agent:v2 --to prod" in judged(candidate=elsewhere).next_step


def test_two_people_are_counted_however_their_names_are_spelled() -> None:
    assert judged(yes("ada", 1), yes("bob", 2), count=2).verdict is Verdict.PASS
    result = judged(yes("ada", 1), yes("Ada ", 2), count=2)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "default@a2 by Ada  counts once with default@a1: the same person" in result.message


def test_one_person_with_two_keys_counts_once() -> None:
    result = judged(yes("ada", 1, key="1" * 64), yes("ada", 2, key="2" * 64), count=2)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "1 of 2 approvals" in result.message
    assert "the same person" in result.message


@pytest.mark.parametrize("author", ["zoe", "ZOE", " Zoe"])
def test_the_author_never_counts(author: str) -> None:
    result = judged(yes(author))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "is the author of agent:v2" in result.message


def test_the_author_of_any_component_that_moves_does_not_count() -> None:
    other = Version("default", "kb", "vector_index", 5, digest_of(b"kb"), NOW, author="ada")
    both = replace(CANDIDATE, moving=(*CANDIDATE.moving, Moving("prod", other, MANIFEST, None)))
    assert "ada is the author of kb:v5" in judged(yes("ada"), candidate=both).message
    assert judged(yes("bob"), candidate=both).verdict is Verdict.PASS


def test_the_author_of_a_part_of_a_bundle_does_not_count() -> None:
    part = Version("default", "kb", "vector_index", 5, digest_of(b"kb"), NOW, author="ada")
    source = Version("default", "docs", "files", 1, digest_of(b"docs"), NOW, author="bob")
    trail = Trail((Ancestor(part, "contains"), Ancestor(source, "derived_from")))
    bundle = replace(CANDIDATE, moving=(replace(CANDIDATE.moving[0], trail=trail, parts=(part,)),))
    assert "ada is the author of kb:v5" in judged(yes("ada"), candidate=bundle).message
    assert judged(yes("bob"), candidate=bundle).verdict is Verdict.PASS, "who wrote the documents is no author of it"


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (replace(BOUND, policy=digest_of(b"else")), "the policy has changed since"),
        (replace(BOUND, serving={"agent": Serving(digest_of(b"v1"), 6)}), "has moved since (move 4, now 6)"),
        (replace(BOUND, alias="staging"), "it is for prod, not for staging"),
        (replace(BOUND, project="acme"), "it is for the project default, not for acme"),
        (replace(BOUND, subjects=(Subject("agent", 3, digest_of(b"3")),)), "agent is v3 now, the approval is for v2"),
    ],
)
def test_one_that_lapsed_is_named_with_what_changed(now: Binding, told: str) -> None:
    result = judged(yes("ada"), candidate=replace(CANDIDATE, binding=now))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "default@a1 by ada does not count: it has lapsed: " in result.message
    assert told in result.message


def test_a_move_of_another_alias_voids_nothing() -> None:
    """What `latest` or `staging` point at is no part of a binding: nothing of it could change."""
    assert set(BOUND.serving) == {"agent"}
    moved = replace(CANDIDATE, moving=(replace(CANDIDATE.moving[0], stages=frozenset({"staging", "canary"})),))
    assert judged(yes("ada"), candidate=moved).verdict is Verdict.PASS


def test_one_that_expired_says_when() -> None:
    result = judged(yes("ada", expires=NOW))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "it expired on 2026-03-03T09:00:00.000000Z" in result.message
    assert judged(yes("ada", expires=NOW + timedelta(seconds=1))).verdict is Verdict.PASS


def test_the_policy_may_say_how_old_one_may_be() -> None:
    assert judged(yes("ada"), max_age="2h").verdict is Verdict.PASS
    result = judged(yes("ada", at=NOW - timedelta(days=3)), max_age="2d")
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "it is 3 days old, and 2 days is the most" in result.message


def test_one_dated_in_the_future_does_not_count_though_clocks_may_differ_a_little() -> None:
    assert judged(yes("ada", at=NOW + timedelta(minutes=2)), max_age="1d").verdict is Verdict.PASS
    assert "which is to come" in judged(yes("ada", at=NOW + timedelta(days=300)), max_age="1d").message


def test_a_void_one_says_why_and_a_good_one_beside_it_counts() -> None:
    void = yes("ada", 1, problem="the key 0123 of ada was revoked on 2026-01-01: lost", verdict=Verdict.INCONCLUSIVE)
    assert "was revoked on 2026-01-01: lost" in judged(void).message
    assert judged(void, yes("bob", 2)).verdict is Verdict.PASS


def test_a_problem_denies_even_where_the_verdict_says_pass() -> None:
    assert judged(yes("ada", problem="odd")).verdict is Verdict.INCONCLUSIVE
    assert judged(yes("ada", verdict=Verdict.ERROR)).verdict is Verdict.INCONCLUSIVE
    assert judged(yes("ada", binding=None)).verdict is Verdict.INCONCLUSIVE
    assert judged(yes("", verdict=Verdict.PASS)).verdict is Verdict.INCONCLUSIVE


def test_a_forged_one_is_tampered_however_many_good_ones_there_are() -> None:
    forged = Approval(
        "default@a7", None, "ada", "0" * 64, problem="the signature fits nobody", verdict=Verdict.TAMPERED
    )
    result = judged(yes("bob", 2), forged)
    assert result.verdict is Verdict.TAMPERED
    assert "default@a7 by ada is forged or was altered: the signature fits nobody" in result.message
    assert "approve --withdraw default@a7" in result.next_step


def test_every_role_must_be_held_by_somebody() -> None:
    lead, safety = yes("ada", 1, roles=("ml-lead",)), yes("bob", 2, roles=("safety", "ops"))
    assert judged(lead, safety, roles=["ml-lead", "safety"]).verdict is Verdict.PASS
    result = judged(lead, roles=["ml-lead", "safety"])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "nobody with the role safety approved agent:v2 -> prod" in result.message
    both = yes("cat", 3, roles=("ml-lead", "safety"))
    assert judged(both, roles=["ml-lead", "safety"]).verdict is Verdict.PASS
    assert judged(both, roles=["ml-lead", "safety"], count=2).verdict is Verdict.INCONCLUSIVE


def test_a_person_with_two_keys_holds_the_roles_of_both_and_is_still_one_person() -> None:
    lead, safety = yes("ada", 1, roles=("ml-lead",)), yes("ada", 2, roles=("safety",))
    assert judged(lead, safety, roles=["ml-lead", "safety"]).verdict is Verdict.PASS
    assert judged(lead, safety, roles=["ml-lead", "safety"], count=2).verdict is Verdict.INCONCLUSIVE


def test_any_role_counts_only_people_who_hold_one_of_them() -> None:
    options: dict[str, Any] = {"any_role": ["ml-lead", "safety"], "count": 2}
    lead, safety, none = yes("ada", 1, roles=("ml-lead",)), yes("bob", 2, roles=("safety",)), yes("cat", 3)
    assert judged(lead, safety, **options).verdict is Verdict.PASS
    result = judged(lead, none, **options)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "cat is not ml-lead or safety" in result.message
    assert "1 of 2 approvals of ml-lead or safety" in result.message


def test_the_roles_of_one_that_does_not_count_cover_nothing() -> None:
    own = yes("zoe", 1, roles=("ml-lead",))
    assert judged(own, yes("bob", 2), roles=["ml-lead"]).verdict is Verdict.INCONCLUSIVE


def test_without_a_binding_or_a_time_nothing_passes() -> None:
    assert judged(yes("ada"), candidate=replace(CANDIDATE, binding=None)).verdict is Verdict.ERROR
    assert (
        judged(yes("ada"), candidate=replace(CANDIDATE, binding=replace(BOUND, subjects=()))).verdict is Verdict.ERROR
    )
    assert judged(yes("ada"), candidate=replace(CANDIDATE, at=None)).verdict is Verdict.INCONCLUSIVE


def test_a_crowd_of_lapsed_ones_is_told_in_a_few_words() -> None:
    crowd = [yes(f"p{i}", i + 1, problem="lapsed", verdict=Verdict.INCONCLUSIVE) for i in range(500)]
    result = judged(*crowd)
    assert "and 490 earlier ones" in result.message
    assert len(result.message) < 2000


def test_what_a_person_wrote_cannot_act_on_a_terminal() -> None:
    result = judged(yes("ada", problem="\x1b[2J\nPASS", verdict=Verdict.INCONCLUSIVE))
    assert result.message.isprintable()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"cuont": 2}, "cuont"),
        ({"count": 0}, "count"),
        ({"count": True}, "count"),
        ({"count": "2"}, "count"),
        ({"roles": "ML Lead"}, "roles"),
        ({"roles": [1]}, "roles"),
        ({"any_role": {"a": 1}}, "any_role"),
        ({"max_age": 3}, "max_age"),
        ({"max_age": "soon"}, "max_age"),
        ({"max_age": "0d"}, "max_age"),
    ],
)
def test_an_option_that_cannot_be_taken_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        ApprovalsGate(**options)
    assert caught.value.field == named
