"""What shifted between two versions of a dataset, in measures that need no model and no threshold.

| measure | definition |
| --- | --- |
| length shift | Kolmogorov-Smirnov distance of the lengths in characters: sup over x of abs(F(x) - G(x)) |
| category shift | total variation distance of the relative frequencies: 1/2 sum over v of abs(p(v) - q(v)) |
| number shift | Kolmogorov-Smirnov distance of the values |
| vocabulary shift | Jensen-Shannon divergence of the word frequencies in bits: H((p+q)/2) - (H(p) + H(q))/2 |
| unseen words | share of the second version's words that the first never uses |
| missing shift | difference of the shares of items without a value |
| embedding shift | three measures; see `llmartifacts.kinds.eval_dataset.embeddings` |

Each lies in [0, 1]; 0 is "no shift". Words are runs of letters, digits and underscores, case folded; each Chinese or
Japanese sign is one. Categories, labels above all, are columns of text, integers or booleans with at most 50 different
values, each used twice on average in both versions; keys of `metadata` count as columns. Every other column with
numbers gets the number shift, and every other one with text the length and the vocabulary shift; the text of arrays
and objects, such as chat messages or several answers, is all text inside them. A field that both versions read from
columns of unlike names is compared as one column, by the field's name. Ids are not compared.

Sources: Massey 1951 (Kolmogorov-Smirnov statistic); Levin, Peres and Wilmer 2009, section 4.1 (total variation);
Lin 1991 (Jensen-Shannon divergence).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmartifacts.kinds.eval_dataset import texts
from llmartifacts.kinds.eval_dataset.embeddings import EmbeddingShift, Vectors
from llmartifacts.kinds.eval_dataset.embeddings import measure as measure_embeddings
from llmartifacts.kinds.eval_dataset.fields import may_be_id
from llmartifacts.kinds.eval_dataset.rows import ID

if TYPE_CHECKING:
    from llmartifacts.kinds.eval_dataset.compare import ItemDiff
    from llmartifacts.kinds.eval_dataset.value import EvalDataset

MAX_CATEGORIES = 50
_PARTS = "parts"
"""Stands for the type of arrays and objects, whose text counts."""


@dataclass(frozen=True, slots=True)
class SchemaShift:
    """One column that came, went, or holds other types.

    Attributes:
        column: Its name.
        before: JSON types in the first version, sorted; empty if it was not there.
        after: JSON types in the second.
    """

    column: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    def __str__(self) -> str:
        if not self.before or not self.after:
            return f"{self.column}: {'added' if self.after else 'removed'} ({' or '.join(self.after or self.before)})"
        return f"{self.column}: {' or '.join(self.before)} -> {' or '.join(self.after)}"


@dataclass(frozen=True, slots=True)
class MissingShift:
    """A column that more items, or fewer, have no value in.

    Attributes:
        column: Its name.
        before: Share of the first version's items without a value, in [0, 1].
        after: Share of the second's.
    """

    column: str
    before: float
    after: float

    @property
    def distance(self) -> float:
        """By how much the share moved, in [0, 1]."""
        return abs(self.after - self.before)

    def __str__(self) -> str:
        return f"{self.column}: {self.before:.1%} -> {self.after:.1%} of the items without a value"


@dataclass(frozen=True, slots=True)
class NumberShift:
    """How the values of a column of numbers moved.

    Attributes:
        column: Its name.
        before: Mean in the first version.
        after: Mean in the second.
        distance: Kolmogorov-Smirnov distance of the two, in [0, 1].
    """

    column: str
    before: float
    after: float
    distance: float

    def __str__(self) -> str:
        return f"{self.column}: mean {self.before:.6g} -> {self.after:.6g}, distance {self.distance:.3f}"


@dataclass(frozen=True, slots=True)
class LengthShift:
    """How the lengths of a text column moved.

    Attributes:
        column: Its name.
        before: Mean length in the first version, in characters.
        after: Mean length in the second.
        distance: Kolmogorov-Smirnov distance of the two, in [0, 1].
    """

    column: str
    before: float
    after: float
    distance: float

    def __str__(self) -> str:
        return f"{self.column}: mean {self.before:.1f} -> {self.after:.1f} characters, distance {self.distance:.3f}"


@dataclass(frozen=True, slots=True)
class CategoryShift:
    """How the shares of a column's values moved.

    Attributes:
        column: Its name.
        distance: Total variation distance, in [0, 1].
        new: Values that only the second version has, sorted.
        gone: Values that only the first has, sorted.
    """

    column: str
    distance: float
    new: tuple[str, ...]
    gone: tuple[str, ...]

    def __str__(self) -> str:
        told = [f"distance {self.distance:.3f}"]
        told += [f"new: {', '.join(self.new)}"] if self.new else []
        told += [f"gone: {', '.join(self.gone)}"] if self.gone else []
        return f"{self.column}: {'; '.join(told)}"


@dataclass(frozen=True, slots=True)
class VocabularyShift:
    """How the words of a text column moved.

    Attributes:
        column: Its name.
        divergence: Jensen-Shannon divergence of the word frequencies, in bits, in [0, 1].
        unseen: Share of the second version's words, by use, that the first never uses, in [0, 1].
        words_before: Number of different words in the first version.
        words_after: Number of different words in the second.
    """

    column: str
    divergence: float
    unseen: float
    words_before: int
    words_after: int

    def __str__(self) -> str:
        sizes = f"{self.words_before} -> {self.words_after} words"
        return f"{self.column}: {sizes}, divergence {self.divergence:.3f}, unseen {self.unseen:.1%}"


@dataclass(frozen=True, slots=True)
class Drift:
    """What shifted from one version of a dataset to another.

    Attributes:
        before: Number of items in the first version.
        after: Number of items in the second.
        added: Items that only the second has.
        removed: Items that only the first has.
        changed: Items that both have, with other content.
        schema: Columns that came, went or hold other types; by name.
        lengths: Length shift of each text column that both have; by name.
        categories: Category shift of each column with few values; by name.
        vocabulary: Vocabulary shift of each text column that both have; by name.
        numbers: Number shift of each column with numbers, but categories; by name.
        missing: Columns that both have, and of which another share of the items has no value; by name.
        embedding: How the embeddings moved; None without vectors.
    """

    before: int
    after: int
    added: int
    removed: int
    changed: int
    schema: tuple[SchemaShift, ...] = ()
    lengths: tuple[LengthShift, ...] = ()
    categories: tuple[CategoryShift, ...] = ()
    vocabulary: tuple[VocabularyShift, ...] = ()
    numbers: tuple[NumberShift, ...] = ()
    missing: tuple[MissingShift, ...] = ()
    embedding: EmbeddingShift | None = None

    def __str__(self) -> str:
        counts = f"{self.added} added, {self.removed} removed, {self.changed} changed"
        lines = [f"items: {self.before} -> {self.after} ({counts})"]
        for title, shifts in (
            ("schema", self.schema),
            ("missing", self.missing),
            ("length", self.lengths),
            ("categories", self.categories),
            ("numbers", self.numbers),
            ("vocabulary", self.vocabulary),
            ("embedding", (self.embedding,) if self.embedding else ()),
        ):
            lines += [f"{title}  {shift}" for shift in shifts]
        return "\n".join(lines)


def measure(
    before: EvalDataset, after: EvalDataset, items: ItemDiff | None = None, *, vectors: Vectors | None = None
) -> Drift:
    """Measure what shifted between two datasets; see the module for the definitions.

    Args:
        before: The first version.
        after: The second version.
        items: Their item-level differences, if they are known already.
        vectors: As in `EvalDataset.drift`.

    Raises:
        InvalidValue: The vectors do not fit.
    """
    embedding = None if vectors is None else measure_embeddings(before, after, vectors)
    diff = items if items is not None else before.diff(after)
    moved = _moved_fields(before, after)
    old, new = _gather(before, moved), _gather(after, moved)
    both = sorted(old.keys() & new.keys())
    labels = [c for c in both if _is_category(old[c]) and _is_category(new[c])]
    others = [c for c in both if c not in labels]
    written = [c for c in others if _texts(old[c]) and _texts(new[c])]
    counted = [c for c in others if _numbers(old[c]) and _numbers(new[c])]
    return Drift(
        len(before),
        len(after),
        len(diff.added),
        len(diff.removed),
        len(diff.changed),
        schema=tuple(_schema(before, after)),
        lengths=tuple(_length(c, old[c], new[c]) for c in written),
        categories=tuple(_category(c, old[c], new[c]) for c in labels),
        vocabulary=tuple(_vocabulary(c, old[c], new[c]) for c in written),
        numbers=tuple(_number(c, old[c], new[c]) for c in counted),
        missing=tuple(_missing(before, after)),
        embedding=embedding,
    )


def total_variation(p: Mapping[Any, float], q: Mapping[Any, float]) -> float:
    """Total variation distance of two weightings, each scaled to sum 1: 1/2 sum abs(p(v) - q(v)), in [0, 1]."""
    a, b = sum(p.values()), sum(q.values())
    return math.fsum(abs(p.get(v, 0) / a - q.get(v, 0) / b) for v in {**p, **q}) / 2


def jensen_shannon(p: Mapping[Any, float], q: Mapping[Any, float]) -> float:
    """Jensen-Shannon divergence of two weightings, each scaled to sum 1, in bits, in [0, 1]."""
    a, b = sum(p.values()), sum(q.values())
    terms = []
    for v in {**p, **q}:
        x, y = p.get(v, 0) / a, q.get(v, 0) / b
        m = (x + y) / 2
        terms += [z * math.log2(z / m) / 2 for z in (x, y) if z]
    return min(1.0, max(0.0, math.fsum(terms)))


def kolmogorov_smirnov(before: Mapping[Any, int], after: Mapping[Any, int]) -> float:
    """Kolmogorov-Smirnov distance of two samples given as value -> count, in [0, 1]."""
    a, b = sum(before.values()), sum(after.values())
    x = y = 0
    worst = 0.0
    for value in sorted({*before, *after}):
        x, y = x + before.get(value, 0), y + after.get(value, 0)
        worst = max(worst, abs(x / a - y / b))
    return worst


def _moved_fields(before: EvalDataset, after: EvalDataset) -> set[str]:
    """Fields that are read from another column than before: they are compared under their own name."""
    taken = before.schema.keys() | after.schema.keys()
    both = before.fields.keys() & after.fields.keys() - {"metadata"} - taken
    return {field for field in both if before.fields[field] != after.fields[field]}


def _gather(dataset: EvalDataset, moved: set[str]) -> dict[str, Counter[Any]]:
    """Column -> its values, each with its type, and how often each occurs; keys of `metadata` as `metadata.key`."""
    found: dict[str, Counter[Any]] = {}
    metadata = dataset.fields.get("metadata")
    names = {dataset.fields[field]: field for field in moved}
    for row in dataset.rows():
        for column, value in _flat(row, metadata):
            name = names.get(column, column)
            values = found.setdefault(name, Counter())
            if isinstance(value, list | dict):
                values[_PARTS, texts.text_of(value)] += 1
            elif value is not None:
                # With its type: True is 1 for a dict, and not for people.
                values[type(value).__name__, value] += 1
    return found


def _flat(row: Mapping[str, Any], metadata: str | None) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if name == metadata:
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        elif name != ID and not (may_be_id(name) and str(value) == row[ID]):  # the column that the id is from
            yield name, value


def _is_category(values: Counter[Any]) -> bool:
    if len(values) > MAX_CATEGORIES or 2 * len(values) > values.total():
        return False
    return all(kind in ("str", "int", "bool") for kind, _ in values)


def _texts(values: Counter[Any]) -> Counter[str]:
    found: Counter[str] = Counter()
    for (kind, value), times in values.items():
        if kind in ("str", _PARTS):
            found[value] += times
    return found


def _numbers(values: Counter[Any]) -> Counter[float]:
    found: Counter[float] = Counter()
    for (kind, value), times in values.items():
        if kind in ("int", "float"):
            found[value] += times
    return found


def _schema(before: EvalDataset, after: EvalDataset) -> Iterator[SchemaShift]:
    for name in sorted(before.schema.keys() | after.schema.keys()):
        was, now = (tuple(sorted(d.schema[name].types)) if name in d.schema else () for d in (before, after))
        if was != now:
            yield SchemaShift(name, was, now)


def _missing(before: EvalDataset, after: EvalDataset) -> Iterator[MissingShift]:
    for name in sorted(before.schema.keys() & after.schema.keys()):
        old, new = before.schema[name].null, after.schema[name].null
        if old * len(after) != new * len(before):
            yield MissingShift(name, old / len(before), new / len(after))


def _length(column: str, before: Counter[Any], after: Counter[Any]) -> LengthShift:
    a, b = _lengths(before), _lengths(after)
    return LengthShift(column, _mean(a), _mean(b), kolmogorov_smirnov(a, b))


def _lengths(values: Counter[Any]) -> Counter[int]:
    found: Counter[int] = Counter()
    for text, times in _texts(values).items():
        found[len(text)] += times
    return found


def _number(column: str, before: Counter[Any], after: Counter[Any]) -> NumberShift:
    a, b = _numbers(before), _numbers(after)
    return NumberShift(column, _mean(a), _mean(b), kolmogorov_smirnov(a, b))


def _mean(counts: Mapping[Any, int]) -> float:
    total = sum(counts.values())
    return math.fsum(value / total * times for value, times in counts.items())


def _category(column: str, before: Counter[Any], after: Counter[Any]) -> CategoryShift:
    new = tuple(sorted(str(value) for _, value in after.keys() - before.keys()))
    gone = tuple(sorted(str(value) for _, value in before.keys() - after.keys()))
    return CategoryShift(column, total_variation(before, after), new, gone)


def _vocabulary(column: str, before: Counter[Any], after: Counter[Any]) -> VocabularyShift:
    a, b = _words(before), _words(after)
    if not a or not b:
        whole = 0.0 if not a and not b else 1.0
        return VocabularyShift(column, whole, 1.0 if b else 0.0, len(a), len(b))
    unseen = sum(times for word, times in b.items() if word not in a) / b.total()
    return VocabularyShift(column, jensen_shannon(a, b), unseen, len(a), len(b))


def _words(values: Counter[Any]) -> Counter[str]:
    found: Counter[str] = Counter()
    for text, times in _texts(values).items():
        for word in texts.words(texts.fold(text)):
            found[word] += times
    return found
