"""How the application asks: `answer` gets the prompt and one message, and returns the label."""

from __future__ import annotations

import re
from typing import Any

import llmartifacts as la

_WORDS = re.compile(r"[a-z]+")
_LABEL = re.compile(r"^- (\w+): (.*)$", re.MULTILINE)


def answer(prompt: la.Prompt, item: Any) -> str:
    """The label of one message; what `eval_suites/sorting.suite.yaml` names as its runnable."""
    return model(prompt.format(message=item.input))


def model(text: str) -> str:
    """Stands where you call your model, so that this example runs anywhere.

    It does as the prompt says as far as counting words goes: it takes the label of which the description has the most
    words of the message. So a better description makes better answers, as with a language model.
    """
    instructions, _, message = text.rpartition("Message: ")
    asked = {_stem(word) for word in _WORDS.findall(message.lower())}
    labels = {label: {_stem(w) for w in _WORDS.findall(words.lower())} for label, words in _LABEL.findall(instructions)}
    best = max(labels, key=lambda label: len(asked & labels[label]), default="other")
    return best if asked & labels.get(best, set()) else "other"


def _stem(word: str) -> str:
    return word if len(word) < 5 else re.sub(r"(ing|ed|es|s|e)$", "", word)
