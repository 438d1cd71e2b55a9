"""How the embeddings of the items moved between two versions: three measures without a threshold or a parameter.

With X the vectors of the first version and Y those of the second, d the Euclidean distance, and means over all pairs
(each vector with itself included):

| measure | definition |
| --- | --- |
| `energy` | (2 mean d(x,y) - mean d(x,x') - mean d(y,y')) / (2 mean d(x,y)): coefficient of inhomogeneity |
| `means` | b / (b + w), b = d(mean X, mean Y)^2 / 4, w the mean of the total variances: what the version explains |
| `novelty` | chance that a new y lies farther from its nearest x than an x from its nearest other x; ties count half |

Each lies in [0, 1], and none changes if all vectors are moved, turned or scaled alike. `energy` is 0 only where the two
distributions are the same; it sees every kind of shift. Of two samples from one distribution, of n and m vectors, it is
(1/n + 1/m)/2 on average, so a value near that says nothing. `means` sees where the middle moved, as a correlation ratio
does. `novelty` is about the vectors that the first version has no equal of: near 0.5 they lie among the old ones, near
1 out on their own, near 0 beside old ones (reworded items, say).

Of more than 5,000 items, 5,000 are measured: those with the smallest hash of their id, as `EvalDataset.sample` draws
them with seed 0, so nothing is left to chance. Values are rounded to six decimals, below what the order of additions
may change.

Sources: Szekely and Rizzo 2013, "Energy statistics: A class of statistics based on distances" (the coefficient H);
Pearson 1905 (the correlation ratio); Mann and Whitney 1947 (the chance that one is larger, here of nearest distances).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.eval_dataset import splits, texts

if TYPE_CHECKING:
    import numpy as np

    from llmartifacts.kinds.eval_dataset.value import EvalDataset

MEASURED = 5_000
"""Most items of each version that are measured."""

MAX_DIMENSION = 16_384
_BLOCK_BYTES = 32 << 20
_BATCH = 256

Vectors = Any
"""Two arrays (n, d) and (m, d); or an object with `embed_documents(texts)`, or a function of a list of texts."""


@dataclass(frozen=True, slots=True)
class EmbeddingShift:
    """How the embeddings moved; see the module for the definitions. Each measure lies in [0, 1].

    Attributes:
        energy: Coefficient of inhomogeneity of the two distributions.
        means: Share of the variance that the version explains.
        novelty: Chance that a new vector lies farther from the first version than its own lie from each other; None
            where no vector is new, or the first version has only one.
        new: Number of vectors of the second version that the first has no equal of.
        dimension: Of the vectors.
        before: Number of vectors measured of the first version.
        after: Number measured of the second.
    """

    energy: float
    means: float
    novelty: float | None
    new: int
    dimension: int
    before: int
    after: int

    def __str__(self) -> str:
        novelty = "" if self.novelty is None else f", novelty {self.novelty:.3f} of {self.new:,} new"
        sizes = f"{self.before:,} and {self.after:,} vectors of {self.dimension}"
        return f"energy {self.energy:.3f}, means {self.means:.3f}{novelty} ({sizes})"


def measure(before: EvalDataset, after: EvalDataset, vectors: Vectors) -> EmbeddingShift:
    """Measure how the embeddings of two datasets differ.

    Args:
        before: The first version.
        after: The second version.
        vectors: A pair of arrays of numbers, shapes (len(before), d) and (len(after), d), in the order of the items.
            Or what makes such vectors of the texts of the items' inputs: an object with `embed_documents`, as
            LangChain's embeddings have it, or a function; it is called with at most 256 texts at a time.

    Raises:
        InvalidValue: Wrong shapes, unlike dimensions, not numbers, NaN or infinity, or an input without text where
            vectors are to be made; the field says which array, and the origin which item.
    """
    places = [_places(d) for d in (before, after)]
    embed = _embedder(vectors)
    if embed is not None:
        found = [_embedded(d, at, embed, name) for d, at, name in zip((before, after), places, _NAMES, strict=True)]
    else:
        pair = _pair(vectors)
        found = [_taken(a, d, at, n) for a, d, at, n in zip(pair, (before, after), places, _NAMES, strict=True)]
    first, second = found
    if first.shape[1] != second.shape[1]:
        raise InvalidValue(
            f"the vectors have {first.shape[1]} and {second.shape[1]} dimensions",
            field="vectors",
            next_step="Embed both versions with the same model.",
        )
    return _measured(first, second)


_NAMES = ("vectors[0]", "vectors[1]")


def _places(dataset: EvalDataset) -> list[int]:
    return splits.choose(dataset.ids, min(MEASURED, len(dataset)), 0)


def _embedder(vectors: Any) -> Callable[[list[str]], Any] | None:
    for candidate in (getattr(vectors, "embed_documents", None), vectors):
        if callable(candidate):
            return candidate  # type: ignore[no-any-return]
    return None


def _pair(vectors: Any) -> Sequence[Any]:
    if isinstance(vectors, tuple | list) and len(vectors) == 2:
        return vectors
    raise InvalidValue(
        f"a {type(vectors).__name__} is no pair of arrays",
        field="vectors",
        next_step="Give vectors=(A, B), one row an item of each version, or embeddings that make them.",
    )


def _embedded(
    dataset: EvalDataset, places: Sequence[int], embed: Callable[[list[str]], Any], name: str
) -> np.ndarray[Any, Any]:
    import numpy as np

    made: list[Any] = []
    width: int | None = None
    for begin in range(0, len(places), _BATCH):
        batch = [texts.text_of(dataset[i].input) for i in places[begin : begin + _BATCH]]
        for at, text in zip(places[begin:], batch, strict=False):
            if not text.strip():
                raise InvalidValue("the input has no text", field=name, origin=f"item {dataset.ids[at]}")
        rows = _numbers(embed(batch), name)
        if rows.ndim != 2 or len(rows) != len(batch) or rows.shape[1] != (width or rows.shape[1]):
            raise InvalidValue(f"{len(batch)} texts gave vectors of the shape {rows.shape}", field=name)
        width = rows.shape[1]
        made.append(_checked(rows, [dataset.ids[i] for i in places[begin : begin + _BATCH]], name))
    return np.concatenate(made)


def _taken(array: Any, dataset: EvalDataset, places: Sequence[int], name: str) -> np.ndarray[Any, Any]:
    found = _numbers(array, name)
    if found.ndim != 2 or len(found) != len(dataset):
        raise InvalidValue(
            f"the vectors have the shape {found.shape}, and the dataset has {len(dataset):,} items",
            field=name,
            next_step="Give one row an item, in the order of the items.",
        )
    return _checked(found[places], [dataset.ids[i] for i in places], name)


def _numbers(array: Any, name: str) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        found = np.asarray(array)
    except ValueError:  # rows of unlike length
        found = np.asarray(None)
    if found.dtype.kind not in "fiu":
        raise InvalidValue("these are no rows of numbers, all of one length", field=name)
    return found


def _checked(rows: np.ndarray[Any, Any], ids: Sequence[str], name: str) -> np.ndarray[Any, Any]:
    import numpy as np

    if not 1 <= rows.shape[1] <= MAX_DIMENSION:
        raise InvalidValue(f"the vectors have {rows.shape[1]} dimensions, not 1 to {MAX_DIMENSION:,}", field=name)
    made = rows.astype(np.float64)
    finite = np.isfinite(made).all(axis=1)
    if not finite.all():
        raise InvalidValue("the vector holds NaN or infinity", field=name, origin=f"item {ids[int(finite.argmin())]}")
    return made


def _measured(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> EmbeddingShift:
    import numpy as np

    # Moved and scaled alike, nothing changes; and squares neither overflow nor cancel.
    largest = max(float(np.abs(x).max()), float(np.abs(y).max())) or 1.0
    x, y = x / largest, y / largest
    middle = (x.mean(axis=0) + y.mean(axis=0)) / 2
    x, y = x - middle, y - middle
    between = float(((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()) / 4
    within = float(x.var(axis=0).sum() + y.var(axis=0).sum()) / 2
    across, nearest = _distances(y, x)
    inside, apart = _distances(x, x, itself=True)
    inside = (inside + _distances(y, y)[0]) / 2
    unlike = nearest[nearest > 0]
    return EmbeddingShift(
        _bounded((across - inside) / across if across else 0.0),
        _bounded(between / (between + within) if between else 0.0),
        _farther(unlike / across, apart / across) if len(unlike) and len(x) > 1 else None,
        len(unlike),
        x.shape[1],
        len(x),
        len(y),
    )


def _distances(
    rows: np.ndarray[Any, Any], others: np.ndarray[Any, Any], *, itself: bool = False
) -> tuple[float, np.ndarray[Any, Any]]:
    """Mean distance of all pairs, and the distance of each row to its nearest of `others`; its own place, or not."""
    import numpy as np

    squares = (others**2).sum(axis=1)
    total = 0.0
    nearest = np.empty(len(rows))
    step = max(1, _BLOCK_BYTES // (8 * len(others)))
    for begin in range(0, len(rows), step):
        block = rows[begin : begin + step]
        size = (block**2).sum(axis=1)[:, None] + squares
        far = size - 2 * (block @ others.T)
        far[far < 1e-13 * size] = 0  # equal vectors, but for rounding
        np.sqrt(far, out=far)
        total += float(far.sum())
        if itself:
            far[np.arange(len(block)), np.arange(begin, begin + len(block))] = np.inf
        nearest[begin : begin + len(block)] = far.min(axis=1)
    return total / (len(rows) * len(others)), nearest


def _farther(new: np.ndarray[Any, Any], old: np.ndarray[Any, Any]) -> float:
    import numpy as np

    old = np.sort(old.round(9))
    below = np.searchsorted(old, new.round(9), "left") + np.searchsorted(old, new.round(9), "right")
    return _bounded(float(below.mean()) / (2 * len(old)))


def _bounded(value: float) -> float:
    return round(min(1.0, max(0.0, value)), 6) + 0.0
