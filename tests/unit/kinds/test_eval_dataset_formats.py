"""JSONL, CSV, JSON, Parquet and Hugging Face, in and out; bad files are refused by file, line and field."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.errors import InvalidPath, InvalidValue, LlmartifactsError, MissingExtra, NotAllowed, NotFound
from llmartifacts.kinds.eval_dataset.value import EvalDataset

QA = [{"question": "2 + 2?", "answer": "4"}, {"question": "Who?", "answer": "Ada"}]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
number = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15)
scalar = st.none() | st.booleans() | number | text
value = st.recursive(scalar, lambda v: st.lists(v, max_size=3) | st.dictionaries(text, v, max_size=3), max_leaves=6)
columns = st.dictionaries(st.sampled_from(["answer", "label", "a,b", 'q"q', "é", "n"]), value, max_size=4)
rows = st.lists(columns, min_size=1, max_size=8).flatmap(
    lambda made: st.lists(value.filter(lambda v: v is not None), min_size=len(made), max_size=len(made)).map(
        lambda asked: [
            {"id": f"i{n}", "question": q, **row} for n, (row, q) in enumerate(zip(made, asked, strict=True))
        ]
    )
)


def refused(make: Callable[[], Any], error: type[LlmartifactsError] = InvalidValue) -> LlmartifactsError:
    with pytest.raises(error) as caught:
        make()
    return caught.value


def write(place: Path, content: bytes | str) -> Path:
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


# --- round trips


@settings(deadline=None)
@given(rows)
def test_every_format_gives_back_what_it_was_given(items: list[dict[str, Any]]) -> None:
    dataset = EvalDataset(items)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("a.jsonl", "a.jsonl.gz"):
            dataset.to_jsonl(place / name)
            assert EvalDataset.from_jsonl(place / name, columns=dataset.fields) == dataset
        for name, delimiter in (("a.csv", ","), ("a.csv.gz", ","), ("a.tsv", "\t")):
            as_json = dataset.to_csv(place / name, delimiter=delimiter)
            again = EvalDataset.from_csv(
                place / name, columns=dataset.fields, delimiter=delimiter, json_columns=as_json
            )
            assert again == dataset
        dataset.to_parquet(place / "a.parquet")
        assert EvalDataset.from_parquet(place / "a.parquet", columns=dataset.fields) == dataset


@settings(deadline=None)
@given(st.lists(st.lists(text, min_size=2, max_size=2), min_size=1, max_size=6))
def test_what_other_programs_write_as_csv_is_read_as_the_standard_library_reads_it(table: list[list[str]]) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "question", "note"])
    for i, (question, note) in enumerate(table):
        writer.writerow([f"i{i}", f"q{question}", note])
    with tempfile.TemporaryDirectory() as folder:
        place = write(Path(folder, "a.csv"), out.getvalue())
        read = [(i.id, i.input, i.columns.get("note", "")) for i in EvalDataset.from_csv(place)]
    expected = list(csv.reader(io.StringIO(out.getvalue(), newline="")))[1:]
    assert read == [tuple(r) for r in expected]


def test_a_written_file_opens_in_the_standard_library(tmp_path: Path) -> None:
    dataset = EvalDataset([{"id": "a", "question": 'say "hi", twice\n', "answer": "x"}])
    dataset.to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["id", "question", "answer"], ["a", 'say "hi", twice\n', "x"]]
    dataset.to_jsonl(tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"id": "a", "question": 'say "hi", twice\n', "answer": "x"}


def test_a_column_of_integers_and_fractions_is_one_number_column_in_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    dataset = EvalDataset([{"id": "a", "input": "x", "n": 1, "tags": ["t"]}, {"id": "b", "input": "y", "n": 0.5}])
    dataset.to_parquet(tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.schema.names == ["id", "input", "n", "tags"]
    assert [str(t) for t in table.schema.types] == ["string", "string", "double", "string"]
    assert table["tags"].to_pylist() == ['["t"]', None]


def test_writing_replaces_a_file_whole_or_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write(tmp_path / "a.jsonl", "old")
    dataset = EvalDataset(QA)
    monkeypatch.setattr(EvalDataset, "lines", property(lambda _: iter([b"x", None])))
    with pytest.raises(TypeError):
        dataset.to_jsonl(place)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    assert place.read_text() == "old"
    monkeypatch.undo()
    dataset.to_jsonl(place)
    assert EvalDataset.from_jsonl(place).ids == dataset.ids
    assert refused(lambda: dataset.to_jsonl(tmp_path / "no" / "a.jsonl"), NotFound)
    (tmp_path / "folder").mkdir()
    assert refused(lambda: dataset.to_jsonl(tmp_path / "folder"), NotAllowed)


# --- files


def test_lines_and_open_files_are_read_as_files_are(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in QA]
    place = write(tmp_path / "a.jsonl", "\n".join(lines))
    expected = EvalDataset(QA)
    assert EvalDataset.from_jsonl(lines) == expected
    assert EvalDataset.from_jsonl(line.encode() for line in lines) == expected
    assert EvalDataset.from_jsonl(str(place)) == expected
    with place.open() as stream:
        assert EvalDataset.from_jsonl(stream) == expected
    with place.open("rb") as binary:
        assert EvalDataset.from_jsonl(binary) == expected


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n \r\n"])
def test_a_byte_order_mark_and_blank_lines_do_not_matter(start: bytes, tmp_path: Path) -> None:
    jsonl = "\r\n\r\n".join(json.dumps(row) for row in QA).encode()
    assert EvalDataset.from_file(write(tmp_path / "a.jsonl", start + jsonl)) == EvalDataset(QA)
    assert EvalDataset.from_file(write(tmp_path / "a.json", start + json.dumps(QA).encode())) == EvalDataset(QA)
    table = b"question,answer\r\n\r\n2 + 2?,4\r\nWho?,Ada"
    assert EvalDataset.from_file(write(tmp_path / "a.csv", start + table)) == EvalDataset(QA)


def test_only_a_line_feed_ends_a_line() -> None:
    dataset = EvalDataset.from_jsonl(['{"input": "a\u2028b\x85c"}'])
    assert dataset[0].input == "a\u2028b\x85c"


def test_a_missing_file_offers_the_near_name_and_a_folder_or_a_pipe_is_none(tmp_path: Path) -> None:
    import os

    write(tmp_path / "questions.jsonl", "")
    missing = refused(lambda: EvalDataset.from_jsonl(tmp_path / "question.jsonl"), NotFound)
    assert "questions.jsonl" in missing.hint()
    refused(lambda: EvalDataset.from_jsonl(tmp_path), InvalidPath)
    os.mkfifo(tmp_path / "pipe")
    refused(lambda: EvalDataset.from_jsonl(tmp_path / "pipe"), InvalidPath)


def test_several_files_make_one_dataset_and_suffixes_tell_the_format(tmp_path: Path) -> None:
    a = write(tmp_path / "a.ndjson", json.dumps(QA[0]))
    b = write(tmp_path / "b.TSV", "question\tanswer\nWho?\tAda\n")
    assert EvalDataset.from_file([a, b]) == EvalDataset(QA)
    unknown = refused(lambda: EvalDataset.from_file(write(tmp_path / "a.xlsx", "")))
    assert ".jsonl" in unknown.hint()
    refused(lambda: EvalDataset.from_file([]))
    refused(lambda: EvalDataset.from_file(a, delimiter=";"))
    assert "delimiter" in refused(lambda: EvalDataset.from_file(b, delimeter=";")).hint()


# --- bad lines


@pytest.mark.parametrize(
    ("line", "field", "told"),
    [
        ('{"input": ', "", "not JSON"),
        ('{"input": "a"} x', "", "not JSON"),
        ('{"input": NaN}', "", "NaN"),
        ('{"input": 1e999}', "input", "inf"),
        ('{"input": "a", "input": "b"}', "input", "twice"),
        ('{"input": 9007199254740993}', "input", "2^53-1"),
        ('{"input": "\\ud800"}', "input", "surrogate"),
        ('["a"]', "", "array"),
        ("[" * 100_000, "", "nested"),
        ('{"input": 1' + "0" * 5000 + "}", "", "not JSON"),
    ],
)
def test_a_bad_line_is_named_with_file_line_and_field(tmp_path: Path, line: str, field: str, told: str) -> None:
    place = write(tmp_path / "a.jsonl", f'{{"input": "fine"}}\n\n{line}\n')
    error = refused(lambda: EvalDataset.from_jsonl(place))
    assert (error.field, error.origin) == (field, f"{place}, line 3")
    assert told in str(error)


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    place = write(tmp_path / "a.jsonl", b'{"input": "ok"}\n{"input": "caf\xe9"}\n')
    error = refused(lambda: EvalDataset.from_jsonl(place))
    assert error.origin == f"{place}, line 2"
    assert "0xe9" in str(error)
    for encoding in ("utf-16", "utf-16-be"):
        data = "\ufeff{}".encode(encoding) if encoding == "utf-16-be" else "{}".encode(encoding)
        assert "UTF-16" in str(refused(lambda d=data: EvalDataset.from_jsonl(write(tmp_path / "b.jsonl", d))))  # type: ignore[misc]


@pytest.mark.parametrize("source", [3, None, b'{"input": "a"}'])
def test_what_is_neither_a_path_nor_lines_is_refused(source: Any) -> None:
    refused(lambda: EvalDataset.from_jsonl(source))


# --- CSV


@pytest.mark.parametrize(
    ("content", "line", "told"),
    [
        ("question,answer\na,b\nc\n", 3, "1 cells, the header 2"),
        ("question,answer\na,b,c\n", 2, "3 cells, the header 2"),
        ("question,question\na,b\n", 1, "twice"),
        ("question,\na,b\n", 1, "no name"),
        (',question\n0,"a"\n', 1, "no name"),
        ('question,answer\n"a,b\nc,d\n', 2, "never closed"),
        ('question,answer\na,5" pipe "x"\n', 2, "never closed"),
        ('question,answer\na,"x"y\n', 2, "quote where none can be"),
        ('question,answer\n\n"a\nb",c\nd\n', 5, "1 cells"),
        ("question;answer\na;b\n", 1, "one column"),
    ],
)
def test_bad_csv_is_named_with_its_line(tmp_path: Path, content: str, line: int, told: str) -> None:
    place = write(tmp_path / "a.csv", content)
    error = refused(lambda: EvalDataset.from_csv(place))
    assert error.origin == f"{place}, line {line}"
    assert told in str(error)
    assert error.hint()


def test_an_empty_cell_is_null_and_quotes_make_it_empty_text(tmp_path: Path) -> None:
    dataset = EvalDataset.from_csv(write(tmp_path / "a.csv", 'question,answer,x\na,"",\n'))
    assert dict(dataset[0].columns) == {"question": "a", "answer": ""}


def test_cells_are_text_unless_they_are_said_to_be_json(tmp_path: Path) -> None:
    place = write(tmp_path / "a.csv", 'question,n,metadata\na,1,"{""k"": [1]}"\n')
    assert EvalDataset.from_csv(place)[0].columns["n"] == "1"
    assert dict(EvalDataset.from_csv(place, json_columns=["metadata"])[0].metadata) == {"k": [1]}
    assert "metadata" in refused(lambda: EvalDataset.from_csv(place, json_columns=["metdata"])).hint()
    bad = write(tmp_path / "b.csv", "question,n\na,{\n")
    error = refused(lambda: EvalDataset.from_csv(bad, json_columns=["n"]))
    assert (error.field, error.origin) == ("n", f"{bad}, line 2")
    for delimiter in ("", ",,", '"', "\n"):
        refused(lambda d=delimiter: EvalDataset.from_csv(place, delimiter=d))  # type: ignore[misc]


def test_a_csv_without_rows_is_an_empty_dataset(tmp_path: Path) -> None:
    for content in ("", "question,answer\n"):
        assert "no items" in str(refused(lambda c=content: EvalDataset.from_csv(write(tmp_path / "a.csv", c))))  # type: ignore[misc]


def test_cells_larger_than_the_standard_library_takes_are_read(tmp_path: Path) -> None:
    long = "x" * 200_000
    assert EvalDataset.from_csv(write(tmp_path / "a.csv", f"question\n{long}\n"))[0].input == long


# --- JSON


def test_items_are_found_in_the_usual_places_of_a_document(tmp_path: Path) -> None:
    for document in (QA, {"canary": "x", "examples": QA}, {"version": 1, "data": QA}):
        assert EvalDataset.from_json(write(tmp_path / "a.json", json.dumps(document))) == EvalDataset(QA)


def test_nested_squad_becomes_one_item_a_question(tmp_path: Path) -> None:
    qa = {"id": 7211011040021040393, "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]}
    document = {
        "data": [{"title": "T", "paragraphs": [{"context": "Ada.", "qas": [qa, {**qa, "id": "x", "title": "U"}]}]}]
    }
    dataset = EvalDataset.from_json(write(tmp_path / "a.json", json.dumps(document)))
    assert dataset.ids == ("7211011040021040393", "x")
    assert dataset[0].columns["context"] == "Ada."
    assert (dataset[0].columns["title"], dataset[1].columns["title"]) == ("T", "U")
    assert dataset[1].columns["article.title"] == "T"
    assert dataset[0].expected_output == [{"text": "Ada", "answer_start": 0}]


@pytest.mark.parametrize(
    ("document", "origin"),
    [
        ("x", ""),
        ({"a": []}, ""),
        ({"data": QA, "items": QA}, ""),
        ([QA[0], 3], ", [1]"),
        ({"data": [{"paragraphs": [{"qas": 3}]}]}, ", data[0].paragraphs[0]"),
        ({"data": [{"paragraphs": [{"qas": [3]}]}]}, ", data[0].paragraphs[0].qas[0]"),
        ({"data": [{"paragraphs": 3}]}, ", data[0]"),
        ({"data": [{"paragraphs": [{"qas": []}]}, 3]}, ", data[1]"),
    ],
)
def test_a_document_without_items_says_where_it_fails(tmp_path: Path, document: Any, origin: str) -> None:
    place = write(tmp_path / "a.json", json.dumps(document))
    assert refused(lambda: EvalDataset.from_json(place)).origin == f"{place}{origin}"


# --- Parquet


def parquet_file(place: Path, **columns_: Any) -> Path:
    import pyarrow
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table(columns_), place)
    return place


def test_times_and_decimals_of_parquet_become_text(tmp_path: Path) -> None:
    import pyarrow

    noon = datetime.datetime(2026, 3, 3, 12, 0, 0, 5)
    place = parquet_file(
        tmp_path / "a.parquet",
        question=["q"],
        day=[datetime.date(2026, 3, 3)],
        at=[noon],
        utc=[noon.replace(tzinfo=datetime.UTC)],
        price=[decimal.Decimal("1.10")],
        nested=[{"when": [datetime.date(2026, 1, 1)]}],
        pairs=pyarrow.array([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        kind=pyarrow.array(["x"]).dictionary_encode(),
    )
    assert dict(EvalDataset.from_parquet(place)[0].columns) == {
        "question": "q",
        "day": "2026-03-03",
        "at": "2026-03-03T12:00:00.000005",
        "utc": "2026-03-03T12:00:00.000005+00:00",
        "price": "1.10",
        "nested": {"when": ["2026-01-01"]},
        "pairs": {"k": 1},
        "kind": "x",
    }


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ([b"bytes"], "bad"),
        ([datetime.timedelta(1)], "bad"),
        ([float("nan")], "bad"),
        ([2**60], "bad"),
        ([{"deep": [b"x"]}], "bad.deep[0]"),
    ],
)
def test_a_parquet_value_without_a_json_form_names_its_column_and_row(tmp_path: Path, bad: Any, field: str) -> None:
    place = parquet_file(tmp_path / "a.parquet", question=["q"], bad=bad)
    error = refused(lambda: EvalDataset.from_parquet(place))
    assert (error.field, error.origin) == (field, f"{place}, row 1")


def test_what_pyarrow_cannot_turn_into_python_is_typed(tmp_path: Path) -> None:
    import pyarrow

    fine = pyarrow.array([1], pyarrow.timestamp("ns"))
    twice = pyarrow.array([[("k", 1), ("k", 2)]], pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    for column in (fine, twice):
        place = parquet_file(tmp_path / "a.parquet", question=["q"], bad=column)
        error = refused(lambda p=place: EvalDataset.from_parquet(p))  # type: ignore[misc]
        assert str(place) in error.origin


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", b"not parquet at all"])
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    place = write(tmp_path / "a.parquet", content)
    assert refused(lambda: EvalDataset.from_parquet(place)).origin == str(place)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for make in (
        lambda: EvalDataset.from_parquet(tmp_path / "a.parquet"),
        lambda: EvalDataset(QA).to_parquet(tmp_path / "b.parquet"),
    ):
        error = refused(make, MissingExtra)
        assert "llmartifacts[parquet]" in error.hint()
    assert not (tmp_path / "b.parquet").exists()


# --- Hugging Face


def test_a_dataset_dict_gives_its_splits() -> None:
    parts = {"train": [{"question": "a", "at": datetime.date(2026, 1, 1)}], "test": [{"question": "b"}]}
    dataset = EvalDataset.from_huggingface(parts)
    assert [(i.input, i.split) for i in dataset] == [("a", "train"), ("b", "test")]
    assert dataset[0].columns["at"] == "2026-01-01"
    error = refused(lambda: EvalDataset.from_huggingface({"train": [{"question": "a", "split": "x"}]}))
    assert (error.field, error.origin) == ("split", "train, row 1")


@pytest.mark.parametrize("bad", [3, [3], {"train": 3}, [{"question": b"x"}]])
def test_what_is_no_dataset_is_refused(bad: Any) -> None:
    refused(lambda: EvalDataset.from_huggingface(bad))


def test_a_dataset_goes_out_with_every_column_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("datasets")
    fake.Dataset = types.SimpleNamespace(from_dict=lambda columns_: columns_)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    made = EvalDataset([{"id": "a", "input": "x", "n": 1}, {"id": "b", "input": "y", "tags": ["t"]}]).to_huggingface()
    assert made == {"id": ["a", "b"], "input": ["x", "y"], "n": [1, None], "tags": [None, '["t"]']}


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "llmartifacts[datasets]" in refused(lambda: EvalDataset(QA).to_huggingface(), MissingExtra).hint()


def test_gzip_is_told_by_its_content(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(QA[0]).encode()) + gzip.compress(b"\n" + json.dumps(QA[1]).encode())
    assert EvalDataset.from_jsonl(write(tmp_path / "a.jsonl", packed)) == EvalDataset(QA)
