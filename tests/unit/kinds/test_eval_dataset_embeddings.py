"""How embeddings moved between two versions of a dataset."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.eval_dataset import embeddings
from llmartifacts.kinds.eval_dataset.embeddings import EmbeddingShift
from llmartifacts.kinds.eval_dataset.value import EvalDataset


def items(n: int, start: int = 0) -> EvalDataset:
    return EvalDataset([{"id": f"i{i}", "input": f"text {i}"} for i in range(start, start + n)])


def shift(x: Any, y: Any) -> EmbeddingShift:
    found = items(len(x)).drift(items(len(y)), vectors=(x, y)).embedding
    assert found is not None
    return found


def measures(found: EmbeddingShift) -> tuple[float, float, float | None]:
    return found.energy, found.means, found.novelty


NOT_MOVED = (0.0, 0.0, None)


def by_hand(x: Any, y: Any) -> tuple[float, float, float | None]:
    """The definitions, pair by pair."""

    def mean(pairs: Any) -> float:
        found = list(pairs)
        return math.fsum(found) / len(found)

    xs, ys = [tuple(map(float, v)) for v in x], [tuple(map(float, v)) for v in y]
    across = mean(math.dist(a, b) for a in xs for b in ys)
    inside = mean(math.dist(a, b) for a in xs for b in xs) + mean(math.dist(a, b) for a in ys for b in ys)
    between = math.dist(np.mean(xs, axis=0), np.mean(ys, axis=0)) ** 2 / 4
    within = (np.var(xs, axis=0).sum() + np.var(ys, axis=0).sum()) / 2
    new = [d for d in (min(math.dist(a, b) for a in xs) for b in ys) if d]
    old = [min(math.dist(a, b) for j, b in enumerate(xs) if j != i) for i, a in enumerate(xs)] if len(xs) > 1 else []
    return (
        (2 * across - inside) / (2 * across) if across else 0.0,
        float(between / (between + within)) if between else 0.0,
        mean((n > o + 1e-9) + (abs(n - o) <= 1e-9) / 2 for n in new for o in old) if new and old else None,
    )


arrays = st.integers(1, 4).flatmap(
    lambda d: st.tuples(
        *(st.lists(st.lists(st.integers(-9, 9), min_size=d, max_size=d), min_size=1, max_size=12) for _ in "xy")
    )
)


@settings(deadline=None)
@given(arrays)
def test_the_measures_are_what_their_definitions_give_pair_by_pair(pair: tuple[Any, Any]) -> None:
    found = measures(shift(*pair))
    assert found == pytest.approx(by_hand(*pair), abs=2e-6)
    assert all(value is None or 0 <= value <= 1 for value in found)


@settings(deadline=None)
@given(arrays, st.floats(1e-6, 1e6), st.integers(-1000, 1000))
def test_moving_and_scaling_both_changes_nothing(pair: tuple[Any, Any], scale: float, move: int) -> None:
    x, y = (np.array(a, dtype=float) for a in pair)
    again = shift((x + move) * scale, (y + move) * scale)
    assert measures(again) == pytest.approx(measures(shift(x, y)), abs=2e-6)


def test_numbers_worked_by_hand() -> None:
    # Across 1, 2, 0, 1; inside half of 1 each. Means 1/2 and 3/2, variances 1/4. One is new, as far as old ones are.
    found = shift([[0.0], [1.0]], [[1.0], [2.0]])
    assert measures(found) == (0.5, 0.5, 0.5)
    assert (found.new, found.dimension, found.before, found.after) == (1, 1, 2, 2)
    assert str(found) == "energy 0.500, means 0.500, novelty 0.500 of 1 new (2 and 2 vectors of 1)"


def test_the_same_vectors_have_not_moved_whatever_their_order_and_precision() -> None:
    x = np.random.default_rng(1).normal(size=(300, 24)).astype(np.float32)
    assert measures(shift(x, x)) == NOT_MOVED
    rounded = measures(shift(x, x[::-1].astype(np.float16).astype(np.float32)))
    assert rounded == pytest.approx((0, 0, 0), abs=1e-6)  # new vectors, each beside an old one
    assert measures(shift(x * 1e-30, x[::-1] * 1e-30)) == NOT_MOVED
    assert measures(shift([[1e200, 0.0]], [[1e200, 0.0]])) == NOT_MOVED


def test_far_apart_versions_have_moved_wholly() -> None:
    found = shift([[0.0, 0.0]] * 5, [[1e150, 3.0]] * 4)
    assert measures(found) == (1.0, 1.0, 1.0)


def test_a_spread_that_grew_is_seen_by_energy_though_the_mean_stayed() -> None:
    x = np.random.default_rng(2).normal(size=(400, 8))
    found = shift(x, np.concatenate([x[:200] * 4, x[:200] * -4]))
    assert found.energy > 0.05
    assert found.means < 0.01


def test_only_new_vectors_count_for_novelty() -> None:
    x = np.random.default_rng(3).normal(size=(200, 8))
    assert shift(x, x[:50]).novelty is None
    alike = shift(x[:100], np.concatenate([x[:100], x[100:150]]))
    assert alike.new == 50
    assert alike.novelty == pytest.approx(0.5, abs=0.1)
    apart = shift(x[:100], np.concatenate([x[:100], x[100:102] + 50]))
    assert (apart.novelty, apart.new) == (1.0, 2)
    assert apart.energy < 0.1  # two of 102 hardly move the whole
    assert shift(x[:1], x[1:9]).novelty is None


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(4)
    x, y = chance.normal(size=(90, 5)), chance.normal(1, size=(70, 5))
    whole = shift(x, y)
    monkeypatch.setattr(embeddings, "_BLOCK_BYTES", 1)
    assert shift(x, y) == whole


def test_of_many_items_the_same_ones_are_measured_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "MEASURED", 40)
    x = np.random.default_rng(5).normal(size=(100, 3))
    before = items(100)
    first = before.drift(before, vectors=(x, x)).embedding
    assert first is not None
    assert (first.before, first.after, first.energy) == (40, 40, 0.0)
    turned = EvalDataset(list(before.rows())[::-1])  # another order of the same items draws the same ones
    again = before.drift(turned, vectors=(x, x[::-1])).embedding
    assert again is not None
    assert measures(again) == NOT_MOVED


# --- vectors made from texts


class Embedder:
    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(texts)
        return [[float(len(t)), float(t.count("e"))] for t in texts]


def test_embeddings_make_the_vectors_from_the_inputs_a_batch_at_a_time() -> None:
    embedder = Embedder()
    before, after = items(300), items(20, start=990)
    found = before.drift(after, vectors=embedder).embedding
    assert [len(batch) for batch in embedder.asked] == [256, 44, 20]
    assert embedder.asked[0][:2] == ["text 0", "text 1"]
    given_ = [embedder.embed_documents([i.input for i in d]) for d in (before, after)]
    assert found == before.drift(after, vectors=given_).embedding
    assert found == before.drift(after, vectors=lambda texts: np.array(embedder.embed_documents(texts))).embedding


def test_only_what_is_measured_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "MEASURED", 10)
    embedder = Embedder()
    items(300).drift(items(5), vectors=embedder)
    assert [len(batch) for batch in embedder.asked] == [10, 5]


def test_chat_messages_are_embedded_as_their_text_and_an_item_without_text_is_refused() -> None:
    embedder = Embedder()
    chat = EvalDataset([{"id": "a", "input": [{"role": "user", "content": "hello"}]}])
    chat.drift(chat, vectors=embedder)
    assert embedder.asked[0] == ["hello"]
    with pytest.raises(InvalidValue) as caught:
        chat.drift(EvalDataset([{"id": "n", "input": 3}]), vectors=embedder)
    assert (caught.value.field, caught.value.origin) == ("vectors[1]", "item n")


# --- refusals


@pytest.mark.parametrize(
    ("vectors", "field"),
    [
        (np.zeros((3, 2)), "vectors"),
        ("abc", "vectors"),
        (([[0.0]] * 3,), "vectors"),
        (([[0.0]] * 2, [[0.0]] * 3), "vectors[0]"),
        (([[0.0]] * 3, [[0.0]] * 4), "vectors[1]"),
        (([0.0] * 3, [[0.0]] * 3), "vectors[0]"),
        (([[0.0]] * 3, [[0.0], [0.0], [0.0, 1.0]]), "vectors[1]"),
        (([["a"]] * 3, [[0.0]] * 3), "vectors[0]"),
        (([[None]] * 3, [[0.0]] * 3), "vectors[0]"),
        (([[True]] * 3, [[0.0]] * 3), "vectors[0]"),
        (([[1j]] * 3, [[0.0]] * 3), "vectors[0]"),
        ((np.zeros((3, 0)), np.zeros((3, 0))), "vectors[0]"),
        (([[0.0]] * 3, [[0.0, 1.0]] * 3), "vectors"),
        (([[0.0], [math.nan], [0.0]], [[0.0]] * 3), "vectors[0]"),
        (([[0.0]] * 3, [[0.0], [0.0], [math.inf]]), "vectors[1]"),
        (lambda texts: [[0.0]] * (len(texts) + 1), "vectors[0]"),
        (lambda texts: [[math.nan]] * len(texts), "vectors[0]"),
    ],
)
def test_vectors_that_do_not_fit_are_refused_by_name(vectors: Any, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        items(3).drift(items(3), vectors=vectors)
    assert caught.value.field == field


def test_a_vector_with_nan_is_named_by_its_item() -> None:
    with pytest.raises(InvalidValue) as caught:
        items(3).drift(items(3), vectors=([[0.0], [math.nan], [0.0]], [[0.0]] * 3))
    assert caught.value.origin == "item i1"


def test_an_embedder_that_changes_its_dimension_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_BATCH", 2)
    widths = iter((2, 3))
    make: Callable[[list[str]], Any] = lambda texts: np.zeros((len(texts), next(widths)))  # noqa: E731
    with pytest.raises(InvalidValue, match="shape"):
        items(4).drift(items(4), vectors=make)


def test_without_vectors_nothing_is_said_of_embeddings() -> None:
    found = items(3).drift(items(3))
    assert found.embedding is None
    assert "embedding" not in str(found)
