"""From the scorers of a suite to what grades: fast ones where they are asked, slow ones several at a time.

Slow are scorers that run what others wrote (they do so in a process with limits) and judges, which ask a model. What a
judge said of an output is cached like the outputs themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from llmartifacts.errors import WrongKind
from llmartifacts.evals.importing import imported, working_directory_first
from llmartifacts.evals.outputs import OutputCaches
from llmartifacts.evals.runner import Answers, Conditions, Progress, ask
from llmartifacts.evals.scorers import make_scorer
from llmartifacts.evals.scorers.base import Answer, Scorer
from llmartifacts.evals.scorers.judge import Judge, share
from llmartifacts.evals.scoring import Grading, ScorerFailed
from llmartifacts.kinds.eval_dataset.value import EvalDataset, Item
from llmartifacts.kinds.eval_suite.entries import digest_of_entry, entry_of
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.registry import Registry

GIVEN_UP = 20
"""Failures of a slow scorer, without one score, after which the other answers are not tried."""
SLOWEST = 3600.0
"""Seconds after which a scorer is given up; those that run foreign code have shorter limits of their own."""


@contextmanager
def scorers_of(entries: Sequence[Mapping[str, Any]], registry: Registry) -> Iterator[list[Scorer]]:
    """The scorers of a suite, made; what they hold is given back at the end.

    Args:
        entries: As a suite's config has them.
        registry: Where the prompts of judges are.

    Raises:
        NotFound: A scorer's package is not installed, or the model, embedder or prompt that it names is not there.
        WrongKind: What a judge names is no prompt.
        InvalidValue: It does not take its options; or its definition or source has changed since the suite was read.
    """
    with ExitStack() as held:
        made: list[Scorer] = []
        for entry in entries:
            with working_directory_first():
                scorer = make_scorer(entry)
                held.callback(scorer.close)
                _check_named(scorer, registry)
            made.append(scorer)
        share(made)
        yield made


def _check_named(scorer: Scorer, registry: Registry) -> None:
    """What a scorer names must be there, before anything is asked. A function is loaded by its own process only."""
    options = scorer.options()
    for name in ("model", "embeddings"):
        if isinstance(options.get(name), str):
            imported(options[name], field=f"scorers.{scorer.metric}.{name}")
    if isinstance(scorer, Judge):
        scorer.resolve = registry.resolve
        if scorer.reference and (found := registry.get(scorer.reference)).kind != "prompt":
            raise WrongKind(f"{found} is a {found.kind}, not a prompt", field=f"scorers.{scorer.metric}.prompt")


def is_slow(scorer: Scorer) -> bool:
    """Whether it is asked several at a time, in threads."""
    return scorer.isolated or isinstance(scorer, Judge)


def grading_of(
    scorer: Scorer,
    dataset: EvalDataset,
    answers: Answers,
    baseline: Answers | None,
    conditions: Conditions,
    *,
    registry: Registry,
    caches: OutputCaches,
    progress: Progress | None = None,
) -> Grading:
    """What grades one metric of one target.

    Args:
        scorer: The scorer. A slow one is asked about every answer now.
        dataset: The items.
        answers: What the target gave.
        baseline: What the baseline gave, for a scorer that compares.
        conditions: How the target was asked.
        registry: Where the prompts of judges are.
        caches: Where what judges said is kept.
        progress: Told after each score of a slow scorer.
    """
    about = (scorer.metric, scorer.lo, scorer.hi, scorer.higher_is_better, scorer.compares)
    if not is_slow(scorer) or (scorer.compares and baseline is None):
        return Grading(*about, lambda item, repeat, answer, other: scorer.score(item, answer, other))
    maker = _Slow(scorer, answers, baseline if scorer.compares else None)
    cache = None
    if isinstance(scorer, Judge):
        # A version's number says which prompt it is in this registry only.
        prompt = registry.get(scorer.reference).digest if scorer.reference else ""
        cache = caches.get({"scorer": digest_of_entry(entry_of(scorer)), "prompt": prompt})
    slowly = Conditions(conditions.repeats, conditions.seed, conditions.concurrency, SLOWEST)
    scores = ask(None, maker, dataset, slowly, cache, progress, maker.salt)

    def grade(item: Item, repeat: int, answer: Answer, other: Answer | None) -> float | None:
        found = scores[item.id, repeat]
        if found.error:
            raise ScorerFailed(found.error)
        return found.output  # type: ignore[no-any-return]  # checked by whoever asked

    return Grading(*about, grade)


class _Slow:
    """A scorer as a `Maker`: its outputs are scores."""

    identity: Mapping[str, Any] | None = None
    told = ""
    packages: Sequence[str] = ()
    takes_seed = True
    batch = 1
    remarks: Sequence[str] = ()

    def __init__(self, scorer: Scorer, answers: Answers, baseline: Answers | None) -> None:
        self._scorer, self._answers, self._baseline = scorer, answers, baseline
        self._failed = self._scored = 0

    def prepare(self, value: Any, items: Sequence[Item]) -> None:
        """Nothing has to be prepared."""

    def answer(self, value: Any, items: Sequence[Item], seed: int, repeat: int) -> list[Answer]:
        """The score of one answer; an item without an answer has none."""
        (item,) = items
        given, other = self._pair(item.id, repeat)
        if given.error or (other is not None and other.error):
            return [Answer(error=given.error or (other.error if other is not None else ""))]
        if self._failed >= GIVEN_UP and not self._scored:
            return [Answer(error=f"not scored: {GIVEN_UP} answers before it could not be")]
        try:
            score = self._scorer.score(item, given, other)
        except Exception:
            self._failed += 1
            raise
        self._scored += 1
        return [Answer(score)]

    def salt(self, item: str, repeat: int) -> bytes:
        """What was answered."""
        given, other = self._pair(item, repeat)
        return b"\n" + canonical_bytes([given.output, None if other is None else other.output])

    def _pair(self, item: str, repeat: int) -> tuple[Answer, Answer | None]:
        return self._answers[item, repeat], None if self._baseline is None else self._baseline[item, repeat]
