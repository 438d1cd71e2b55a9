from __future__ import annotations

import random
from typing import Any, BinaryIO

import pytest

from llmartifacts.blobs.chunks.entries import ids_of
from llmartifacts.blobs.chunks.index import PackIndex
from llmartifacts.blobs.memory import MemoryDriver
from llmartifacts.errors import BlobMissing, Unreachable

SOME = [random.Random(i).randbytes(1000) for i in range(5)]


def test_an_index_is_made_from_the_packs_alone(bench: Any) -> None:
    entries = bench.put(*SOME)
    known = bench.index.find(ids_of(entries))
    assert len(known) == 5
    anew = PackIndex(bench.driver)
    assert anew.find(ids_of(entries)) == known
    assert anew.packs() == bench.index.packs() == {bench.packs()[0]: len(bench.stored(bench.packs()[0]))}


def test_what_is_not_there_is_not_found(bench: Any) -> None:
    assert bench.index.find([bytes(32)]) == {}
    assert bench.index.packs() == {}
    with pytest.raises(BlobMissing, match="no pack"):
        bench.reader().places([bytes(32)])


@pytest.mark.parametrize("at", [0, -1, -20, -100], ids=["header", "end", "trailer", "footer"])
def test_a_damaged_pack_is_passed_over_and_the_others_are_found(bench: Any, at: int) -> None:
    good = bench.put(*SOME[:2])
    bad = bench.put(*SOME[2:])
    pack = bench.index.find(ids_of(bad))[ids_of(bad)[0]].pack
    data = bytearray(bench.stored(pack))
    data[at] ^= 1
    for damaged in (bytes(data), b"", bytes(data[:-9])):
        bench.replace(pack, damaged)
        anew = PackIndex(bench.driver)
        assert anew.find(ids_of(bad)) == {}
        assert len(anew.find(ids_of(good))) == 2


def test_other_files_among_the_packs_are_passed_over(bench: Any) -> None:
    entries = bench.put(*SOME)
    bench.driver.put_if_absent("packs/ab/readme", b"x")
    bench.driver.put_if_absent("packs/ab/" + "ab" * 32 + ".pack", b"x")
    assert len(PackIndex(bench.driver).find(ids_of(entries))) == 5


def test_a_refresh_sees_what_another_process_stored_and_forgets_what_it_removed(bench: Any) -> None:
    mine = PackIndex(bench.driver)
    assert mine.packs() == {}
    entries = bench.put(*SOME)
    assert mine.find(ids_of(entries)) == {}
    mine.refresh()
    assert len(mine.find(ids_of(entries))) == 5
    (pack,) = bench.packs()
    bench.driver.delete(f"packs/{pack[:2]}/{pack}.pack")
    mine.refresh()
    assert mine.find(ids_of(entries)) == {}
    assert mine.packs() == {}


def test_a_reader_that_misses_a_chunk_looks_once_more(bench: Any) -> None:
    bench.index.refresh()
    other = PackIndex(bench.driver)
    reader = bench.reader()
    bench.index, mine = other, bench.index
    entries = bench.put(*SOME)
    assert mine.find(ids_of(entries)) == {}
    assert [bytes(c) for c in reader.read(entries)] == SOME


def test_a_chunk_is_found_in_the_pack_that_was_added_last_until_that_is_removed(bench: Any) -> None:
    first = bench.put(SOME[0], SOME[1])
    (old,) = bench.packs()
    writer = bench.writer()
    writer.reader.index = PackIndex(MemoryDriver())  # which does not know that it is there
    writer.add(SOME[0], [1000])
    (new,) = bench.publish(writer)
    assert [place.pack for place in bench.index.find(ids_of(first)).values()] == [new, old]
    bench.index.remove([new])
    bench.index.refresh()
    assert {place.pack for place in bench.index.find(ids_of(first)).values()} <= {new, old}
    assert len(bench.index.find(ids_of(first))) == 2


def test_a_listing_that_fails_is_an_error_and_tried_again(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = bench.put(*SOME)
    anew = PackIndex(bench.driver)

    def fails(prefix: str = "") -> Any:
        raise Unreachable("gone for a moment")

    def fails_to_read(key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        raise Unreachable("gone for a moment")

    for name, failing in (("list", fails), ("get", fails_to_read)):
        with monkeypatch.context() as patched:
            patched.setattr(bench.driver, name, failing)
            with pytest.raises(Unreachable):
                anew.find(ids_of(entries))
    assert len(anew.find(ids_of(entries))) == 5
