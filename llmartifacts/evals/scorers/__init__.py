"""Scorers: what grades one output of one dataset item. `base` is the socket; the others are the built-in ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmartifacts.evals.scorers.base import Scorer
    from llmartifacts.records.digest import Digest


def make_scorer(entry: Mapping[str, Any]) -> Scorer:
    """The scorer of an entry of a suite.

    Args:
        entry: As `EvalSuite.scorers` and a suite's config have it.

    Raises:
        NotFound: No scorer of that type is installed; near names are given.
        InvalidValue: The options do not fit, or the scorer is not the one that the entry was made of: its definition,
            its scale or the code that it runs has changed.

    Example:
        >>> from llmartifacts.evals.scorers.latency import Latency
        >>> make_scorer(Latency(cap=5).entry()).hi
        5.0
    """
    from llmartifacts.evals.scorers.making import make

    return make(entry)


def make_scorers(entries: Iterable[Mapping[str, Any]]) -> list[Scorer]:
    """The scorers of a suite, in its order; judges that ask the same share the model's replies. As `make_scorer`."""
    from llmartifacts.evals.scorers.making import make_all

    return make_all(entries)


def scorer_digest(entry: Mapping[str, Any]) -> Digest:
    """The identity of a scorer: the digest of its entry's canonical bytes.

    Example:
        >>> from llmartifacts.evals.scorers.latency import Latency
        >>> scorer_digest(Latency(cap=5).entry()) == scorer_digest(Latency(cap=6).entry())
        False
    """
    from llmartifacts.kinds.eval_suite.entries import digest_of_entry

    return digest_of_entry(entry)
