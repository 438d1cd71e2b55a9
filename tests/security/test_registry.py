"""Hostile values at every entry of a registry: refused in a typed way, and nothing half-written stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import (
    Incompatible,
    InvalidInput,
    InvalidReference,
    LlmartifactsError,
    NotFound,
    TooLarge,
)
from llmartifacts.records.arguments import MAX_TEXT
from llmartifacts.records.names import MAX_TAGS


def prompt(text: str = "Hi {{ x }}") -> la.Prompt:
    return la.Prompt(text, template_format="jinja2")


def everything(place: Path) -> tuple[Any, ...]:
    with la.connect(place) as registry:
        return (
            [str(v) for c in registry.collections() for v in registry.versions(c.name)],
            [str(p) for p in registry.promotions(limit=100)],
            [(r.name, r.status) for r in registry.runs()],
            sum(1 for _ in registry.backend.audit()),
            sorted(str(p) for p in place.rglob("*") if p.is_file() and "registry.db" not in p.name),
        )


# --- values

NOT_TEXT: list[Any] = [None, 7, 1.5, b"bytes", ["a"], {"a": 1}, object()]
BAD_TEXT = ["nul \x00", "escape \x1b[31m", "lone \ud800", "c1 \x9b", "backspace \x08"]
TEXTS: dict[str, Callable[[la.Registry, Any], object]] = {
    "message": lambda r, v: r.log("new", prompt(), message=v, aliases="fresh"),
    "promotion reason": lambda r, v: r.promote("a:v2", to="fresh", reason=v),
    "rollback reason": lambda r, v: r.rollback("a:prod", reason=v),
    "removal reason": lambda r, v: r.remove_alias("a:prod", reason=v),
    "yank reason": lambda r, v: r.yank("a:v2", reason=v),
}
LINES: dict[str, Callable[[la.Registry, Any], object]] = {
    "ticket": lambda r, v: r.promote("a:v2", to="fresh", ticket=v),
    "tag value": lambda r, v: r.tag("a", set={"k": v}),
    "logged tag value": lambda r, v: r.log("new", prompt(), tags={"k": v}),
    "tag filter": lambda r, v: r.versions("a", tags={"k": v}),
    "run": lambda r, v: r.get_run(v),
    "kind": lambda r, v: r.collections(kind=v if v is not None else 0),
}


@pytest.mark.parametrize("call", TEXTS)
def test_text_that_is_none_or_would_act_on_a_terminal_is_refused_and_nothing_is_written(place: Path, call: str) -> None:
    before = everything(place)
    with la.connect(place) as registry:
        for value in [*NOT_TEXT, *BAD_TEXT, "x" * (MAX_TEXT + 1)]:
            refused(lambda given=value: TEXTS[call](registry, given))
    assert everything(place) == before


@pytest.mark.parametrize("call", LINES)
def test_a_short_text_is_one_printable_line(place: Path, call: str) -> None:
    before = everything(place)
    with la.connect(place) as registry:
        for value in [*NOT_TEXT, *BAD_TEXT, "two\nlines", "x" * 10**6]:
            refused(lambda given=value: LINES[call](registry, given))
    assert everything(place) == before


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput) as caught:
        call()
    assert caught.value.field
    assert caught.value.hint()
    assert len(str(caught.value).encode()) < 1000


def test_text_of_a_subclass_of_str_is_kept_as_plain_text(registry: la.Registry) -> None:
    class Reason(StrEnum):
        BETTER = "it is better\n\tby far"

    made = registry.promote("a:v2", to="staging", reason=Reason.BETTER)
    assert registry.history("a:staging")[0].reason == "it is better\n\tby far" == made.reason


@pytest.mark.parametrize("actor", ["eve\x1b[31m", "eve\n", "x" * 257, "\ud800"], ids=ascii)
def test_who_acts_is_one_printable_line(
    place: Path, tmp_path: Path, actor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in (lambda: la.connect(place, actor=actor), lambda: la.init(tmp_path / "new", actor=actor)):
        with pytest.raises(InvalidInput) as caught:
            call()
        assert caught.value.field == "actor"
    assert not (tmp_path / "new").exists()


ODD: list[Any] = [None, 0, -1, 10**5000, 1.5, True, b"a", object(), [], [None], {"a": 1}, "", "\x00", "x" * 10**6]
ANYTHING: dict[str, Callable[[la.Registry, Any], object]] = {
    "resolve": lambda r, v: r.resolve(v),
    "read": lambda r, v: r.read(v),
    "pull": lambda r, v: r.pull("a", v),
    "promote": lambda r, v: r.promote(v, to="x"),
    "promote to": lambda r, v: r.promote("a:v1", to=v),
    "expect": lambda r, v: r.promote("a:v2", to="prod", expect=v or 0),
    "expected": lambda r, v: r.promote("a:v2", to="prod", expect={"a": v or 0}),
    "rollback": lambda r, v: r.rollback(v, reason="x"),
    "rollback to": lambda r, v: r.rollback("a:prod", to=v or 0, reason="x"),
    "history": lambda r, v: r.history(v),
    "state at": lambda r, v: r.state("prod", at=v or ""),
    "inputs": lambda r, v: r.log("new", prompt(), inputs=v or 7),
    "aliases": lambda r, v: r.log("new", prompt(), aliases=v or 7),
    "tags": lambda r, v: r.log("new", prompt(), tags=v or 7),
    "log": lambda r, v: r.log(v, prompt()),
    "log_many": lambda r, v: r.log_many([v]),
    "pairs": lambda r, v: r.log_many(v or 7),
    "parameters": lambda r, v: r.run("job", parameters=v or 7).__enter__(),
    "direction": lambda r, v: r.lineage("a", v),
    "versions": lambda r, v: r.versions(v),
    "connect": lambda r, v: la.connect(v if v is not None else 7),
}


@pytest.mark.parametrize("call", ANYTHING, ids=str)
def test_whatever_is_given_where_something_else_belongs_is_a_typed_error(
    registry: la.Registry, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in ODD:
        if (call in ("parameters", "tags") and isinstance(value, dict)) or (call == "pull" and value == b"a"):
            continue  # that is what belongs there
        with pytest.raises(LlmartifactsError) as caught:
            ANYTHING[call](registry, value)
        assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("limit", [0, -1, 1.0, "1", True, 10**30], ids=repr)
def test_a_limit_is_a_whole_number_from_one(registry: la.Registry, limit: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: registry.versions("a", limit=limit),
        lambda: registry.versions("a", before=limit),
        lambda: registry.history("a:prod", limit=limit),
        lambda: registry.promotions(limit=limit),
        lambda: registry.runs(limit=limit),
    ]
    for call in calls:
        with pytest.raises(InvalidInput):
            call()


def test_a_version_takes_so_many_tags_and_no_more(registry: la.Registry) -> None:
    with pytest.raises(TooLarge):
        registry.log("a", prompt(), tags={f"k{i}": "v" for i in range(100_000)})
    registry.tag("a:v1", set={f"k{i}": "v" for i in range(MAX_TAGS - 1)})
    with pytest.raises(TooLarge) as caught:
        registry.tag("a:v1", set={"one": "more", "and": "another"})
    assert caught.value.hint()
    assert len(registry.get("a:v1").tags) == MAX_TAGS
    registry.tag("a:v1", set={"new": "x"}, remove="k1")


def test_a_list_of_too_many_members_is_refused_at_once(registry: la.Registry) -> None:
    with pytest.raises(TooLarge):
        registry.promote(["a:v1"] * 10_001, to="prod")
    with pytest.raises(InvalidReference, match="named twice"):
        registry.promote(["a:v1"] * 10_000, to="prod")
    with pytest.raises(TooLarge):
        registry.log("a", prompt(), inputs=("a:v1" for _ in range(10**9)))


def test_parameters_of_a_run_are_bounded_and_plain(place: Path) -> None:
    before = everything(place)
    loop: dict[str, Any] = {}
    loop["self"] = loop
    for parameters in ({"x": float("nan")}, {"x": "y" * 10**6}, loop, {1: 2}, {"x": "\ud800"}, {"x": 10**400}):
        with la.connect(place) as registry, pytest.raises(InvalidInput) as caught:
            registry.run("job", parameters=parameters).__enter__()
        assert "parameters" in caught.value.field
    assert everything(place) == before


def test_an_error_that_cannot_be_kept_does_not_hide_itself(registry: la.Registry) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise KeyError("no words")

    for error in (ValueError("lone \ud800 nul \x00 escape \x1b[31m"), Mute()):
        with pytest.raises(type(error)), registry.run("job"):
            raise error
        assert registry.runs(limit=1)[0].status == "failed"
    assert registry.runs(limit=2)[1].error == "ValueError: lone \\ud800 nul \\x00 escape \\x1b[31m"


def test_an_error_in_a_run_survives_a_registry_that_is_gone(place: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught, la.connect(place) as registry, registry.run("job"):
        shutil.rmtree(place)
        _ = 1 / 0
    assert "could not be ended" in caught.value.__notes__[0]


# --- other projects


def test_an_input_of_another_project_is_that_of_the_other_project(registry: la.Registry) -> None:
    registry.log("acme/a", prompt("foreign"))
    registry.log("b", prompt("b"), inputs="acme/a:v1")
    assert set(registry.lineage("b").nodes) == {"b:v1", "acme/a:v1"}
    with pytest.raises(NotFound):
        registry.log("b", prompt("b2"), inputs="acme/b:v1")
    registry.log("acme/c", prompt("c"), inputs="a:v1")  # no prefix: this registry's project, wherever it goes
    assert set(registry.lineage("acme/c").nodes) == {"acme/c:v1", "a:v1"}


def test_a_run_uses_what_was_named_and_not_its_namesake(place: Path) -> None:
    with la.connect(place, project="acme") as acme:
        acme.log("a", prompt("namesake"))
        with acme.run("job") as run:
            assert run.use("default/a:v1", la.Prompt).format(x="Ada") == "Hi Ada"
            made = run.log("out", prompt("made"))
        assert set(acme.lineage(made.reference).nodes) > {"acme/out:v1", "a:v1"}


def test_a_bundle_stays_in_its_project_and_holds_no_bundle_and_not_itself(registry: la.Registry) -> None:
    registry.log("acme/a", prompt("foreign"))
    for logged, part in (("new", "acme/a:latest"), ("acme/new", "a:v1")):
        with pytest.raises(InvalidReference, match="stays within its project"):
            registry.log(logged, la.Bundle(components={"p": part}))
    with pytest.raises(Incompatible):
        registry.log("set", la.Bundle(components={"p": "set:latest"}))
    with pytest.raises(NotFound):
        registry.log("fresh", la.Bundle(components={"p": "fresh:v1"}))
    assert "new" not in {c.name for c in registry.collections()}


def test_a_promotion_id_of_another_project_or_of_none_moves_nothing(registry: la.Registry) -> None:
    for identity in ("acme@r1", "default@r99", "default@r", "default@r１", "default@r-1", "default@r" + "9" * 30):
        with pytest.raises(NotFound):
            registry.rollback(identity, reason="x")
    for identity in ("@r1", "a:prod@r1", "../x@r1", "default@r1\x1b[0m"):
        with pytest.raises(InvalidInput):
            registry.rollback(identity, reason="x")
    assert registry.get("a:prod").number == 1


# --- one promotion


def test_an_alias_named_twice_moves_once(registry: la.Registry) -> None:
    made = registry.promote("a:v2", to=["canary", "canary"])
    assert len(made.moves) == len(registry.history("a:canary")) == 1
    registry.rollback("a:canary", reason="x")
    with pytest.raises(NotFound):
        registry.get("a:canary")


def test_lineage_that_goes_in_a_circle_ends(registry: la.Registry) -> None:
    registry.log("c", prompt("one"))
    registry.log("c", prompt("two"), inputs="c:v1")
    registry.log("c", prompt("one"), inputs=["c:v2", "c:v1"])
    for direction in ("up", "down"):
        found = registry.lineage("c:v1", direction)
        assert found.to_text().count("\n") == 2
        assert found.to_mermaid()
        assert found.to_html()
