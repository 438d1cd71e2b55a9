"""Outputs of a vector index: the ids that a search finds, best first."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from llmartifacts.errors import InvalidInput, InvalidValue, WrongKind
from llmartifacts.evals.importing import distributions, imported, source_behind
from llmartifacts.evals.scorers.base import Answer
from llmartifacts.kinds.eval_dataset.value import Item

BATCH = 64
"""Queries of one search; each is charged an equal share of its time."""


class Retrieved:
    """Searches a `VectorIndex` for each item: its input embedded, or a vector that the dataset has.

    The time of an output is that of embedding its query and its share of the search.

    Args:
        embeddings: `package.module:object`: a LangChain embedder; a class, which is made without arguments, or with
            `dimension=` of the index where it takes one; or a function, which is given the index and returns the
            embedder for it (target and baseline may have different ones). Empty to take `column`.
        k: How many ids an output has.
        column: Column of the dataset with the query vectors, d numbers each; empty to take `embeddings`.

    Raises:
        NotFound: There is no such module or object.
        InvalidInput: It cannot be imported; or not exactly one of the two is given.
    """

    batch = BATCH
    takes_seed = False

    def __init__(self, embeddings: str = "", k: int = 10, column: str = "") -> None:
        if bool(embeddings) == bool(column):
            raise InvalidInput("a search wants either embeddings or a column of vectors", field="outputs.retrieve")
        self.k, self.column, self._dotted = k, column, embeddings
        self._named = imported(embeddings, field="outputs.retrieve.embeddings") if embeddings else None
        source = source_behind(embeddings, self._named) if embeddings else ""
        told: dict[str, Any] = {
            "retrieve": {"column": column} if column else {"embeddings": embeddings, "source": source}
        }
        told["retrieve"]["k"] = k
        self.identity: Mapping[str, Any] | None = told if column or source else None
        self.told = f"search with k = {k}, queries from {f'column {column}' if column else embeddings}"
        self.packages: Sequence[str] = distributions(self._named) if embeddings else ()
        self.remarks: Sequence[str] = ()
        self._embedders: dict[int, Any] = {}
        self._of_dimension: dict[int, Any] = {}
        self._vectors: dict[tuple[int, str], tuple[Any, float]] = {}
        self._lock = threading.Lock()

    def prepare(self, value: Any, items: Sequence[Item]) -> None:
        """Check the embedder by the index's probes, or the shape of every query vector.

        Raises:
            WrongKind: The target is no index.
            Incompatible: It is another embedder than the index was built with.
            InvalidValue: A query vector is missing or has another dimension.
        """
        if getattr(type(value), "kind", None) != "vector_index":
            raise WrongKind(
                f"a {type(value).__name__} cannot be searched",
                field="outputs.retrieve",
                next_step="Only a vector_index can; for anything else write outputs: {runnable: package.module:name}.",
            )
        if self.column:
            for item in items:
                self._check_vector(value, item)
            return
        embedder = self._embedder(value)
        self.remarks = tuple(dict.fromkeys([*self.remarks, *value.check_embeddings(embedder)]))
        self._embedders[id(value)] = embedder

    def answer(self, value: Any, items: Sequence[Item], seed: int, repeat: int) -> list[Answer]:
        """Search for some items at once; an input that cannot be embedded is the error of its item alone."""
        vectors: list[Any] = []
        answers: list[Answer | float] = []
        for item in items:
            try:
                vector, seconds = self._query(value, item)
            except Exception as error:  # noqa: BLE001 - an embedder may raise anything
                answers.append(Answer(error=f"{type(error).__name__}: {error}"))
            else:
                vectors.append(vector)
                answers.append(seconds)
        if not vectors:
            return [a for a in answers if isinstance(a, Answer)]
        import numpy as np

        started = time.perf_counter()
        hits = value.search(np.asarray(vectors, np.float32), k=self.k)
        share = (time.perf_counter() - started) / len(vectors)
        found = iter(hits.ids.tolist())
        return [a if isinstance(a, Answer) else Answer(next(found), a + share) for a in answers]

    def _query(self, value: Any, item: Item) -> tuple[Any, float]:
        if self.column:
            return item.columns[self.column], 0.0
        if not isinstance(item.input, str):
            raise InvalidValue("the input is no text", field="input")
        embedder = self._embedders[id(value)]
        key = (id(embedder), item.input)
        known = self._vectors.get(key)
        if known is None:  # target and baseline are often searched by one embedder
            started = time.perf_counter()
            vector = embedder.embed_query(item.input)
            known = (vector, time.perf_counter() - started)
            with self._lock:
                self._vectors[key] = known
        return known

    def _embedder(self, value: Any) -> Any:
        """One object for target and baseline where it can be, so that a query is embedded once for both."""
        if not inspect.isclass(self._named):
            return embedder_for(self._named, self._dotted, value)
        key = value.dimension if _takes_dimension(self._named) else 0
        if key not in self._of_dimension:
            self._of_dimension[key] = embedder_for(self._named, self._dotted, value)
        return self._of_dimension[key]

    def _check_vector(self, value: Any, item: Item) -> None:
        vector = item.columns.get(self.column)
        problem = ""
        if vector is None:
            problem = f"the item has no column {self.column!r}"
        elif not isinstance(vector, list) or not all(type(x) in (int, float) for x in vector):
            problem = f"{self.column!r} holds no list of numbers"
        elif len(vector) != value.dimension:
            problem = f"{self.column!r} has {len(vector)} numbers, the index is of dimension {value.dimension}"
        if problem:
            raise InvalidValue(problem, field="outputs.retrieve.column", origin=f"item {item.id:.80}")


def embedder_for(named: Any, dotted: str, index: Any, *, field: str = "outputs.retrieve.embeddings") -> Any:
    """The embedder that an object named `package.module:object` stands for; see `Retrieved`.

    Args:
        named: The object.
        dotted: Its name, for messages.
        index: The `VectorIndex` that it is used with.
        field: What named it, for messages.

    Raises:
        InvalidValue: It embeds nothing, or what makes it failed.
    """
    if hasattr(named, "embed_query") and not inspect.isclass(named):
        return named
    if not callable(named):
        raise InvalidValue(
            f"{dotted} is a {type(named).__name__}, which embeds nothing",
            field=field,
            next_step="Name a LangChain embedder, a class of one, or a function of the index that returns one.",
        )
    try:
        if not inspect.isclass(named):
            made = named(index)
        else:
            made = named(**({"dimension": index.dimension} if _takes_dimension(named) else {}))
    except Exception as error:
        raise InvalidValue(f"{dotted} raised {type(error).__name__}: {error}", field=field) from error
    if not hasattr(made, "embed_query"):
        raise InvalidValue(f"{dotted} gave a {type(made).__name__}, which embeds nothing", field=field)
    return made


def _takes_dimension(named: Any) -> bool:
    return "dimension" in inspect.signature(named).parameters
