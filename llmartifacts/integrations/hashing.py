"""`HashingEmbeddings`: a small deterministic embedder without a model, for demos, tests and baselines.

Words, their stems and their character n-grams are hashed into a vector (the hashing trick: Weinberger et al., "Feature
Hashing for Large Scale Multitask Learning", ICML 2009), with two usual refinements: the sign of a feature is hashed
too, so that collisions cancel on average, and the weight of a word grows with the square root of its count and falls
with its distance from the beginning, since technical text says first what it is about.

It finds passages that share words with a question, which is respectable for documentation and no match for a trained
model: "delete a folder" does not find "remove a directory".

All sums are of integers, so the vectors are the same bit for bit on every machine, Python and numpy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from math import isqrt, sqrt
from typing import TYPE_CHECKING, ClassVar

from langchain_core.embeddings import Embeddings

from llmartifacts.errors import InvalidValue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Fixed-point weights. Changing any of these changes every vector: then `model` needs a new number.
_WORD, _STEM, _GRAMS = 64, 45, 64  # of a word itself, of its stem, of all its n-grams together
_GRAM_SIZES = (3, 4)
_COUNT = 256  # weight of a word met once
_LEAD = 16  # a word that first appears after this many others weighs half
_MAX_COUNT = 1 << 16
_MAX_CACHED_WORDS = 200_000

_WORDS = re.compile(r"[^\W_]+")
_HUMPS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")  # camelCase, HTTPServer, sha256
_LISTED = """
a an and are as at be been but by can could did do does for from had has have how i if in into is it its may me my need
no nor not of on one only or our shall should so some such than that the their them then there these they this those to
up us use used using was we were what when where which while who whom whose why will with without would you your
"""
_STOP_WORDS = frozenset(_LISTED.split())
_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ied", "ers", "er", "ors", "or", "ed", "es", "ly", "s", "e")


class HashingEmbeddings(Embeddings):
    """Embeds text by feature hashing; LangChain's `Embeddings`, without a model, a network or a random number.

    Args:
        dimension: Length of the vectors, 16 to 65,536.

    Attributes:
        dimension: Length of the vectors.
        model: What to record as the embedder's name; it changes when the algorithm does.

    Raises:
        InvalidValue: The dimension is out of range.

    Example:
        >>> embeddings = HashingEmbeddings(dimension=512)
        >>> question, copy, sort = embeddings.embed_array(["copying files", "Copy a file.", "Sort a list."])
        >>> bool(question @ copy > question @ sort)
        True
    """

    model: ClassVar[str] = "llmartifacts/hashing-1"

    def __init__(self, dimension: int = 512) -> None:
        if isinstance(dimension, bool) or not isinstance(dimension, int) or not 16 <= dimension <= 65536:
            raise InvalidValue(
                f"{dimension!r} is no dimension", field="dimension", next_step="Give a whole number from 16 to 65536."
            )
        self.dimension = dimension
        self._known: dict[str, tuple[list[int], list[int]]] = {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, one vector of `dimension` floats each, of length 1. Raises `InvalidValue` as `embed_array`."""
        vectors: list[list[float]] = self.embed_array(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embed one text, in the same way as documents. Raises `InvalidValue` as `embed_array`."""
        return self.embed_documents([text])[0]

    def embed_array(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts into one array.

        Args:
            texts: Any texts; one without a single word gets a vector of its own, since every vector has length 1.

        Returns:
            Array (n, dimension) of float32, each row of length 1.

        Raises:
            InvalidValue: An item is not text.
        """
        import numpy as np

        if isinstance(texts, str):
            raise InvalidValue("texts is one text, not a list of texts", field="texts", next_step="Give [text].")
        made = np.empty((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise InvalidValue(f"a {type(text).__name__} is not text", field=f"texts[{row}]")
            made[row] = self._embed(text)
        return made

    def _embed(self, text: str) -> NDArray[np.float64]:
        import numpy as np

        slots: list[int] = []
        values: list[int] = []
        for word, (count, position) in _count_words(text).items():
            weight = isqrt(_COUNT * _COUNT * min(count, _MAX_COUNT)) * _LEAD // (_LEAD + position)
            places, signed = self._features(word)
            slots += places
            values += [weight * v for v in signed]
        # Sums of integers below 2^53 are exact in a float64, in whatever order they are added.
        total = np.bincount(np.array(slots, np.int64), np.array(values, np.float64), self.dimension).astype(np.int64)
        square = int(np.dot(total, total))
        if square == 0:  # no words, or a perfect cancellation
            total[self._slot("")[0]] = square = 1
        return total / sqrt(square)

    def _features(self, word: str) -> tuple[list[int], list[int]]:
        """Slots of a word's features and their signed weights."""
        known = self._known.get(word)
        if known is None:
            marked = f"^{word}$"
            grams = [marked[i : i + n] for n in _GRAM_SIZES for i in range(len(marked) - n + 1)]
            share = isqrt(_GRAMS * _GRAMS // len(grams)) if grams else 0
            hashed = [(f"w {word}", _WORD), (f"s {_stem(word)}", _STEM), *((f"g {g}", share) for g in grams)]
            placed = [(self._slot(name), weight) for name, weight in hashed]
            known = [slot for (slot, _), _ in placed], [sign * weight for (_, sign), weight in placed]
            if len(self._known) >= _MAX_CACHED_WORDS:
                self._known.clear()
            self._known[word] = known
        return known

    def _slot(self, feature: str) -> tuple[int, int]:
        hashed = int.from_bytes(blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        return (hashed >> 1) % self.dimension, 1 if hashed & 1 else -1


def _count_words(text: str) -> dict[str, tuple[int, int]]:
    """Word -> how often it occurs, and how many words come before its first occurrence; stop words are left out.

    An identifier counts as itself and as its parts: `copytree` and `ElementTree` as `elementtree`, `element`, `tree`.
    """
    found: dict[str, tuple[int, int]] = {}
    position = 0
    for token in _WORDS.findall(text):
        humps = _HUMPS.findall(token)
        for part in [token, *humps] if len(humps) > 1 else [token]:
            word = part.lower()
            if word not in _STOP_WORDS:
                count, first = found.get(word, (0, position))
                found[word] = (count + 1, first)
                position += 1
    return found


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
