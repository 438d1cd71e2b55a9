"""Every list comes in pages, over each database: together they are the whole, and each costs what it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.errors import InvalidInput, NotFound
from llmartifacts.metadata import projects as project_rows
from llmartifacts.metadata.projects import FEW
from llmartifacts.records.digest import digest_bytes
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros
from llmartifacts.versioning import look
from llmartifacts.versioning.embedded import EmbeddedBackend

NAMES = ["B", "a", "a.b", "ab", "b-2", "c", "d", "e", "zz"]


def walked(page: Callable[[Any], Sequence[Any]], mark: Callable[[Any], Any], limit: int) -> list[Any]:
    """What pages of `limit` give together."""
    found: list[Any] = []
    last = None
    while some := page(last):
        assert len(some) <= limit
        found += some
        last = mark(some[-1])
        if len(some) < limit:
            break
    return found


@pytest.fixture
def filled(short: Any) -> EmbeddedBackend:
    backend: EmbeddedBackend = short.backend
    for i, name in enumerate(NAMES):
        short.log(name, "1", aliases=("staging",) if i % 2 else ())
        short.log(name, "2")
        if i % 3 == 0:
            short.promote(f"{name}:v1")
        if i % 6 == 0:
            short.promote(f"{name}:v2")
    backend.remove_alias("default", Reference("a", alias="staging"), reason="", actor="ann")
    for name in ("beta", "Alpha", "gamma"):
        backend.create_project(name, actor="root")
    for i in range(5):
        run = backend.start_run("default", f"run-{i}", parameters={}, actor="ann").id
        backend.use_in_run("default", run, Reference("a", number=1), actor="ann")
    for i in range(4):
        body = {"name": f"p{i}", "aliases": {"production": {"kinds": {"*": ["compatibility"]}}}}
        backend.set_policy("default", body, message="", actor="root")
    return backend


@pytest.mark.parametrize("limit", [1, 2, 4, 100])
def test_the_pages_of_every_list_are_the_whole_list(filled: EmbeddedBackend, limit: int) -> None:
    b = filled
    collections = b.collections("default")
    assert [c.name for c in collections] == sorted(NAMES)
    assert [c.aliases for c in collections[:4]] == [{"prod": 2}, {}, {}, {"prod": 1, "staging": 1}]
    assert walked(lambda x: b.collections("default", limit=limit, after=x), lambda c: c.name, limit) == collections
    of_kind = walked(
        lambda x: b.collections("default", kind="unknown-kind", limit=limit, after=x), lambda c: c.name, limit
    )
    assert of_kind == collections
    assert b.collections("default", kind="prompt") == []
    projects = b.projects()
    assert [p.name for p in projects] == ["Alpha", "beta", "default", "gamma"]
    assert [p.collections for p in projects] == [0, 0, len(NAMES), 0]
    assert walked(lambda x: b.projects(limit=limit, after=x), lambda p: p.name, limit) == projects
    promotions = b.promotions("default", limit=1000)
    assert len(promotions) == 10
    assert walked(lambda x: b.promotions("default", limit=limit, before=x), lambda p: p.revision, limit) == promotions
    moves = b.history("default", Reference("B", alias="latest"))
    assert len(moves) == 2
    assert (
        walked(
            lambda x: b.history("default", Reference("B", alias="latest"), limit=limit, before=x),
            lambda m: m.move,
            limit,
        )
        == moves
    )
    runs = b.runs("default", limit=1000)
    assert [r.name for r in runs] == [f"run-{i}" for i in (4, 3, 2, 1, 0)]
    assert walked(lambda x: b.runs("default", limit=limit, before=x), lambda r: r.id, limit) == runs
    policies = b.policies("default")
    assert [p.number for p in policies] == [4, 3, 2, 1]
    assert walked(lambda x: b.policies("default", limit=limit, before=x), lambda p: p.number, limit) == policies
    for verb in (None, "log", "promote"):
        entries = b.audit_log("default", verb=verb, limit=1000)
        assert entries
        pages: list[Any] = []
        last = None
        while page := b.audit_log("default", verb=verb, limit=limit, before=last):
            pages = [*page, *pages]
            last = page[0].number
        assert pages == entries
    everything = list(b.audit("default"))
    numbered = b.audit_log("default", limit=1000)
    assert list(b.audit("default", after=numbered[4].number, limit=3)) == everything[5:8]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("alias", ["prod", "staging", "latest", "never"])
def test_the_pages_of_a_state_are_the_whole_state_now_and_then(filled: EmbeddedBackend, alias: str, limit: int) -> None:
    half = filled.promotions("default", limit=1000)[5]
    for at in (None, half.at, datetime(2001, 1, 1, tzinfo=UTC)):
        whole = filled.state("default", alias, at=at)
        found: dict[str, Any] = {}
        last = None
        while page := filled.state("default", alias, at=at, limit=limit, after=last):
            assert len(page) <= limit
            assert page.revision == whole.revision
            found |= page
            last = list(page)[-1]
        assert found == dict(whole)
        assert list(found) == sorted(found)
    now = {name: entry.version.number for name, entry in filled.state("default", alias).items()}
    expected = {
        "prod": {n: 2 if i % 6 == 0 else 1 for i, n in enumerate(NAMES) if i % 3 == 0},
        "staging": {n: 1 for i, n in enumerate(NAMES) if i % 2 and n != "a"},
        "latest": dict.fromkeys(NAMES, 2),
        "never": {},
    }
    assert now == expected[alias]


def test_later_pages_are_of_the_revision_of_the_first(filled: EmbeddedBackend, short: Any) -> None:
    first = filled.state("default", "prod", limit=1)
    short.log("zz", "3")
    short.promote("zz:v3")
    short.promote("ab:v2")
    rest = filled.state("default", "prod", after=next(iter(first)), revision=first.revision)
    assert rest.revision == first.revision
    assert {n: e.version.number for n, e in (dict(first) | dict(rest)).items()} == {"B": 2, "ab": 1, "d": 2}


def test_a_page_after_what_is_not_there_goes_on_beyond_it(filled: EmbeddedBackend) -> None:
    assert [c.name for c in filled.collections("default", after="aa", limit=2)] == ["ab", "b-2"]
    assert filled.collections("default", after="zzz") == []
    assert filled.promotions("default", before=1) == []
    with pytest.raises(NotFound, match="no run"):
        filled.runs("default", before="0" * 16)
    with pytest.raises(InvalidInput):
        filled.approvals("default", "prod", before="nonsense")


def test_projects_that_are_not_visible_are_left_out_and_pages_are_filled_with_others(
    filled: EmbeddedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "PAGE", 2)

    def sees(name: str) -> bool:
        return name in ("beta", "gamma")

    assert [p.name for p in filled.projects(visible=sees)] == ["beta", "gamma"]
    assert [p.name for p in filled.projects(visible=sees, limit=1)] == ["beta"]
    assert [p.name for p in filled.projects(visible=sees, limit=1, after="beta")] == ["gamma"]
    assert filled.projects(visible=lambda _: False, limit=3) == []


def test_of_very_many_names_those_beside_a_mistyped_one_are_told(short: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_rows, "FEW", 4)
    for name in ("answer", "prompt-1", "prompt-2", "prompt-3", "question", "support-agent", "zebra"):
        short.log(name, "1")
    with pytest.raises(NotFound) as caught:
        short.promote("suport-agent:v1")
    assert caught.value.near == ("support-agent",)
    assert FEW <= 1000


# --- what a page costs


STEPS = 25
LISTS: dict[str, Callable[[EmbeddedBackend, str], Any]] = {
    "resolve": lambda b, n: b.read("default", [Reference(n, alias="prod")]),
    "missing": lambda b, n: b.read("default", [Reference(f"{n}-not", alias="prod")]),
    "collections": lambda b, n: b.collections("default", limit=20, after=n),
    "kind": lambda b, n: b.collections("default", kind="rare", limit=20),
    "projects": lambda b, n: b.projects(limit=20, after="p-0002"),
    "versions": lambda b, n: b.versions("default", n, limit=20),
    "history": lambda b, n: b.history("default", Reference(n, alias="prod"), limit=20),
    "promotions": lambda b, n: b.promotions("default", limit=20, before=25),
    "state": lambda b, n: b.state("default", "prod", limit=20, after=n),
    "rare state": lambda b, n: b.state("default", "canary", limit=20),
    "latest": lambda b, n: b.state("default", "latest", limit=20, after=n),
    "then": lambda b, n: b.state("default", "prod", limit=20, at=from_micros(30)),
    "runs": lambda b, n: b.runs("default", limit=20, before="r-0021"),
    "policies": lambda b, n: b.policies("default", limit=20, before=25),
    "approvals": lambda b, n: b.approvals("default", "prod", limit=20),
    "audit": lambda b, n: list(b.audit("default", limit=20, after=1000)),
    "audit log": lambda b, n: b.audit_log("default", limit=20),
    "audit of a verb": lambda b, n: b.audit_log("default", verb="yank", limit=20),
    "whole audit of a verb": lambda b, n: b.audit_log(None, verb="yank", limit=20),
    "keys": lambda b, n: b.trusted_keys(),
}


def crowd(backend: EmbeddedBackend, many: int) -> None:
    """Let a registry have many of everything, written past the verbs."""
    numbers = f"with recursive n(i) as (select 1 union all select i + 1 from n where i < {many}) "
    name = "substr('0000' || n.i, -4)"
    rows = [Manifest.build("prompt", {"n": i}) for i in range(3)]
    with backend.parts.metadata.writing() as s:
        for manifest in rows:
            s.run(
                "insert into manifest values (:d, :b, 9, null)",
                {"d": digest_bytes(manifest.digest), "b": manifest.to_bytes()},
            )
        for sql in (
            "insert into collection select n.i, 1, 'c-'||{name}, 'c-'||{name},"
            " case when n.i in (3, 7) then 'rare' else 'prompt' end, 3, 3, 1, n.i from n",
            *(
                f"insert into version select n.i * 3 + {k}, n.i, {k + 1}, x'{digest_bytes(m.digest).hex()}', 9,"
                " 'a', 'm', '', '', n.i, null, '', 1, null, '', '', '' from n"
                for k, m in enumerate(rows)
            ),
            "insert into alias select n.i, 'prod', 1, 1, n.i from n",
            "insert into alias select n.i, 'canary', 1, 1, n.i from n where n.i in (5, 9)",
            "insert into alias_holder select 1, a.name, c.name, c.id from n join alias a on a.collection_id = n.i"
            " join collection c on c.id = n.i",
            "insert into move select a.collection_id, a.name, 1, 1, n.i, n.i, 'a', null, 1, 1, null from n"
            " join alias a on a.collection_id = n.i",
            "insert into move select n.i, 'latest', 1, 1, 0, 1, 'a', null, 3, 0, null from n",
            "insert into promotion select 1, n.i, n.i, 'a', 'promote', '', '', '[]', null, null, '[]', 0 from n",
            "insert into run select 'r-'||{name}, 1, 'n', 'done', '{{}}', 'a', '', n.i / 3, null, '' from n",
            "insert into policy select 1, n.i, zeroblob(32), '{{}}', n.i, 'a', '' from n",
            "insert into project select n.i + 9, 'p-'||{name}, 'p-'||{name}, 0, 1, 0, null from n",
            "insert into audit select n.i * 9 + k.i, 1, 1, case when n.i = 4 then 'yank' else 'log' end, 's', '{{}}',"
            " zeroblob(32) from n cross join (select 1 as i union all select 2 union all select 3) k",
            "insert into attestation select n.i, 1, 'evaluation', '', 'e', 1, 'a' from n",
        ):
            s.run(numbers + sql.replace("{name}", name).replace("{{}}", "{}"))
        s.run(f"update project set revision = {many} where id = 1")


def steps(backend: EmbeddedBackend, call: Callable[[EmbeddedBackend, str], Any]) -> int:
    """Instructions of the database's machine that a call takes, in hundreds or so."""
    database: Any = backend.parts.metadata.database
    count = [0]

    def tick() -> bool:
        count[0] += 1
        return False

    with database.reading() as s:
        s.connection.set_progress_handler(tick, STEPS)
        try:
            call(backend, "c-0020")
        finally:
            s.connection.set_progress_handler(None)
    return count[0]


def test_a_page_costs_the_same_whatever_lies_beside_it(tmp_path: Path) -> None:
    taken: list[dict[str, int]] = []
    for many in (60, 3000):
        backend = EmbeddedBackend.create(tmp_path / str(many), actor="ann")
        crowd(backend, many)
        for call in LISTS.values():
            call(backend, "c-0020")  # what is parsed once is parsed now
        taken.append({name: steps(backend, call) for name, call in LISTS.items()})
        assert len(backend.collections("default", limit=20, after="c-0020")) == 20
        assert len(backend.state("default", "canary")) == 2
        assert len(backend.audit_log(None, verb="yank", limit=20)) == 3
        backend.close()
    few, lots = taken
    grown = {name: (few[name], lots[name]) for name in LISTS if lots[name] > 2 * few[name] + 20}
    assert set(grown) <= {"missing"}
    assert lots["missing"] < 400  # it looks at a few hundred names, and at no more of them
