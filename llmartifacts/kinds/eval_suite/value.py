"""`EvalSuite`: what is measured, on which items, by which scorers, and what must hold. Frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from llmartifacts.errors import InvalidInput, InvalidValue, LlmartifactsError, NotFound
from llmartifacts.formats.problems import Problem, raise_problems, try_model
from llmartifacts.formats.yaml import MAX_BYTES, Lines, Place, read_yaml_with_lines
from llmartifacts.kinds.disk import AnyPath, find_regular, read_regular
from llmartifacts.kinds.eval_suite.config import BASELINE, SuiteConfig, SuiteDocument, SuiteFields, ThresholdFields
from llmartifacts.kinds.eval_suite.entries import compares, digest_of_entry, read_scorer
from llmartifacts.records.canonical import plain_json
from llmartifacts.records.digest import Digest
from llmartifacts.records.evidence import Threshold
from llmartifacts.records.names import did_you_mean, near_names

DEPTH = 10
"""Neighbours that an index is asked for, unless a scorer looks at more."""


@dataclass(frozen=True, init=False, repr=False)
class EvalSuite:
    """What is measured, on which items, by which scorers, and what must hold. Frozen; equal by content.

    Args:
        name: Its name; the collection that it is logged in by an evaluation.
        dataset: Reference of the dataset; `latest` without a selector.
        scorers: Each a name (`equals`, `recall@5`) or a mapping `{"type", "metric", …options}`.
        thresholds: Metric -> what must hold, as `Threshold` or as a mapping of its fields. A metric without one is
            measured only.
        description: For people; not content.
        split: Only the items of that split; None for all.
        target: Reference of what is evaluated, unless the evaluation names another.
        baseline: What it is compared with: an alias of the target's own collection, or a full reference. None, or
            `none`: with nothing.
        outputs: How the output for an item is made: `{"runnable": "package.module:name"}`, `{"recorded": file}` or
            `{"retrieve": {"embeddings": "package.module:name", "k": 10}}`; None if the evaluation is told.
        repeats: How often each item is answered, 1 to 1,000; averaged per item first.
        seed: Seed of what is random.
        timeout: Seconds that one item may take.
        cluster: Column or key of the metadata that groups items which are not independent, such as `document_id`.
        on_error: What an item without an answer counts as: `error`, which no gate lets pass, or the `worst` score; then
            an item that the baseline did not answer is left out of the comparison.
        concurrency: Items that are answered at a time, 1 to 256; not content.
        origin: Where it was read from; not content.

    Attributes:
        scorers: The entries (see `entries.py`) in the order of the suite, one for each metric.
        thresholds: Metric -> `Threshold`.

    Raises:
        InvalidValue: A field is malformed, a scorer is unknown, a threshold is on a metric that no scorer gives;
            everything that is wrong is told at once.

    Example:
        >>> suite = EvalSuite("answers", "questions:v3", ["equals"], thresholds={"equals": {"at_least": 0.9}})
        >>> suite.metrics, suite.baseline
        (('equals',), 'prod')
    """

    kind: ClassVar[str] = "eval_suite"

    name: str
    dataset: str
    scorers: tuple[Mapping[str, Any], ...]
    thresholds: Mapping[str, Threshold]
    split: str | None
    target: str | None
    baseline: str | None
    outputs: Mapping[str, Any] | None
    repeats: int
    seed: int
    timeout: float
    cluster: str | None
    on_error: Literal["error", "worst"]
    description: str
    concurrency: int
    origin: str

    def __init__(
        self,
        name: str,
        dataset: str,
        scorers: Sequence[str | Mapping[str, Any]],
        *,
        thresholds: Mapping[str, Threshold | Mapping[str, Any]] | None = None,
        description: str = "",
        split: str | None = None,
        target: str | None = None,
        baseline: str | None = BASELINE,
        outputs: Mapping[str, Any] | None = None,
        repeats: int = 1,
        seed: int = 0,
        timeout: float = 60.0,
        cluster: str | None = None,
        on_error: Literal["error", "worst"] = "error",
        concurrency: int = 4,
        origin: str = "",
    ) -> None:
        given = {
            "name": name,
            "dataset": str(dataset),
            "scorers": list(scorers) if isinstance(scorers, list | tuple) else scorers,
            "thresholds": {
                metric: limit.to_json() if isinstance(limit, Threshold) else limit
                for metric, limit in (thresholds or {}).items()
            },
            "description": description,
            "split": split,
            "target": None if target is None else str(target),
            "baseline": baseline,
            "outputs": outputs,
            "repeats": repeats,
            "seed": seed,
            "timeout": timeout,
            "cluster": cluster,
            "on_error": on_error,
            "concurrency": concurrency,
        }
        self._read(_plain(given), {}, origin)

    @classmethod
    def from_file(cls, path: AnyPath) -> EvalSuite:
        """Read a suite from a YAML file.

        Raises:
            InvalidValue: It is no suite; every problem is told, with its field and line.
            NotFound: There is no such file.
            TooLarge: It has more than 256 KiB.
        """
        real = find_regular(path, field="path")
        return cls.from_yaml(read_regular(real, MAX_BYTES, field="path"), origin=str(path))

    @classmethod
    def from_yaml(cls, data: bytes | str, *, origin: str = "") -> EvalSuite:
        r"""Read a suite from YAML; errors as `from_file`.

        Example:
            >>> EvalSuite.from_yaml("name: a\ndataset: b\nscorers: [equls]", origin="a.yaml")
            Traceback (most recent call last):
                ...
            llmartifacts.errors.InvalidValue: no scorer is called 'equls' (field scorers[0].type, a.yaml, line 3)
            hint: Did you mean equals? ...
        """
        document, lines = read_yaml_with_lines(data.encode() if isinstance(data, str) else data, origin=origin)
        made = cls.__new__(cls)
        made._read(document, lines, origin)
        return made

    @classmethod
    def from_config(cls, config: SuiteConfig) -> EvalSuite:
        """A suite as a manifest keeps it. Scorers of packages that are not installed here stay as they are.

        Raises:
            InvalidValue: The parts do not fit each other.
        """
        entries = [entry.to_json() for entry in config.scorers]
        raise_problems(_fit_problems(config, entries))
        made = cls.__new__(cls)
        made._set(config, entries, description="", concurrency=4, origin="")
        return made

    def _read(self, document: Any, lines: Lines, origin: str) -> None:
        problems: list[Problem] = []
        entries: list[dict[str, Any]] = []
        written = document.get("scorers") if isinstance(document, Mapping) else None
        for i, scorer in enumerate(written if isinstance(written, list) else ()):
            try:
                entries.append(read_scorer(scorer))
            except LlmartifactsError as error:
                problems.append(Problem.of(error, ("scorers", i)))
        known, found = try_model(document, SuiteDocument, what="suite")
        problems += found
        if known is not None and not problems:
            problems += _fit_problems(known, entries) + _twice_compared(known, entries)
        raise_problems(problems, lines=lines, origin=origin)
        assert known is not None  # noqa: S101 - what is no suite has problems
        self._set(known, entries, description=known.description, concurrency=known.concurrency, origin=origin)

    def _set(
        self, known: SuiteFields, entries: list[dict[str, Any]], *, description: str, concurrency: int, origin: str
    ) -> None:
        outputs = None if known.outputs is None else known.outputs.model_dump(exclude_none=True)
        if outputs is not None and "retrieve" in outputs:
            outputs["retrieve"].setdefault("k", max([DEPTH, *_depths(entries)]))
        fields = {
            "name": known.name,
            "dataset": known.dataset,
            "scorers": tuple(_frozen(entry) for entry in entries),
            "thresholds": MappingProxyType(
                {metric: Threshold(**limit.model_dump()) for metric, limit in sorted(known.thresholds.items())}
            ),
            "split": known.split,
            "target": known.target,
            "baseline": known.baseline,
            "outputs": _frozen(outputs),
            "repeats": known.repeats,
            "seed": known.seed,
            "timeout": known.timeout,
            "cluster": known.cluster,
            "on_error": known.on_error,
            "description": description,
            "concurrency": concurrency,
            "origin": origin,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, in the order of the suite."""
        return tuple(entry["metric"] for entry in self.scorers)

    def scorer(self, metric: str) -> Mapping[str, Any]:
        """The entry of the scorer that gives a metric. Raises `NotFound`."""
        for entry in self.scorers:
            if entry["metric"] == metric:
                return entry
        near = near_names(str(metric), self.metrics)
        raise NotFound(f"no metric {metric!r:.60}", what="metric", name=str(metric), near=near)

    def scorer_digest(self, metric: str) -> Digest:
        """The identity of the scorer that gives a metric. Raises `NotFound`."""
        return digest_of_entry(self.scorer(metric))

    def to_config(self) -> dict[str, Any]:
        """Plain JSON of all that is content, defaults written out; what a manifest keeps."""
        return {
            "name": self.name,
            "dataset": self.dataset,
            "split": self.split,
            "target": self.target,
            "baseline": self.baseline,
            "outputs": plain_json(self.outputs),
            "repeats": self.repeats,
            "seed": self.seed,
            "timeout": self.timeout,
            "cluster": self.cluster,
            "on_error": self.on_error,
            "scorers": [plain_json(entry) for entry in sorted(self.scorers, key=lambda entry: str(entry["metric"]))],
            "thresholds": {metric: limit.to_json() for metric, limit in self.thresholds.items()},
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EvalSuite) and self.to_config() == other.to_config()

    def __hash__(self) -> int:
        return hash((self.name, self.dataset, self.metrics))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.to_config(), self.description, self.concurrency, self.origin)

    def __repr__(self) -> str:
        return f"<EvalSuite {self.name} on {self.dataset}: {', '.join(self.metrics)}>"


def _rebuild(config: dict[str, Any], description: str, concurrency: int, origin: str) -> EvalSuite:
    known = SuiteConfig.model_validate(config)
    made = EvalSuite.__new__(EvalSuite)
    made._set(known, config["scorers"], description=description, concurrency=concurrency, origin=origin)
    return made


def _fit_problems(known: SuiteFields, entries: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """What does not fit between the parts of a suite, each of them well by itself."""
    found: list[Problem] = []
    by_metric: dict[str, Mapping[str, Any]] = {}
    for i, entry in enumerate(entries):
        if entry["metric"] in by_metric:
            hint = "Name one of them otherwise: metric: …"
            found.append(Problem(("scorers", i), f"two scorers give the metric {entry['metric']!r:.80}", hint))
        by_metric[entry["metric"]] = entry
    for metric, limit in known.thresholds.items():
        place: Place = ("thresholds", metric)
        if metric not in by_metric:
            hint = did_you_mean(metric, by_metric, f"Metrics: {', '.join(by_metric)}.")
            found.append(Problem(place, f"no scorer gives the metric {metric!r:.80}", hint))
        else:
            found += _threshold_problems(place, limit, by_metric[metric], known.baseline)
    way = known.outputs.retrieve if known.outputs is not None else None
    if way is not None and way.k is not None and (deepest := max([0, *_depths(entries)])) > way.k:
        told = f"{way.k} neighbours are found, and a scorer looks at {deepest}"
        found.append(Problem(("outputs", "retrieve", "k"), told, f"Write k: {deepest}, or leave it out."))
    return found


def _twice_compared(known: SuiteFields, entries: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Margins on metrics that compare with the baseline themselves, of which the baseline has none."""
    return [
        Problem(
            ("thresholds", entry["metric"], "margin"),
            f"{entry['metric']} compares with the baseline itself, which has none to be compared with",
            "Write at_least." if entry["higher_is_better"] else "Write at_most.",
        )
        for entry in entries
        if (limit := known.thresholds.get(entry["metric"])) is not None and limit.margin is not None and compares(entry)
    ]


def _threshold_problems(
    place: Place, limit: ThresholdFields, entry: Mapping[str, Any], baseline: str | None
) -> list[Problem]:
    found = []
    if limit.margin is not None and baseline is None:
        told = "a margin compares with a baseline, and the suite has none"
        found.append(Problem((*place, "margin"), told, "Name a baseline, or write at_least or at_most."))
    more, less = ("at_least", "at_most") if entry["higher_is_better"] else ("at_most", "at_least")
    if getattr(limit, less) is not None:
        better = "more" if entry["higher_is_better"] else "less"
        found.append(Problem((*place, less), f"of {entry['metric']}, {better} is better", f"Write {more}."))
    held = getattr(limit, more)
    if held is not None and not entry["lo"] <= held <= entry["hi"]:
        told = f"{held} is not on the metric's scale from {entry['lo']} to {entry['hi']}"
        found.append(Problem((*place, more), told))
    elif held == (entry["lo"] if entry["higher_is_better"] else entry["hi"]):
        told = f"every score holds {more}: {held}, the end of the metric's scale"
        found.append(Problem((*place, more), told, "Demand more, or leave it out."))
    return found


def _depths(entries: Sequence[Mapping[str, Any]]) -> list[int]:
    """How many neighbours each scorer of rankings looks at."""
    return [k for entry in entries if type(k := entry["options"].get("k")) is int]


def _plain(given: dict[str, Any]) -> Any:
    try:
        return plain_json(given)
    except InvalidInput as error:
        raise InvalidValue.of(error) from None


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
