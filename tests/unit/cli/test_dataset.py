"""dataset schema, drift and leakage on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmartifacts import wire

Cli = Callable[..., Any]
QUESTIONS = [f"How many of the {n} ducks of Janet lay an egg each and every day?" for n in range(1, 21)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def qa(cli: Cli, tmp_path: Path) -> Cli:
    """A registry with two versions of `qa`; the files of both are there too."""
    cli("init")
    rows = [{"id": f"q{i}", "question": q, "label": "ab"[i % 2]} for i, q in enumerate(QUESTIONS)]
    cli("log", "eval_dataset", "qa", write(tmp_path / "one.jsonl", rows))
    for row in rows[10:]:
        row["question"] += " In a short sentence, please."
        row["label"] = "c"
    cli("log", "eval_dataset", "qa", write(tmp_path / "two.jsonl", rows))
    return cli


@pytest.fixture
def train(tmp_path: Path) -> Path:
    chats = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": "All of them."}]
        for text in ("Write a poem.", f"Question: {QUESTIONS[3]}", QUESTIONS[5].upper())
    ]
    return write(tmp_path / "train.jsonl", [{"messages": chat} for chat in chats])


def test_schema_shows_what_each_column_holds(qa: Cli, tmp_path: Path) -> None:
    text = qa("dataset", "schema", "qa:v1").out
    assert "qa:v1  20 items" in text
    assert "question  input" in text
    assert "a, b" in text
    told = qa("dataset", "schema", "qa:v1", "--json").json
    assert (told["dataset"], told["items"], told["fields"]["input"]) == ("qa:v1", 20, "question")
    assert told["columns"]["label"]["values"] == ["a", "b"]
    by_file = qa("dataset", "schema", tmp_path / "one.jsonl", "--json").json
    assert by_file == {**told, "dataset": str(tmp_path / "one.jsonl")}


def test_split_logs_a_version_whose_splits_hold_when_items_are_added(qa: Cli, tmp_path: Path) -> None:
    text = qa("dataset", "split", "qa:v1", "dev=0.3", "test=0.7", "-m", "in two").out
    assert "qa:v1 -> qa:v3  new" in text
    assert "20 items: dev " in text
    made = qa("dataset", "split", "qa:v1", "dev=0.3", "test=0.7", "--json").json
    assert (made["reference"], made["created"], made["message"]) == ("qa:v3", False, "in two")
    told = qa("dataset", "schema", "qa:v3", "--json").json
    assert sum(told["splits"].values()) == 20
    assert qa("lineage", "qa:v3", "--json").json
    rows = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
    qa("log", "eval_dataset", "qa", write(tmp_path / "more.jsonl", [*rows, {"id": "new", "question": "New?"}]))
    assert qa("dataset", "split", "qa", "dev=0.3", "test=0.7", "--json").json["number"] == 5
    added = qa("diff", "qa:v3", "qa:v5", "--json").json["changes"]
    assert [change["path"] for change in added] == ["items/new"]


def test_shares_that_are_no_partition_and_columns_that_are_not_there_are_refused(qa: Cli) -> None:
    for shares in (["dev=0.3"], ["dev=x", "test=1"], ["dev"], ["dev=0.5", "dev=0.5"], ["a=1", "--by", "nowhere"]):
        qa("dataset", "split", "qa", *shares, expect=wire.WRONG_USE)
    assert len(qa("ls", "qa", "--json").json["versions"]) == 2


def test_drift_between_two_versions_is_a_table_and_a_document(qa: Cli) -> None:
    text = qa("dataset", "drift", "qa:v1", "qa:v2").out
    assert "qa:v1 -> qa:v2" in text
    assert "20 -> 20 items: 0 added, 0 removed, 10 changed" in text
    for word in ("length", "question", "categories", "label", "0.500", "new: c", "words"):
        assert word in text
    told = qa("dataset", "drift", "qa:v1", "qa", "--json").json
    assert (told["a"], told["b"]) == ("qa:v1", "qa:v2")
    assert told["drift"]["categories"] == [{"column": "label", "distance": 0.5, "new": ["c"], "gone": []}]
    assert told["drift"]["embedding"] is None


def test_drift_takes_files_and_vectors(qa: Cli, tmp_path: Path) -> None:
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(a, np.zeros((20, 4), np.float32))
    np.save(b, np.ones((20, 4), np.float32))
    line = ("dataset", "drift", tmp_path / "one.jsonl", "qa:v2", "--vectors", a, b)
    assert "energy" in qa(*line).out
    assert qa(*line, "--json").json["drift"]["embedding"] == {
        "energy": 1.0,
        "means": 1.0,
        "novelty": 1.0,
        "new": 20,
        "dimension": 4,
        "before": 20,
        "after": 20,
    }


def test_vectors_that_are_no_array_or_do_not_fit_are_refused(qa: Cli, tmp_path: Path) -> None:
    short, objects, text = tmp_path / "short.npy", tmp_path / "objects.npy", tmp_path / "text.npy"
    np.save(short, np.zeros((3, 4)))
    np.save(objects, np.array([{}] * 20, dtype=object), allow_pickle=True)
    text.write_text("not an array")
    for path in (short, objects, text):
        ended = qa("dataset", "drift", "qa:v1", "qa:v2", "--vectors", path, path, "--json", expect=wire.WRONG_USE)
        assert ended.error["code"] == "invalid_value"
    missing = tmp_path / "none.npy"
    qa("dataset", "drift", "qa:v1", "qa:v2", "--vectors", missing, missing, expect=wire.NOT_FOUND)


def test_leakage_tells_which_items_lie_where(qa: Cli, train: Path) -> None:
    text = qa("dataset", "leakage", "qa:v1", train).out
    assert "2 of 20 test items (10.0%) are among 3 training items: 1 same text, 1 contained" in text
    assert "100% contained" in text
    assert "line 2" in text
    told = qa("dataset", "leakage", "qa:v1", train, "--json").json
    assert (told["test"], told["train"]) == ("qa:v1", str(train))
    assert (told["leaked"], told["rate"], told["ways"]) == (["q3", "q5"], 0.1, {"same_text": 1, "contained": 1})
    assert told["leakage"]["leaks"][1]["place"] == "messages[0].content"


def test_leakage_ends_with_1_only_where_that_is_asked_for_and_something_leaks(
    qa: Cli, train: Path, tmp_path: Path
) -> None:
    qa("dataset", "leakage", "qa:v1", train)
    assert "2 of 20" in qa("dataset", "leakage", "qa:v1", train, "--fail", expect=wire.REFUSED).out
    ended = qa("dataset", "leakage", "qa:v1", train, "--fail", "--json", expect=wire.REFUSED)
    assert ended.json["leaked"] == ["q3", "q5"]
    clean = write(tmp_path / "clean.jsonl", [{"prompt": "Write a poem.", "completion": "The sea."}])
    assert "0 of 20" in qa("dataset", "leakage", "qa:v1", clean, "--fail").out


def test_leakage_takes_two_versions_and_two_splits(qa: Cli, tmp_path: Path) -> None:
    assert qa("dataset", "leakage", "qa:v1", "qa:v2", "--json").json["rate"] == 1.0
    rows = [{"id": f"i{i}", "input": q, "split": "test" if i < 5 else "train"} for i, q in enumerate(QUESTIONS)]
    rows.append({"id": "again", "input": QUESTIONS[0], "split": "train"})
    qa("log", "eval_dataset", "parts", write(tmp_path / "parts.jsonl", rows))
    line = ("dataset", "leakage", "parts:v1", "parts:v1", "--split", "test", "--train-split", "train")
    assert qa(*line, "--share", "1", "--json").json["leaked"] == ["i0"]
    file = str(tmp_path / "parts.jsonl")
    assert qa("dataset", "leakage", file, file, *line[4:], "--share", "1", "--json").json["leaked"] == ["i0"]
    ended = qa("dataset", "leakage", "parts:v1", "parts:v1", "--split", "tset", expect=wire.NOT_FOUND)
    assert "test" in ended.err


def test_leakage_shows_as_many_as_are_asked_for(qa: Cli) -> None:
    text = qa("dataset", "leakage", "qa:v1", "qa:v1", "-n", "3").out
    assert text.count("same text") == 4  # one in the headline
    assert "and 17 more: --limit 20, or --json" in text


def test_what_is_neither_a_dataset_nor_a_file_is_refused(qa: Cli, tmp_path: Path, log: Callable[..., Any]) -> None:
    log("notes", "some text\n")
    assert "kind files" in qa("dataset", "schema", "notes", expect=wire.WRONG_USE).err
    qa("dataset", "schema", "nothing", expect=wire.NOT_FOUND)
    assert "one.jsonl" in qa("dataset", "schema", tmp_path / "onee.jsonl", expect=wire.NOT_FOUND).err
    qa("dataset", "leakage", "qa", "train.jsonl", expect=wire.NOT_FOUND)
    qa("dataset", "leakage", "qa", "qa", "--share", "2", expect=wire.WRONG_USE)
    qa("dataset", "leakage", "qa", "qa", "--field", "nowhere", expect=wire.WRONG_USE)


def test_files_need_no_registry_and_take_the_options_of_log(cli: Cli, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("asked;told\nWho?;Ada\nWhat?;Nothing\n")
    told = cli("dataset", "schema", table, "-o", "input=asked", "-o", "delimiter=;", "--json").json
    assert told["fields"] == {"input": "asked"}
