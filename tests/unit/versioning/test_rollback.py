"""rollback: back by one call, back by two, whole sets, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from llmartifacts.errors import Conflict, InvalidInput, NotFound, Refused, Yanked
from llmartifacts.records.reference import Reference


@pytest.fixture
def served(short: Any) -> Any:
    """`a` and `b` in four versions; `prod` went v1, v2, v3 for both together."""
    for content in "1234":
        short.log("a", content)
        short.log("b", content)
    for number in (1, 2, 3):
        short.promote(f"a:v{number}", f"b:v{number}")
    return short


def test_one_call_goes_one_back_and_two_go_two(served: Any) -> None:
    served.rollback("a:prod")
    assert (served.at("a:prod"), served.at("b:prod")) == ("v2", "v3")
    served.rollback("a:prod")
    assert served.at("a:prod") == "v1"


def test_the_last_rollback_removes_an_alias_that_was_not_there_before(served: Any) -> None:
    for _ in range(3):
        served.rollback("a:prod")
    assert served.at("a:prod") == "-"
    with pytest.raises(Conflict, match="undone already"):
        served.rollback("a:prod")


def test_a_promotion_after_a_rollback_is_what_the_next_rollback_undoes(served: Any) -> None:
    served.rollback("a:prod")
    served.promote("a:v4")
    served.rollback("a:prod")
    assert served.at("a:prod") == "v2"
    served.rollback("a:prod")
    assert served.at("a:prod") == "v1"


def test_whole_takes_back_all_that_moved_together(served: Any) -> None:
    made = served.rollback("a:prod", whole=True)
    assert (served.at("a:prod"), served.at("b:prod")) == ("v2", "v2")
    assert (made.verb, made.undoes) == ("rollback", "default@r3")
    assert served.backend.promotions("default")[1].undone_by == made.id
    served.rollback("b:prod", whole=True)
    assert (served.at("a:prod"), served.at("b:prod")) == ("v1", "v1")


def test_a_promotion_is_undone_by_its_id(served: Any) -> None:
    served.rollback("default@r3")
    assert (served.at("a:prod"), served.at("b:prod")) == ("v2", "v2")
    with pytest.raises(Conflict, match="undone already, by default@r4"):
        served.rollback("default@r3")


def test_a_set_of_which_a_part_has_moved_since_is_refused_and_both_are_named(served: Any) -> None:
    served.promote("b:v4")
    with pytest.raises(Conflict, match=r"b:prod has moved since default@r3, by default@r4"):
        served.rollback("a:prod", whole=True)
    assert served.at("a:prod") == "v3"


def test_an_older_promotion_cannot_be_undone_under_a_newer_one(served: Any) -> None:
    with pytest.raises(Conflict, match="has moved since default@r2, by default@r3"):
        served.rollback("default@r2")


def test_a_rollback_cannot_itself_be_rolled_back_by_id(served: Any) -> None:
    made = served.rollback("a:prod")
    with pytest.raises(Conflict, match="itself a rollback"):
        served.rollback(made.id)


@pytest.mark.parametrize("identity", ["default@r99", "default@rx", "other@r1", "default@r0"])
def test_an_unknown_promotion_is_not_found_and_recent_ones_are_listed(served: Any, identity: str) -> None:
    with pytest.raises(NotFound) as caught:
        served.rollback(identity)
    assert "default@r3" in caught.value.hint()


def test_a_goal_can_be_named_and_the_way_back_goes_on_from_there(served: Any) -> None:
    served.promote("a:v4")
    served.rollback("a:prod", to="a:v2")
    assert served.at("a:prod") == "v2"
    served.rollback("a:prod")
    assert served.at("a:prod") == "v1"


def test_a_goal_that_was_rolled_back_from_may_be_returned_to(served: Any) -> None:
    served.rollback("a:prod")
    served.rollback("a:prod", to="a:v3")
    assert served.at("a:prod") == "v3"
    served.rollback("a:prod")
    assert served.at("a:prod") == "v2"


def test_a_goal_that_was_never_served_needs_a_promotion(served: Any) -> None:
    with pytest.raises(Refused, match="never was v4") as caught:
        served.rollback("a:prod", to="a:v4")
    assert "promote a:v4 --to prod" in caught.value.hint()


def test_the_goal_that_is_served_now_is_a_conflict(served: Any) -> None:
    with pytest.raises(Conflict, match="v3 already"):
        served.rollback("a:prod", to="a:v3")


def test_whole_and_to_do_not_go_together(served: Any) -> None:
    with pytest.raises(InvalidInput):
        served.rollback("a:prod", to="a:v1", whole=True)


def test_a_withdrawn_goal_is_refused(served: Any) -> None:
    served.backend.yank("default", Reference.parse("a:v2"), reason="leaks", actor="ann")
    with pytest.raises(Yanked):
        served.rollback("a:prod")
    with pytest.raises(Yanked):
        served.rollback("a:prod", to="a:v2")
    served.rollback("a:prod", to="a:v1")
    assert served.at("a:prod") == "v1"


def test_an_alias_that_never_was_is_not_found(served: Any) -> None:
    with pytest.raises(NotFound):
        served.rollback("a:canary")


def test_removing_an_alias_is_a_move_that_can_be_undone(served: Any) -> None:
    made = served.backend.remove_alias("default", Reference.parse("a:prod"), reason="gone", actor="ann")
    assert (made.verb, served.at("a:prod")) == ("remove", "-")
    served.rollback("a:prod")
    assert served.at("a:prod") == "v3"
    with pytest.raises(NotFound):
        served.backend.remove_alias("default", Reference.parse("a:canary"), reason="", actor="ann")


def test_history_keeps_every_move_and_marks_the_undone(served: Any) -> None:
    served.rollback("a:prod")
    history = served.backend.history("default", Reference.parse("a:prod"))
    assert [(h.verb, h.old, h.new, h.undone_by) for h in history] == [
        ("rollback", 3, 2, ""),
        ("promote", 2, 3, "default@r4"),
        ("promote", 1, 2, ""),
        ("promote", None, 1, ""),
    ]
    assert (history[0].actor, history[0].reason) == ("cat", "it was worse")
