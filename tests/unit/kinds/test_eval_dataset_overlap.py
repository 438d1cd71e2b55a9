"""Texts inside texts: the index gives what counting shingles by hand gives."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.errors import TooLarge
from llmartifacts.kinds.eval_dataset import overlap
from llmartifacts.kinds.eval_dataset.overlap import MOST, SHORTEST, Shingles

Words = list[str]
words = st.lists(st.sampled_from("abc"), max_size=14)


def said(line: str) -> Words:
    return line.split()


def shingles(text: Words, n: int) -> set[tuple[str, ...]]:
    return {tuple(text[i : i + n]) for i in range(len(text) - n + 1)}


def by_hand(texts: list[Words], others: list[list[Words]], n: int, share: float) -> dict[tuple[int, int], float]:
    """(text, other) -> containment, by the definition alone."""
    found = {}
    for t, text in enumerate(texts):
        length = min(n, len(text))
        if length < min(SHORTEST, n):
            continue
        own = shingles(text, length)
        for o, other in enumerate(others):
            there = set().union(*(shingles(part, length) for part in other))
            contained = len(own & there) / len(own)
            if contained >= share:
                found[t, o] = contained
    return found


def by_index(texts: list[Words], others: list[list[Words]], n: int, share: float) -> dict[tuple[int, int], float]:
    found = list(Shingles(texts, n=n, share=share).find(enumerate(others)))
    assert len(found) == len({(f.text, f.other) for f in found})
    return {(f.text, f.other): f.share for f in found}


@settings(max_examples=300, deadline=None)
@given(
    st.lists(words, max_size=6),
    st.lists(st.lists(words, max_size=3), max_size=6),
    st.integers(1, 8),
    st.sampled_from([0.05, 0.3, 0.5, 0.7, 0.75, 1.0]),
)
def test_what_is_found_is_what_counting_every_pair_finds(
    texts: list[Words], others: list[list[Words]], n: int, share: float
) -> None:
    assert by_index(texts, others, n, share) == by_hand(texts, others, n, share)


@pytest.mark.parametrize(("block", "chunk"), [(1, 1), (50, 3), (400, 1 << 22)])
def test_blocks_and_chunks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, block: int, chunk: int) -> None:
    monkeypatch.setattr(overlap, "_BLOCK", block)
    monkeypatch.setattr(overlap, "_CHUNK", chunk)
    chance = random.Random(7)
    texts = [chance.choices("abc", k=chance.randint(0, 30)) for _ in range(60)]
    others = [[chance.choices("abc", k=chance.randint(0, 60)) for _ in range(chance.randint(0, 3))] for _ in range(80)]
    expected = by_hand(texts, others, 6, 0.2)
    assert len(expected) > 50
    assert by_index(texts, others, 6, 0.2) == expected


def test_the_part_that_has_most_of_a_text_is_named() -> None:
    text = said("one two three four five six seven eight nine ten")
    (found,) = Shingles([text], n=5, share=0.5).find([("x", [["zero"], text[:6], ["so", *text, "on"]])])
    assert (found.other, found.part, found.share) == ("x", 2, 1.0)


def test_shingles_do_not_span_two_parts_but_count_together() -> None:
    text = said("one two three four five six seven eight")
    assert by_index([text], [[text[:4], text[4:]]], 5, 0.25) == {}
    assert by_index([text], [[text[:5], text[3:]]], 5, 0.25) == {(0, 0): 0.5}


def test_texts_of_too_few_words_are_not_looked_for() -> None:
    index = Shingles([["a"] * (SHORTEST - 1), ["a"] * SHORTEST, []], n=8, share=0.5)
    assert [index.looks_for(i) for i in range(3)] == [False, True, False]


def test_a_text_found_often_enough_is_not_looked_for_any_more_and_others_still_are() -> None:
    common, rare = said("so many have this line here"), said("only one has this other line")
    others = [(i, [common]) for i in range(MOST * 3)] + [(-1, [rare])]
    index = Shingles([common, rare], n=5, share=0.7)
    found = Counter(f.text for f in index.find(others))
    assert found == {0: MOST, 1: 1}
    assert (index.times(0), index.times(1)) == (MOST, 1)


def test_boilerplate_that_everything_shares_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_CHUNK", 1000)
    start = said("please answer the question below in one line and end with the final answer")
    texts = [[*start, *(f"t{i}w{j}" for j in range(14))] for i in range(300)]
    others = [[[*start, *(f"o{i}w{j}" for j in range(14))]] for i in range(300)]
    index = Shingles(texts, n=8, share=0.7)
    asked = []
    monkeypatch.setattr(index, "_contained", lambda *pair: asked.append(pair))
    assert list(index.find(enumerate(others))) == []
    assert asked == []  # not one pair of 90,000 had to be counted


def test_too_many_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "MAX_WORDS", 10)
    with pytest.raises(TooLarge) as caught:
        Shingles([["a"] * 6, ["b"] * 6], n=8, share=0.7)
    assert "split" in caught.value.hint()
