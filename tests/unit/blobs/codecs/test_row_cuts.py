"""Cuts between rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.blobs.codecs import row_cuts


def all_ends(data: Any, row_bytes: int, mean: int) -> list[int]:
    found: list[int] = []
    for start, end, ends in row_cuts.batches(data, 0, row_bytes, len(data) // row_bytes, mean):
        assert start == (found[-1] if found else 0)
        assert end == start + ends[-1]
        found += (start + ends).tolist()
    return found


def chunks_of(data: bytes, row_bytes: int, mean: int) -> list[bytes]:
    ends = all_ends(data, row_bytes, mean)
    return [data[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


@given(st.integers(1, 40), st.integers(0, 3000), st.integers(1, 2000), st.integers(1, 255))
def test_chunks_are_whole_rows_cover_everything_and_keep_their_limits(
    row_bytes: int, count: int, mean: int, values: int
) -> None:
    data = np.random.default_rng(count).integers(0, values, row_bytes * count, np.uint8).tobytes()
    size = row_cuts.sizes(row_bytes, mean)
    rows = np.diff([0, *all_ends(data, row_bytes, mean)]) / row_bytes
    assert rows.sum() == count
    assert (rows[:-1] >= size.shortest).all()
    assert (rows <= size.longest).all()
    assert (rows == rows.astype(int)).all()


@pytest.mark.parametrize("row_bytes", [2, 8, 128])
def test_where_a_batch_ends_moves_no_cut(row_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 4, 400_000, np.uint8).tobytes()
    at_once = all_ends(data, row_bytes, 2048)
    monkeypatch.setattr(row_cuts, "BATCH", 10_000)
    assert all_ends(data, row_bytes, 2048) == at_once


@pytest.mark.parametrize("row_bytes", [4, 8, 48, 512])
def test_rows_that_go_change_only_the_chunks_around_them(row_bytes: int) -> None:
    data = np.random.default_rng(1).bytes(2_000_000 // row_bytes * row_bytes)
    shorter = data[: 1000 * row_bytes] + data[1007 * row_bytes :]
    mean = max(2048, 8 * row_bytes)
    new = set(chunks_of(shorter, row_bytes, mean)) - set(chunks_of(data, row_bytes, mean))
    assert len(new) <= 6


def test_chunks_of_random_rows_have_about_the_mean_size() -> None:
    data = np.random.default_rng(2).bytes(8_000_000)
    found = [len(chunk) for chunk in chunks_of(data, 128, row_cuts.MEAN)]
    assert 0.85 * row_cuts.MEAN < np.mean(found) < 1.15 * row_cuts.MEAN


def test_rows_that_are_all_equal_make_equal_chunks() -> None:
    assert len(set(chunks_of(bytes(1_000_000), 8, 2048))) <= 2
