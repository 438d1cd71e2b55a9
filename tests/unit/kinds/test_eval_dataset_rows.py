"""Rows become items: fields found, values made plain, ids that stay; what cannot be an item is refused by name."""

from __future__ import annotations

import hashlib
import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue, LlmartifactsError, NotFound, TooLarge
from llmartifacts.kinds.eval_dataset.sources import Limits
from llmartifacts.kinds.eval_dataset.value import EvalDataset
from llmartifacts.records.canonical import canonical_bytes

QA = [{"question": "2 + 2?", "answer": "4"}, {"question": "Who?", "answer": "Ada"}]


def refused(rows: object, **options: object) -> LlmartifactsError:
    with pytest.raises(LlmartifactsError) as caught:
        EvalDataset(rows, **options)  # type: ignore[arg-type]
    return caught.value


# --- fields


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["question", "answer"], {"input": "question", "expected_output": "answer"}),
        (["Question", "Best Answer", "Correct Answers"], {"input": "Question", "expected_output": "Best Answer"}),
        (["input", "target"], {"input": "input", "expected_output": "target"}),
        (["text", "label", "__expected"], {"input": "text", "expected_output": "label"}),
        (["prompt", "canonical_solution", "test"], {"input": "prompt", "expected_output": "canonical_solution"}),
        (["query", "input", "x"], {"input": "input"}),
        (["Question", "question"], {"input": "question"}),
    ],
)
def test_well_known_columns_are_found_and_keep_their_names(names: list[str], expected: dict[str, str]) -> None:
    dataset = EvalDataset([dict.fromkeys(names, "x")])
    assert dict(dataset.fields) == expected
    assert set(dataset[0].columns) == set(names)


def test_what_the_caller_says_goes_before_the_well_known_names() -> None:
    row = {"a": "ask", "b": "want", "question": "other", "answer": "other"}
    dataset = EvalDataset([row], columns={"input": "a", "expected_output": "b"})
    assert (dataset[0].input, dataset[0].expected_output) == ("ask", "want")
    assert dict(dataset[0].columns) == row


def test_a_field_can_be_said_to_have_no_column() -> None:
    dataset = EvalDataset(QA, columns={"expected_output": None})
    assert dataset[0].expected_output is None
    assert dataset[0].columns["answer"] == "4"


def test_metadata_and_split_are_taken_unasked_only_where_they_fit() -> None:
    fits = EvalDataset([{"input": "a", "metadata": {"k": 1}, "split": "dev"}])
    assert (dict(fits[0].metadata), fits[0].split) == ({"k": 1}, "dev")
    unfit = EvalDataset([{"input": "a", "metadata": "from a blog", "split": 3}])
    assert (dict(unfit[0].metadata), unfit[0].split) == ({}, None)
    assert unfit[0].columns["metadata"] == "from a blog"
    error = refused([{"input": "a", "about": "x"}], columns={"metadata": "about"})
    assert error.field == "about"
    assert "not an object" in str(error)


def test_a_dataset_without_an_input_says_how_to_name_it() -> None:
    error = refused([{"alpha": 1, "beta": 2}])
    assert error.field == "columns.input"
    assert "alpha, beta" in error.hint()


def test_a_column_that_does_not_exist_offers_the_near_one() -> None:
    error = refused(QA, columns={"input": "qustion"})
    assert error.field == "columns.input"
    assert "question" in error.hint()
    assert refused(QA, columns={"output": "answer"}).field == "columns.output"
    assert refused(QA, columns={"input": ["question"]}).field == "columns.input"


# --- ids


def test_a_derived_id_is_the_hash_of_what_is_asked() -> None:
    key = canonical_bytes({"question": "2 + 2?"})
    assert EvalDataset(QA)[0].id == hashlib.sha256(key).hexdigest()[:16]


def test_a_corrected_answer_keeps_the_id_and_another_question_does_not() -> None:
    corrected = EvalDataset([{"question": "2 + 2?", "answer": "four"}, {"question": "Whom?", "answer": "Ada"}])
    assert corrected.ids[0] == EvalDataset(QA).ids[0]
    assert corrected.ids[1] != EvalDataset(QA).ids[1]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=20, unique_by=lambda pair: pair[0]),
    st.lists(st.text(min_size=1), max_size=5),
    st.randoms(use_true_random=False),
)
def test_ids_stay_when_items_are_added_or_reordered(
    pairs: list[tuple[str, str]], more: list[str], chance: random.Random
) -> None:
    rows = [{"input": a, "expected_output": b} for a, b in pairs]
    before = {item.input: item.id for item in EvalDataset(rows)}
    asked = {a for a, _ in pairs}
    grown = [*rows, *({"input": a} for a in dict.fromkeys(more) if a not in asked)]
    chance.shuffle(grown)
    after = {item.input: item.id for item in EvalDataset(grown)}
    assert {a: after[a] for a in before} == before


def test_equal_rows_are_told_apart_by_number_and_unequal_ones_that_ask_the_same_are_refused() -> None:
    twice = EvalDataset([QA[0], QA[1], QA[0], QA[0]])
    base = twice.ids[0]
    assert twice.ids == (base, EvalDataset(QA).ids[1], f"{base}-2", f"{base}-3")
    error = refused([QA[0], {"question": "2 + 2?", "answer": "5"}])
    assert error.field == "id"
    assert error.origin == "item 2"
    assert "item 1" in str(error)
    assert "id_from" in error.hint()
    assert len(EvalDataset([QA[0], {"question": "2 + 2?", "answer": "5"}], id_from=["question", "answer"])) == 2


def test_ids_can_be_made_of_chosen_columns() -> None:
    one = EvalDataset([{"question": "q", "document": "d1", "row": 1}], id_from=["question"])
    other = EvalDataset([{"question": "q", "document": "d2", "row": 2}], id_from="question")
    assert one.ids == other.ids
    assert refused(QA, id_from=["qestion"]).field == "id_from"
    assert refused(QA, id_from=[]).field == "id_from"


def test_given_ids_are_taken_from_a_well_known_column_and_integers_become_text() -> None:
    assert EvalDataset([{"task_id": "HumanEval/0", "prompt": "p"}]).ids == ("HumanEval/0",)
    assert EvalDataset([{"id": 7211011040021040393, "question": "q"}]).ids == ("7211011040021040393",)


def test_a_column_named_id_that_is_not_the_id_is_kept_beside_it() -> None:
    rows = [{"id": 1, "key": "a", "input": "x"}, {"id": 1, "key": "b", "input": "y"}]
    assert "columns={'id': None}" in refused(rows).hint()
    dataset = EvalDataset(rows, columns={"id": "key"})
    assert dataset.ids == ("a", "b")
    assert dataset[0].columns["source_id"] == 1
    derived = EvalDataset(rows, columns={"id": None})
    assert len(set(derived.ids)) == 2


@pytest.mark.parametrize("bad", [None, "", "  ", "a\x00b", "a\nb", "x" * 513, True, 1.5, ["a"], {"a": 1}])
def test_what_cannot_be_an_id_is_refused_with_its_place(bad: object) -> None:
    error = refused([{"id": "ok", "input": "a"}, {"id": bad, "input": "b"}])
    assert (error.field, error.origin) == ("id", "item 2")


def test_duplicate_ids_name_both_places() -> None:
    error = refused([{"id": "a", "input": "1"}, {"id": "b", "input": "2"}, {"id": "a", "input": "3"}])
    assert (error.field, error.origin) == ("id", "item 3")
    assert "first at item 1" in str(error)


# --- values


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, -math.inf, 2**53, -(2**60), 1e17, object(), b"x", {1: 2}, "\ud800"]
)
def test_a_value_that_is_not_json_names_its_field_and_item(bad: object) -> None:
    error = refused([{"input": "a"}, {"input": "b", "metadata": {"list": [1, bad]}}])
    assert error.field.startswith("metadata.list[1]")
    assert error.origin == "item 2"


def test_too_deep_values_are_refused() -> None:
    deep: object = "x"
    for _ in range(70):
        deep = [deep]
    assert "nested deeper" in str(refused([{"input": deep}]))


def test_whole_floats_are_integers_so_that_formats_agree() -> None:
    assert EvalDataset([{"input": 2.0, "x": [-0.0]}]) == EvalDataset([{"input": 2, "x": [0]}])


def test_a_null_column_is_an_absent_one_but_not_inside_a_value() -> None:
    assert EvalDataset([{"input": "a", "x": None}]) == EvalDataset([{"input": "a"}])
    assert EvalDataset([{"input": {"x": None}}]) != EvalDataset([{"input": {}}])


@pytest.mark.parametrize("rows", [[], iter(())])
def test_an_empty_dataset_is_refused(rows: object) -> None:
    assert "no items" in str(refused(rows))


@pytest.mark.parametrize("row", ["text", 3, None, ["a"], [("input", "a")]])
def test_an_item_that_is_no_object_is_refused(row: object) -> None:
    assert refused([{"input": "a"}, row]).origin == "item 2"


def test_an_item_without_its_input_is_refused() -> None:
    error = refused([{"input": "a"}, {"input": None, "x": 1}])
    assert (error.field, error.origin) == ("input", "item 2")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 257, 3, "\ud800"])
def test_a_bad_column_name_is_refused(name: object) -> None:
    assert refused([{"input": "a", name: 1}]).origin == "item 1"


def test_sizes_are_capped_and_caps_can_only_be_lowered() -> None:
    rows = [{"input": "x" * 100}, {"input": "y" * 100}]
    for cap in ({"item_bytes": 100}, {"total_bytes": 150}, {"items": 1}):
        with pytest.raises(TooLarge):
            EvalDataset(rows, limits=Limits(**cap))
    with pytest.raises(TooLarge):
        EvalDataset([{"input": "x", "a": 1, "b": 2}], limits=Limits(columns=2))
    for bad in (0, Limits().item_bytes + 1, 1.5):
        with pytest.raises(InvalidValue):
            Limits(item_bytes=bad)  # type: ignore[arg-type]


# --- the value


def test_a_dataset_cannot_be_changed_through_what_it_gives_or_was_given() -> None:
    row = {"input": ["a"], "metadata": {"k": [1]}}
    dataset = EvalDataset([row])
    row["input"].append("b")  # type: ignore[attr-defined]
    dataset[0].input.append("c")
    next(dataset.rows())["input"].append("d")
    assert dataset[0].input == ["a"]
    with pytest.raises(AttributeError):
        dataset._built = None  # type: ignore[assignment,misc]


def test_items_are_found_by_place_and_by_id() -> None:
    dataset = EvalDataset([{"id": "alpha", "input": 1}, {"id": "beta", "input": 2}])
    assert (dataset["beta"].input, dataset[-1].input, len(dataset), "alpha" in dataset) == (2, 2, 2, True)
    with pytest.raises(NotFound) as caught:
        dataset["alpa"]
    assert caught.value.near == ("alpha",)
    assert [item.id for item in dataset.select(["beta", "alpha"])] == ["alpha", "beta"]


def test_the_schema_counts_types_nulls_and_values() -> None:
    rows = [{"input": str(i), "label": "yes" if i % 2 else "no", "x": i if i % 3 else 0.5} for i in range(6)]
    rows.append({"input": "6", "tags": ["a"]})
    schema = EvalDataset(rows).schema
    assert list(schema) == ["input", "label", "tags", "x"]
    assert (schema["label"].present, schema["label"].null, schema["label"].values) == (6, 1, ("no", "yes"))
    assert dict(schema["x"].types) == {"integer": 4, "number": 2}
    assert (schema["tags"].distinct, schema["tags"].values) == (None, None)
    assert schema["input"].distinct == 7


def test_the_schema_names_what_every_object_of_a_column_has() -> None:
    rows = [{"input": {"question": "q", "context": "c"}}, {"input": {"question": "r", "language": "en"}}]
    schema = EvalDataset(rows).schema
    assert schema["input"].properties == ("question",)
    assert EvalDataset([{"input": "text"}]).schema["input"].properties is None


def test_true_and_one_are_two_values() -> None:
    assert EvalDataset([{"input": "a", "x": True}, {"input": "b", "x": 1}]).schema["x"].distinct == 2
    assert EvalDataset([{"input": True}]) != EvalDataset([{"input": 1}])


def test_lines_are_canonical_json_with_the_id() -> None:
    dataset = EvalDataset(QA)
    for line, item_id in zip(dataset.lines, dataset.ids, strict=True):
        row = json.loads(line)
        assert row["id"] == item_id
        assert canonical_bytes(row) == line
