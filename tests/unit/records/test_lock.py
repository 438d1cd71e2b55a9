import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidInput, InvalidManifest, NewerFormat
from llmartifacts.records.digest import digest_of
from llmartifacts.records.lock import Locked, Lockfile

LOCKED = st.builds(
    Locked,
    st.sampled_from(["agent:prod", "acme/kb:v5", "kb@" + digest_of(b"")]),
    st.sampled_from(["prompt", "vector_index"]),
    st.integers(1, 999_999_999),
    st.binary(max_size=3).map(digest_of),
    st.integers(0, 2**53 - 1),
    st.none() | st.integers(0, 1000),
)
LOCKFILES = st.builds(
    Lockfile,
    st.just("acme"),
    st.integers(0, 10**6),
    st.dictionaries(st.text("abc_é", min_size=1), LOCKED),
)
LOCK = Lockfile("default", 7, {"agent": Locked("agent:prod", "prompt", 3, digest_of(b"a"), 10, 2)})


@given(LOCKFILES)
def test_a_lockfile_reads_as_it_is_written(lock):
    text = lock.to_text()
    assert Lockfile.from_text(text) == Lockfile.from_text(text.encode()) == lock
    assert Lockfile.from_text(text).to_text() == text
    assert text.endswith("}\n")


@given(LOCKFILES)
def test_the_order_of_components_does_not_matter(lock):
    other = Lockfile(lock.project, lock.revision, dict(reversed(lock.components.items())))
    assert other.to_text() == lock.to_text()
    assert other.set_digest == lock.set_digest


def test_one_component_takes_its_own_lines_so_that_a_review_shows_what_moved():
    text = LOCK.to_text()
    assert text.count("\n") > 10
    assert '"version": "v3"' in text


def test_the_set_digest_covers_names_and_digests_only():
    again = Lockfile("acme", 8, {"agent": Locked("agent:staging", "prompt", 4, digest_of(b"a"), 11)})
    moved = Lockfile("default", 7, {"agent": Locked("agent:prod", "prompt", 3, digest_of(b"b"), 10, 2)})
    renamed = Lockfile("default", 7, {"other": LOCK.components["agent"]})
    assert again.set_digest == LOCK.set_digest
    assert len({LOCK.set_digest, moved.set_digest, renamed.set_digest}) == 3


def test_the_name_of_a_collection_comes_from_the_reference():
    assert Locked("acme/agent:prod", "prompt", 1, digest_of(b""), 0).name == "agent"


def edited(**changes):
    body = json.loads(LOCK.to_text())
    for key, value in changes.items():
        place = body["components"]["agent"] if key in body["components"]["agent"] else body
        if value is ...:
            del place[key]
        else:
            place[key] = value
    return json.dumps(body)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": ...},
        {"schema": 1},
        {"schema": "other"},
        {"project": ...},
        {"project": "a b"},
        {"revision": -1},
        {"revision": "7"},
        {"revision": True},
        {"set": ...},
        {"set": "sha256:0"},
        {"set": None},
        {"components": ...},
        {"components": []},
        {"components": {"agent": 7}},
        {"components": {"agent": None}},
        {"reference": ...},
        {"reference": "a b"},
        {"reference": 7},
        {"kind": "a b"},
        {"kind": None},
        {"version": "prod"},
        {"version": 3},
        {"version": "v0"},
        {"version": "v3@" + digest_of(b"")},
        {"digest": "sha256:0"},
        {"digest": None},
        {"digest": digest_of(b"other")},
        {"size": -1},
        {"size": 1.5},
        {"move": "2"},
        {"move": -2},
    ],
    ids=str,
)
def test_a_lockfile_that_was_spoilt_is_refused_and_says_how_to_write_it_anew(changes):
    with pytest.raises(InvalidInput) as caught:
        Lockfile.from_text(edited(**changes), origin="llmartifacts.lock")
    if isinstance(caught.value, InvalidManifest):
        assert "llmartifacts lock" in caught.value.hint()


def test_a_digest_edited_by_hand_is_noticed():
    with pytest.raises(InvalidManifest, match="edited by hand") as caught:
        Lockfile.from_text(edited(digest=digest_of(b"other")))
    assert caught.value.field == "set"


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "{", '{"a":1,"a":1}', "[" * 100_000, b"\xff"], ids=lambda t: str(t)[:9]
)
def test_what_is_no_lockfile_is_refused(text):
    with pytest.raises(InvalidManifest) as caught:
        Lockfile.from_text(text, origin="x/llmartifacts.lock")
    assert caught.value.origin == "x/llmartifacts.lock"


def test_a_newer_lockfile_says_so():
    with pytest.raises(NewerFormat):
        Lockfile.from_text(edited(schema="llmartifacts/lock/2"))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "v4"},
        {"size": 11},
        {"kind": "files"},
        {"move": 3},
        {"move": ...},
        {"revision": 8},
        {"project": "acme"},
    ],
)
def test_what_no_digest_of_a_component_covers_is_covered_by_the_check(changes):
    with pytest.raises(InvalidManifest, match="edited by hand") as caught:
        Lockfile.from_text(edited(**changes))
    assert caught.value.field == "check"


def test_a_lockfile_without_a_check_is_read_as_it_is():
    assert Lockfile.from_text(edited(check=...)) == LOCK


@pytest.mark.parametrize("check", [None, "", 1, [], digest_of(b"")])
def test_a_check_that_is_another_is_refused(check):
    with pytest.raises(InvalidManifest):
        Lockfile.from_text(edited(check=check))
