"""Real datasets that nobody here wrote; the counts are those of `facts.json` beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.eval_dataset.kind import EvalDatasetKind
from llmartifacts.kinds.eval_dataset.value import EvalDataset
from llmartifacts.testing.kinds import pack


@pytest.fixture(scope="module")
def evals(shared_data: Path) -> Path:
    return shared_data / "evals"


@pytest.fixture(scope="module")
def counts(shared_data: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((shared_data / "facts.json").read_text())["evals_rows"]
    return found


def test_gsm8k_as_jsonl_and_as_parquet_is_the_same_dataset(evals: Path, counts: dict[str, int]) -> None:
    lines = EvalDataset.from_jsonl(evals / "gsm8k" / "test.jsonl")
    table = EvalDataset.from_parquet(evals / "gsm8k" / "test.parquet")
    assert len(lines) == counts["gsm8k/test.jsonl"] == 1319
    assert lines == table
    kind = EvalDatasetKind()
    assert pack(kind, lines)[0].digest == pack(kind, table)[0].digest
    assert dict(lines.fields) == {"input": "question", "expected_output": "answer"}
    assert lines[0].input.startswith("Janet’s ducks lay 16 eggs per day.")
    assert lines[0].expected_output.endswith("#### 18")


def test_gsm8k_keeps_its_ids_and_splits_when_half_of_it_is_gone(evals: Path) -> None:
    rows = [json.loads(line) for line in (evals / "gsm8k" / "test.jsonl").read_text().splitlines()]
    shares = {"dev": 0.2, "test": 0.8}
    whole = {i.id: i.split for i in EvalDataset(rows).with_splits(shares)}
    half = {i.id: i.split for i in EvalDataset(rows[::-2]).with_splits(shares)}
    assert half.items() <= whole.items()
    assert len(half) == 660


def test_every_file_has_the_stated_number_of_items_and_an_answer_where_it_should(
    evals: Path, counts: dict[str, int]
) -> None:
    tables = [name for name in counts if not name.startswith("squad")]
    assert len(tables) == 16
    for name in tables:
        dataset = EvalDataset.from_file(evals / name)
        assert len(dataset) == counts[name], name
        assert dataset.schema[dataset.fields["expected_output"]].null == 0, name


def test_truthfulqa_has_its_columns(evals: Path) -> None:
    dataset = EvalDataset.from_csv(evals / "truthfulqa" / "TruthfulQA.csv")
    assert dict(dataset.fields) == {"input": "Question", "expected_output": "Best Answer"}
    assert set(dataset.schema) == {
        "Type",
        "Category",
        "Question",
        "Best Answer",
        "Correct Answers",
        "Incorrect Answers",
        "Source",
    }
    assert dataset.schema["Type"].values == ("Adversarial", "Non-Adversarial")


def test_humaneval_keeps_its_task_ids(evals: Path) -> None:
    dataset = EvalDataset.from_jsonl(evals / "humaneval" / "HumanEval.jsonl.gz")
    assert dataset.ids == tuple(f"HumanEval/{i}" for i in range(164))
    assert dict(dataset.fields) == {"input": "prompt", "expected_output": "canonical_solution"}


def test_nested_squad_gives_every_question_with_its_context(evals: Path) -> None:
    small = EvalDataset.from_json(evals / "squad_sample" / "small.json")
    assert len(small) == 626
    assert sum(item.columns["is_impossible"] for item in small) == 333
    assert len({item.columns["context"] for item in small}) == 87
    assert len({item.columns["title"] for item in small}) == 2
    both = EvalDataset.from_file([evals / "squad_sample" / "small.json", evals / "squad_sample" / "tiny.json"])
    assert len(both) == 628
    assert "7211011040021040393" in both  # beyond 2^53, where a reader of floats would change it


def test_all_bbh_tasks_load_by_input_and_target(evals: Path) -> None:
    tasks = sorted((evals / "bbh").glob("*.json"))
    assert len(tasks) == 11
    for task in tasks:
        assert dict(EvalDataset.from_json(task).fields) == {"input": "input", "expected_output": "target"}


def test_every_set_survives_every_format(evals: Path, counts: dict[str, int], tmp_path: Path) -> None:
    for name in ("truthfulqa/TruthfulQA.csv", "humaneval/HumanEval.jsonl.gz", "squad_sample/small.json"):
        dataset = EvalDataset.from_file(evals / name)
        how: dict[str, Any] = {"columns": dataset.fields}
        dataset.to_jsonl(tmp_path / "a.jsonl.gz")
        assert EvalDataset.from_jsonl(tmp_path / "a.jsonl.gz", **how) == dataset
        as_json = dataset.to_csv(tmp_path / "a.csv")
        assert EvalDataset.from_csv(tmp_path / "a.csv", json_columns=as_json, **how) == dataset
        dataset.to_parquet(tmp_path / "a.parquet")
        assert EvalDataset.from_parquet(tmp_path / "a.parquet", **how) == dataset


def test_two_versions_of_gsm8k_differ_by_their_items_and_drift_little(evals: Path) -> None:
    rows = [json.loads(line) for line in (evals / "gsm8k" / "test.jsonl").read_text().splitlines()]
    before = EvalDataset(rows[:1200])
    corrected = [{**rows[0], "answer": "#### 19"}, *rows[1:1100], *rows[1200:]]
    found = before.diff(EvalDataset(corrected))
    assert (len(found.added), len(found.removed), len(found.changed), found.unchanged) == (119, 100, 1, 1099)
    assert found.changed[0].columns == ("answer",)
    shift = before.drift(EvalDataset(corrected))
    assert not shift.schema
    assert all(s.distance < 0.05 for s in shift.lengths)
    other = before.drift(EvalDataset.from_json(evals / "bbh" / "word_sorting.json"))
    assert {str(s) for s in other.schema} >= {"answer: removed (string)", "target: added (string)"}


def test_a_retrieval_set_of_questions_loads_with_its_metadata(shared_data: Path) -> None:
    dataset = EvalDataset.from_jsonl(shared_data / "rag" / "clapnq_dev" / "queries.jsonl")
    assert len(dataset) == 600
    assert dict(dataset.fields) == {"input": "text", "metadata": "metadata"}
    assert sum(item.metadata["answerable"] for item in dataset) == 300
    assert dataset.ids[0] == "6401197308716204890"


def test_a_file_of_another_kind_is_refused_with_its_place(shared_data: Path) -> None:
    registry = shared_data / "evals" / "openai_evals"
    some = next(p for p in sorted(registry.rglob("*.y*ml")))
    with pytest.raises(InvalidValue):
        EvalDataset.from_file(some)
    with pytest.raises(InvalidValue) as caught:
        EvalDataset.from_jsonl(some)
    assert str(some) in caught.value.origin
