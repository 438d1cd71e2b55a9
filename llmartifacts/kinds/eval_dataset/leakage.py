"""Which items of a test set lie in a set that a model was, or will be, trained on.

| way | a test item leaks so, if |
| --- | --- |
| `same_text` | one of its texts is a text of a training item: equal after NFC, case folding, blanks made one |
| `contained` | a training item has at least `share` of the different shingles of one of its texts |
| `same_id` | no text leaks, but a training item has its id; ids of digits alone are row numbers too often to count |

A shingle is `words` words in a row, and the share of them that is found is Broder's containment (1997). Eight words and
70 % are what PaLM's authors took to call a test item contaminated (Chowdhery et al. 2022, section 8; there by all of
the training data together, here by one item of it). Texts of 5 to `words - 1` words are one shingle, themselves; texts
of fewer are checked by `same_text` alone. An expected output is checked in both ways from `answer_words` words on: 13
is the longest overlap that GPT-3's authors asked for (Brown et al. 2020, appendix C: 8 to 13).

Words are runs of letters, digits and underscores, case folded; blanks and punctuation do not count. Training items may
be rows of any form: chat messages, prompt and completion, or columns. Of a test item that is a list of messages, those
of the roles `system` and `developer` do not count, since a whole set shares them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.disk import AnyPath
from llmartifacts.kinds.eval_dataset import texts
from llmartifacts.kinds.eval_dataset.fields import FIELDS
from llmartifacts.kinds.eval_dataset.overlap import MOST, Shingles
from llmartifacts.kinds.eval_dataset.rows import ID
from llmartifacts.kinds.eval_dataset.sources import LIMITS, Limits
from llmartifacts.kinds.eval_dataset.training import Training, TrainingItem
from llmartifacts.records.names import did_you_mean
from llmartifacts.records.wording import counted

if TYPE_CHECKING:
    from llmartifacts.kinds.eval_dataset.value import EvalDataset

WORDS = 8
SHARE = 0.7
ANSWER_WORDS = 13
CHECKED = ("input", "expected_output")

SAME_TEXT, CONTAINED, SAME_ID = WAYS = ("same_text", "contained", "same_id")


@dataclass(frozen=True, slots=True)
class Leak:
    """One text of a test item that lies in the training set, or its id; the strongest find is told.

    Attributes:
        item: The test item's id.
        column: Its column whose text was found; `id` for an id.
        way: `same_text`, `contained` or `same_id`.
        share: Containment, in (0, 1]; 1 for the same text or id.
        train: The training item: its id in a dataset, else its place, such as `train.jsonl, line 12`.
        place: Where in that item, such as `messages[1].content`.
        times: Number of training items that have it; counting ends at 100, and the first of the best is told.
    """

    item: str
    column: str
    way: str
    share: float
    train: str
    place: str
    times: int

    def __str__(self) -> str:
        told = f"{self.share:.0%} contained" if self.way == CONTAINED else self.way.replace("_", " ")
        more = f", and {self.times - 1}{'+' if self.times >= MOST else ''} more" if self.times > 1 else ""
        return f"{self.item} ({self.column}): {told} in {self.train} ({self.place}){more}"


@dataclass(frozen=True, slots=True)
class Leakage:
    """What of a test set lies in a training set. False if nothing does.

    Attributes:
        items: Number of test items.
        train: Number of training items.
        leaks: What was found, in the order of the test set, then of its columns.
        short: Test items without a text long enough to be looked for inside others.
        words: Words of a shingle.
        share: Containment from which a text counts as found.
        answer_words: Words from which an expected output is checked.
    """

    items: int
    train: int
    leaks: tuple[Leak, ...]
    short: int
    words: int
    share: float
    answer_words: int

    def __bool__(self) -> bool:
        return bool(self.leaks)

    def __str__(self) -> str:
        return "\n".join((self.headline, *map(str, self.leaks)))

    @property
    def leaked(self) -> tuple[str, ...]:
        """Ids of the test items that leak, each once, in the order of the test set."""
        return tuple(dict.fromkeys(leak.item for leak in self.leaks))

    @property
    def rate(self) -> float:
        """Share of the test items that leak, in [0, 1]."""
        return len(self.leaked) / self.items

    @property
    def ways(self) -> Mapping[str, int]:
        """Way -> number of test items of which it is the strongest; `same_text` before `contained` before `same_id`."""
        strongest: dict[str, int] = {}
        for leak in self.leaks:
            at = WAYS.index(leak.way)
            strongest[leak.item] = min(at, strongest.get(leak.item, at))
        found = Counter(strongest.values())
        return {way: found[i] for i, way in enumerate(WAYS) if found[i]}

    @property
    def headline(self) -> str:
        """One line, such as `3 of 164 test items (1.8%) are among 500 training items: 2 same text, 1 contained`."""
        told = f"{len(self.leaked):,} of {counted(self.items, 'test item')} ({self.rate:.1%})"
        ways = ", ".join(f"{n:,} {way.replace('_', ' ')}" for way, n in self.ways.items())
        return f"{told} {'is' if len(self.leaked) == 1 else 'are'} among {counted(self.train, 'training item')}" + (
            f": {ways}" if ways else ""
        )


def check(
    test: EvalDataset,
    train: EvalDataset | AnyPath | Sequence[AnyPath] | Iterable[Mapping[str, Any]],
    *,
    fields: Sequence[str] = CHECKED,
    train_columns: Sequence[str] | None = None,
    words: int = WORDS,
    share: float = SHARE,
    answer_words: int = ANSWER_WORDS,
    ids: bool = True,
    limits: Limits = LIMITS,
) -> Leakage:
    """Look for the items of `test` in `train`; see `EvalDataset.leakage` for the arguments, the module for the ways."""
    _check_numbers(words, share, answer_words)
    source = Training(train, train_columns, limits)
    looked_for = _LookedFor(test, _columns(test, fields), words, share, answer_words)
    names = {i for i in test.ids if not i.isdigit()} if ids else set()
    leaks = tuple(_Search(looked_for, names).run(source, test.ids))
    return Leakage(len(test), source.count, leaks, looked_for.short, words, share, answer_words)


def _check_numbers(words: int, share: float, answer_words: int) -> None:
    if type(words) is not int or not 1 <= words <= 100:
        raise InvalidValue(f"a shingle of {words!r:.40} words: take 1 to 100", field="words")
    if type(answer_words) is not int or answer_words < 1:
        raise InvalidValue(f"answer_words is {answer_words!r:.40}, not a whole number above 0", field="answer_words")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise InvalidValue(f"the share is {share!r:.40}, not above 0 and at most 1", field="share")


def _columns(test: EvalDataset, fields: Sequence[str]) -> dict[str, bool]:
    """Column -> whether it is the expected output."""
    wanted = (fields,) if isinstance(fields, str) else tuple(fields)
    answer = test.fields.get("expected_output")
    made: dict[str, bool] = {}
    for name in wanted:
        column = test.fields.get(name, name)
        if column in test.schema:
            made[column] = column == answer
        elif name not in FIELDS or name == ID:
            raise InvalidValue(
                f"the test set has no column {name!r:.60}",
                field="fields",
                next_step=did_you_mean(name, [*test.fields, *test.schema]),
            )
    if not made:
        raise InvalidValue(
            "no column of the test set is to be looked for",
            field="fields",
            next_step=f"Fields of this set: {', '.join(test.fields)}. Columns: {', '.join(sorted(test.schema)[:20])}.",
        )
    return made


class _LookedFor:
    """The texts of a test set, each different one once."""

    def __init__(
        self, test: EvalDataset, columns: Mapping[str, bool], words: int, share: float, answer_words: int
    ) -> None:
        self.columns = list(columns)
        self.numbers: dict[str, int] = {}
        """A text, folded and evenly spaced -> its number."""
        self.uses: list[list[tuple[int, int]]] = []
        """Of each text: the items that have it, by place, each with the number of the column."""
        self.structured = False
        """Whether some text was put together from parts, such as chat messages."""
        self._answers = [columns[name] for name in self.columns]
        self._answer_words = answer_words
        by_item: list[list[int]] = []
        self.shingles = Shingles(self._gather(test, by_item), n=words, share=share)
        self.short = sum(not any(map(self.shingles.looks_for, numbers)) for numbers in by_item)

    def _gather(self, test: EvalDataset, by_item: list[list[int]]) -> Iterator[list[str]]:
        for i, row in enumerate(test.rows()):
            mine: list[int] = []
            by_item.append(mine)
            for c, name in enumerate(self.columns):
                value = row.get(name)
                text = texts.one_spaced(texts.fold(texts.text_of(value, instructions=False)))
                if not text or (self._answers[c] and len(texts.words(text)) < self._answer_words):
                    continue
                self.structured |= not isinstance(value, str)
                number = self.numbers.setdefault(text, len(self.uses))
                mine.append(number)
                if number < len(self.uses):
                    self.uses[number].append((i, c))
                else:
                    self.uses.append([(i, c)])
                    yield texts.words(text)


class _Found(NamedTuple):
    way: str
    share: float
    train: str
    place: str


class _Search:
    """One pass over the training items, and what it found."""

    def __init__(self, looked_for: _LookedFor, names: set[str]) -> None:
        self._for = looked_for
        self._names = names
        self._best: dict[int, _Found] = {}
        self._same: Counter[int] = Counter()
        self._by_id: dict[str, _Found] = {}
        self._ids: Counter[str] = Counter()

    def run(self, source: Training, ids: Sequence[str]) -> Iterator[Leak]:
        """Every leak, in the order of the test set."""
        for text, item, part, share in self._for.shingles.find(map(self._read, source.items())):
            best = self._best.get(text)
            if best is None or (best.way == CONTAINED and share > best.share):
                self._best[text] = _Found(CONTAINED, share, item.label, item.parts[part].place)
        found = []
        for text, best in self._best.items():
            times = max(min(MOST, self._same[text]), self._for.shingles.times(text))
            for i, c in self._for.uses[text]:
                found.append((i, c, Leak(ids[i], self._for.columns[c], *best, times)))
        told = {i for i, _, _ in found}
        for i, item_id in enumerate(ids):
            if item_id in self._by_id and i not in told:
                found.append((i, 0, Leak(item_id, ID, *self._by_id[item_id], min(MOST, self._ids[item_id]))))
        found.sort(key=lambda one: one[:2])
        for _, _, leak in found:
            yield leak

    def _read(self, item: TrainingItem) -> tuple[TrainingItem, list[list[str]]]:
        if item.id in self._names:
            self._ids[item.id] += 1
            self._by_id.setdefault(item.id, _Found(SAME_ID, 1.0, item.label, item.id_column))
        keys = [texts.one_spaced(texts.fold(part.text)) for part in item.parts]
        same: set[int] = set()
        for part, key in zip(item.parts, keys, strict=True):
            self._note(key, item, part.place, same)
        if self._for.structured:
            for place, text in item.joined():
                self._note(texts.one_spaced(texts.fold(text)), item, place, same)
        return item, list(map(texts.words, keys))

    def _note(self, key: str, item: TrainingItem, place: str, same: set[int]) -> None:
        number = self._for.numbers.get(key)
        if number is None or number in same:
            return
        same.add(number)
        self._same[number] += 1
        best = self._best.get(number)
        if best is None or best.way != SAME_TEXT:
            self._best[number] = _Found(SAME_TEXT, 1.0, item.label, place)
