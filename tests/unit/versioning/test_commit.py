"""log: numbers, identity, what lies outside it, and all or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from llmartifacts.errors import Conflict, InvalidReference, NotFound, WrongKind
from llmartifacts.records.backend import Draft
from llmartifacts.records.digest import Blob, digest_of
from llmartifacts.records.manifest import Descriptor, Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found


def test_versions_are_numbered_from_one_in_their_collection(short: Any) -> None:
    assert [short.log("a", c).number for c in "xyz"] == [1, 2, 3]
    assert short.log("b", "x").number == 1


def test_the_same_content_again_is_the_same_version_and_becomes_latest(short: Any) -> None:
    first = short.log("a", "x")
    short.log("a", "y")
    again = short.log("a", "x")
    assert (first.created, again.created) == (True, False)
    assert (again.number, again.digest) == (1, first.digest)
    assert short.at("a:latest") == "v1"
    assert "latest" in again.aliases


def test_known_content_keeps_its_first_message_and_gains_inputs_and_tags(short: Any) -> None:
    short.log("docs", "d1")
    short.log("docs", "d2")
    short.log("a", "x", ("docs:v1",), message="first", tags={"ticket": "1"})
    again = short.log("a", "x", ("docs:v2",), message="second", tags={"reviewed": "yes"})
    assert again.message == "first"
    assert again.tags == {"ticket": "1", "reviewed": "yes"}
    lineage = short.backend.lineage("default", Reference.parse("a:v1"), "up")
    assert [e.parent for e in lineage.edges] == ["docs:v1", "docs:v2"]


def test_a_collection_has_one_kind(short: Any) -> None:
    short.log("a", "x")
    other = Draft("a", Manifest.build("prompt", {"content": "x"}))
    with pytest.raises(WrongKind, match="unknown-kind"):
        short.backend.commit("default", [other], actor="ann")


def test_a_name_that_differs_in_case_only_is_refused(short: Any) -> None:
    short.log("Support", "x")
    with pytest.raises(InvalidReference, match="case only") as caught:
        short.log("support", "y")
    assert "Support" in caught.value.hint()


def test_a_batch_is_all_or_nothing(short: Any) -> None:
    drafts = [short.draft("a", "1"), short.draft("a", "2"), short.draft("b", "3", ("missing:v1",))]
    with pytest.raises(NotFound):
        short.backend.commit("default", drafts, actor="ann")
    assert short.backend.collections("default") == []
    assert [e["verb"] for e in short.backend.audit()] == ["project"]


def test_a_batch_numbers_in_order_and_the_last_has_the_alias(short: Any) -> None:
    drafts = [short.draft("a", c, aliases=("staging",)) for c in "xyx"]
    made = short.backend.commit("default", drafts, actor="ann")
    assert [v.number for v in made] == [1, 2, 1]
    assert short.at("a:staging") == "v1"
    assert short.at("a:latest") == "v1"


def test_an_alias_given_with_log_moves_in_the_same_transaction(short: Any) -> None:
    version = short.log("a", "x", aliases=("staging",), message="try it")
    assert version.aliases == ("latest", "staging")
    entry = short.backend.history("default", Reference.parse("a:staging"))[0]
    assert (entry.verb, entry.old, entry.new, entry.reason) == ("log", None, 1, "try it")
    assert [e["verb"] for e in short.backend.audit("default")] == ["project", "log", "promote"]


def test_the_first_log_makes_the_project(short: Any) -> None:
    short.backend.commit("acme", [short.draft("a", "x")], actor="ann")
    assert [p.name for p in short.backend.projects()] == ["acme", "default"]


def test_an_input_is_pinned_when_logged(short: Any) -> None:
    short.log("docs", "1")
    short.log("a", "x", ("docs:latest",))
    short.log("docs", "2")
    lineage = short.backend.lineage("default", Reference.parse("a:v1"), "up")
    assert [e.parent for e in lineage.edges] == ["docs:v1"]


def test_a_version_is_never_its_own_input(short: Any) -> None:
    short.log("a", "x")
    short.log("a", "x", ("a:v1",))
    assert short.backend.lineage("default", Reference.parse("a:v1"), "up").edges == ()


def test_a_manifest_over_64_kib_is_kept_as_a_blob_and_read_the_same(short: Any) -> None:
    big = Manifest.build("unknown-kind", {"content": "x" * 100_000})
    with short.backend.blobs.stage() as staging:
        staging.add(big.to_bytes())
        short.backend.commit("default", [Draft("a", big)], actor="ann", staging=staging)
    short.backend._parts._manifests.clear()
    found = short.backend.read("default", [Reference.parse("a:v1")]).items[0]
    assert isinstance(found, Found)
    assert found.manifest == big


def test_one_with_a_manifest_over_64_kib_takes_an_alias_as_it_is_logged(short: Any) -> None:
    big = Manifest.build("unknown-kind", {"content": "x" * 100_000})
    with short.backend.blobs.stage() as staging:
        staging.add(big.to_bytes())
        short.backend.commit("default", [Draft("a", big, aliases=("prod",))], actor="ann", staging=staging)
    assert short.at("a:prod") == "v1"


def test_staged_bytes_are_published_with_the_version_and_not_without(short: Any) -> None:
    data = b"bytes of an index" * 10
    blob = Blob(digest_of(data), len(data))
    manifest = Manifest.build("unknown-kind", {}, [Descriptor("f", blob.digest, blob.size)])
    with pytest.raises(NotFound), short.backend.blobs.stage() as staging:
        staging.add(data)
        bad = Draft("a", manifest, inputs=short.draft("a", "x", ("missing:v1",)).inputs)
        short.backend.commit("default", [bad], actor="ann", staging=staging)
    assert not short.backend._parts.blobs.has(blob)
    with short.backend.blobs.stage() as staging:
        staging.add(data)
        short.backend.commit("default", [Draft("a", manifest)], actor="ann", staging=staging)
    assert short.backend.blobs.read(blob) == data


def test_the_last_number_of_a_collection_is_used_and_the_next_refused(short: Any) -> None:
    short.log("a", "1")
    with short.backend._parts.metadata.writing() as s:
        s.run("update collection set head = 999999998")
    assert str(short.log("a", "2")) == "a:v999999999"
    with pytest.raises(Conflict, match="no number left"):
        short.log("a", "3")
    assert short.log("a", "2").number == 999_999_999
