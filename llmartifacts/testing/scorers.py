"""The conformance suite for scorers: one call in a test says whether a scorer keeps its contract.

Example:
    >>> from llmartifacts.evals.scorers.latency import Latency
    >>> fast = Example(item("q1"), Answer("yes", seconds=0.5), score=0.5)
    >>> check_scorer(Latency, {"cap": 5}, [fast], others=[{"cap": 6}])
"""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from llmartifacts.errors import InvalidInput
from llmartifacts.evals.scorers.base import Answer, Scorer
from llmartifacts.kinds.eval_dataset.value import Item
from llmartifacts.kinds.eval_suite.entries import digest_of_entry, entry_of
from llmartifacts.records.canonical import canonical_bytes, parse_json

HEAVY = ("faiss", "numpy", "langchain_core", "jsonschema", "scipy", "pandas", "torch", "jinja2")
"""Libraries that importing a scorer must not import."""
TOLERANCE = 1e-9
_JUNK: tuple[Any, ...] = (
    None,
    "",
    " \n",
    "x",
    "Größe \U0001f600 e\u0301",
    "\x00\x1b[2J",
    "NaN",
    "1e999",
    '{"a": NaN}',
    '{"a": 1, "a": 2}',
    "[" * 200,
    "9" * 5000,
    0,
    -1.5,
    True,
    [],
    [None],
    [1, "a", None],
    ["a", "a"],
    [["a"]],
    {},
    {"id": None},
    {"score": "high"},
)


@dataclass(frozen=True)
class Example:
    """One graded answer.

    Attributes:
        item: The item.
        answer: What the target gave.
        score: What the scorer must say; None where there is nothing to grade by.
        baseline: What the baseline gave, for a scorer that compares.
    """

    item: Item
    answer: Answer
    score: float | None
    baseline: Answer | None = None


def item(name: str = "q1", input: Any = "question", expected: Any = None, **columns: Any) -> Item:  # noqa: A002
    """An item as a dataset gives it, with `expected_output` and further columns."""
    told = {"input": input, "expected_output": expected, **columns}
    return Item(name, input, expected, columns.get("metadata", {}), columns.get("split"), told)


def check_scorer(
    make: Callable[..., Scorer],
    options: Mapping[str, Any],
    examples: Sequence[Example],
    *,
    others: Iterable[Mapping[str, Any]] = (),
    refused: Iterable[Mapping[str, Any]] = (),
    junk: Iterable[Any] = _JUNK,
) -> None:
    """Check a scorer against its contract.

    Args:
        make: What its name in `plugins.py` stands for.
        options: Options that it takes.
        examples: Answers with their scores.
        others: Options that score otherwise: each must have an identity of its own.
        refused: Options that it must refuse.
        junk: Outputs of every sort; each must give a score on the scale, None, or an exception.

    Raises:
        AssertionError: A promise is broken; the message says which, and on what input.
    """
    scorer = make(metric=None, **options)
    try:
        _check_what_it_says_of_itself(scorer)
        _check_round_trip(make, scorer)
        _check_identity(make, scorer, others)
        _check_refusals(make, options, refused)
        _check_examples(make, scorer, examples)
        _check_junk(scorer, examples, junk)
        _check_imports(make)
    finally:
        scorer.close()
    scorer.close()


def _check_what_it_says_of_itself(scorer: Scorer) -> None:
    _demand(isinstance(scorer, Scorer), "it lacks something that a Scorer has")
    _demand(isinstance(scorer.type, str) and scorer.type, "it has no type")
    _demand(type(scorer.definition) is int and scorer.definition >= 1, "its definition does not count from 1")
    _demand(isinstance(scorer.isolated, bool) and isinstance(scorer.compares, bool), "isolated or compares is no bool")
    _demand(isinstance(scorer.metric, str) and scorer.metric.isprintable() and scorer.metric, "its metric has no name")
    _demand(math.isfinite(scorer.lo) and math.isfinite(scorer.hi), "its scale is not finite")
    _demand(scorer.lo < scorer.hi, f"its scale from {scorer.lo} to {scorer.hi} is empty")
    _demand(isinstance(scorer.higher_is_better, bool), "higher_is_better is no bool")


def _check_round_trip(make: Callable[..., Scorer], scorer: Scorer) -> None:
    entry = entry_of(scorer)
    stored = parse_json(canonical_bytes(entry))
    again = make(metric=stored["metric"], **stored["options"])
    _demand(
        canonical_bytes(entry_of(again)) == canonical_bytes(entry),
        f"made of its own options it is another:\n{entry}\n{entry_of(again)}",
    )
    again.close()


def _check_identity(make: Callable[..., Scorer], scorer: Scorer, others: Iterable[Mapping[str, Any]]) -> None:
    known = {digest_of_entry(entry_of(scorer)): "the options"}
    for i, options in enumerate(others):
        other = make(metric=None, **options)
        digest = digest_of_entry(entry_of(other))
        _demand(digest not in known, f"others[{i}] has the identity of {known.get(digest)}")
        known[digest] = f"others[{i}]"
        other.close()
    named = make(metric="named otherwise", **scorer.options())
    _demand(named.metric == "named otherwise", "it does not take the metric's name")
    _demand(dict(named.options()) == dict(scorer.options()), "the metric's name changes its options")
    named.close()


def _check_refusals(
    make: Callable[..., Scorer], options: Mapping[str, Any], refused: Iterable[Mapping[str, Any]]
) -> None:
    for bad in ({**options, "no_such_option": 1}, *refused):
        try:
            made = make(metric=None, **bad)
        except InvalidInput as error:
            _demand(error.field, f"the refusal of {bad} names no field")
        else:
            made.close()
            raise AssertionError(f"it takes {bad}")


def _check_examples(make: Callable[..., Scorer], scorer: Scorer, examples: Sequence[Example]) -> None:
    _demand(examples, "there is no example")
    second = make(metric=None, **scorer.options())
    for i, example in enumerate(examples):
        before = copy.deepcopy((example.answer, example.baseline))
        for which in (scorer, scorer, second):
            found = which.score(example.item, example.answer, example.baseline)
            if example.score is None or found is None:
                _demand(found is example.score, f"examples[{i}] scores {found}, not {example.score}")
            else:
                _demand_on_scale(scorer, found, f"examples[{i}]")
                _demand(abs(found - example.score) <= TOLERANCE, f"examples[{i}] scores {found}, not {example.score}")
        _demand(before == (example.answer, example.baseline), f"examples[{i}] was changed by scoring it")
    second.close()
    with ThreadPoolExecutor(3) as threads:
        found_again = list(threads.map(lambda e: scorer.score(e.item, e.answer, e.baseline), [*examples] * 3))
    for example, found in zip([*examples] * 3, found_again, strict=True):
        same = found == example.score if found is None or example.score is None else abs(found - example.score) < 1e-6
        _demand(same, f"in threads it scores {found}, not {example.score}")


def _check_junk(scorer: Scorer, examples: Sequence[Example], junk: Iterable[Any]) -> None:
    of = next((e.item for e in examples if e.score is not None), examples[0].item)
    for output in junk:
        answer = Answer(copy.deepcopy(output), seconds=0.1)
        try:
            found = scorer.score(of, answer, answer if scorer.compares else None)
        except Exception:  # noqa: BLE001, S112 - an error is an answer; the runner records it
            continue
        if found is not None:
            _demand_on_scale(scorer, found, f"the output {output!r:.80}")
        _demand(answer.output == output, f"the output {output!r:.80} was changed by scoring it")


def _check_imports(make: Callable[..., Scorer]) -> None:
    module = getattr(make, "__module__", "")
    code = (
        f"import importlib, sys\nimportlib.import_module({module!r})\n"
        f"print(*[h for h in {HEAVY!r} if h in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # it need not be installed
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)  # noqa: S603
    _demand(ran.returncode == 0, f"{module} cannot be imported alone: {ran.stderr}")
    _demand(not ran.stdout.strip(), f"importing {module} imports {ran.stdout.strip()}")


def _demand_on_scale(scorer: Scorer, found: Any, what: str) -> None:
    _demand(type(found) in (int, float) and math.isfinite(found), f"{what} scores {found!r}, which is no finite number")
    _demand(scorer.lo <= found <= scorer.hi, f"{what} scores {found}, off the scale {scorer.lo} to {scorer.hi}")


def _demand(kept: object, told: str) -> None:
    """An assertion that `python -O` keeps."""
    if not kept:
        raise AssertionError(told)
