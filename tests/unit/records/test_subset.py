"""Parts of what is stored: named, drawn by chance, and together all of it."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidInput
from llmartifacts.records.subset import MOST, Subset, parse_subset


@given(st.integers(1, 500), st.binary(max_size=20))
def test_each_digest_is_in_one_part_of_all(of: int, content: bytes) -> None:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    assert sum(digest in Subset(number, of) for number in range(1, of + 1)) == 1


def test_the_first_and_the_last_digest_are_in_the_first_and_the_last_part() -> None:
    assert "sha256:" + "0" * 64 in Subset(1, 7)
    assert "f" * 64 in Subset(7, 7)
    assert "f" * 64 in Subset(MOST, MOST)


def test_parts_are_about_equal() -> None:
    names = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(20_000)]
    sizes = [sum(name in Subset(number, 20) for name in names) for number in range(1, 21)]
    assert min(sizes) > 800


@pytest.mark.parametrize(
    ("text", "stored", "of"),
    [
        ("3/20", 0, 20),
        ("1/1", 0, 1),
        ("5%", 0, 20),
        ("100%", 0, 1),
        ("0.5%", 0, 200),
        ("5G", 50 << 30, 10),
        ("1K", 0, 1),
    ],
)
def test_a_part_is_read(text: str, stored: int, of: int) -> None:
    part = parse_subset(text, stored, random.Random(1))
    assert part.of == of
    assert 1 <= part.number <= of
    if "/" in text:
        assert str(part) == text


def test_chance_draws_every_part() -> None:
    chance = random.Random(2)
    assert {parse_subset("25%", 0, chance).number for _ in range(200)} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0/3",
        "4/3",
        "1/0",
        "3",
        "-1/3",
        "1/3/5",
        "0%",
        "101%",
        "five%",
        "0G",
        "5X",
        "5 G",
        "1/99999999",
        "١/٣",
        "1e3K",
    ],
)
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_subset(text, 0)
    assert refused.value.field == "read_data_subset"
    assert "3/20" in refused.value.hint()
