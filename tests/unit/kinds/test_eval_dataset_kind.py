"""Packing, unpacking, comparing and reading sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue, LlmartifactsError
from llmartifacts.kinds.eval_dataset.kind import ITEMS, EvalDatasetKind
from llmartifacts.kinds.eval_dataset.value import EvalDataset
from llmartifacts.records.facts import dataset_facts
from llmartifacts.testing.kinds import MemoryFiles, check_kind, pack

KIND = EvalDatasetKind()
ROWS = [
    {"id": "a", "question": "2 + 2?", "answer": "4", "split": "dev", "metadata": {"k": 1.5}},
    {"id": "b", "question": "Who?", "answer": "Ada", "split": "test"},
    {"id": "c", "question": "Why?", "split": "test"},
]


def test_the_kind_keeps_its_contract(tmp_path: Path) -> None:
    dataset = EvalDataset(ROWS)
    dataset.to_parquet(tmp_path / "a.parquet")
    as_json = dataset.to_csv(tmp_path / "a.csv")
    same = [
        dataset,
        EvalDataset.from_parquet(tmp_path / "a.parquet"),
        EvalDataset.from_csv(tmp_path / "a.csv", json_columns=as_json),
    ]
    others = [
        EvalDataset(ROWS[::-1]),
        EvalDataset(ROWS[:2]),
        EvalDataset([*ROWS[:2], {**ROWS[2], "answer": "because"}]),
        EvalDataset(ROWS, columns={"expected_output": None}),
        EvalDataset(ROWS, columns={"split": None}),
    ]
    check_kind(KIND, same, others)


def test_the_config_says_what_the_server_needs_without_the_file() -> None:
    manifest, files = pack(KIND, EvalDataset(ROWS))
    assert [f.path for f in manifest.files] == [ITEMS]
    assert manifest.config == {
        "count": 3,
        "fields": {"input": "question", "expected_output": "answer", "metadata": "metadata", "split": "split"},
        "splits": {"dev": 1, "test": 2},
        "schema": {
            "answer": {"types": {"string": 2}, "present": 2, "null": 1, "distinct": 2, "values": ["4", "Ada"]},
            "metadata": {"types": {"object": 1}, "present": 1, "null": 2, "properties": ["k"]},
            "question": {
                "types": {"string": 3},
                "present": 3,
                "null": 0,
                "distinct": 3,
                "values": ["2 + 2?", "Who?", "Why?"],
            },
            "split": {"types": {"string": 3}, "present": 3, "null": 0, "distinct": 2, "values": ["dev", "test"]},
        },
    }
    assert json.loads(files.read(ITEMS).splitlines()[0]) == ROWS[0]
    assert KIND.summary(manifest.config) == (
        "3 items; input: question, expected_output: answer, metadata: metadata, split: split; splits: dev 1, test 2"
    )


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=30, unique=True))
def test_what_is_packed_is_what_is_unpacked(texts: list[str]) -> None:
    dataset = EvalDataset([{"input": t} for t in texts])
    manifest, files = pack(KIND, dataset)
    assert KIND.unpack(manifest.config, files) == dataset


def test_long_items_are_streamed_whole() -> None:
    dataset = EvalDataset([{"input": chr(97 + i) * (70_000 + i)} for i in range(5)])
    manifest, files = pack(KIND, dataset)
    assert files.read(ITEMS) == b"".join(line + b"\n" for line in dataset.lines)
    assert KIND.unpack(manifest.config, files) == dataset


def altered(edit: Any) -> LlmartifactsError:
    manifest, files = pack(KIND, EvalDataset(ROWS))
    lines = files.read(ITEMS).split(b"\n")[:-1]
    data = b"".join(line + b"\n" for line in edit(lines))
    with pytest.raises(LlmartifactsError) as caught:
        KIND.unpack(manifest.config, files.replaced(ITEMS, data))
    return caught.value


def test_a_file_that_does_not_fit_its_config_is_refused_with_the_line() -> None:
    assert "2 items, the config says 3" in str(altered(lambda lines: lines[:2]))
    assert altered(lambda lines: [*lines, lines[0].replace(b'"a"', b'"z"')]).origin == "items.jsonl, line 4"
    assert "twice" in str(altered(lambda lines: [lines[0], lines[0], lines[2]]))
    assert altered(lambda lines: [lines[0], b'{"question":"x"}', lines[2]]).field == "id"
    assert altered(lambda lines: [lines[0], b'{"id":"b"}', lines[2]]).field == "question"
    assert "canonical" in str(altered(lambda lines: [lines[0], b'{"question": "x", "id": "b"}', lines[2]]))
    assert altered(lambda lines: [lines[0], b'{"id":"b","other":1,"question":"x"}', lines[2]]).field == "other"
    assert altered(lambda lines: [lines[0], b'{"id":"b","question":"x","split":1}', lines[2]]).field == "split"
    assert altered(lambda lines: [lines[0], b'{"id":"b","metadata":1,"question":"x"}', lines[2]]).field == "metadata"


def test_a_config_that_contradicts_itself_is_a_problem() -> None:
    config = dict(pack(KIND, EvalDataset(ROWS))[0].config)
    for change in (
        {"count": 4},
        {"count": 0},
        {"fields": {}},
        {"fields": {"input": "nothing"}},
        {"fields": {"input": "answer"}},
        {"splits": {"dev": 4}},
        {"splits": {"a\nb": 1}},
        {"schema": {**config["schema"], "a\nb": {"types": {}, "present": 0, "null": 3}}},
    ):
        assert KIND.check({**config, **change}), change


def test_a_difference_tells_items_and_what_shifted() -> None:
    first, first_files = pack(KIND, EvalDataset(ROWS))
    after = [ROWS[0], {**ROWS[1], "answer": "Grace"}, {"id": "d", "question": "How?"}]
    second, second_files = pack(KIND, EvalDataset(after))
    found = KIND.diff(first, second, (first_files, second_files))
    assert {str(c.path): c.op for c in found.changes} == {
        "items/b.answer": "changed",
        "items/c": "removed",
        "items/d": "added",
    }
    assert found.numbers == {"added": 1, "removed": 1, "changed": 1, "unchanged": 1}
    assert "items: 3 -> 3 (1 added, 1 removed, 1 changed)" in found.text


# --- sources


def test_files_and_folders_are_read_with_options(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("q;a\nWho?;Ada\n")
    (tmp_path / "a.csv").write_text("q;a\n2 + 2?;4\n")
    (tmp_path / "notes.txt").write_text("not data")
    options = {"input": "q", "expected_output": "a", "delimiter": ";", "id_from": "q,a"}
    dataset = KIND.read_source([tmp_path], options)
    assert [(i.input, i.expected_output) for i in dataset] == [("2 + 2?", "4"), ("Who?", "Ada")]
    assert KIND.read_source([tmp_path / "a.csv", tmp_path / "b.csv"], options) == dataset
    without = KIND.read_source([tmp_path / "a.csv"], {"input": "q", "expected_output": "-", "delimiter": ";"})
    assert "expected_output" not in without.fields
    with pytest.raises(InvalidValue) as caught:
        KIND.read_source([tmp_path], {"imput": "q"})
    assert "input" in caught.value.hint()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidValue):
        KIND.read_source([tmp_path / "empty"], {})


def test_json_columns_and_a_tab_can_be_said_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('question\tmetadata\nWho?\t"{""k"":1}"\n')
    dataset = KIND.read_source([tmp_path / "a.csv"], {"delimiter": "tab", "json_columns": "metadata"})
    assert dict(dataset[0].metadata) == {"k": 1}


def test_a_file_too_many_is_refused() -> None:
    manifest, files = pack(KIND, EvalDataset(ROWS))
    files.add("other.bin", b"x")
    with pytest.raises(InvalidValue):
        KIND.unpack(manifest.config, files)
    with pytest.raises(InvalidValue):
        KIND.unpack(manifest.config, MemoryFiles())


def test_compatibility_rules_find_the_columns_in_the_config() -> None:
    rows = [{"question": {"topic": "t", "ask": "q"}, "answer": "x", "metadata": {"language": "en"}}]
    facts = dataset_facts("set", pack(KIND, EvalDataset(rows))[0])
    assert facts is not None
    assert facts.fields >= {"question", "input", "topic", "ask", "answer", "expected_output", "language"}
    assert not facts.lacks(frozenset({"topic", "ask"}))
