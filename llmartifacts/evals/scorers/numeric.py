r"""Scorer `numeric`: 1 if the number in the output is near enough to the one that the item expects, else 0.

A number is an optional sign, digits (with commas between groups of three, or none), an optional fraction and exponent:
`-1,234.5e3`. Before it may stand one of `$ € £ ¥`, behind it `%`; neither changes its value, so 50 % is 50. Only the
digits 0 to 9 count, and the minus sign U+2212 is a minus. Fractions (`1/2`) and words (`twelve`) are not read.

Where the number is:

| `extract` | the number is |
| --- | --- |
| `whole` | the whole text, white space around it aside |
| `last` | the last number in the text |
| `gsm8k` | the first number after the last `####`, as in the answers of GSM8K; without `####` the last number |

The output may be a number itself, or text; true and false are neither. A text without a number, an empty one, and no
output (None) score 0. The item's number is read in the same way; an item that expects nothing has no score, and one
whose text holds no number is an error. Near enough: |output - expected| <= max(absolute, relative * |expected|), the
bound itself included.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field

from llmartifacts.evals.scorers.base import Answer, OptionScorer
from llmartifacts.evals.scorers.places import inside, wanted
from llmartifacts.evals.scorers.texts import ExpectedOptions, kind_of
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.kinds.eval_suite.config import Number

MAX_TEXT = 1_000_000
"""Characters of a text; of a longer one the end is read."""
MARK = "####"

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(rf"(?<![0-9A-Za-z_.])[-+]?[$€£¥]?[-+]?(?:{_DIGITS})(?:[eE][-+]?[0-9]{{1,4}}(?![0-9A-Za-z_]))?")
_WHOLE = re.compile(rf"[-+]?[$€£¥]?[-+]?(?:{_DIGITS})(?:[eE][-+]?[0-9]{{1,4}})? ?%?")


class NumericOptions(ExpectedOptions):
    """Options of `numeric`.

    Attributes:
        absolute: By how much the output may differ.
        relative: By which share of the expected number it may differ.
        extract: Where in a text the number is.
    """

    absolute: Annotated[Number, Field(ge=0)] = 0.0
    relative: Annotated[Number, Field(ge=0, le=1)] = 0.0
    extract: Literal["whole", "last", "gsm8k"] = "whole"


class Numeric(OptionScorer[NumericOptions]):
    """Whether a number is right, within a tolerance."""

    type = "numeric"
    Model = NumericOptions

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float | None:
        """1 if it is near enough, 0 if not."""
        given = self.given
        expected = wanted(item, given.expected)
        if expected is None:
            return None
        goal = _number(expected, given.extract, given.expected)
        if goal is None or not math.isfinite(goal):
            raise ValueError(f"{given.expected} holds no number: {expected!r:.80}")
        output = inside(answer.output, given.field)
        found = None if output is None else _number(output, given.extract, "the output")
        if found is None:
            return 0.0
        return float(abs(found - goal) <= max(given.absolute, given.relative * abs(goal)))


def read_number(text: str, extract: str) -> float | None:
    """The number in a text; None if there is none.

    Example:
        >>> read_number("16 - 3 = 13 eggs. #### $1,300.", "gsm8k"), read_number("about 12", "whole")
        (1300.0, None)
    """
    text = text[-MAX_TEXT:].replace("\u2212", "-")
    if extract == "whole":
        found = text.strip()
        return _value(found) if _WHOLE.fullmatch(found) else None
    _, mark, after = text.rpartition(MARK)
    if extract == "gsm8k" and mark:
        first = _NUMBER.search(after)
        return _value(first[0]) if first else None
    last = None
    for match in _NUMBER.finditer(text):
        last = match[0]
    return None if last is None else _value(last)


def _number(value: Any, extract: str, what: str) -> float | None:
    if isinstance(value, str):
        return read_number(value, extract)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} is {kind_of(value)}, not a number or text")
    return float(value)


def _value(found: str) -> float:
    return float(re.sub("[,$€£¥% ]", "", found))
