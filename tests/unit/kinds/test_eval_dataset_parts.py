"""Splits, samples, differences and drift."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue, NotFound
from llmartifacts.kinds.eval_dataset import drift
from llmartifacts.kinds.eval_dataset.value import EvalDataset

inputs = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=40, unique=True)


def numbered(n: int) -> EvalDataset:
    return EvalDataset([{"input": str(i)} for i in range(n)])


# --- splits


@settings(deadline=None)
@given(inputs, inputs, st.text(max_size=5), st.randoms(use_true_random=False))
def test_a_split_never_moves_an_item_when_others_are_added_removed_or_reordered(
    old: list[str], new: list[str], salt: str, chance: random.Random
) -> None:
    shares = {"train": 0.6, "dev": 0.1, "test": 0.3}
    before = {i.input: i.split for i in EvalDataset([{"input": t} for t in old]).with_splits(shares, salt=salt)}
    kept = [t for t in old if chance.random() < 0.7]
    everything = list(dict.fromkeys([*kept, *new]))
    chance.shuffle(everything)
    after = {i.input: i.split for i in EvalDataset([{"input": t} for t in everything]).with_splits(shares, salt=salt)}
    assert all(after[t] == before[t] for t in kept)
    assert set(after.values()) <= shares.keys()


def test_splits_have_about_their_shares_and_another_salt_gives_others() -> None:
    one = numbered(4000).with_splits({"train": 0.8, "test": 0.2})
    assert abs(one.splits["test"] - 800) < 4 * math.sqrt(4000 * 0.16)  # four standard deviations
    two = numbered(4000).with_splits({"train": 0.8, "test": 0.2}, salt="b")
    both = sum(a.split == b.split == "test" for a, b in zip(one, two, strict=True))
    assert abs(both - 160) < 4 * math.sqrt(160)  # independent: 4 % in both


def test_enlarging_the_first_split_takes_only_from_the_next() -> None:
    small = numbered(500).with_splits({"test": 0.1, "train": 0.9}).split("test")
    large = numbered(500).with_splits({"test": 0.3, "train": 0.7}).split("test")
    assert set(small.ids) < set(large.ids)


def test_items_of_one_document_stay_together() -> None:
    rows = [{"input": str(i), "document": f"d{i % 40}"} for i in range(400)]
    parts = EvalDataset(rows).with_splits({"a": 0.5, "b": 0.5}, by="document")
    by_document: dict[str, set[str | None]] = {}
    for item in parts:
        by_document.setdefault(item.columns["document"], set()).add(item.split)
    assert all(len(splits) == 1 for splits in by_document.values())
    assert set(parts.splits) == {"a", "b"}


def test_a_split_is_taken_out_by_name() -> None:
    parts = numbered(50).with_splits({"dev": 0.5, "test": 0.5})
    assert len(parts.split("dev")) + len(parts.split("test")) == 50
    assert all(item.split == "dev" for item in parts.split("dev"))
    with pytest.raises(NotFound) as caught:
        parts.split("tets")
    assert caught.value.near == ("test",)
    with pytest.raises(NotFound):
        numbered(3).split("dev")


def test_splitting_again_replaces_the_splits() -> None:
    again = numbered(30).with_splits({"x": 1.0}).with_splits({"y": 1.0})
    assert dict(again.splits) == {"y": 30}


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {"a": 0.5},
        {"a": 0.5, "b": 0.6},
        {"a": 1.5, "b": -0.5},
        {"a": 0, "b": 1},
        {"a": math.nan},
        {"": 1.0},
        {"a": True},
    ],
)
def test_shares_that_are_no_partition_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(InvalidValue):
        numbered(3).with_splits(shares)


def test_splitting_by_an_unknown_column_or_over_another_split_column_is_refused() -> None:
    with pytest.raises(InvalidValue) as caught:
        EvalDataset([{"input": "a", "document": "d"}]).with_splits({"a": 1.0}, by="docment")
    assert "document" in caught.value.hint()
    with pytest.raises(InvalidValue) as caught:
        EvalDataset([{"input": "a", "split": 3}]).with_splits({"a": 1.0})
    assert caught.value.field == "split"


# --- samples


@settings(deadline=None)
@given(inputs, st.integers(), st.data(), st.randoms(use_true_random=False))
def test_a_sample_depends_on_ids_and_seed_only(
    texts: list[str], seed: int, data: st.DataObject, chance: random.Random
) -> None:
    n = data.draw(st.integers(1, len(texts)))
    rows = [{"input": t} for t in texts]
    drawn = EvalDataset(rows).sample(n, seed=seed)
    chance.shuffle(rows)
    assert set(EvalDataset(rows).sample(n, seed=seed).ids) == set(drawn.ids)
    assert len(drawn) == n
    if n > 1:
        assert set(EvalDataset(rows).sample(n - 1, seed=seed).ids) < set(drawn.ids)


def test_seeds_give_different_samples_and_bad_sizes_are_refused() -> None:
    dataset = numbered(100)
    assert dataset.sample(10, seed=1).ids != dataset.sample(10, seed=2).ids
    assert list(dataset.sample(100).ids) == list(dataset.ids)
    for n in (0, -1, 101, 1.5, True):
        with pytest.raises(InvalidValue):
            dataset.sample(n)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue):
        dataset.sample(3, seed="x")  # type: ignore[arg-type]


def test_a_part_without_any_answer_has_no_column_for_it() -> None:
    dataset = EvalDataset([{"id": "a", "input": "1", "answer": "x"}, {"id": "b", "input": "2"}])
    assert dict(dataset.select(["b"]).fields) == {"input": "input"}


# --- differences


def test_items_are_compared_by_id_and_the_changed_columns_are_named() -> None:
    before = EvalDataset([{"id": i, "question": f"q{i}", "answer": "x", "k": 1} for i in "abc"])
    after = EvalDataset(
        [
            {"id": "c", "question": "qc", "answer": "x", "k": True},
            {"id": "b", "question": "qb", "answer": "x", "k": 1},
            {"id": "d", "question": "qd", "answer": "x", "k": 1},
        ]
    )
    found = before.diff(after)
    assert [i.id for i in found.added] == ["d"]
    assert [i.id for i in found.removed] == ["a"]
    assert [(c.id, c.columns) for c in found.changed] == [("c", ("k",))]
    assert (found.unchanged, found.reordered) == (1, True)
    assert str(found) == "1 added, 1 removed, 1 changed, 1 unchanged, reordered"
    assert {c.path for c in found.changes()} == {"items", "items/a", "items/d", "items/c.k"}


def test_a_corrected_answer_is_a_change_even_where_ids_are_derived() -> None:
    before = EvalDataset([{"question": "2+2?", "answer": "5"}, {"question": "Who?", "answer": "Ada"}])
    after = EvalDataset([{"question": "2+2?", "answer": "4"}, {"question": "Who?", "answer": "Ada"}])
    (change,) = before.diff(after).changed
    assert (change.columns, change.before.expected_output, change.after.expected_output) == (("answer",), "5", "4")


def test_another_column_for_a_field_is_a_difference() -> None:
    rows = [{"id": "a", "question": "q", "answer": "x", "better": "y"}]
    found = EvalDataset(rows).diff(EvalDataset(rows, columns={"expected_output": "better"}))
    assert found
    assert [c.path for c in found.fields] == ["fields.expected_output"]


@settings(deadline=None)
@given(inputs)
def test_a_dataset_does_not_differ_from_itself(texts: list[str]) -> None:
    dataset = EvalDataset([{"input": t} for t in texts])
    assert not dataset.diff(EvalDataset(dataset.rows()))


# --- drift


def test_drift_names_what_shifted() -> None:
    before = EvalDataset([{"id": i, "question": "the cat sat", "label": "ab"[i % 2], "old": i} for i in range(8)])
    after = EvalDataset(
        [{"id": i, "question": "a dog ran away", "label": "bc"[i % 2], "new": [i]} for i in range(4, 14)]
    )
    found = before.drift(after)
    assert (found.before, found.after, found.added, found.removed, found.changed) == (8, 10, 6, 4, 4)
    assert [str(s) for s in found.schema] == ["new: added (array)", "old: removed (integer)"]
    categories = {c.column: c for c in found.categories}
    assert categories["label"].distance == pytest.approx(0.5)
    assert (categories["label"].new, categories["label"].gone) == (("c",), ("a",))
    text = str(found)
    assert "items: 8 -> 10" in text
    assert "label: distance 0.500; new: c; gone: a" in text


def test_drift_of_texts_measures_length_and_words() -> None:
    before = EvalDataset([{"id": i, "question": f"alpha beta {i:03}"} for i in range(60)])
    after = EvalDataset([{"id": i, "question": f"Alpha gamma {i:03} again"} for i in range(60)])
    (length,) = before.drift(after).lengths
    assert (length.before, length.after, length.distance) == (14.0, 21.0, 1.0)
    (words,) = before.drift(after).vocabulary
    assert words.unseen == pytest.approx(0.5)  # gamma and again of four words
    assert 0 < words.divergence < 1


def test_keys_of_metadata_count_as_columns() -> None:
    def of(topics: str) -> EvalDataset:
        return EvalDataset([{"id": i, "input": str(i), "metadata": {"topic": t}} for i, t in enumerate(topics)])

    found = {c.column: c.distance for c in of("aabb").drift(of("aaab")).categories}
    assert found["metadata.topic"] == pytest.approx(0.25)


def test_no_drift_is_all_zero() -> None:
    dataset = EvalDataset([{"input": f"what is {i}", "label": "ab"[i % 2]} for i in range(120)])
    found = dataset.drift(dataset)
    shifts = [s.distance for s in (*found.lengths, *found.categories)] + [v.divergence for v in found.vocabulary]
    assert shifts == [0.0] * len(shifts)
    assert len(shifts) == 3
    assert found.schema == ()


def test_columns_of_numbers_are_compared_by_their_values() -> None:
    before = EvalDataset([{"id": i, "input": "x", "answer": i} for i in range(100)])
    after = EvalDataset([{"id": i, "input": "x", "answer": i + 50.5} for i in range(100)])
    (found,) = before.drift(after).numbers
    assert (found.column, found.before, found.after, found.distance) == ("answer", 49.5, 100.0, 0.51)
    assert "numbers  answer: mean 49.5 -> 100, distance 0.510" in str(before.drift(after))


def test_answers_that_went_missing_are_told() -> None:
    before = EvalDataset([{"id": i, "input": "x", "answer": "y"} for i in range(10)])
    after = EvalDataset([{"id": i, "input": "x", **({"answer": "y"} if i % 2 else {})} for i in range(20)])
    (found,) = before.drift(after).missing
    assert (found.column, found.before, found.after, found.distance) == ("answer", 0.0, 0.5, 0.5)
    assert str(found) == "answer: 0.0% -> 50.0% of the items without a value"
    assert after.drift(after).missing == ()


def test_text_inside_messages_and_lists_counts_as_text() -> None:
    def asking(*questions: str) -> EvalDataset:
        return EvalDataset([{"id": i, "input": [{"role": "user", "content": q}]} for i, q in enumerate(questions)])

    found = asking("where is it", "who was it").drift(asking("whither went she", "who was it"))
    (words,) = found.vocabulary
    assert (words.column, words.words_before, words.unseen) == ("input", 5, 0.5)
    (length,) = found.lengths
    assert (length.before, length.after) == (10.5, 13.0)


def test_a_field_from_columns_of_unlike_names_is_compared_as_one() -> None:
    before = EvalDataset([{"id": i, "question": f"what is {i}"} for i in range(9)])
    after = EvalDataset([{"id": i, "prompt": f"what is {i}"} for i in range(9)])
    found = before.drift(after)
    assert [(s.column, s.distance) for s in found.lengths] == [("input", 0.0)]
    assert [str(s) for s in found.schema] == ["prompt: added (string)", "question: removed (string)"]


def test_the_column_that_the_id_is_from_does_not_drift() -> None:
    before = EvalDataset([{"task_id": f"T/{i}", "input": "the same"} for i in range(9)])
    after = EvalDataset([{"task_id": f"U/{i}", "input": "the same"} for i in range(9)])
    found = before.drift(after)
    assert {s.column for s in (*found.lengths, *found.categories, *found.vocabulary)} == {"input"}


def test_words_of_chinese_are_its_signs() -> None:
    def saying(text: str) -> EvalDataset:
        return EvalDataset([{"id": "a", "input": text}])

    (words,) = saying("鸭子下蛋").drift(saying("鸭子吃蛋")).vocabulary
    assert (words.words_before, words.unseen) == (4, 0.25)


weights = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 50), min_size=1)


@settings(deadline=None)
@given(weights, weights)
def test_the_distances_are_symmetric_bounded_and_zero_only_for_equals(p: dict[str, int], q: dict[str, int]) -> None:
    for measure in (drift.total_variation, drift.jensen_shannon):
        there, back = measure(p, q), measure(q, p)
        assert there == pytest.approx(back)
        assert 0 <= there <= 1 + 1e-12
        assert measure(p, p) == pytest.approx(0)
        if not p.keys() & q.keys():
            assert there == pytest.approx(1)


def test_the_distances_agree_with_numbers_worked_by_hand() -> None:
    assert drift.total_variation({"a": 1, "b": 1}, {"a": 3, "b": 1}) == pytest.approx(0.25)
    # H(3/4, 1/4) - (H(1, 0) + H(1/2, 1/2)) / 2 = 0.8112781 - 0.5
    assert drift.jensen_shannon({"a": 1}, {"a": 1, "b": 1}) == pytest.approx(0.3112781)
    assert drift.kolmogorov_smirnov({1: 1, 2: 1}, {2: 1, 3: 1}) == pytest.approx(0.5)
