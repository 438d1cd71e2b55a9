"""Leakage and drift of real datasets that nobody here wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmartifacts.kinds.eval_dataset.value import EvalDataset


@pytest.fixture(scope="module")
def evals(shared_data: Path) -> Path:
    return shared_data / "evals"


@pytest.fixture(scope="module")
def gsm8k(evals: Path) -> EvalDataset:
    return EvalDataset.from_jsonl(evals / "gsm8k" / "test.jsonl")


@pytest.fixture(scope="module")
def truthfulqa(evals: Path) -> EvalDataset:
    return EvalDataset.from_csv(evals / "truthfulqa" / "TruthfulQA.csv")


@pytest.fixture(scope="module")
def humaneval(evals: Path) -> EvalDataset:
    return EvalDataset.from_jsonl(evals / "humaneval" / "HumanEval.jsonl.gz")


def fine_tuning(path: Path, items: list[tuple[str, str]]) -> Path:
    with path.open("w") as out:
        for asked, told in items:
            chat = [
                {"role": "system", "content": "You are a careful assistant. Think before you answer."},
                {"role": "user", "content": asked},
                {"role": "assistant", "content": told},
            ]
            out.write(json.dumps({"messages": chat}) + "\n")
    return path


def test_every_set_leaks_whole_into_itself(gsm8k: EvalDataset, truthfulqa: EvalDataset, humaneval: EvalDataset) -> None:
    for dataset in (gsm8k, truthfulqa, humaneval):
        found = dataset.leakage(dataset)
        assert found.leaked == dataset.ids
        assert dict(found.ways) == {"same_text": len(dataset)}


def test_sets_that_have_nothing_in_common_leak_nothing(
    gsm8k: EvalDataset, truthfulqa: EvalDataset, humaneval: EvalDataset, evals: Path
) -> None:
    squad = evals / "squad_sample" / "small.json"
    for test, train in ((gsm8k, truthfulqa), (truthfulqa, gsm8k), (humaneval, gsm8k), (gsm8k, squad)):
        assert not test.leakage(train)
    halves = gsm8k.with_splits({"dev": 0.5, "test": 0.5})
    assert not halves.split("test").leakage(halves.split("dev"))


def test_other_case_and_white_space_hide_no_question(gsm8k: EvalDataset, tmp_path: Path) -> None:
    hidden = [(item.input.upper().replace(" ", " \n "), "see above") for item in gsm8k]
    found = gsm8k.leakage(fine_tuning(tmp_path / "train.jsonl", hidden))
    assert found.rate == 1.0
    assert dict(found.ways) == {"same_text": 1319}
    assert found.leaks[-1].train.endswith("train.jsonl, line 1319")
    assert {leak.place for leak in found.leaks} == {"messages[1].content"}


def test_programs_inside_a_fine_tuning_file_are_found_and_only_those(humaneval: EvalDataset, tmp_path: Path) -> None:
    chosen = [f"HumanEval/{i}" for i in range(0, 164, 4)]
    leaked = [(f"Complete this function:\n```python\n{humaneval[i].input}```", "Here it is.") for i in chosen]
    file = fine_tuning(tmp_path / "train.jsonl", [("Write a poem on the sea.", "The sea, the sea."), *leaked])
    found = humaneval.leakage(file)
    assert {(leak.column, leak.way) for leak in found.leaks} == {("prompt", "contained")}
    whole = {leak.item: leak.train.rpartition(" ")[2] for leak in found.leaks if leak.share == 1}
    # One more: HumanEval/56 and /61 ask the same, of brackets < > and ( ), and punctuation does not count.
    assert whole.pop("HumanEval/61") == whole["HumanEval/56"]
    assert whole == {i: str(2 + n) for n, i in enumerate(chosen)}
    assert set(found.leaked) == {*chosen, "HumanEval/61"}


def test_a_solution_alone_is_found_in_an_answer(humaneval: EvalDataset, tmp_path: Path) -> None:
    told = [("Show me some code.", item.expected_output) for item in humaneval]
    found = humaneval.leakage(fine_tuning(tmp_path / "train.jsonl", told))
    assert {leak.column for leak in found.leaks} == {"canonical_solution"}
    long = [i.id for i in humaneval if len(i.expected_output.split()) > 30]
    assert set(long) <= set(found.leaked)
    assert 0.5 < found.rate < 1  # the rest are solved in fewer than thirteen words


def test_reworded_questions_are_found_by_what_is_left_of_them(gsm8k: EvalDataset) -> None:
    def reworded(text: str) -> str:
        words = text.split()
        return " ".join(["Well,", *words[:-2], "please?"])

    found = gsm8k.leakage([{"prompt": reworded(item.input)} for item in gsm8k], fields=["input"])
    assert found.rate == 1.0
    assert set(found.ways) == {"contained"}
    assert sum(leak.share < 1 for leak in found.leaks) == 1318  # one is whole inside another's question


def test_halves_of_a_set_drift_less_than_two_sets(gsm8k: EvalDataset, truthfulqa: EvalDataset) -> None:
    parts = gsm8k.with_splits({"a": 0.5, "b": 0.5})
    halves = parts.split("a").drift(parts.split("b"))
    (length,) = (shift for shift in halves.lengths if shift.column == "question")
    assert length.distance < 0.1
    apart = gsm8k.drift(truthfulqa)
    assert [shift.column for shift in apart.lengths] == ["expected_output", "input"]
    assert apart.lengths[1].distance > 0.9
    assert apart.vocabulary[1].divergence > 2 * halves.vocabulary[1].divergence


def test_embeddings_of_halves_hardly_move_and_those_of_another_topic_do(shared_data: Path) -> None:
    def questions(name: str) -> tuple[EvalDataset, np.ndarray]:
        folder = shared_data / "rag" / name
        return EvalDataset.from_jsonl(folder / "queries.jsonl"), np.load(folder / "queries.embeddings.npy")

    wiki, vectors = questions("clapnq_dev")
    docs, others = questions("anthropic_docs")
    parts = wiki.with_splits({"a": 0.5, "b": 0.5})
    a = [i for i, item in enumerate(parts) if item.split == "a"]
    b = [i for i, item in enumerate(parts) if item.split == "b"]
    halves = parts.split("a").drift(parts.split("b"), vectors=(vectors[a], vectors[b])).embedding
    apart = wiki.drift(docs, vectors=(vectors, others)).embedding
    same = wiki.drift(wiki, vectors=(vectors, vectors)).embedding
    assert halves is not None
    assert apart is not None
    assert same is not None
    assert (same.energy, same.means, same.novelty, same.new) == (0.0, 0.0, None, 0)
    by_chance = (1 / len(a) + 1 / len(b)) / 2  # what two draws from one distribution give on average
    assert halves.energy == pytest.approx(by_chance, rel=0.2)
    assert apart.energy > 10 * by_chance
    assert apart.means > 10 * halves.means
    assert halves.novelty == pytest.approx(0.5, abs=0.05)
    assert apart.novelty is not None
    assert apart.novelty > 0.65
    assert (apart.before, apart.after, apart.dimension) == (600, 100, 384)
