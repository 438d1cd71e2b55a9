"""Opening: the same answers as FAISS's own reader, read-only in a typed way, nothing followed."""

import os

import faiss
import numpy as np
import pytest

from llmartifacts.errors import InvalidValue, LlmartifactsError, NotAllowed, UnsafeContent
from llmartifacts.kinds.vector_index.guard import open_index
from llmartifacts.kinds.vector_index.mapped import map_file, reader

D = 16
FACTORIES = [
    "Flat",
    "SQ8",
    "SQfp16",
    "PQ4x4",
    "IDMap,Flat",
    "IDMap2,Flat",
    "IVF8,Flat",
    "IVF8,SQ8",
    "IVF8,PQ4x4",
    "IVF8_HNSW4,Flat",
    "HNSW8",
    "HNSW8,SQ8",
    "HNSW8,PQ4x4",
    "PCA8,IVF8,Flat",
    "OPQ2_8,IVF8,PQ2x4",
    "L2norm,Flat",
    "IVF8,SQ8,RFlat",
]


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).standard_normal((400, D)).astype("f4")


@pytest.fixture(scope="module")
def files(vectors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexes")
    made = {}
    for number, factory in enumerate(FACTORIES):
        index = faiss.index_factory(D, factory)
        index.train(vectors)
        if "IDMap" in factory:
            index.add_with_ids(vectors, np.arange(400) + 7)
        else:
            index.add(vectors)
        made[factory] = folder / f"{number}.faiss"
        faiss.write_index(index, str(made[factory]))
    return made


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_allowed_type_gives_the_answers_of_faiss_own_reader(factory, files, vectors):
    plain = faiss.read_index(str(files[factory]))
    opened = open_index(files[factory])
    scores, ids = plain.search(vectors[:50] + 0.1, 7)
    found_scores, found = opened.index.search(vectors[:50] + 0.1, 7)
    assert ids.tolist() == found.tolist()
    assert scores.tobytes() == found_scores.tobytes()
    assert isinstance(opened.index, type(plain))
    assert opened.stream().read() == files[factory].read_bytes()


@pytest.mark.parametrize("factory", FACTORIES)
def test_what_would_change_an_index_is_refused_and_the_file_stays(factory, files, vectors):
    before = files[factory].read_bytes()
    index = open_index(files[factory]).index
    for name, given in (
        ("add", (vectors,)),
        ("add_with_ids", (vectors, np.arange(400))),
        ("train", (vectors,)),
        ("reset", ()),
        ("remove_ids", (np.arange(3),)),
        ("merge_from", (index, 0)),
        ("add_sa_codes", (np.zeros((1, 4), np.uint8),)),
        ("replace_invlists", (None,)),
        ("update_vectors", (np.arange(1), vectors[:1])),
    ):
        if hasattr(index, name):
            with pytest.raises(NotAllowed, match="read-only") as caught:
                getattr(index, name)(*given)
            assert "writable_copy" in caught.value.hint()
    assert index.ntotal == 400
    assert files[factory].read_bytes() == before


@pytest.mark.parametrize(
    ("factory", "inner"),
    [
        ("IDMap,Flat", "index"),
        ("IDMap2,Flat", "index"),
        ("PCA8,IVF8,Flat", "index"),
        ("HNSW8", "storage"),
        ("IVF8,Flat", "quantizer"),
        ("IVF8,SQ8,RFlat", "base_index"),
        ("IVF8,SQ8,RFlat", "refine_index"),
    ],
)
def test_the_indexes_inside_are_read_only_too(factory, inner, files, vectors):
    index = getattr(open_index(files[factory]).index, inner)  # the outer one is kept alive by it
    for change in (lambda: index.add(vectors), index.reset, lambda: index.train(vectors)):
        with pytest.raises(NotAllowed):
            change()
    with pytest.raises(NotAllowed):
        setattr(open_index(files[factory]).index, inner, faiss.IndexFlatL2(D))
    assert index.ntotal > 0


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_writable_copy_is_a_copy(factory, files, vectors):
    opened = open_index(files[factory])
    copy = opened.writable_copy()
    copy.reset()
    assert (copy.ntotal, opened.index.ntotal) == (0, 400)
    copy = opened.writable_copy()
    if "IDMap" in factory:
        copy.add_with_ids(vectors[:5], np.arange(5) + 1000)
    else:
        copy.add(vectors[:5])
    assert (copy.ntotal, opened.index.ntotal) == (405, 400)


# --- files that are no files


def test_a_symbolic_link_is_not_followed(files, tmp_path):
    (tmp_path / "link").symlink_to(files["Flat"])
    with pytest.raises(UnsafeContent, match="symbolic link"):
        open_index(tmp_path / "link")


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(LlmartifactsError, match=r"no regular file|cannot be read"):
            open_index(path)
    with pytest.raises(LlmartifactsError):
        open_index(tmp_path / "absent")
    (tmp_path / "empty").touch()
    with pytest.raises(InvalidValue, match="empty"):
        open_index(tmp_path / "empty")


def test_an_index_without_vectors_is_refused(tmp_path):
    faiss.write_index(faiss.IndexFlatL2(D), str(tmp_path / "f"))
    with pytest.raises(InvalidValue, match="the index is empty"):
        open_index(tmp_path / "f")


def test_a_graph_whose_links_leave_it_is_refused_by_faiss_in_a_typed_way(files, tmp_path):
    data = bytearray(files["HNSW8"].read_bytes())
    links = next(b for b in open_index(files["HNSW8"]).layout.blocks if b.path.endswith("links"))
    data[links.offset : links.offset + 4] = (2**30).to_bytes(4, "little")
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(InvalidValue, match=r"FAISS refuses the index.*out of range"):
        open_index(tmp_path / "f")


# --- streams over a map


def test_many_streams_over_one_map_keep_their_own_places(tmp_path):
    body = os.urandom(3_000_000)
    (tmp_path / "f").write_bytes(body)
    data = map_file(tmp_path / "f", field="f")
    one, two = reader(data), reader(data)
    assert one.read(10) == body[:10]
    assert two.read() == body
    assert one.read() == body[10:]
    assert one.read() == b""
    with pytest.raises(OSError, match="write"):
        one.write(b"x")
