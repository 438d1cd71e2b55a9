"""The structure walk: takes what FAISS writes of the allowed types, says where it lies, refuses the rest."""

import struct

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.errors import UnsafeContent
from llmartifacts.formats.faiss import ALLOWED, walk
from llmartifacts.kinds.vector_index.contents import faiss_ids, stored_vectors

D, N = 16, 400
FACTORIES = {
    "Flat": "Flat",
    "SQ8": "SQ8",
    "SQ4": "SQ4",
    "SQ6": "SQ6",
    "SQfp16": "SQfp16",
    "SQbf16": "SQbf16",
    "PQ4x4": "PQ4x4",
    "PQ4x5": "PQ4x5",
    "IDMap,Flat": "IDMap,Flat",
    "IDMap2,SQ8": "IDMap2,SQ8",
    "IVF8,Flat": "IVF8,Flat",
    "IVF8,SQ8": "IVF8,SQ8",
    "IVF8,SQfp16": "IVF8,SQfp16",
    "IVF8,PQ4x4": "IVF8,PQ4x4",
    "IVF8_HNSW4,Flat": "IVF8_HNSW4,Flat",
    "IVF300,Flat": "IVF300,Flat",
    "IDMap,IVF8,Flat": "IDMap,IVF8,Flat",
    "HNSW8": "HNSW8",
    "HNSW8,Flat": "HNSW8",
    "HNSW8,SQ8": "HNSW8,SQ8",
    "IDMap2,HNSW8": "IDMap2,HNSW8",
    "PCA8,Flat": "PCA8,Flat",
    "PCAR8,IVF8,Flat": "PCAR8,IVF8,Flat",
    "OPQ2_8,IVF8,PQ2x4": "LT8,IVF8,PQ2x4",
    "RR16,Flat": "RR16,Flat",
    "L2norm,Flat": "L2norm,Flat",
    "IVF8,SQ8,RFlat": "IVF8,SQ8,RFlat",
    "IVF8,SQ4,Refine(SQ8)": "IVF8,SQ4,Refine(SQ8)",
}


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).standard_normal((N, D)).astype("f4")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def made(factory, vectors, metric=faiss.METRIC_L2):
    index = faiss.index_factory(D, factory, metric)
    if factory.startswith("OPQ"):
        faiss.downcast_VectorTransform(index.chain.at(0)).niter = 1
    for part in (index, getattr(index, "index", None), getattr(index, "base_index", None)):
        part = faiss.downcast_index(part) if type(part) is faiss.Index else part
        if hasattr(part, "cp"):
            part.cp.min_points_per_centroid = 1
    index.train(vectors)
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        index.add_with_ids(vectors, np.arange(len(vectors))[::-1] * 3)
    else:
        index.add(vectors)
    return index


def written(index):
    return faiss.serialize_index(index).tobytes()


@pytest.mark.parametrize("metric", [faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT])
@pytest.mark.parametrize(("factory", "told"), FACTORIES.items())
def test_every_allowed_type_is_walked_to_its_last_byte(factory, told, metric, vectors):
    layout = walk(written(made(factory, vectors, metric)))
    assert (layout.factory, layout.dimension, layout.count) == (told, D, N)
    assert layout.metric == ("l2" if metric == faiss.METRIC_L2 else "inner_product")
    assert all(path.rpartition("/")[2] in ALLOWED for path in layout.types)


def test_a_graph_over_product_quantized_codes_is_walked(vectors):
    layout = walk(written(made("HNSW8,PQ4x4", vectors)))
    assert (layout.factory, layout.ef_search) == ("HNSW8,PQ4x4", 16)


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_vectors_and_ids_read_from_the_file_are_those_that_went_in(factory, vectors):
    data = written(made(factory, vectors))
    layout = walk(data)
    found = {int(i): v.copy() for ids, block in stored_vectors(data, layout) for i, v in zip(ids, block, strict=True)}
    keeps = factory.endswith(("Flat", "HNSW8")) and not factory.startswith(("PCA", "RR", "L2norm"))
    assert bool(found) == keeps
    if keeps:
        ids = np.arange(N)[::-1] * 3 if "IDMap" in factory else np.arange(N)
        assert found.keys() == set(ids.tolist())
        assert all(np.array_equal(found[int(i)], v) for i, v in zip(ids, vectors, strict=True))
    own = faiss_ids(data, layout)
    if "IDMap" in factory:
        assert own.tolist() == (np.arange(N)[::-1] * 3).tolist()
    elif "IVF" in factory:
        assert sorted(own.tolist()) == list(range(N))
    else:
        assert own is None


def test_removed_rows_leave_lists_and_ids_that_are_read_right(vectors):
    index = made("IVF8,Flat", vectors)
    index.remove_ids(np.arange(0, N, 3))
    data = written(index)
    layout = walk(data)
    left = [i for i in range(N) if i % 3]
    assert sorted(faiss_ids(data, layout).tolist()) == left
    for ids, block in stored_vectors(data, layout):
        assert np.array_equal(block, vectors[ids])


def test_few_full_lists_among_many_are_walked(vectors):
    """FAISS writes the sizes of mostly empty lists as pairs."""
    index = faiss.index_factory(D, "IVF300,Flat")
    index.train(vectors)
    index.add(vectors[:5])
    data = written(index)
    assert b"sprs" in data
    assert sorted(faiss_ids(data, walk(data)).tolist()) == [0, 1, 2, 3, 4]


def test_a_direct_map_is_walked(vectors):
    for kind in (faiss.DirectMap.Array, faiss.DirectMap.Hashtable):
        index = made("IVF8,Flat", vectors)
        index.set_direct_map_type(kind)
        assert walk(written(index)).count == N


def test_what_a_search_looks_at_is_read(vectors):
    index = made("PCA8,IVF8,Flat", vectors)
    faiss.downcast_index(index.index).nprobe = 5
    assert walk(written(index)).nprobe == 5
    graph = made("HNSW8", vectors)
    graph.hnsw.efSearch = 33
    layout = walk(written(graph))
    assert (layout.nprobe, layout.ef_search) == (None, 33)


# --- refusals


@pytest.mark.parametrize(
    ("factory", "tag"),
    [("NSG8", "INSf"), ("LSH", "IxHe"), ("IVF8,PQ4x4fs", "IwPf"), ("PQ4x4fs", "IPfs"), ("ITQ8,Flat", "Viqt")],
)
def test_another_type_is_refused_by_its_tag(factory, tag, vectors):
    with pytest.raises(UnsafeContent, match=tag) as caught:
        walk(written(made(factory, vectors)), file="some/index.faiss")
    assert caught.value.file == "some/index.faiss"
    assert "IVF,Flat" in caught.value.hint()


def test_another_metric_is_refused():
    index = faiss.IndexFlat(D, faiss.METRIC_L1)
    index.add(np.ones((3, D), "f4"))
    with pytest.raises(UnsafeContent, match="metric"):
        walk(written(index))


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_file_that_is_cut_anywhere_or_goes_on_is_refused(factory, vectors):
    data = written(made(factory, vectors[:300]))
    chance = np.random.default_rng(1)
    for end in {0, 3, 4, 36, 37, len(data) - 1, *chance.integers(0, len(data), 60).tolist()}:
        with pytest.raises(UnsafeContent):
            walk(data[:end])
    with pytest.raises(UnsafeContent, match="left over"):
        walk(data + b"\0")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_bytes_of_no_meaning_are_refused_in_a_typed_way(junk):
    with pytest.raises(UnsafeContent):
        walk(junk)


@settings(max_examples=300, deadline=None)
@given(tag=st.sampled_from(sorted(ALLOWED)), body=st.binary(max_size=300), d=st.integers(1, 40), n=st.integers(0, 40))
def test_a_good_header_over_bytes_of_no_meaning_gives_a_layout_or_a_typed_refusal(tag, body, d, n):
    data = tag.encode() + struct.pack("<iqqq?i", d, n, 1 << 20, 1 << 20, True, 1) + body
    try:
        layout = walk(data)
    except UnsafeContent:
        return
    assert layout.count == n


@settings(max_examples=300, deadline=None)
@given(
    where=st.integers(0, 10**9),
    value=st.integers(0, 2**64 - 1),
    factory=st.sampled_from(["IVF8,PQ4x4", "HNSW8", "PCA8,IVF8,SQ8"]),
)
def test_a_size_that_is_overwritten_never_takes_the_walk_outside_the_file(where, value, factory, smaller):
    data = bytearray(smaller[factory])
    at = where % (len(data) - 8)
    data[at : at + 8] = value.to_bytes(8, "little")
    try:
        layout = walk(data)
    except UnsafeContent:
        return
    for block in layout.blocks:
        assert 0 <= block.offset <= block.offset + block.row_bytes * block.count <= len(data)
    for lists in layout.lists:
        assert lists.offset + sum(lists.sizes) * (lists.code_bytes + 8) <= len(data)


@pytest.fixture(scope="module")
def smaller(vectors):
    return {f: written(made(f, vectors[:300])) for f in ("IVF8,PQ4x4", "HNSW8", "PCA8,IVF8,SQ8")}


def test_the_walk_lets_go_of_the_map(tmp_path, vectors):
    import mmap

    (tmp_path / "f").write_bytes(written(made("IVF8,Flat", vectors)))
    with open(tmp_path / "f", "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    walk(data)
    data.close()  # BufferError if a view were left
