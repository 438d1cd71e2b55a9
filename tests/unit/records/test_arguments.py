"""What comes with a call: text, counts, mappings, places, and whatever else was given instead."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidInput, TooLarge
from llmartifacts.records.arguments import (
    MAX_COUNT,
    MAX_LINE,
    MAX_TEXT,
    check_count,
    check_limit,
    check_line,
    check_mapping,
    check_pairs,
    check_place,
    check_reason,
    check_text,
    shown,
    told_by,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too


@given(ANY_TEXT)
def test_text_that_is_taken_has_a_utf8_form_and_no_control_characters(text: str) -> None:
    try:
        taken = check_text(text, field="message")
    except InvalidInput as error:
        str(error).encode()
        return
    assert taken == text
    taken.encode()
    assert not any(ord(c) < 32 and c not in "\t\n\r" for c in taken)


@given(ANY_TEXT)
def test_a_line_that_is_taken_is_printable(text: str) -> None:
    try:
        assert check_line(text, field="ticket").isprintable()
    except InvalidInput as error:
        str(error).encode()


def test_ordinary_text_is_taken_as_it_is() -> None:
    for text in ("", "two\nlines\twith a tab\r\n", "名前 é 🙂", "x" * MAX_TEXT):
        assert check_text(text, field="message") == text
    for line in ("", "CHG-1042", "名前", "x" * MAX_LINE):
        assert check_line(line, field="ticket") == line


def test_a_subclass_of_str_becomes_plain_text() -> None:
    class Reason(StrEnum):
        BETTER = "it is better"

    assert type(check_text(Reason.BETTER, field="reason")) is type(check_line(Reason.BETTER, field="ticket")) is str


def test_text_of_too_many_characters_says_how_many() -> None:
    with pytest.raises(TooLarge, match=f"{MAX_TEXT + 1} characters"):
        check_text("x" * (MAX_TEXT + 1), field="message")


@pytest.mark.parametrize("reason", ["", " ", "\n\t"])
def test_a_reason_that_says_nothing_is_none(reason: str) -> None:
    with pytest.raises(InvalidInput, match="a rollback needs a reason"):
        check_reason(reason, "a rollback")


@pytest.mark.parametrize("value", [0, -1, MAX_COUNT + 1, 1.0, True, "1", None, 10**5000], ids=lambda v: shown(v, 20))
def test_a_count_is_a_whole_number_from_one(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_count(value, field="limit")
    assert caught.value.field == "limit"
    assert len(str(caught.value)) < 300
    assert check_count(1, field="limit") == 1


def test_no_limit_is_none() -> None:
    assert check_limit(None) is None
    assert check_limit(5) == 5


def test_a_mapping_is_copied_and_has_text_for_keys() -> None:
    given_one = {"a": 1}
    taken = check_mapping(given_one, field="tags")
    taken["b"] = 2
    assert given_one == {"a": 1}
    assert check_mapping(None, field="tags") == {}
    for value in ([("a", 1)], "ab", 7, {1: 2}, {None: 1}):
        with pytest.raises(InvalidInput):
            check_mapping(value, field="tags")


def test_pairs_are_pairs() -> None:
    assert check_pairs(iter([("a", 1), ["b", 2]])) == [("a", 1), ["b", 2]]
    for value, field in ((7, "pairs"), (["ab"], "pairs[0]"), ([("a", 1), ("a",)], "pairs[1]"), ([None], "pairs[0]")):
        with pytest.raises(InvalidInput) as caught:
            check_pairs(value)
        assert caught.value.field == field


def test_a_place_is_a_path_that_there_can_be() -> None:
    assert check_place("a", field="location") == check_place(Path("a"), field="location") == "a"
    assert check_place(b"a", field="location") == "a"
    assert check_place(b"\xff", field="location") == "\udcff"  # what the file system calls it
    for value in ("", "a\0b", "\ud800", None, 7, ["a"]):
        with pytest.raises(InvalidInput):
            check_place(value, field="location")


class _Mute:
    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


LONG = ["x" * 10**6, 10**5000, _Mute(), b"\xff" * 10**6, "\ud800", "\x1b[31m", [1] * 10**5]


@pytest.mark.parametrize("value", LONG, ids=lambda v: shown(v, 20))
def test_whatever_was_given_is_shown_short_and_harmless(value: object) -> None:
    text = shown(value, 50)
    assert len(text) <= 60
    assert text.isprintable()


def test_what_an_error_says_becomes_text_that_is_taken() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise KeyError

    assert told_by(None) == ""
    assert told_by(ValueError("bad \ud800 \x00")) == "ValueError: bad \\ud800 \\x00"
    assert told_by(Mute()) == "Mute"
    for error in (ValueError("\x00" * 10**5), Mute(), KeyError("\x1b")):
        assert check_text(told_by(error), field="error")
