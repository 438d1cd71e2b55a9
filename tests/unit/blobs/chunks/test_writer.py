from __future__ import annotations

import errno
import os
import random
from itertools import accumulate
from typing import Any

import pytest

from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks import writer as writers
from llmartifacts.blobs.chunks.check import check_pack
from llmartifacts.blobs.chunks.entries import ids_of, lengths_of
from llmartifacts.blobs.chunks.mend import mend
from llmartifacts.blobs.chunks.pack import RAW, ZSTD
from llmartifacts.errors import NotAllowed

NOISE = [random.Random(i).randbytes(3000 + 17 * i) for i in range(12)]
TEXT = [(b"line %d of a text\n" % i) * (50 + i) for i in range(12)]


def add(writer: Any, *contents: bytes, **how: Any) -> Any:
    return writer.add(b"".join(contents), list(accumulate(map(len, contents))), **how)


def contents(bench: Any, entries: Any) -> list[bytes]:
    return [bytes(content) for content in bench.reader().read(entries, verify=True)]


def files(bench: Any) -> list[str]:
    return sorted(p.name for p in bench.scratch.iterdir())


def test_chunks_are_named_by_their_content_and_cut_where_they_were_told_to_be(bench: Any) -> None:
    writer = bench.writer()
    entries = add(writer, *NOISE)
    assert lengths_of(entries).tolist() == [len(n) for n in NOISE]
    assert len(set(ids_of(entries))) == len(NOISE)
    assert len(writer.add(b"", [])) == 0
    bench.publish(writer)
    assert contents(bench, entries) == NOISE


def test_the_same_content_is_written_once_in_a_staging(bench: Any) -> None:
    writer = bench.writer()
    first = add(writer, NOISE[0], NOISE[1], NOISE[0])
    second = add(writer, NOISE[1], NOISE[2])
    writer.finish()
    third = add(writer, NOISE[0], NOISE[2])  # the pack is complete by now
    names = bench.publish(writer)
    assert sum(len(bench.stored(name)) for name in names) < sum(map(len, NOISE[:3])) + 500
    assert contents(bench, first) == [NOISE[0], NOISE[1], NOISE[0]]
    assert contents(bench, second) + contents(bench, third) == [NOISE[1], NOISE[2], NOISE[0], NOISE[2]]


def test_what_is_stored_is_relied_on_and_not_written_again(bench: Any) -> None:
    entries = bench.put(*NOISE)
    writer = bench.writer()
    assert add(writer, *NOISE).tobytes() == entries.tobytes()
    assert (writer.relied, writer.packs, files(bench)) == (set(ids_of(entries)), [], files(bench))
    more = add(writer, NOISE[0], TEXT[0])
    writer.finish()
    assert len(writer.packs) == 1
    assert list(writer.packs[0].chunks) == [ids_of(more)[1]]
    assert writer.added == writer.packs[0].size == writer.packs[0].file.stat().st_size
    writer.close()


@pytest.mark.parametrize("kind", ["bench", "mapped"])
def test_a_chunk_that_is_stored_damaged_is_stored_anew_found_there_and_mended_where_it_was(
    kind: str, request: pytest.FixtureRequest
) -> None:
    bench = request.getfixturevalue(kind)
    entries = bench.put(*NOISE, *TEXT)
    old = set(bench.packs())
    for number in (0, 5, 14, 23):
        place = bench.index.find(ids_of(entries))[ids_of(entries)[number]]
        good = bench.stored(place.pack)
        data = bytearray(good)
        data[place.offset + 1] ^= 4
        bench.replace(place.pack, bytes(data))
        writer = bench.writer()
        again = add(writer, *NOISE, *TEXT)
        assert again.tobytes() == entries.tobytes()
        assert writer.damaged == {place.pack}
        assert ids_of(entries)[number] not in writer.relied
        (new,) = bench.publish(writer)
        assert new not in old
        assert bench.index.find(ids_of(entries))[ids_of(entries)[number]].pack == new
        assert contents(bench, entries) == [*NOISE, *TEXT]
        mend(bench.driver, bench.index, place.pack, bench.new_file)
        assert bench.stored(place.pack) == good
        bench.driver.delete(packs.key_of(new))
        bench.index.refresh()


def test_mending_does_what_it_can_and_no_more(bench: Any) -> None:
    entries = bench.put(*NOISE[:3], compress=False)
    (pack,) = bench.packs()
    good = bench.stored(pack)
    places = bench.index.find(ids_of(entries))
    data = bytearray(good)
    for name in ids_of(entries)[:2]:
        data[places[name].offset] ^= 1
    bench.replace(pack, bytes(data))
    mend(bench.driver, bench.index, pack, bench.new_file)
    assert bench.stored(pack) == bytes(data), "there is no good copy anywhere"
    writer = bench.writer()
    add(writer, NOISE[0])
    bench.publish(writer)
    mend(bench.driver, bench.index, pack, bench.new_file)
    assert bench.stored(pack)[: places[ids_of(entries)[1]].offset] == good[: places[ids_of(entries)[1]].offset]
    assert bench.stored(pack) != good
    for hopeless in (b"", good[:-1], good[:100]):
        bench.replace(pack, hopeless)
        mend(bench.driver, bench.index, pack, bench.new_file)
        assert bench.stored(pack) == hopeless
    mend(bench.driver, bench.index, "ab" * 32, bench.new_file)


def test_going_back_to_a_mark_leaves_nothing(bench: Any) -> None:
    entries = bench.put(NOISE[0])
    writer = bench.writer()
    kept = add(writer, NOISE[1])
    mark = writer.mark()
    before = files(bench)
    gone = add(writer, NOISE[0], NOISE[1], *NOISE[2:])
    writer.finish()
    add(writer, *TEXT)  # in a pack that is still open
    writer.back(mark)
    assert files(bench) == before
    assert (writer.relied, writer.added, len(writer.packs)) == (set(), writer.packs[0].size, 1)
    assert writer.reader.find(ids_of(gone)).keys() == {ids_of(entries)[0], ids_of(kept)[0]}
    again = add(writer, NOISE[2], TEXT[0])
    bench.publish(writer)
    assert contents(bench, again) == [NOISE[2], TEXT[0]]
    assert contents(bench, kept) == [NOISE[1]]
    assert bench.reader().find(ids_of(gone)[3:]) == {}


@pytest.mark.parametrize("call", ["writev", "fdatasync"])
def test_after_a_full_disk_one_goes_back_and_tries_again(
    bench: Any, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = bench.writer()
    mark = writer.mark()
    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(NotAllowed, match="is full"):
            add(writer, *NOISE)
            writer.finish()
            writer.durable()
        writer.back(mark)
    assert files(bench) == []
    entries = add(writer, *NOISE)
    bench.publish(writer)
    assert contents(bench, entries) == NOISE


def test_packs_roll_over_when_they_are_full(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "FULL", 10_000)
    writer = bench.writer()
    entries = add(writer, *NOISE)
    names = bench.publish(writer)
    assert len(names) == 3
    for name in names:
        assert len(bench.stored(name)) < 10_000 + 4000 + 1000
        check_pack(bench.driver, name, len(bench.stored(name)))
    assert contents(bench, entries) == NOISE


def test_the_buffer_may_be_used_again_when_adding_returns(bench: Any) -> None:
    writer = bench.writer()
    buffer = bytearray(NOISE[0])
    entries = writer.add(buffer, [1000, len(buffer)])
    buffer[:] = bytes(len(buffer))
    bench.publish(writer)
    assert contents(bench, entries) == [NOISE[0][:1000], NOISE[0][1000:]]


def test_chunks_are_compressed_where_that_pays_and_only_there(bench: Any) -> None:
    def forms(*contents: bytes, compress: bool = True) -> list[int]:
        entries = bench.put(*contents, compress=compress)
        return [bench.index.find(ids_of(entries))[name].form for name in ids_of(entries)]

    assert forms(*TEXT) == [ZSTD] * 12
    assert forms(*NOISE) == [RAW] * 12
    assert forms(*(text + b"!" for text in TEXT), compress=False) == [RAW] * 12
    mixed = [text * 3 + b"?" for text in TEXT]
    assert forms(*mixed, NOISE[0] + b"?") == [ZSTD] * 12 + [RAW], "one that gains nothing stays raw among others"


def test_a_writer_that_is_closed_leaves_neither_an_open_file_nor_a_pack(bench: Any) -> None:
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        writer = bench.writer()
        add(writer, *NOISE)
        writer.close()
    assert len(os.listdir("/dev/fd")) == before
    assert files(bench) == []
