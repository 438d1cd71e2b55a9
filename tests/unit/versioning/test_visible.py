"""What lies in projects that somebody may not see, over each database: left out, and nothing tells that it is there."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from llmartifacts.errors import DigestMismatch, NotFound
from llmartifacts.records.lineage import Lineage
from llmartifacts.records.reference import Reference
from llmartifacts.versioning.embedded import EmbeddedBackend


class Chain:
    """docs -> index -> stack, through another project, and docs -> agent -> stack.

    `default/stack:v1` comes of `default/agent:v1` and of `secret/index:v1`; both come of `default/docs:v1`, and the
    index also of `default/corpus:v1`, to which nothing else leads.
    """

    def __init__(self, short: Any) -> None:
        self.backend: EmbeddedBackend = short.backend
        self.backend.create_project("secret", actor="root")
        short.log("docs", "1")
        short.log("corpus", "1")
        short.log("agent", "1", ("docs:v1",))
        index = short.draft("index", "1", ("default/docs:v1", "default/corpus:v1"))
        self.backend.commit("secret", [index], actor="sam")
        short.log("stack", "1", ("agent:v1", "secret/index:v1"))

    def lineage(self, reference: str, direction: Any, seen: Collection[str] | None = None) -> Lineage:
        visible = None if seen is None else lambda project: project in seen
        return self.backend.lineage("default", Reference.parse(reference), direction, visible=visible)


@pytest.fixture
def chain(short: Any) -> Chain:
    return Chain(short)


def told(found: Lineage) -> set[tuple[str, str]]:
    return {(e.child, e.parent) for e in found.edges}


def test_whoever_sees_all_sees_the_whole_closure(chain: Chain) -> None:
    whole = chain.lineage("stack:v1", "up")
    assert set(whole.nodes) == {"stack:v1", "agent:v1", "docs:v1", "secret/index:v1", "corpus:v1"}
    assert chain.lineage("stack:v1", "up", {"default", "secret"}) == whole


def test_what_is_not_visible_is_left_out_with_what_is_reached_through_it_only(chain: Chain) -> None:
    found = chain.lineage("stack:v1", "up", {"default"})
    assert set(found.nodes) == {"stack:v1", "agent:v1", "docs:v1"}
    assert told(found) == {("stack:v1", "agent:v1"), ("agent:v1", "docs:v1")}


def test_downwards_too(chain: Chain) -> None:
    found = chain.lineage("corpus:v1", "down", {"default"})
    assert (set(found.nodes), found.edges) == ({"corpus:v1"}, ())
    found = chain.lineage("docs:v1", "down", {"default"})
    assert set(found.nodes) == {"docs:v1", "agent:v1", "stack:v1"}
    assert set(chain.lineage("corpus:v1", "down").nodes) == {"corpus:v1", "secret/index:v1", "stack:v1"}


def test_what_is_left_out_cannot_be_told_from_what_is_not_there(chain: Chain, short: Any) -> None:
    short.log("lonely", "1", ("agent:v1",))
    hidden, none = chain.lineage("stack:v1", "up", {"default"}), chain.lineage("lonely:v1", "up", {"default"})
    assert {(child.replace("stack", "lonely"), parent) for child, parent in told(hidden)} == told(none)
    assert len(hidden.nodes) == len(none.nodes)


def test_a_run_shows_what_it_used_of_projects_that_are_visible(chain: Chain) -> None:
    backend = chain.backend
    run = backend.start_run("default", "r", parameters={}, actor="ann").id
    backend.use_in_run("default", run, Reference.parse("docs:v1"), actor="ann")
    backend.use_in_run("default", run, Reference.parse("secret/index:v1"), actor="ann")

    def sees(project: str) -> bool:
        return project == "default"

    whole, part = backend.run("default", run), backend.run("default", run, visible=sees)
    assert [r.name for r in whole.used] == ["docs", "index"]
    assert [r.name for r in part.used] == ["docs"]
    assert backend.runs("default", visible=sees) == [part]
    with pytest.raises(NotFound, match="there is no project 'secret'"):
        backend.use_in_run("default", run, Reference.parse("secret/index:v1"), actor="ann", visible=sees)
    with pytest.raises(NotFound, match="there is no project 'secrets'"):
        backend.use_in_run("default", run, Reference.parse("secrets/index:v1"), actor="ann", visible=sees)


def test_what_is_damaged_does_not_tell_on_a_server_who_else_has_it(chain: Chain, short: Any) -> None:
    short.backend.commit("secret", [short.draft("copy", "1")], actor="sam")
    with chain.backend.parts.metadata.writing() as s:
        s.run("update manifest set body = :b", {"b": b"{}"})
    for backend, named in ((chain.backend, True), (chain.backend.guarded(), False)):
        backend.parts._manifests.clear()
        error: Any = backend.read("default", [Reference.parse("stack:v1")]).items[0]
        assert isinstance(error, DigestMismatch)
        assert any(one.startswith("secret/") for one in error.versions) is named
