"""Scorer `regex`: 1 if a pattern matches the output, else 0.

The syntax is Python's `re`. A pattern may take for ever on some text, so it is matched in a process with limits; one
that runs out of time is an error, not a 0. No output (None) is empty text. The text is matched as it is, unless `nfc`.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from typing import Literal

from pydantic import StrictBool

from llmartifacts.errors import InvalidValue
from llmartifacts.evals.scorers.base import Answer
from llmartifacts.evals.scorers.isolated import IsolatedScorer, Seconds
from llmartifacts.evals.scorers.texts import FieldOptions, Text, output_text
from llmartifacts.kinds.eval_dataset.value import Item

_MATCH = "llmartifacts.evals.scorers.matching:matches"


class RegexOptions(FieldOptions):
    """Options of `regex`.

    Attributes:
        pattern: The pattern, in Python's syntax.
        match: `search` finds it anywhere, `fullmatch` wants it to be the whole text.
        ignore_case: Whether upper and lower case are the same.
        multiline: Whether `^` and `$` match at each line.
        dotall: Whether `.` matches the end of a line too.
        nfc: Whether the output is brought into Unicode normal form C first.
        seconds: How long one match may take.
    """

    pattern: Text
    match: Literal["search", "fullmatch"] = "search"
    ignore_case: StrictBool = False
    multiline: StrictBool = False
    dotall: StrictBool = False
    nfc: StrictBool = False
    seconds: Seconds = 5.0


class Regex(IsolatedScorer[RegexOptions]):
    """Whether a pattern matches the output."""

    type = "regex"
    Model = RegexOptions

    def prepare(self) -> None:
        """Read the pattern."""
        super().prepare()
        given = self.given
        self._flags = int(re.IGNORECASE * given.ignore_case | re.MULTILINE * given.multiline | re.DOTALL * given.dotall)
        try:
            with warnings.catch_warnings(action="ignore"):
                re.compile(given.pattern, self._flags)
        except (re.error, OverflowError, RecursionError, ValueError) as error:
            raise InvalidValue(f"the pattern cannot be read: {error}", field="pattern") from None

    def seconds(self) -> float:
        """As the suite says."""
        return self.given.seconds

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float:
        """1 if it matches, 0 if not."""
        text = output_text(answer, self.given.field)
        if self.given.nfc:
            text = unicodedata.normalize("NFC", text)
        whole = self.given.match == "fullmatch"
        return float(self.call(_MATCH, self.given.pattern, self._flags, whole, text))
