"""Text of an output and of an item, made comparable in declared ways."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictStr

from llmartifacts.evals.scorers.base import Answer, Options
from llmartifacts.evals.scorers.places import inside, wanted
from llmartifacts.kinds.eval_dataset.value import Item

Text = Annotated[StrictStr, Field(min_length=1, max_length=10_000)]
_NAMES: Mapping[type, str] = {
    bool: "true or false",
    dict: "an object",
    list: "a list",
    int: "a number",
    float: "a number",
}


class FieldOptions(Options):
    """Options of every scorer of text.

    Attributes:
        field: Path of the text in the output, such as `answer.label`; an output that is text is read as JSON for it.
            None for the whole output.
    """

    field: Text | None = None


class ExpectedOptions(FieldOptions):
    """Options of a scorer that compares with what the item expects.

    Attributes:
        expected: Where the item holds it: a column, or a field of the item with a path below it.
    """

    expected: Text = "expected_output"


class FormOptions(ExpectedOptions):
    """Options of a scorer that brings texts into one form first.

    Attributes:
        trim: Whether white space at both ends is taken away.
        whitespace: Whether each run of white space becomes one space.
        ignore_case: Whether upper and lower case are the same (Unicode case folding).
        nfc: Whether both are brought into Unicode normal form C, so that one letter has one spelling.
    """

    trim: StrictBool = True
    whitespace: StrictBool = False
    ignore_case: StrictBool = False
    nfc: StrictBool = True


def formed(text: str, given: FormOptions) -> str:
    """A text in the form that the options declare."""
    if given.ignore_case:
        text = text.casefold()
    if given.nfc:
        text = unicodedata.normalize("NFC", text)
    if given.whitespace:
        return " ".join(text.split()) if given.trim else _spaced(text)
    return text.strip() if given.trim else text


def output_text(answer: Answer, field: str | None) -> str:
    """The text of an output; empty where there is none.

    Raises:
        TypeError: It is something else.
    """
    found = inside(answer.output, field)
    if found is None:
        return ""
    if not isinstance(found, str):
        what = f"the field {field!r:.80} of the output" if field else "the output"
        raise TypeError(f"{what} is {kind_of(found)}, not text")
    return found


def expected_texts(item: Item, place: str) -> list[str] | None:
    """The texts that an item accepts: one, or a list of them; None where it expects nothing.

    Raises:
        TypeError: They are something else.
    """
    found = wanted(item, place)
    many = [found] if isinstance(found, str) else found
    if many is None or many == [] or many == ():
        return None
    if not isinstance(many, list | tuple) or not all(isinstance(text, str) for text in many):
        raise TypeError(f"{place} is {kind_of(found)}, not text or a list of texts")
    return list(many)


def kind_of(value: Any) -> str:
    """What a JSON value is, for people."""
    return _NAMES.get(type(value), "null" if value is None else f"a {type(value).__name__}")


def _spaced(text: str) -> str:
    inner = " ".join(text.split())
    return f"{' ' if text[:1].isspace() else ''}{inner}{' ' if inner and text[-1:].isspace() else ''}"
