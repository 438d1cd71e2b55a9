"""What an export holds is listed outside of memory, and what is to become of it follows from that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import NotAllowed
from llmartifacts.versioning.exports import ledger as module
from llmartifacts.versioning.exports.ledger import Ledger, Twice


def digest(value: object) -> bytes:
    return hashlib.sha256(str(value).encode()).digest()


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    made = Ledger()
    yield made
    made.close()


def filled(ledger: Ledger, name: str, numbers: list[int], latest: int | None = None) -> int:
    """A collection with versions of these numbers; the content of each is its number."""
    collection = 0
    for number in numbers:
        collection, _, _ = ledger.collection("default", name, "prompt")
        ledger.version(collection, number, digest(number), digest((name, number)))
        if number == latest:
            ledger.latest(collection, number)
    return collection


def test_a_collection_is_listed_once_and_remembers_its_kind_and_last_number(ledger: Ledger) -> None:
    first = filled(ledger, "agent", [3, 7])
    assert ledger.collection("default", "agent", "files") == (first, "prompt", 7)
    assert ledger.collection("other", "agent", "files") == (first + 1, "files", 0)
    assert ledger.projects() == ["default", "other"]


@pytest.mark.parametrize(("project", "name"), [("default", "Agent"), ("Default", "agent"), ("DEFAULT", "another")])
def test_a_name_that_differs_in_case_only_is_refused(ledger: Ledger, project: str, name: str) -> None:
    ledger.collection("default", "agent", "prompt")
    with pytest.raises(Twice):
        ledger.collection(project, name, "prompt")


def test_what_is_said_twice_is_noticed(ledger: Ledger) -> None:
    one = filled(ledger, "agent", [1, 2], latest=1)
    ledger.file(digest("a"), 5)
    with pytest.raises(Twice):
        ledger.file(digest("a"), 6)
    with pytest.raises(Twice):
        ledger.latest(one, 2)
    ledger.alias(one, "prod", 1)
    ledger.alias(one, "prod", 1)
    with pytest.raises(Twice):
        ledger.alias(one, "prod", 2)


@pytest.mark.parametrize(("number", "content"), [(5, 1), (1, 5)])
def test_a_number_or_content_that_is_there_twice_is_noticed_at_the_end(
    ledger: Ledger, number: int, content: int
) -> None:
    one = filled(ledger, "agent", [1, 2])
    filled(ledger, "another", [1, 2])
    ledger.version(one, number, digest(content), digest("x"))
    with pytest.raises(Twice):
        ledger.seal()


def test_files_are_used_by_digest_and_size(ledger: Ledger) -> None:
    ledger.file(digest("a"), 5)
    assert not ledger.use(digest("a"), 6)
    assert not ledger.use(digest("b"), 5)
    assert ledger.has_unused_file()
    assert ledger.use(digest("a"), 5)
    assert not ledger.has_unused_file()
    ledger.only_needed()
    assert not ledger.is_needed(digest("a"))
    ledger.use(digest("a"), 5)
    assert ledger.is_needed(digest("a"))


def test_more_rows_than_a_page_are_given_in_order(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 7)
    names = [f"c{i:03}" for i in range(30)]
    for number in (1, 2, 3):
        for name in names:
            filled(ledger, name, [number])
    ledger.seal()
    ledger.settle()
    assert [one.name for one in ledger.collections()] == names
    places = list(ledger.each())
    assert [one.seq for one in places] == list(range(1, 91))
    assert [one.told for one in places] == [digest((name, number)) for number in (1, 2, 3) for name in names]
    for seq in (50, 3, 80, 7, 90, 12, 11, 10, 9, 8):
        ledger.later(seq, 2)
        ledger.later(seq, 0)
    assert list(ledger.late()) == [3, 7, 8, 9, 10, 11, 12, 50, 80, 90]
    assert ledger.late_of(50) == [0, 2]


NUMBERS = st.sets(st.integers(1, 12), min_size=1).map(sorted)


@given(numbers=NUMBERS, here=st.none() | st.sets(st.integers(1, 12)), last=st.integers(0, 12))
def test_what_is_new_and_what_latest_will_mean(numbers: list[int], here: set[int] | None, last: int) -> None:
    ledger = Ledger()
    try:
        latest = last if last in numbers else None
        one = filled(ledger, "agent", numbers, latest)
        ledger.seal()
        if here is not None:
            ledger.here(one, map(digest, here))
        ledger.settle()
        fresh = [number for number in numbers if number not in (here or ())]
        (found,) = ledger.collections()
        assert (found.there, found.count, found.fresh) == (here is not None, len(numbers), len(fresh))
        assert [place.fresh for place in ledger.each()] == [number in fresh for number in numbers]
        assert ledger.fresh == len(fresh)
        assert ledger.brings("prompt") == bool(fresh)
        assert not ledger.brings("files")
        # In a new collection `latest` is what it was; where others are here already, the last that is logged.
        again = here is None and latest is not None and latest != fresh[-1]
        assert list(ledger.once_more()) == ([numbers.index(latest) + 1] if again and latest else [])
    finally:
        ledger.close()


def test_a_version_is_found_by_name_number_and_digest_together(ledger: Ledger) -> None:
    filled(ledger, "agent", [1, 2])
    ledger.seal()
    assert ledger.place("default", "agent", 2, digest(2)) == 2
    for asked in [("default", "agent", 2, digest(1)), ("default", "a", 2, digest(2)), ("d", "agent", 2, digest(2))]:
        assert ledger.place(*asked) is None


def test_aliases_are_given_with_what_they_name(ledger: Ledger) -> None:
    one = filled(ledger, "agent", [1, 2])
    ledger.alias(one, "prod", 2)
    ledger.alias(one, "canary", 1)
    ledger.seal()
    assert list(ledger.aliases()) == [
        ("default", "agent", "canary", digest(1)),
        ("default", "agent", "prod", digest(2)),
    ]


def test_a_full_temporary_folder_is_told_as_one() -> None:
    ledger = Ledger()
    ledger._db.execute("pragma max_page_count=20")
    with pytest.raises(NotAllowed, match="temporary folder is full"):
        for i in range(10_000):
            ledger.file(digest(i), i)
    ledger.close()
