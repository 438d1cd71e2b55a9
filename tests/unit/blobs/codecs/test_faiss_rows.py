"""Arrays of rows: Flat, IDMap, HNSW, PQ and SQ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmartifacts.blobs.codecs.faiss_ivf import FaissIvfCodec
from llmartifacts.blobs.codecs.faiss_rows import FaissRowsCodec
from llmartifacts.blobs.forms import BadForm

CODEC = FaissRowsCodec()


@pytest.mark.parametrize(
    "factory", ["Flat", "IDMap2,Flat", "IDMap,SQ8", "HNSW16", "HNSW16,SQ8", "PQ8x4", "SQ8", "PCA16,Flat"]
)
def test_every_kind_of_rows_comes_back_as_it_was_and_appending_shares_the_rest(
    factory: str, chunks: Any, make: Any
) -> None:
    rows = make.vectors(6000, 64)
    ids = make.identifiers("random", 6100) if factory.startswith("IDMap") else None
    made = make.index(factory, rows, None if ids is None else ids[:6000])
    first = make.file_of(made)
    parent = chunks.stored(CODEC, first)
    assert chunks.added < 1.1 * len(first)
    make.add(made, make.vectors(60, 64, seed=1), None if ids is None else ids[6000:6060])
    second = make.file_of(made)
    chunks.stored(CODEC, second, parent)
    limit = {"HNSW": 0.35, "PQ8": 0.9}.get(factory[: 4 if factory[0] == "H" else 3], 0.12)
    assert chunks.added < limit * len(second)


@pytest.mark.parametrize("factory", ["Flat", "IDMap2,Flat"])
def test_documents_removed_and_added_cost_about_themselves(factory: str, disk: Any, make: Any) -> None:
    count, dimension = 30_000, 384
    rows = make.vectors(count, dimension)
    ids = make.identifiers("random", count) if factory != "Flat" else None
    disk.stored(CODEC, make.file_of(make.index(factory, rows, ids)))
    gone = (
        np.random.default_rng(3).choice(count // 8, count // 1600, replace=False)[:, None] * 8 + np.arange(8)
    ).ravel()
    kept = np.delete(rows, gone, axis=0)
    again = make.index(factory, kept, None if ids is None else np.delete(ids, gone))
    new = make.vectors(count // 100, dimension, seed=9)
    make.add(again, new, None if ids is None else np.arange(len(new)))
    changed = make.file_of(again)
    disk.stored(CODEC, changed)
    assert disk.added < 0.021 * len(changed)


def test_what_it_does_not_know_is_not_taken(chunks: Any, make: Any) -> None:
    flat = make.file_of(make.index("Flat", make.vectors(100, 8)))
    inverted = make.file_of(make.index("IVF4,Flat", make.vectors(200, 8)))
    assert CODEC.suits(flat)
    assert not CODEC.suits(b"%PDF-1.7")
    assert chunks.put(CODEC, flat[:-1]) is None
    assert chunks.put(CODEC, inverted) is None
    assert chunks.put(CODEC, flat) is not None
    assert chunks.put(FaissIvfCodec(), flat) is None


def test_an_index_without_rows_comes_back(chunks: Any, make: Any) -> None:
    chunks.stored(CODEC, make.file_of(make.index("Flat", make.vectors(0, 8))))


def test_a_recipe_of_another_size_is_refused(chunks: Any, make: Any) -> None:
    from dataclasses import replace

    recipe = chunks.stored(CODEC, make.file_of(make.index("Flat", make.vectors(100, 8))))
    with pytest.raises(BadForm):
        chunks.got(CODEC, replace(recipe, size=recipe.size + 1))
