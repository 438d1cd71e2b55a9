"""Pickles beside an index, or in the place of its files: refused by every door, and never loaded."""

import os
import pickle
import sys

import faiss
import numpy as np
import pytest

from llmartifacts.errors import InvalidInput, LlmartifactsError, UnsafeContent
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.kind import VectorIndexKind
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.testing.kinds import pack

SPEC = EmbeddingSpec("m", 4, "l2")
KIND = VectorIndexKind()
_EVENTS: list[str] = []
_ARMED = [False]


def _hook(event, _):
    if _ARMED[0] and event.startswith(("pickle.", "os.system", "os.exec", "os.posix_spawn", "subprocess.", "exec")):
        _EVENTS.append(event)


sys.addaudithook(_hook)


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture(autouse=True, scope="module")
def imported(tmp_path_factory):
    """What is imported on first use is there before anybody listens: a module that is loaded is code that runs."""
    place = tmp_path_factory.mktemp("good")
    (place / "documents.jsonl").write_text('{"text": "a"}\n')
    np.save(place / "vectors.npy", np.eye(1, 4, dtype="f4"))
    value = KIND.read_source([place], {"model": "m"})
    manifest, files = pack(KIND, value)
    KIND.unpack(manifest.config, files)
    (place / "vectors.npy").rename(place / "index.npz")
    index = faiss.IndexFlatL2(4)
    index.add(np.eye(1, 4, dtype="f4"))
    faiss.write_index(index, str(place / "index.faiss"))
    KIND.read_source([place], {"model": "m"})
    with pytest.raises(InvalidInput):
        VectorIndex.from_vectors(np.eye(2, 4), place / "index.npz", embedding=SPEC)


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path):
    """Whatever a test does, the bomb does not go off and no pickle is loaded."""
    _EVENTS.clear()
    _ARMED[0] = True
    yield
    _ARMED[0] = False
    assert not (tmp_path / "exploded").exists()
    assert _EVENTS == []


@pytest.fixture
def folder(tmp_path):
    """What LangChain's `save_local` leaves: an index and a pickle."""
    index = faiss.IndexFlatL2(4)
    index.add(np.eye(3, 4, dtype="f4"))
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    (tmp_path / "index.pkl").write_bytes(pickle.dumps((Bomb(tmp_path / "exploded"), {0: "a"})))
    return tmp_path


def test_the_bomb_of_these_tests_is_live(folder):
    _ARMED[0] = False
    pickle.loads((folder / "index.pkl").read_bytes())
    (folder / "exploded").rmdir()


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickled_docstore_is_refused_at_every_door_and_whatever_its_name(folder, protocol):
    bomb = pickle.dumps((Bomb(folder / "exploded"), {}), protocol)
    (folder / "index.pkl").write_bytes(bomb)
    (folder / "renamed.jsonl").write_bytes(bomb)
    doors = [
        lambda: VectorIndex.from_faiss(folder, embedding=SPEC),
        lambda: VectorIndex.from_faiss(folder / "index.faiss", embedding=SPEC),
        lambda: VectorIndex.from_faiss(folder, folder / "index.pkl", embedding=SPEC),
        lambda: VectorIndex.from_vectors(np.eye(3, 4), folder / "index.pkl", embedding=SPEC),
        lambda: KIND.read_source([folder / "index.faiss", folder / "index.pkl"], {"model": "m"}),
    ]
    for door in doors:
        with pytest.raises(UnsafeContent, match="is a pickle") as caught:
            door()
        assert "JSONL" in caught.value.hint()
    expected = UnsafeContent if protocol >= 2 else InvalidInput  # older ones do not name themselves; they are no JSON
    with pytest.raises(expected):
        VectorIndex.from_vectors(np.eye(3, 4), folder / "renamed.jsonl", embedding=SPEC)


def test_the_folder_goes_in_once_its_documents_are_jsonl_and_the_pickle_is_left_alone(folder):
    with pytest.raises(UnsafeContent):
        KIND.read_source([folder], {"model": "m"})
    (folder / "documents.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{"text": "c"}\n')
    for value in (
        KIND.read_source([folder], {"model": "m"}),
        VectorIndex.from_faiss(folder, embedding=SPEC),
        VectorIndex.from_faiss(folder, ["a", "b", "c"], embedding=SPEC),
    ):
        assert [d.text for d in value.documents] == ["a", "b", "c"]


def test_vectors_that_are_pickled_objects_are_refused(tmp_path):
    (tmp_path / "documents.jsonl").write_text('{"text": "a"}\n')
    np.save(tmp_path / "vectors.npy", np.array([[Bomb(tmp_path / "exploded")]], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInput, match=r"vectors\.npy"):
        KIND.read_source([tmp_path], {"model": "m"})
    np.savez(tmp_path / "z.npz", a=np.eye(2))
    (tmp_path / "z.npz").rename(tmp_path / "vectors.npy")
    with pytest.raises(InvalidInput, match="no NumPy array file"):
        KIND.read_source([tmp_path], {"model": "m"})


def test_a_pickle_in_the_place_of_any_stored_file_is_refused(tmp_path):
    value = VectorIndex.from_vectors(np.eye(3, 4), ["a", "b", "c"], embedding=SPEC)
    manifest, files = pack(KIND, value)
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    for path in files.paths():
        with pytest.raises(LlmartifactsError):
            KIND.unpack(manifest.config, files.replaced(path, bomb))
