"""Scorers `squad_f1` and `squad_em`: overlap of words, and exact match, as SQuAD's evaluation defines them.

Both texts are normalized: lower case, ASCII punctuation taken away, the articles a, an and the taken away, white space
to one space. `squad_em` is 1 if they are then equal. `squad_f1` is the harmonic mean of precision and recall of the
words, counted as often as they occur; if either has no words left, it is 1 if both have none, else 0. Of several
accepted texts the best counts. The accepted texts are a text, a list of texts, or SQuAD's own `{"text": [...]}`; an
item without any has no score. No output (None) is empty text.

Source: Rajpurkar, Zhang, Lopyrev and Liang 2016, and the rule for empty answers of Rajpurkar, Jia and Liang 2018.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping

from llmartifacts.evals.scorers.base import Answer, OptionScorer
from llmartifacts.evals.scorers.places import wanted
from llmartifacts.evals.scorers.texts import ExpectedOptions, expected_texts, output_text
from llmartifacts.kinds.eval_dataset.value import Item

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class _Squad(OptionScorer[ExpectedOptions]):
    Model = ExpectedOptions

    def score(self, item: Item, answer: Answer, baseline: Answer | None = None) -> float | None:
        """The best over the accepted texts."""
        place = self.given.expected
        if isinstance(found := wanted(item, place), Mapping) and isinstance(found.get("text"), list | tuple):
            place += ".text"
        accepted = expected_texts(item, place)
        if accepted is None:
            return None
        text = output_text(answer, self.given.field)
        return max(self.compute(text, gold) for gold in accepted)

    def compute(self, text: str, gold: str) -> float:
        """Grade by one accepted text."""
        raise NotImplementedError


def f1(text: str, gold: str) -> float:
    """Harmonic mean of precision and recall of the words.

    Example:
        >>> f1("The cat sat.", "a cat sat down")
        0.8
    """
    found, wants = words(text), words(gold)
    if not found or not wants:
        return float(found == wants)
    common = sum((Counter(found) & Counter(wants)).values())
    return 2 * common / (len(found) + len(wants))


def exact(text: str, gold: str) -> float:
    """1 if the words are the same, 0 if not."""
    return float(words(text) == words(gold))


def words(text: str) -> list[str]:
    """The words of a text, normalized."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


class SquadF1(_Squad):
    """Overlap of words; see the module."""

    type = "squad_f1"

    def compute(self, text: str, gold: str) -> float:
        """See `f1`."""
        return f1(text, gold)


class SquadExact(_Squad):
    """Exact match; see the module."""

    type = "squad_em"

    def compute(self, text: str, gold: str) -> float:
        """See `exact`."""
        return exact(text, gold)
