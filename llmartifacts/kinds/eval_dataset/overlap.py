"""Which texts lie inside which: word shingles in an exact inverted index, in blocks of bounded memory.

A *shingle* of a text is `n` words in a row; a text of fewer words is one shingle, itself. The *containment* of a text A
in B is the share of A's different shingles that B has (Broder 1997, "On the resemblance and containment of documents").

An index of all shingles would be asked about boilerplate all the time. It is enough to index, of each text, its rarest
`|A| - ceil(share |A|) + 1` shingles: whatever contains `share` of A has one of these (the prefix filter of Chaudhuri,
Ganti and Kaushik 2006). What shares one is then counted in full, so nothing is missed and nothing is estimated.
Shingles are told apart by 64 bits: among 10^6 against 10^8 of them, two fall together with a chance below 10^-5.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from llmartifacts.errors import TooLarge

if TYPE_CHECKING:
    import numpy as np

SHORTEST = 5
"""Fewest words of a text that is looked for inside others: fewer stand together by accident."""

MOST = 100
"""A text found in so many others is not looked for in further ones."""

MAX_WORDS = 50_000_000
"""Words of the texts looked for, together: about 3 GB of index."""

_BLOCK = 1 << 19  # words looked at together: some 60 MB at the worst
_CHUNK = 1 << 22  # candidate pairs made together
_FACTOR = 0x9E3779B97F4A7C15
_NO_WORD = 0
T = TypeVar("T")


class Inside(NamedTuple, Generic[T]):
    """One text found inside another.

    Attributes:
        text: Number of the text looked for, as given to `Shingles`, from 0.
        other: The one it lies in, as given to `find`.
        part: Number of the part of that one which has most of it.
        share: Containment, in (0, 1].
    """

    text: int
    other: T
    part: int
    share: float


class _Block(NamedTuple, Generic[T]):
    names: list[T]
    flat: array[int]
    """Numbers of the words, one that is no word after each part."""
    parts: array[int]
    """Where each part begins in `flat`."""
    starts: array[int]
    """Which part is the first of each other."""


class Shingles:
    """Texts, ready to be looked for in others.

    Args:
        texts: Each text as its words.
        n: Words of a shingle, from 1.
        share: Containment from which a text counts as found, in (0, 1].

    Raises:
        TooLarge: More than 50,000,000 words.
    """

    def __init__(self, texts: Iterable[Sequence[str]], *, n: int, share: float) -> None:
        import numpy as np

        self._share = share
        self._ids: dict[str, int] = {}
        flat, counts = array("i"), array("q")
        for text in texts:
            flat.extend([self._ids.setdefault(w, len(self._ids) + 1) for w in text])
            counts.append(len(text))
            if len(flat) > MAX_WORDS:
                raise TooLarge(
                    f"the texts have more than {MAX_WORDS:,} words",
                    field="items",
                    next_step="Check a part at a time: a split, or fewer columns.",
                )
        self._mixed = self._mix(np.arange(len(self._ids) + 1, dtype=np.uint64))
        self._count = np.array(counts, dtype=np.int64)
        lengths = np.minimum(self._count, n)
        lengths[self._count < min(SHORTEST, n)] = 0
        self._lengths = [int(v) for v in np.unique(lengths) if v]
        self._index(np.array(flat, dtype=np.int32), lengths)
        self._done = np.zeros(len(counts), dtype=bool)
        self._times = np.zeros(len(counts), dtype=np.int64)
        self._gone = 0

    def looks_for(self, text: int) -> bool:
        """Whether a text has words enough to be looked for."""
        return bool(self._size[text])

    def times(self, text: int) -> int:
        """Number of others that a text was found in, counted up to `MOST`."""
        return min(MOST, int(self._times[text]))

    def find(self, others: Iterable[tuple[T, Sequence[Sequence[str]]]]) -> Iterator[Inside[T]]:
        """Look for every text in others.

        Args:
            others: What each is called, and its parts, each part as its words. No shingle spans two parts; the shingles
                of all parts count together.

        Yields:
            What was found, in the order of the others, then of the texts.
        """
        get = self._ids.get
        block = _Block[T]([], array("i"), array("q"), array("q"))
        for name, parts in others:
            block.names.append(name)
            block.starts.append(len(block.parts))
            for part in parts:
                block.parts.append(len(block.flat))
                block.flat.extend([get(w, _NO_WORD) for w in part])
                block.flat.append(_NO_WORD)
            if len(block.flat) >= _BLOCK:
                yield from self._look(block)
                block = _Block[T]([], array("i"), array("q"), array("q"))
        yield from self._look(block)

    # --- the index

    def _index(self, flat: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> None:
        import numpy as np

        begins = np.concatenate(([0], np.cumsum(self._count)))[:-1]
        found, owners = [], []
        for length in self._lengths:
            mine = np.flatnonzero(lengths == length)
            each = self._count[mine] - length + 1
            places = np.repeat(begins[mine] - np.cumsum(each) + each, each) + np.arange(each.sum())
            found.append(self._hashed(flat, length)[places])
            owners.append(np.repeat(mine, each))
        hashes = np.concatenate(found) if found else np.zeros(0, np.uint64)
        owner = np.concatenate(owners) if owners else np.zeros(0, np.int64)
        self._grams, number = np.unique(hashes, return_inverse=True)
        total = max(1, len(self._grams))
        pairs = np.unique(owner * total + number)
        owner, self._gram = pairs // total, pairs % total
        self._size = np.bincount(owner, minlength=len(self._count))
        self._at = np.concatenate(([0], np.cumsum(self._size)))
        self._rarest(owner)
        # Most shingles of the others are of no interest: a table of bits tells so at once.
        bits = min(26, max(16, total.bit_length() + 4))
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, dtype=bool)
        self._table[self._grams >> self._shift] = True
        self._scratch = np.zeros(total, dtype=bool)

    def _rarest(self, owner: np.ndarray[Any, Any]) -> None:
        import numpy as np

        needed = np.maximum(1, np.ceil(self._share * self._size - 1e-9).astype(np.int64))
        often = np.bincount(self._gram, minlength=len(self._grams))
        order = np.lexsort((self._gram, often[self._gram], owner))
        rank = np.arange(len(owner)) - self._at[owner]  # `order` keeps each owner's stretch
        kept = order[rank < (self._size - needed + 1)[owner]]
        kept = kept[np.argsort(self._gram[kept], kind="stable")]
        self._rare = owner[kept]
        self._rare_at = np.searchsorted(self._gram[kept], np.arange(len(self._grams) + 1))

    def _forget(self) -> None:
        """Take what is done out of the index, once that is worth it."""
        import numpy as np

        gone = int(np.count_nonzero(self._done))
        if gone > self._gone + max(16, (len(self._done) - self._gone) // 4):
            gram = np.repeat(np.arange(len(self._grams)), np.diff(self._rare_at))
            kept = ~self._done[self._rare]
            self._rare, self._gone = self._rare[kept], gone
            self._rare_at = np.searchsorted(gram[kept], np.arange(len(self._grams) + 1))

    # --- one block

    def _look(self, block: _Block[T]) -> Iterator[Inside[T]]:
        import numpy as np

        if not block.flat or not len(self._grams):
            return
        starts = np.array(block.starts)
        place, gram = self._known(np.array(block.flat, dtype=np.int32))
        part = np.searchsorted(np.array(block.parts), place, side="right") - 1
        other = np.searchsorted(starts, part, side="right") - 1
        order = np.argsort(other, kind="stable")
        other, part, gram = other[order], part[order], gram[order]
        bounds = np.searchsorted(other, np.arange(len(starts) + 1))
        width = np.diff(self._rare_at)[gram]
        for low, high in self._chunks(np.add.reduceat(np.append(width, 0), bounds[:-1]) * (np.diff(bounds) > 0)):
            inside = slice(bounds[low], bounds[high])
            for mine, text in self._candidates(other[inside], gram[inside]):
                stretch = slice(bounds[mine], bounds[mine + 1])
                share = self._contained(text, gram[stretch])
                if share is None:
                    continue
                where = part[stretch][np.isin(gram[stretch], self._own(text))]
                best = int(np.bincount(where - starts[mine]).argmax())
                yield Inside(text, block.names[mine], best, share)

    def _chunks(self, work: np.ndarray[Any, Any]) -> Iterator[tuple[int, int]]:
        """Stretches of the others whose candidate pairs fit into memory together."""
        import numpy as np

        total = np.cumsum(work)
        low, done = 0, 0
        while low < len(work):
            high = max(low + 1, int(np.searchsorted(total, done + _CHUNK, side="right")))
            yield low, high
            low, done = high, total[high - 1]

    def _known(self, flat: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The places of the shingles that some text has, and their numbers."""
        import numpy as np

        unknown = np.concatenate(([0], np.cumsum(flat == _NO_WORD)))
        places, numbers = [], []
        for length in self._lengths:
            if len(flat) < length:
                continue
            place = np.flatnonzero(unknown[length:] == unknown[:-length])
            hashes = self._hashed(flat, length)[place]
            maybe = self._table[hashes >> self._shift]
            place, hashes = place[maybe], hashes[maybe]
            number = np.minimum(np.searchsorted(self._grams, hashes), len(self._grams) - 1)
            same = self._grams[number] == hashes
            places.append(place[same])
            numbers.append(number[same])
        return (
            np.concatenate(places) if places else np.zeros(0, np.int64),
            np.concatenate(numbers) if numbers else np.zeros(0, np.int64),
        )

    def _candidates(self, other: np.ndarray[Any, Any], gram: np.ndarray[Any, Any]) -> Iterator[tuple[int, int]]:
        import numpy as np

        total = max(1, len(self._grams))
        once = np.unique(other * total + gram)
        other, gram = once // total, once % total
        begin, each = self._rare_at[gram], self._rare_at[gram + 1] - self._rare_at[gram]
        text = self._rare[np.repeat(begin - np.cumsum(each) + each, each) + np.arange(each.sum())]
        pairs = (np.repeat(other, each) * len(self._count) + text)[~self._done[text]]
        for mine, number in (divmod(int(p), len(self._count)) for p in np.unique(pairs)):
            if not self._done[number]:
                yield mine, number
        self._forget()

    def _contained(self, text: int, grams: np.ndarray[Any, Any]) -> float | None:
        import numpy as np

        own = self._own(text)
        self._scratch[grams] = True
        share = int(np.count_nonzero(self._scratch[own])) / len(own)
        self._scratch[grams] = False
        if share < self._share - 1e-9:
            return None
        self._times[text] += 1
        self._done[text] = self._times[text] >= MOST
        return share

    def _own(self, text: int) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self._gram[self._at[text] : self._at[text + 1]]
        return found

    # --- hashes

    def _mix(self, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """SplitMix64 (Steele, Lea and Flood 2014) of each number."""
        import numpy as np

        z = (numbers + np.uint64(1)) * np.uint64(_FACTOR)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    def _hashed(self, flat: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
        """A polynomial of the mixed words at each place, mixed again with the length."""
        import numpy as np

        mixed = self._mixed[flat]
        stop = len(flat) - length + 1
        total = mixed[:stop].copy()
        for i in range(1, length):
            total *= np.uint64(_FACTOR)
            total += mixed[i : i + stop]
        return self._mix(total ^ np.uint64(length << 56))
