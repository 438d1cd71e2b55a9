"""Scorers `equals` and `contains`: 1 or 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llmartifacts.errors import InvalidValue
from llmartifacts.evals.scorers.base import Answer, OptionScorer
from llmartifacts.evals.scorers.places import inside, wanted
from llmartifacts.evals.scorers.texts import FormOptions, Text, expected_texts, formed, kind_of, output_text
from llmartifacts.kinds.eval_dataset.value import Item


class Equals(OptionScorer[FormOptions]):
    """Whether the output is what the item expects.

    - Texts are compared in the form that the options declare; a list of texts in the item accepts any of them.
    - Other JSON values are compared as JSON: 1 and 1.0 are one number, true is no number, keys have no order, and texts
      inside are compared as they are.
    - No output (None) counts as empty text, or as null where the item does not expect text.
    - An item that expects nothing (None) has no score. A text against another JSON type is an error, for that is a
      suite that compares the wrong things: name a `field`, or use `numeric`.
    """

    type = "equals"
    Model = FormOptions

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float | None:
        """1 if it is, 0 if not."""
        given = self.given
        expected, found = wanted(item, given.expected), inside(answer.output, given.field)
        if expected is None:
            return None
        accepted = [expected] if isinstance(expected, str) else expected
        texts = isinstance(accepted, list | tuple) and bool(accepted) and all(isinstance(t, str) for t in accepted)
        if texts and (found is None or isinstance(found, str)):
            text = formed(found or "", given)
            return float(any(formed(t, given) == text for t in accepted))
        if isinstance(expected, str) != isinstance(found, str) and found is not None:
            raise TypeError(f"{given.expected} is {_told(expected)}, and the output {_told(found)}")
        return float(_same(found, expected))


class ContainsOptions(FormOptions):
    """Options of `contains`.

    Attributes:
        any_of: Texts of which one must be there.
        all_of: Texts which must all be there.
        require: Without these: whether `all` or `any` of the texts that the item expects must be there.
    """

    any_of: Annotated[list[Text], Field(max_length=1000)] | None = None
    all_of: Annotated[list[Text], Field(max_length=1000)] | None = None
    require: Literal["all", "any"] = "all"


class Contains(OptionScorer[ContainsOptions]):
    """Whether texts are in the output; both are in the form that the options declare.

    The texts are those of the suite (`any_of`, `all_of`; with both, both must hold), else those that the item expects.
    An item that expects nothing has no score then. Parts of words count. No output (None) is empty text.
    """

    type = "contains"
    Model = ContainsOptions

    def prepare(self) -> None:
        """Refuse empty texts, which are in every text."""
        for name, texts in (("any_of", self.given.any_of), ("all_of", self.given.all_of)):
            if texts is not None and (not texts or not all(formed(text, self.given) for text in texts)):
                raise InvalidValue(f"{name} holds no text, or an empty one, which is in every text", field=name)

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float | None:
        """1 if they are, 0 if not."""
        given = self.given
        any_of, all_of = given.any_of, given.all_of
        if any_of is None and all_of is None:
            wants = expected_texts(item, given.expected)
            if wants is None:
                return None
            if not all(formed(text, given) for text in wants):
                raise ValueError(f"{given.expected} holds an empty text, which is in every text")
            any_of, all_of = (wants, None) if given.require == "any" else (None, wants)
        text = formed(output_text(answer, given.field), given)
        found = any_of is None or any(formed(t, given) in text for t in any_of)
        return float(found and all(formed(t, given) in text for t in all_of or ()))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _told(value: Any) -> str:
    return "text" if isinstance(value, str) else kind_of(value)
