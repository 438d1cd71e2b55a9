"""promote: compare-and-swap, all or none, and what is recorded."""

from __future__ import annotations

from typing import Any

import pytest

from llmartifacts.errors import AliasMoved, GateRefused, NotFound, Yanked
from llmartifacts.gates.base import Candidate
from llmartifacts.records.policy import GateResult, Verdict
from llmartifacts.records.reference import Reference


@pytest.fixture
def two(short: Any) -> Any:
    for content in "123":
        short.log("a", content)
        short.log("b", content)
    return short


def test_several_aliases_move_in_one_revision(two: Any) -> None:
    made = two.promote("a:v1", "b:v2", reason="go", ticket="CHG-1")
    assert (made.revision, made.id) == (1, "default@r1")
    assert [str(m) for m in made.moves] == ["a:prod nothing -> v1", "b:prod nothing -> v2"]
    assert (two.at("a:prod"), two.at("b:prod")) == ("v1", "v2")
    assert two.backend.revision("default") == 1


def test_if_one_cannot_move_none_does(two: Any) -> None:
    with pytest.raises(NotFound):
        two.promote("a:v1", "b:v9")
    assert two.at("a:prod") == "-"
    assert two.backend.revision("default") == 0


def test_expect_refuses_what_has_moved(two: Any) -> None:
    two.promote("a:v1")
    with pytest.raises(AliasMoved) as caught:
        two.promote("a:v3", expect={"a": "v2"})
    assert (caught.value.expected, caught.value.actual) == ("v2", "v1")
    with pytest.raises(AliasMoved):
        two.promote("a:v3", expect={"a": None})
    two.promote("a:v3", expect={"a": "v1"})
    two.promote("b:v1", expect={"b": None})
    assert (two.at("a:prod"), two.at("b:prod")) == ("v3", "v1")


def test_moving_to_where_it_is_records_nothing(two: Any) -> None:
    two.promote("a:v1")
    made = two.promote("a:v1")
    assert (made.id, made.moves) == ("", ())
    assert two.backend.revision("default") == 1
    made = two.promote("a:v1", "b:v1")
    assert [m.name for m in made.moves] == ["b"]


def test_an_alias_can_be_promoted_to_another(two: Any) -> None:
    two.promote("a:v2", to="staging")
    two.promote("a:staging", to="prod")
    assert two.at("a:prod") == "v2"


def test_each_alias_counts_its_own_moves(two: Any) -> None:
    two.promote("a:v1")
    two.promote("b:v1")
    two.promote("a:v2")
    history = two.backend.history("default", Reference.parse("a:prod"))
    assert [(h.move, h.revision) for h in history] == [(2, 3), (1, 1)]
    found = two.backend.read("default", [Reference.parse("a:prod"), Reference.parse("a:v2")]).items
    assert (found[0].move, found[1].move) == (2, None)


def test_times_of_a_project_never_go_back(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    two.promote("a:v1")
    monkeypatch.setattr("llmartifacts.metadata.sqlite.time.time_ns", lambda: 1_000_000_000)
    two.promote("a:v2")
    newest, first = two.backend.history("default", Reference.parse("a:prod"))
    assert newest.at > first.at


def test_a_withdrawn_version_cannot_be_promoted(two: Any) -> None:
    two.backend.yank("default", Reference.parse("a:v2"), reason="leaks", actor="ann")
    with pytest.raises(Yanked, match="leaks"):
        two.promote("a:v2")


class Says:
    """A gate that always answers the same."""

    def __init__(self, verdict: Verdict) -> None:
        self.name = "says"
        self.verdict = verdict
        self.seen: list[Candidate] = []

    def judge(self, candidate: Candidate) -> GateResult:
        self.seen.append(candidate)
        return GateResult("says", "says-so", self.verdict, "because", "Ask again.")


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.PASS])
def test_any_verdict_but_pass_refuses_and_nothing_moves(
    two: Any, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Says(verdict)
    monkeypatch.setattr("llmartifacts.versioning.judge.ALWAYS", ("says",))
    monkeypatch.setattr("llmartifacts.versioning.judge.plugins.load", lambda socket, name: lambda: gate)
    with pytest.raises(GateRefused) as caught:
        two.promote("a:v1")
    assert caught.value.verdict == verdict
    assert caught.value.hint() == "Ask again."
    assert two.at("a:prod") == "-"
    with pytest.raises(GateRefused):
        two.log("a", "new", aliases=("prod",))
    assert two.at("a:v4") == "-", "a log whose alias is refused logs nothing"


def test_a_gate_sees_what_moves_and_what_is_served(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    two.promote("a:v1")
    gate = Says(Verdict.PASS)
    monkeypatch.setattr("llmartifacts.versioning.judge.ALWAYS", ("says",))
    monkeypatch.setattr("llmartifacts.versioning.judge.plugins.load", lambda socket, name: lambda: gate)
    made = two.promote("a:v2", reason="why", ticket="T-1")
    moving = gate.seen[0].moving[0]
    assert (moving.version.number, moving.serving and moving.serving.number) == (2, 1)
    assert (gate.seen[0].reason, gate.seen[0].ticket, gate.seen[0].actor) == ("why", "T-1", "bob")
    assert made.results[0].rule == "says-so"
    assert two.backend.history("default", Reference.parse("a:prod"))[0].results == made.results
