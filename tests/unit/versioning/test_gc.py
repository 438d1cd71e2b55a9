"""gc frees what no version needs, and nothing else."""

from __future__ import annotations

import random
import shutil
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmartifacts as la
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks import writer
from llmartifacts.blobs.forms import RECIPE, key_of
from llmartifacts.errors import BlobMissing, Conflict, Damaged, NewerFormat, Unreachable
from llmartifacts.records.backend import Collected

MB = 1 << 20
Shelf = Any


def noise(seed: int, size: int = MB + MB // 4) -> bytes:
    return random.Random(seed).randbytes(size)


def test_nothing_is_freed_of_what_versions_need(shelf: Shelf) -> None:
    for seed in range(3):
        shelf.log("kb", noise(seed))
        shelf.registry.log("prompt", la.Prompt(f"say {seed}", template_format="f-string"))
    contents = [shelf.read(f"kb:v{n}") for n in (1, 2, 3)]
    done = shelf.registry.gc()
    assert (done.objects, done.chunks, done.left) == (0, 0, 0)
    assert [shelf.read(f"kb:v{n}") for n in (1, 2, 3)] == contents
    assert shelf.registry.verify(read_data=True).ok


def test_a_forgotten_version_is_freed_but_what_others_share_with_it(shelf: Shelf) -> None:
    shared = noise(0)
    shelf.log("kb", shared + noise(1))
    shelf.log("kb", shared + noise(2))
    shelf.log("kb", b"a small one " * 1000)
    shelf.forget("kb:v1")
    shelf.forget("kb:v3")
    before = shelf.on_disk()
    done = shelf.registry.gc(compact=True)
    assert done.objects == 2
    assert done.chunks > 5
    assert done.freed == before - shelf.on_disk()
    assert done.freed > MB
    assert shelf.read("kb:v2") == shared + noise(2)
    assert shelf.registry.stats().unused == 0


@pytest.mark.parametrize("at", [0, 2])
def test_where_only_some_could_be_deleted_the_error_is_typed_and_the_next_gc_does_the_rest(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """At the first key, and in the middle: objects before the commit, packs after it."""
    for seed in range(4):
        shelf.log(f"small{seed}", random.Random(seed).randbytes(20_000))
        shelf.log(f"large{seed}", noise(seed))
    for seed in range(3):
        shelf.forget(f"small{seed}:v1")
        shelf.forget(f"large{seed}:v1")
    driver = shelf.parts.blobs.driver
    whole, failed = driver.delete_many, []
    kept = noise(3), random.Random(3).randbytes(20_000)

    def part(keys: Any) -> None:
        whole(keys[:at])
        failed.append(keys)
        raise Unreachable("the line broke")

    for failures in (1, 2):
        monkeypatch.setattr(driver, "delete_many", part if failures == 1 else _second_time(whole, part))
        audited = len(list(shelf.registry.audit_log(verb="gc")))
        with pytest.raises(Unreachable):
            shelf.registry.gc(compact=True)
        assert (shelf.read("large3:v1"), shelf.read("small3:v1")) == kept
        assert len(list(shelf.registry.audit_log(verb="gc"))) == audited + (failures - 1), "told once it is committed"
    assert [key.partition("/")[0] for keys in failed for key in keys[:1]] == ["sha256", "packs"]
    monkeypatch.undo()
    shelf.registry.gc(compact=True)
    assert (shelf.read("large3:v1"), shelf.read("small3:v1")) == kept
    assert shelf.registry.stats().unused == 0
    assert len(shelf.files("packs")) == 1


def _second_time(first: Any, then: Any) -> Any:
    calls = iter([first, then])
    return lambda keys: next(calls)(keys)


def test_small_packs_are_put_together(shelf: Shelf) -> None:
    for seed in range(5):
        shelf.log("kb", noise(seed))
    assert len(shelf.files("packs")) == 5
    done = shelf.registry.gc()
    assert (done.packs, done.written) == (5, 1)
    assert len(shelf.files("packs")) == 1
    assert [shelf.read(f"kb:v{n + 1}") for n in range(5)] == [noise(n) for n in range(5)]
    again = shelf.registry.gc()
    assert (again.packs, again.freed) == (0, 0)


def test_a_pack_more_than_half_alive_stays_until_compact(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (packs, writer):
        monkeypatch.setattr(module, "FULL", 4 * MB)  # so that this pack is no small one
    shelf.log("kb", noise(0, 3 * MB) + noise(1, MB))
    shelf.log("kb", noise(0, 3 * MB))
    shelf.forget("kb:v1")
    assert shelf.registry.stats().unused > 900_000
    done = shelf.registry.gc()
    assert done.objects == 1
    assert 0 < done.left < MB + 300_000
    assert shelf.registry.stats().unused > done.left
    done = shelf.registry.gc(compact=True)
    assert done.left == 0
    assert done.freed > 900_000
    assert shelf.registry.stats().unused == 0
    assert shelf.read("kb:v2") == noise(0, 3 * MB)


def test_gc_is_audited(shelf: Shelf) -> None:
    shelf.log("kb", noise(1))
    shelf.forget("kb:v1")
    shelf.registry.gc(dry_run=True)
    assert [e for e in shelf.registry.backend.audit() if e["verb"] == "gc"] == []
    done = shelf.registry.gc(compact=True)
    (entry,) = (e for e in shelf.registry.backend.audit() if e["verb"] == "gc")
    assert entry["actor"] == shelf.registry.actor
    assert entry["body"]["before"] - entry["body"]["after"] == done.freed > MB
    assert entry["body"]["compact"] is True


# --- erasure


def test_a_removed_row_is_gone_for_good_after_compact_when_no_version_holds_it(
    shelf: Shelf, flask_vectors: Any, ivf: Any
) -> None:
    secret = np.random.default_rng(7).normal(size=384).astype("f4")
    vectors = np.vstack([flask_vectors[:500], secret, flask_vectors[500:]])
    shelf.log("kb", ivf(vectors))
    after = ivf(vectors, remove=[500, 20, 300])
    shelf.log("kb", after)
    (row,) = (s for s in shelf.registry.backend.storage(_blobs(shelf, "kb:v2")) if s.chunks)
    assert row.form == "faiss-ivf"
    assert row.dead >= 3 * 384 * 4
    assert shelf.registry.stats("kb").collections[0].dead == row.dead

    done = shelf.registry.gc(compact=True)
    assert (done.recoded, done.dead) == (0, 0)  # v1 still holds those rows: nothing could be erased
    assert shelf.holds(secret.tobytes())
    assert 500 in _ids(shelf.read("kb:v1"))

    shelf.forget("kb:v1")
    done = shelf.registry.gc(compact=True)
    assert (done.recoded, done.dead) == (1, row.dead)
    assert not shelf.holds(secret.tobytes())
    assert not shelf.holds(vectors[20].tobytes())
    assert shelf.read("kb:v2") == after
    assert shelf.registry.stats("kb").collections[0].dead == 0


def test_compact_costs_little_where_many_versions_are_kept(shelf: Shelf, flask_vectors: Any, ivf: Any) -> None:
    """Ten versions, each without some more rows and with some new ones; then the first goes."""
    chosen = np.random.default_rng(3)
    ids = np.arange(len(flask_vectors))
    contents, gone = [], []
    vectors = flask_vectors
    for number in range(10):
        contents.append(ivf(vectors, remove=np.unique(gone)))
        shelf.log("kb", contents[-1])
        gone += chosen.choice(ids, 5).tolist()
        vectors = np.vstack([vectors, flask_vectors[number * 9 : number * 9 + 9] * np.float32(1.25)])
    alone = len(contents[0])
    before = shelf.on_disk()
    assert shelf.registry.gc(compact=True).recoded == 0
    assert shelf.on_disk() <= before
    shelf.forget("kb:v1")
    done = shelf.registry.gc(compact=True)
    assert done.recoded == 9
    assert [shelf.read(f"kb:v{n}") for n in range(2, 11)] == contents[1:]
    for row in np.unique(gone[:5]).tolist():
        assert not shelf.holds(flask_vectors[row].tobytes())
    assert shelf.on_disk() - before < 9 * 0.1 * alone
    assert shelf.registry.gc(compact=True).recoded == 0


def test_without_compact_a_removed_row_stays_and_stats_say_so(shelf: Shelf, flask_vectors: Any, ivf: Any) -> None:
    secret = np.random.default_rng(7).normal(size=384).astype("f4")
    vectors = np.vstack([flask_vectors, secret])
    shelf.log("kb", ivf(vectors))
    shelf.log("kb", ivf(vectors, remove=[len(vectors) - 1]))
    shelf.forget("kb:v1")
    shelf.registry.gc()
    assert shelf.holds(secret.tobytes())
    assert shelf.registry.stats("kb").collections[0].dead >= secret.nbytes
    assert shelf.registry.gc(compact=True).dead >= secret.nbytes
    assert not shelf.holds(secret.tobytes())


def _blobs(shelf: Shelf, reference: str) -> list[Any]:
    return [f.blob for f in shelf.registry.find(reference).manifest.files]


def _ids(data: bytes) -> list[int]:
    import faiss

    index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    return [
        i
        for n in range(index.nlist)
        for i in faiss.rev_swig_ptr(index.invlists.get_ids(n), index.invlists.list_size(n))
    ]


# --- a dry run tells what the real run does

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("log"), st.sampled_from("ab"), st.lists(st.integers(0, 4), min_size=1, max_size=3)),
        st.tuples(st.just("small"), st.integers(0, 5)),
        st.tuples(st.just("forget"), st.integers(0, 9)),
        st.tuples(st.just("gc"), st.booleans()),
    ),
    min_size=2,
    max_size=10,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_a_dry_run_tells_exactly_what_the_real_run_frees(
    shelf: Shelf, tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    shelf = type(shelf)(la.init(tmp_path_factory.mktemp("gc") / "registry"))
    kept: dict[str, bytes] = {}
    try:
        for step in [*steps, ("gc", False), ("gc", True)]:
            if step[0] == "log":
                content = b"".join(noise(seed, 700_000) for seed in step[2]) + step[1].encode()
                kept[str(shelf.log(step[1], content).reference)] = content
            elif step[0] == "small":
                content = b"%d" % step[1] * 100
                kept[str(shelf.log("small", content).reference)] = content
            elif step[0] == "forget" and kept:
                name = sorted(kept)[step[1] % len(kept)]
                shelf.forget(name)
                del kept[name]
            elif step[0] == "gc":
                files = shelf.files()
                told = shelf.registry.gc(dry_run=True, compact=step[1])
                assert shelf.files() == files
                assert told.before == shelf.on_disk()
                done = shelf.registry.gc(compact=step[1])
                assert done == Collected(**{**_fields(told), "dry_run": False})
                assert done.after == shelf.on_disk()
                assert not list((shelf.place / "tmp").iterdir())
                again = shelf.registry.gc(dry_run=True, compact=step[1])
                assert (again.freed, again.objects, again.packs) == (0, 0, 0)
            for name, content in kept.items():
                assert shelf.read(name) == content
        assert shelf.registry.stats().unused == 0
    finally:
        shelf.registry.close()
        shutil.rmtree(shelf.place)


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


# --- nothing is deleted where something needed cannot be read


def _harm_recipe(shelf: Shelf, digest: Any) -> None:
    path = shelf.place / "blobs" / key_of(digest, RECIPE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def _lose_recipe(shelf: Shelf, digest: Any) -> None:
    (shelf.place / "blobs" / key_of(digest, RECIPE)).unlink()


def _recipe_of_the_future(shelf: Shelf, digest: Any) -> None:
    import blake3

    path = shelf.place / "blobs" / key_of(digest, RECIPE)
    data = b"LLMARC9\n" + path.read_bytes()[8:-32]
    path.chmod(0o644)
    path.write_bytes(data + blake3.blake3(data).digest())


def _lose_pack(shelf: Shelf, digest: Any) -> None:
    for name in shelf.files("packs"):
        (shelf.place / "blobs" / name).unlink()


def _harm_footers(shelf: Shelf, digest: Any) -> None:
    for name in shelf.files("packs"):
        path = shelf.place / "blobs" / name
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(-60, 2)
            file.write(b"damaged!")


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (_harm_recipe, Damaged),
        (_lose_recipe, BlobMissing),
        (_recipe_of_the_future, NewerFormat),
        (_lose_pack, BlobMissing),
        (_harm_footers, Damaged),
    ],
)
@pytest.mark.parametrize("compact", [False, True])
def test_nothing_is_deleted_where_something_needed_cannot_be_read(
    shelf: Shelf, harm: Any, error: Any, compact: bool
) -> None:
    shelf.log("kb", noise(1))
    shelf.log("kb", noise(2))
    shelf.log("other", b"small " * 100)
    blob = _blobs(shelf, "kb:v2")[0]
    shelf.forget("kb:v1")
    shelf.forget("other:v1")
    harm(shelf, blob.digest)
    files = shelf.files()
    with pytest.raises(error) as caught:
        shelf.registry.gc(compact=compact)
    assert shelf.files() == files
    if error is not NewerFormat:
        assert caught.value.versions == ("kb:v2",)
    else:
        assert blob.digest[7:] in str(caught.value)


def test_a_damaged_chunk_is_never_copied_as_if_it_were_good(shelf: Shelf) -> None:
    shelf.log("kb", noise(1) + noise(2))
    shelf.log("kb", noise(1))
    shelf.forget("kb:v1")
    (shelf.place / "blobs").chmod(0o755)
    pack = max(shelf.files("packs").items(), key=lambda item: item[1])[0]
    path = shelf.place / "blobs" / pack
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    at = data.index(noise(1)[5000:5032])
    data[at] ^= 1
    path.write_bytes(data)
    files = shelf.files()
    with pytest.raises(Damaged, match="was altered") as caught:
        shelf.registry.gc(compact=True)
    assert str(path) in caught.value.file
    assert caught.value.versions == ("kb:v2",)
    assert shelf.files() == files


def test_a_list_of_files_that_was_cut_deletes_nothing(shelf: Shelf) -> None:
    shelf.log("kb", noise(1))
    with shelf.parts.metadata.writing() as s:
        s.run("delete from content")
    files = shelf.files()
    with pytest.raises(Damaged, match="not on the list") as caught:
        shelf.registry.gc()
    assert caught.value.versions == ("kb:v1",)
    assert shelf.files() == files


# --- while others work


@pytest.mark.parametrize("more", [b"", b" and more"])
@pytest.mark.parametrize("stored", [noise(1), b"small " * 2000])
def test_a_writer_that_relied_on_what_went_is_told_so(shelf: Shelf, stored: bytes, more: bytes) -> None:
    shelf.log("kb", stored)
    shelf.forget("kb:v1")
    content = stored + more
    with shelf.registry.backend.blobs.stage() as staging:
        staging.add(content)
        shelf.registry.gc(compact=True)
        if len(stored) < MB and more:
            return  # a small one shares nothing
        with pytest.raises(Conflict, match="removed since"), shelf.parts.metadata.writing():
            staging.publish()
    shelf.log("again", content)
    assert shelf.read("again") == content
    assert shelf.registry.gc(compact=True).freed == 0


def test_what_is_logged_while_gc_prepares_is_kept(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that begins to need what was about to go: the packs concerned stay."""
    from llmartifacts.versioning import gc as module

    shelf.log("kb", noise(1))
    shelf.log("kb", noise(2))
    shelf.forget("kb:v1")
    sweep = module._sweep

    def late(*arguments: Any) -> Any:
        made = sweep(*arguments)

        class Then:
            def __enter__(self) -> Any:
                found = made.__enter__()
                if found is not None and not logged:
                    logged.append(shelf.log("late", noise(1) + b"!"))
                return found

            def __exit__(self, *raised: Any) -> Any:
                return made.__exit__(*raised)

        return Then()

    logged: list[Any] = []
    monkeypatch.setattr(module, "_sweep", late)
    shelf.registry.gc(compact=True)
    assert shelf.read("late:v1") == noise(1) + b"!"
    assert shelf.read("kb:v2") == noise(2)
    shelf.registry.gc(compact=True)
    assert shelf.read("late:v1") == noise(1) + b"!"
    assert shelf.registry.stats().unused == 0


def test_two_at_once_both_end_well(shelf: Shelf) -> None:
    for seed in range(6):
        shelf.log("kb", noise(seed))
    for number in (1, 3, 5):
        shelf.forget(f"kb:v{number}")
    errors: list[Exception] = []

    def collect() -> None:
        try:
            with la.connect(shelf.place) as registry:
                registry.gc(compact=True)
        except Conflict:
            pass
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=collect) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [shelf.read(f"kb:v{n}") for n in (2, 4, 6)] == [noise(n) for n in (1, 3, 5)]
    assert shelf.registry.stats().unused == 0


def test_readers_go_on_while_packs_are_rewritten(shelf: Shelf, flask_vectors: Any, ivf: Any) -> None:
    first = ivf(flask_vectors)
    second = ivf(flask_vectors, remove=range(0, 700, 9))
    shelf.log("kb", first)
    shelf.log("kb", second)
    wanted = {_blobs(shelf, "kb:v2")[0]: second}
    errors: list[Exception] = []
    done = threading.Event()
    reads = 0

    def read() -> None:
        nonlocal reads
        from llmartifacts.blobs.cache import BlobCache
        from llmartifacts.blobs.store import BlobStore

        try:
            while not done.is_set():
                store = BlobStore.local(shelf.place / "blobs", cache=BlobCache.temporary())
                for blob, content in wanted.items():
                    with la.connect(shelf.place) as registry:
                        assert registry.backend.blobs.read(blob) == content
                    assert store.read(blob) == content
                    reads += 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(8):
            shelf.log("other", noise(number))
            shelf.forget(f"other:v{number + 1}")
            shelf.registry.gc(compact=True)
            shelf.log("other2", ivf(flask_vectors, remove=[number, number + 40]))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert reads > 2


def test_a_reader_with_old_places_finds_chunks_where_they_went(shelf: Shelf) -> None:
    """What a reader looked up before packs were rewritten is looked up again."""
    for seed in range(3):
        shelf.log("kb", noise(seed))
    blobs = shelf.parts.blobs
    blob = _blobs(shelf, "kb:v1")[0]
    recipe = blobs.recipe(blob)
    stream = blobs.chunks.content(recipe)
    index = blobs.index
    found = index.find([bytes(e) for e in recipe.entries()["id"].tolist()])

    class Stale:
        """Answers the first time as it was before."""

        asked = 0

        def find(self, ids: Any) -> Any:
            self.asked += 1
            return {i: found[i] for i in ids if i in found} if self.asked == 1 else index.find(ids)

        def refresh(self) -> None:
            index.refresh()

    shelf.registry.gc()
    from llmartifacts.blobs.chunks.reader import ChunkReader

    stale = Stale()
    again = b"".join(ChunkReader(blobs.driver, stale).read(recipe.encoded.streams["data"]))  # type: ignore[arg-type]
    assert again == noise(0) == b"".join(bytes(part) for part in stream)
    assert stale.asked > 1
