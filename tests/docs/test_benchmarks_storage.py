"""The storage benchmark makes the versions that it says, counts every stored byte, and tells what is not here."""

from __future__ import annotations

import importlib
import shutil
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
COUNT = 2000


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def load(module: str) -> Any:
    return importlib.import_module(f"benchmarks.{module}")


@pytest.fixture(scope="module")
def corpus() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        return load("vectors").Corpus(COUNT)


def silent(text: str) -> None:
    """Progress that nobody reads."""


def test_each_version_changes_what_the_table_says_of_it(corpus: Any) -> None:
    first, second, third, fourth = corpus.states
    one = corpus.percent
    assert len(first.names) == COUNT
    assert one == pytest.approx(COUNT / 100, abs=8)
    assert len(set(second.names) - set(first.names)) == second.changed == one
    gone = set(second.names) - set(third.names)
    assert gone == set(third.removed)
    assert len(gone) == one // 2 // 8 * 8, "half a percent, in whole documents"
    assert {n // 8 for n in gone}.isdisjoint({n // 8 for n in third.names})
    assert len(set(third.names) - set(second.names)) == third.changed == one
    assert list(fourth.names) == list(third.names)
    assert (fourth.rows != third.rows).sum() == fourth.changed == one


def test_vectors_have_unit_length_and_passages_of_a_document_lie_closer_than_those_of_others(corpus: Any) -> None:
    import numpy as np

    pool = corpus.pool
    assert pool.shape == (COUNT + 3 * corpus.percent, 384)
    assert np.allclose(np.linalg.norm(pool, axis=1), 1, atol=1e-5)
    within = (pool[0::8] * pool[1::8]).sum(1).mean()
    across = (pool[0::8] * np.roll(pool[1::8], 1, axis=0)).sum(1).mean()
    assert within > across + 0.2


def test_two_corpora_of_one_size_are_the_same_bit_for_bit(corpus: Any) -> None:
    assert load("vectors").Corpus(COUNT).pool.tobytes() == corpus.pool.tobytes()


@pytest.mark.parametrize("kind", ["seq.", "random", "hashed"])
def test_ids_are_different_and_fit_63_bits(corpus: Any, kind: str) -> None:
    ids = corpus.ids(kind, corpus.states[2].names)
    assert len(set(ids.tolist())) == len(ids)
    assert ids.min() >= 0
    if kind == "hashed":
        digest = blake2b(b"docs/page-1.md#3", digest_size=8).digest()
        assert corpus.ids(kind, [11])[0] == int.from_bytes(digest, "little") >> 1


@pytest.mark.parametrize("name", ["IVF_HASHED", "ID_MAP", "FLAT", "HNSW"])
def test_the_file_of_every_version_holds_its_vectors_under_their_ids(corpus: Any, name: str, tmp_path: Path) -> None:
    import faiss
    import numpy as np

    family = getattr(load("vectors"), name)
    files = family.files(corpus, tmp_path, silent)
    assert len(files) == family.versions
    for file, state in zip(files, corpus.states, strict=False):
        index = faiss.read_index(str(file))
        assert index.ntotal == len(state.names)
        if name == "IVF_HASHED":
            index.set_direct_map_type(faiss.DirectMap.Hashtable)
        expected = corpus.pool[state.rows]
        keys = corpus.ids(family.ids, state.names) if family.ids else np.arange(len(state.names))
        held = index.index if name == "ID_MAP" else index
        if name == "ID_MAP":
            order = faiss.vector_to_array(index.id_map)
            assert sorted(order) == sorted(keys)
            found = dict(zip(order.tolist(), held.reconstruct_n(0, held.ntotal), strict=True))
            stored = np.stack([found[key] for key in keys.tolist()])
        else:
            stored = np.stack([held.reconstruct(int(key)) for key in keys])
        assert np.array_equal(stored, expected)


def test_files_that_are_there_are_used_again(corpus: Any, tmp_path: Path) -> None:
    family, said = load("vectors").FLAT, []
    made = [(file, file.stat().st_mtime_ns) for file in family.files(corpus, tmp_path, said.append)]
    assert [(file, file.stat().st_mtime_ns) for file in family.files(corpus, tmp_path, said.append)] == made
    assert len(said) == 1


def test_what_is_counted_as_stored_is_what_the_registry_holds(corpus: Any, tmp_path: Path) -> None:
    storage, family = load("storage"), load("vectors").FLAT
    files = family.files(corpus, tmp_path / "files", silent)
    place = tmp_path / "registry"
    storage.la.init(place).close()
    logged = [storage.log_one(place, "index", file) for file in files[:2]]
    assert sum(one.blobs for one in logged) == storage.size(place / "blobs") > files[0].stat().st_size
    assert all(one.everything >= one.blobs for one in logged)
    again = storage.log_one(place, "index", files[1])
    assert again.blobs == 0, "the same file again stores nothing"


def test_a_file_with_two_names_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1000))
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert load("storage").size(tmp_path) == 1000


def copying(place: Any) -> float:
    """A tool that keeps every version whole."""
    shutil.copyfile(place.file, place.store / str(len(list(place.store.iterdir()))))
    return 1.0


def test_a_peer_is_measured_by_what_its_own_store_grows_by(tmp_path: Path) -> None:
    peers = load("storage_peers")
    files = [tmp_path / "one", tmp_path / "two"]
    for file, length in zip(files, (10, 70), strict=True):
        file.write_bytes(bytes(length))
    tool = peers.Peer("tool", "a tool", "store", lambda place: place.store.mkdir(), copying)
    assert [(step.grown, step.seconds) for step in peers.store_each(tool, tmp_path / "work", files)] == [
        (10, 1.0),
        (70, 1.0),
    ]
    assert not (tmp_path / "work").exists()
    idle = peers.Peer("idle", "a tool", "store", lambda place: place.store.mkdir(), lambda place: 1.0)
    with pytest.raises(RuntimeError, match="nothing was stored"):
        peers.store_each(idle, tmp_path / "work", files)
    assert not (tmp_path / "work").exists()


def test_a_tool_that_fails_is_told_with_the_end_of_what_it_said(tmp_path: Path) -> None:
    place = load("storage_peers").Place(tmp_path, tmp_path / "store")
    with pytest.raises(RuntimeError, match="sh failed: no room"):
        place.run("sh", "-c", "echo no room >&2; exit 3")


def test_peers_that_are_not_installed_are_shown_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measure, peers = load("measure"), load("storage_peers")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    python = tmp_path / "venv" / "bin" / "python"
    python.write_text("#!/bin/sh\necho 'no index can be reached' >&2\nexit 1\n")
    python.chmod(0o755)
    found = peers.found(measure.Bench(tmp_path, "small", 1, silent, peers=True, peers_in=tmp_path / "venv"))
    assert [type(peer) for peer in found] == [measure.Absent] * 5
    assert [peer.name for peer in found] == ["dvc", "mlflow", "xet", "restic", "borg"]
    assert all(peer.why.startswith("not installed: ") for peer in found)
    shown = list(load("table").group(measure.Subject("x", "a", "f", iter), found))
    assert shown[1] == "  dvc: not measured, not installed: no index can be reached"


def test_real_data_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMARTIFACTS_TEST_DATA", str(tmp_path / "nowhere"))
    bench = load("measure").Bench(tmp_path, "small", 1, silent)
    (told,) = load("storage_flask").measure(bench, lambda place, files: [])
    assert "LLMARTIFACTS_TEST_DATA" in told.why


def test_of_stored_bytes_less_is_better_and_of_speed_more() -> None:
    measure, table = load("measure"), load("table")
    line = measure.Line("x", *(measure.Figure((n,), "% new") for n in (1.19, 0.99)), "y", measure.at_most(1.2))
    assert (table.verdict(line), round(line.ratio, 2), table.shown(line.ours)) == ("yes", 1.2, "1.19 %")
    over = measure.Line("x", *(measure.Figure((n,), "% new") for n in (1.21, 0.99)), "y", measure.at_most(1.2))
    assert table.verdict(over) == "NO"
    for taken, verdict in ((1.6, "yes"), (1.7, "NO")):
        speed = measure.Line("x", measure.Figure((taken,)), measure.Figure((1.0,)), "y", measure.speed_of_floor(0.6))
        assert table.verdict(speed) == verdict
