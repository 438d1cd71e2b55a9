"""The index of chunks in the database: part of a commit, found again when it is lost, made anew from the packs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest

from llmartifacts.blobs.chunks.index import NewPack
from llmartifacts.blobs.chunks.pack import RAW, PackWriter, Place, key_of
from llmartifacts.blobs.chunks.reader import ChunkReader
from llmartifacts.blobs.local import LocalDriver
from llmartifacts.errors import Damaged, NotFound
from llmartifacts.metadata import chunks
from llmartifacts.metadata.store import MetadataStore
from llmartifacts.records.backend import Draft
from llmartifacts.records.digest import Blob, digest_of
from llmartifacts.records.manifest import Descriptor, Manifest
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.embedded import EmbeddedBackend


def id_of(content: bytes) -> bytes:
    return blake3.blake3(content).digest()


class Kit:
    """A registry's database, a folder of packs, and an index over both."""

    def __init__(self, backend: Any, folder: Path) -> None:
        self.store: MetadataStore = backend._parts.metadata
        self.driver = LocalDriver(folder / "stored")
        self.folder = folder
        self.made = 0
        self.index = self.another()

    def another(self) -> RecordedIndex:
        """An index as another process has it."""
        return RecordedIndex(self.store, self.driver)

    def pack(self, *contents: bytes) -> NewPack:
        """Store a pack of these chunks, and record it nowhere."""
        self.made += 1
        writer = PackWriter(self.folder / f"pack{self.made}")
        places = {c: writer.add(id_of(c), c, len(c), RAW) for c in contents}
        name = writer.finish()
        assert self.driver.put_if_absent(key_of(name), writer.path)
        found = {id_of(c): Place(name, offset, stored, len(c), RAW) for c, (offset, stored) in places.items()}
        return NewPack(name, writer.size, found)

    def file(self, pack: NewPack) -> Path:
        """The file of a pack, made writable."""
        path = Path(self.driver.where(key_of(pack.name)))
        path.chmod(0o644)
        return path

    def rows(self) -> tuple[list[Any], list[Any]]:
        """All that is recorded, but for the numbers of the packs."""
        with self.store.reading() as s:
            packs = s.rows("select name, size, created_at from pack order by name")
            return packs, s.rows(
                "select k.id, p.name, k.place_offset, k.stored, k.length, k.form from chunk k"
                " join pack p on p.id = k.pack order by k.id"
            )

    def lose(self) -> None:
        """Lose the index."""
        with self.store.writing() as s:
            chunks.clear(s)


@pytest.fixture
def kit(backend: Any, tmp_path: Path) -> Kit:
    return Kit(backend, tmp_path)


def contents(count: int, seed: int = 1) -> list[bytes]:
    random = np.random.default_rng(seed)
    return [random.bytes(int(size)) for size in random.integers(1, 200, count)]


def ids(parts: Sequence[bytes]) -> list[bytes]:
    return [id_of(part) for part in parts]


# --- recorded


def test_what_is_added_is_found_by_every_process(kit: Kit) -> None:
    one, two = kit.pack(*contents(300)), kit.pack(*contents(20, seed=2))
    kit.index.add([one, two])
    assert kit.another().find([*one.chunks, *two.chunks, id_of(b"unknown")]) == {**one.chunks, **two.chunks}
    assert kit.index.packs() == {one.name: one.size, two.name: two.size}
    assert kit.index.find([]) == {}


def test_a_chunk_that_is_added_again_is_found_in_the_newer_pack(kit: Kit) -> None:
    one, two = kit.pack(b"same", b"other"), kit.pack(b"same")
    kit.index.add([one])
    kit.index.add([two])
    assert {p.pack for p in kit.index.find([id_of(b"same")]).values()} == {two.name}
    assert {p.pack for p in kit.index.find([id_of(b"other")]).values()} == {one.name}


def test_a_removed_pack_is_forgotten_with_its_chunks(kit: Kit) -> None:
    one, two = kit.pack(b"one"), kit.pack(b"two")
    kit.index.add([one, two])
    kit.index.remove([one.name])
    assert kit.index.find(ids([b"one", b"two"])) == dict(two.chunks)
    assert kit.index.packs() == {two.name: two.size}


def test_the_rows_of_an_index_hold_together(kit: Kit) -> None:
    kit.index.add([kit.pack(*contents(300))])
    with kit.store.reading() as s:
        assert list(chunks.problems(s)) == []


def test_verify_tells_of_a_chunk_that_is_recorded_outside_of_its_pack(short: Any) -> None:
    index = short.backend._parts.blobs.index
    index.add([NewPack("11" * 32, 100, {bytes(32): Place("11" * 32, 90, 11, 11, RAW)})])
    told = [problem.message for problem in short.backend.verify().problems]
    assert any("1 chunks are recorded outside of the pack 1111111111111111" in line for line in told)


# --- in the transaction of a version


def test_what_is_added_within_a_transaction_is_undone_with_it(kit: Kit) -> None:
    pack = kit.pack(b"one")
    with pytest.raises(ZeroDivisionError), kit.store.writing() as s, kit.index.within(s):
        kit.index.add([pack])
        assert kit.index.find([id_of(b"one")]) == dict(pack.chunks)
        _ = 1 / 0
    assert kit.index.find([id_of(b"one")]) == {}
    kit.index.add([pack])  # outside again, with a transaction of its own
    assert kit.index.packs() == {pack.name: pack.size}


def test_a_transaction_of_one_thread_is_not_that_of_another(kit: Kit) -> None:
    pack = kit.pack(b"one")
    seen: list[dict[bytes, Place]] = []
    with kit.store.writing() as s, kit.index.within(s):
        kit.index.add([pack])
        thread = threading.Thread(target=lambda: seen.append(kit.index.find([id_of(b"one")])))
        thread.start()
        thread.join(30)
    assert seen == [{}]
    assert kit.index.find([id_of(b"one")]) == dict(pack.chunks)


def test_finding_inside_a_read_transaction_of_this_thread_is_of_its_moment(kit: Kit) -> None:
    kit.index.add([kit.pack(b"one")])
    later = kit.pack(b"two")
    with kit.store.reading() as s:
        s.row("select count(*) from pack")
        thread = threading.Thread(target=kit.index.add, args=([later],))
        thread.start()
        thread.join(30)
        assert list(kit.index.find(ids([b"one", b"two"]))) == [id_of(b"one")]
    assert len(kit.index.find(ids([b"one", b"two"]))) == 2


def test_chunks_of_a_large_file_are_recorded_with_its_version_and_not_without(short: Any) -> None:
    data = np.random.default_rng(1).bytes(3_000_000)
    blob = Blob(digest_of(data), len(data))
    manifest = Manifest.build("unknown-kind", {}, [Descriptor("f", blob.digest, blob.size)])
    index = short.backend._parts.blobs.index
    assert isinstance(index, RecordedIndex)
    with pytest.raises(NotFound), short.backend.blobs.stage() as staging:
        staging.add(data)
        bad = Draft("a", manifest, inputs=short.draft("a", "x", ("missing:v1",)).inputs)
        short.backend.commit("default", [bad], actor="ann", staging=staging)
    assert index.packs() == {}
    with short.backend.blobs.stage() as staging:
        staging.add(data)
        short.backend.commit("default", [Draft("a", manifest)], actor="ann", staging=staging)
    assert len(index.packs()) == 1
    assert short.backend.blobs.read(blob) == data
    with short.backend._parts.metadata.reading() as s:
        assert list(chunks.problems(s)) == []


# --- stored and not recorded


def test_a_lost_index_is_found_again_without_a_write(kit: Kit) -> None:
    packs = [kit.pack(*contents(100, seed)) for seed in (1, 2, 3)]
    everything = {name: place for pack in packs for name, place in pack.chunks.items()}
    kit.index.add(packs)
    kit.lose()
    assert kit.index.find(list(everything)) == {}
    kit.index.refresh()
    assert kit.index.find([*everything, id_of(b"nowhere")]) == everything
    assert kit.rows() == ([], [])
    assert kit.index.packs() == {}


def test_a_reader_finds_what_a_crash_left_out_of_the_index(kit: Kit) -> None:
    kit.index.add([kit.pack(b"recorded")])
    kit.pack(b"left out")
    places = ChunkReader(kit.driver, kit.index).places(ids([b"recorded", b"left out"]))
    assert [place.length for place in places] == [8, 8]


def test_a_chunk_that_is_nowhere_stays_unknown(kit: Kit) -> None:
    kit.pack(b"one")
    kit.index.refresh()
    assert kit.index.find([id_of(b"nowhere"), bytes(32), b"\xff" * 32]) == {}


def test_footers_are_read_once_whether_sound_or_damaged(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.pack(b"sound")
    damaged = kit.pack(b"damaged")
    file = kit.file(damaged)
    file.write_bytes(file.read_bytes()[:-60] + bytes(60))
    read: list[str] = []
    get = kit.driver.get
    monkeypatch.setattr(kit.driver, "get", lambda key, *a: (read.append(key), get(key, *a))[1])
    kit.index.refresh()
    first = len(read)
    assert key_of(damaged.name) in read
    kit.index.refresh()
    assert len(read) == first
    assert list(kit.index.find(ids([b"sound", b"damaged"]))) == [id_of(b"sound")]
    more = kit.pack(b"more")
    kit.index.refresh()
    assert set(read[first:]) == {key_of(more.name)}


def test_what_was_recorded_or_removed_since_leaves_the_memory(kit: Kit) -> None:
    one, two, three = kit.pack(b"one"), kit.pack(b"two"), kit.pack(b"three")
    kit.index.refresh()
    kit.another().add([one])
    kit.driver.delete(key_of(two.name))
    kit.index.refresh()
    assert kit.index._overlay is not None
    assert kit.index._overlay.packs == {three.name: three.size}
    assert set(kit.index.find(ids([b"one", b"two", b"three"]))) == set(ids([b"one", b"three"]))
    kit.index.remove([three.name])
    assert kit.index.find([id_of(b"three")]) == {}


def test_a_version_that_relies_on_an_unrecorded_pack_records_it(kit: Kit) -> None:
    pack, gone = kit.pack(b"one", b"two"), kit.pack(b"gone")
    kit.index.refresh()
    kit.driver.delete(key_of(gone.name))
    with kit.store.writing() as s, kit.index.within(s):
        assert kit.index.find(ids([b"one", b"gone"])) == {id_of(b"one"): pack.chunks[id_of(b"one")]}
    assert kit.another().packs() == {pack.name: pack.size}
    assert kit.another().find(ids([b"one", b"two"])) == dict(pack.chunks)


def test_ids_that_end_in_zeros_are_told_apart_in_memory(kit: Kit) -> None:
    names = [bytes(32), b"a" + bytes(31), b"a\0b" + bytes(29), bytes(31) + b"a", b"\xff" * 32]
    writer = PackWriter(kit.folder / "zeros")
    places = {name: writer.add(name, bytes([n]) * (n + 1), n + 1, RAW) for n, name in enumerate(names)}
    name = writer.finish()
    kit.driver.put_if_absent(key_of(name), writer.path)
    kit.index.refresh()
    assert kit.index.find([*names, b"a\0" + bytes(29) + b"b"]) == {
        i: Place(name, *place, n + 1, RAW) for n, (i, place) in enumerate(places.items())
    }


# --- made anew


def test_an_index_that_is_made_anew_is_the_one_that_was_recorded(kit: Kit) -> None:
    kit.index.add([kit.pack(*contents(200)), kit.pack(*contents(50, seed=2))])
    kit.index.add([kit.pack(b"later", *contents(10))])
    before = kit.rows()
    assert kit.index.rebuild() == []
    assert kit.rows() == before


def test_a_lost_index_is_made_anew(kit: Kit) -> None:
    kit.index.add([kit.pack(*contents(200)), kit.pack(*contents(50, seed=2))])
    sizes, before = kit.index.packs(), kit.rows()[1]
    kit.lose()
    kit.index.refresh()
    assert kit.index.rebuild() == []
    assert (kit.index.packs(), kit.rows()[1]) == (sizes, before)
    assert kit.index._overlay is None


def test_what_was_recorded_wrongly_is_put_right(kit: Kit) -> None:
    pack = kit.pack(*contents(50))
    kit.index.add([pack, NewPack("33" * 32, 99, {id_of(b"invented"): Place("33" * 32, 8, 9, 9, RAW)})])
    with kit.store.writing() as s:
        s.run("update chunk set place_offset = 7")
    assert kit.index.rebuild() == []
    assert kit.index.packs() == {pack.name: pack.size}
    assert kit.index.find([*pack.chunks, id_of(b"invented")]) == dict(pack.chunks)


def test_a_damaged_pack_is_told_and_passed_over(kit: Kit) -> None:
    good, bad, short = kit.pack(b"good"), kit.pack(b"bad"), kit.pack(b"short")
    kit.index.add([good, bad, short])
    file = kit.file(bad)
    raw = bytearray(file.read_bytes())
    raw[-100] ^= 1
    file.write_bytes(bytes(raw))
    kit.file(short).write_bytes(b"LLM")
    told = kit.index.rebuild()
    assert {error.file for error in told} == {str(file), kit.driver.where(key_of(short.name))}
    assert all(isinstance(error, Damaged) for error in told)
    assert kit.index.find(ids([b"good", b"bad", b"short"])) == dict(good.chunks)


def test_of_a_chunk_in_two_packs_the_sound_one_is_taken(kit: Kit) -> None:
    one, two = kit.pack(b"the same chunk", b"one"), kit.pack(b"the same chunk", b"two")
    for lost in (one, two):
        file = kit.file(lost)
        sound = file.read_bytes()
        file.write_bytes(sound.replace(b"the same chunk", b"not that chunk"))
        kit.lose()
        assert kit.index.rebuild() == []
        other = two if lost is one else one
        assert kit.index.find(ids([b"the same chunk"]))[id_of(b"the same chunk")].pack == other.name
        assert set(kit.index.packs()) == {one.name, two.name}
        file.write_bytes(sound)


def test_an_index_is_as_it_was_if_making_it_anew_fails(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.index.add([kit.pack(b"one"), kit.pack(b"two")])
    before = kit.rows()

    def fail(*_: object) -> None:
        raise ConnectionError("the store is away")

    monkeypatch.setattr(kit.driver, "get", fail)
    with pytest.raises(Exception, match="the store is away"):
        kit.index.rebuild()
    assert kit.rows() == before


# --- many threads, and none of the heavy packages


def test_threads_that_add_and_find_at_once_see_whole_packs(kit: Kit) -> None:
    packs = [kit.pack(*contents(40, seed)) for seed in range(8)]
    wrong: list[str] = []

    def write(pack: NewPack) -> None:
        kit.index.add([pack])

    def read() -> None:
        for _ in range(20):
            for pack in packs:
                found = kit.index.find(list(pack.chunks))
                if found not in ({}, pack.chunks):
                    wrong.append(pack.name)
            kit.index.refresh()

    threads = [threading.Thread(target=write, args=(pack,)) for pack in packs]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert set(kit.index.packs()) == {pack.name for pack in packs}


def test_small_content_is_logged_and_read_without_numpy_and_blake3(tmp_path: Path) -> None:
    EmbeddedBackend.create(tmp_path / "registry", actor="ann").close()
    code = """if True:
        import sys
        from pathlib import Path
        from llmartifacts.records.backend import Draft
        from llmartifacts.records.manifest import Manifest
        from llmartifacts.records.reference import Reference
        from llmartifacts.versioning.embedded import EmbeddedBackend
        backend = EmbeddedBackend.open(Path(sys.argv[1]))
        with backend.blobs.stage() as staging:
            staging.add(b"a prompt")
            draft = Draft("a", Manifest.build("unknown-kind", {"content": "x"}))
            backend.commit("default", [draft], actor="ann", staging=staging)
        backend.read("default", [Reference.parse("a:v1")])
        print(sorted({"numpy", "blake3", "zstandard"} & set(sys.modules)))
    """
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "registry")], capture_output=True, text=True)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")
