"""Files that grow without end when they are read: refused at the caps, with nothing kept."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from llmartifacts.errors import InvalidValue, LlmartifactsError, TooLarge
from llmartifacts.kinds.eval_dataset.sources import MIB, Limits
from llmartifacts.kinds.eval_dataset.value import EvalDataset


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 MiB of blanks in 256 KiB."""
    place = tmp_path_factory.mktemp("bomb") / "a.jsonl.gz"
    member = gzip.compress((b" " * 1023 + b"\n") * (64 * 1024))
    place.write_bytes(member * 4)
    return place


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".json"])
def test_a_gzip_bomb_is_stopped_by_its_ratio_before_it_takes_memory(bomb: Path, tmp_path: Path, suffix: str) -> None:
    place = tmp_path / f"a{suffix}"
    place.symlink_to(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge) as caught:
            EvalDataset.from_file(place)
        assert tracemalloc.get_traced_memory()[1] < 128 * MIB
    finally:
        tracemalloc.stop()
    assert "200 times" in str(caught.value)


def test_the_absolute_cap_holds_for_any_ratio(tmp_path: Path) -> None:
    place = tmp_path / "a.jsonl"
    place.write_bytes(b'{"input": "a"}\n' * 10)
    with pytest.raises(TooLarge):
        EvalDataset.from_jsonl(place, limits=Limits(total_bytes=100))


def test_a_line_without_end_is_cut_off(tmp_path: Path) -> None:
    place = tmp_path / "a.jsonl"
    place.write_bytes(b'{"input": "' + b"x" * 10_000)
    with pytest.raises(TooLarge) as caught:
        EvalDataset.from_jsonl(place, limits=Limits(item_bytes=1000))
    assert caught.value.origin == f"{place}, line 1"
    place = tmp_path / "a.csv"
    place.write_bytes(b'question\n"' + b"x\n" * 10_000)
    with pytest.raises(TooLarge):
        EvalDataset.from_csv(place, limits=Limits(item_bytes=1000))


def test_a_parquet_file_that_claims_or_gives_too_much_is_refused(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    place = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"question": ["x" * MIB] * 40}), place, compression="zstd", use_dictionary=False)
    assert place.stat().st_size < MIB
    with pytest.raises(TooLarge) as caught:
        EvalDataset.from_parquet(place)
    assert "decompresses" in str(caught.value)
    many = tmp_path / "b.parquet"
    parquet.write_table(pyarrow.table({"question": ["x"] * 1000}), many)
    with pytest.raises(TooLarge):
        EvalDataset.from_parquet(many, limits=Limits(items=999))
    # One text, stored once and named by a thousand rows: the claim is small, what comes out is not.
    small = tmp_path / "c.parquet"
    parquet.write_table(pyarrow.table({"question": ["x" * 100_000] * 1000}), small)
    with pytest.raises(LlmartifactsError):
        EvalDataset.from_parquet(small, limits=Limits(total_bytes=10 * MIB))


@pytest.mark.parametrize("cut", [1, 10, 12, 30])
def test_damaged_gzip_is_refused(tmp_path: Path, cut: int) -> None:
    data = gzip.compress(b'{"input": "a"}\n' * 50)
    place = tmp_path / "a.jsonl.gz"
    place.write_bytes(data[:-cut])
    with pytest.raises(InvalidValue) as caught:
        EvalDataset.from_jsonl(place)
    assert "gzip" in str(caught.value)
    place.write_bytes(data[:20] + bytes([data[20] ^ 0xFF]) + data[21:])
    with pytest.raises(InvalidValue):
        EvalDataset.from_jsonl(place)


def test_a_csv_of_quotes_is_read_in_linear_time(tmp_path: Path) -> None:
    place = tmp_path / "a.csv"
    place.write_text("question\n" + '"' + '""' * 200_000 + '"\n')
    assert EvalDataset.from_csv(place)[0].input == '"' * 200_000
    place.write_text("question\n" + '"' + '""' * 200_000 + '"x"\n')
    with pytest.raises(InvalidValue):
        EvalDataset.from_csv(place)


def test_very_many_columns_are_refused_in_linear_time(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(200_000)]
    csv = tmp_path / "a.csv"
    csv.write_text(",".join(names) + "\n")
    with pytest.raises(TooLarge):
        EvalDataset.from_csv(csv)
    csv.write_text(",".join([*names, "c7"]) + "\n")
    with pytest.raises(InvalidValue):
        EvalDataset.from_csv(csv)
    pairs = ",".join(f'"{name}":1' for name in names)
    with pytest.raises(TooLarge):
        EvalDataset.from_jsonl([f'{{"input":"a",{pairs}}}'])
    with pytest.raises(InvalidValue) as caught:
        EvalDataset.from_jsonl([f'{{"input":"a",{pairs},"c7":1}}'])
    assert caught.value.field == "c7"
