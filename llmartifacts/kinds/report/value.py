"""`Report`, `Metric` and `ItemScore`: what an evaluation found, immutable and consistent in itself."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from llmartifacts.errors import InvalidReference, InvalidValue, LlmartifactsError, NotFound
from llmartifacts.kinds.disk import AnyPath, find_regular, read_regular
from llmartifacts.records.canonical import parse_json, plain_json
from llmartifacts.records.digest import Digest, parse_digest
from llmartifacts.records.evidence import Comparison
from llmartifacts.records.names import near_names
from llmartifacts.records.times import parse_time, to_text

MAX_NAME = 512
MAX_BYTES = 512 * 1024 * 1024
_CLOSE = 1e-9
"""A recorded mean may differ from the mean of the items by this share of the scale."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The aggregate of one metric.

    Args:
        name: Such as `recall@5`; unique in the report.
        value: Mean over the items; None if nothing could be measured (`n` is 0).
        lower: Lower end of the interval of the mean; None with `value`.
        upper: Upper end; None with `value`.
        n: Independent units behind it: items, or clusters of items.
        lo: Smallest score that the scale has.
        hi: Largest score that the scale has.
        higher_is_better: Whether more is better.
        alpha: Probability that the mean lies below `lower`, and that it lies above `upper`.
        sd: Standard deviation of the units' scores, as a share of the scale; None if it is not known.
        errors: Items for which it could not be computed; no gate passes then.
        scorer: Digest of what graded: its name, options and definition; None if it is not known.
        comparison: How it differs from the baseline, item by item; None without a baseline.

    Raises:
        InvalidValue: Numbers are not finite, or not in order: `lo <= lower <= value <= upper <= hi`.
    """

    name: str
    value: float | None
    lower: float | None
    upper: float | None
    n: int
    lo: float = 0.0
    hi: float = 1.0
    higher_is_better: bool = True
    alpha: float = 0.05
    sd: float | None = None
    errors: int = 0
    scorer: Digest | str | None = None
    comparison: Comparison | None = None

    def __post_init__(self) -> None:
        where = f"metrics.{_name(self.name, 'metrics')}"
        for name in ("lo", "hi", "alpha", *(() if self.value is None else ("value", "lower", "upper"))):
            object.__setattr__(self, name, _number(getattr(self, name), f"{where}.{name}"))
        if type(self.n) is not int or self.n < 0:
            raise InvalidValue(f"n is {self.n!r:.40}, not a number of items", field=f"{where}.n")
        if not isinstance(self.higher_is_better, bool):
            raise InvalidValue("higher_is_better is not true or false", field=f"{where}.higher_is_better")
        if not 0 < self.alpha < 0.5:
            raise InvalidValue(f"alpha is {self.alpha}, not between 0 and 0.5", field=f"{where}.alpha")
        if not self.lo < self.hi:
            raise InvalidValue(f"the scale is from {self.lo} to {self.hi}", field=f"{where}.lo")
        if self.value is None or self.lower is None or self.upper is None:
            if self.n or not (self.value is self.lower is self.upper is None):
                raise InvalidValue("value, lower and upper are absent together, and only if n is 0", field=where)
        elif not self.n:
            raise InvalidValue("there is a value, and n is 0", field=f"{where}.n")
        elif not self.lo <= self.lower <= self.value <= self.upper <= self.hi:
            raise InvalidValue(
                f"not in order: lo {self.lo}, lower {self.lower}, value {self.value}, upper {self.upper}, hi {self.hi}",
                field=where,
            )
        self._check_more(where)

    def _check_more(self, where: str) -> None:
        if self.sd is not None:
            object.__setattr__(self, "sd", _number(self.sd, f"{where}.sd"))
        if type(self.errors) is not int or self.errors < 0:
            raise InvalidValue(f"errors is {self.errors!r:.40}, not a number of items", field=f"{where}.errors")
        if self.scorer is not None:
            _digest(self.scorer, f"{where}.scorer")
        if self.comparison is not None:
            check_comparison(self.comparison, f"{where}.comparison")

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: not measured"
        return f"{self.name}: {self.value:.4g} [{self.lower:.4g}, {self.upper:.4g}], n = {self.n}"


def check_comparison(found: Comparison, where: str) -> None:
    """Refuse a comparison that contradicts itself. Raises `InvalidValue`."""
    if not isinstance(found, Comparison):
        raise InvalidValue(f"a {type(found).__name__} is no Comparison", field=where)
    for name in ("delta", "lower", "upper", "family_upper", "sd", "alpha"):
        _number(getattr(found, name), f"{where}.{name}")
    for name in ("n", "metrics"):
        if type(getattr(found, name)) is not int or getattr(found, name) < 1:
            raise InvalidValue(f"{name} is no count from 1", field=f"{where}.{name}")
    if not -1 <= found.lower <= found.delta <= found.upper <= 1 or found.upper > found.family_upper or found.sd < 0:
        raise InvalidValue(
            f"not in order: lower {found.lower}, delta {found.delta}, upper {found.upper}, for all metrics "
            f"{found.family_upper}",
            field=where,
        )
    if not 0 < found.alpha < 0.5:
        raise InvalidValue(f"alpha is {found.alpha}, not between 0 and 0.5", field=f"{where}.alpha")


@dataclass(frozen=True, slots=True)
class ItemScore:
    """The scores of one dataset item.

    Args:
        id: The item's id.
        scores: Metric -> score; None where this item has none, such as recall without labels.
        output: What the target gave, as JSON; None if it is not kept.
        error: Why there is no output; empty if there is.
    """

    id: str
    scores: Mapping[str, float | None]
    output: Any = None
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, absent parts left out."""
        made: dict[str, Any] = {"id": self.id, "scores": dict(self.scores)}
        if self.output is not None:
            made["output"] = self.output
        if self.error:
            made["error"] = self.error
        return made


@dataclass(frozen=True)
class Report:
    """What an evaluation found. Immutable.

    Args:
        suite: Name of the suite.
        targets: Reference of what was evaluated -> its digest; at least one.
        dataset: Digest of the dataset.
        metrics: Aggregates; at least one.
        items: Scores item by item; may be empty where they are not kept.
        suite_digest: Digest of the suite; None if it is not versioned.
        baseline: Digest of what it was compared with; None if with nothing.
        environment: Versions that took part, such as `python` and packages; see `current_environment`.
        seed: Seed of what was random; None if nothing was.
        started: When the run began, UTC, ISO 8601; empty if unknown.
        ended: When it ended.

    Raises:
        InvalidValue: A digest, metric, score or time is wrong, an item appears twice, or a mean is not the items' mean.
    """

    kind: ClassVar[str] = "report"

    suite: str
    targets: Mapping[str, Digest | str]
    dataset: Digest | str
    metrics: Sequence[Metric]
    items: Sequence[ItemScore] = ()
    suite_digest: Digest | str | None = None
    baseline: Digest | str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    started: str = ""
    ended: str = ""

    def __post_init__(self) -> None:
        _name(self.suite, "suite")
        if not isinstance(self.targets, Mapping) or not self.targets:
            raise InvalidValue("a report needs a target", field="targets")
        for name, value in self.targets.items():
            _name(name, "targets")
            _digest(value, f"targets.{name}")
        _digest(self.dataset, "dataset")
        for name in ("suite_digest", "baseline"):
            if getattr(self, name) is not None:
                _digest(getattr(self, name), name)
        if not isinstance(self.environment, Mapping):
            raise InvalidValue("environment is no mapping", field="environment")
        for name, text in self.environment.items():
            _name(name, "environment")
            _name(text, f"environment.{name}")
        if self.seed is not None and type(self.seed) is not int:
            raise InvalidValue("the seed is not an integer", field="seed")
        for name in ("started", "ended"):
            if getattr(self, name):
                object.__setattr__(self, name, _time(getattr(self, name), name))
        if self.started and self.ended and self.ended < self.started:
            raise InvalidValue("it ended before it started", field="ended")
        object.__setattr__(self, "targets", MappingProxyType(dict(self.targets)))
        object.__setattr__(self, "environment", MappingProxyType(dict(self.environment)))
        object.__setattr__(self, "metrics", tuple(self.metrics))
        object.__setattr__(self, "items", _items(self.items))
        self._check_metrics()

    def _check_metrics(self) -> None:
        if not self.metrics or not all(isinstance(m, Metric) for m in self.metrics):
            raise InvalidValue("a report needs a Metric", field="metrics")
        by_name = {m.name: m for m in self.metrics}
        if len(by_name) != len(self.metrics):
            raise InvalidValue("a metric appears twice", field="metrics")
        found: dict[str, list[float]] = {name: [] for name in by_name}
        for item in self.items:
            for name, score in item.scores.items():
                metric = by_name.get(name)
                if metric is None:
                    raise InvalidValue(f"the item has a score of no metric, {name!r:.60}", field=f"items.{item.id}")
                if score is None:
                    continue
                if not metric.lo <= score <= metric.hi:
                    raise InvalidValue(
                        f"{score} is not on the scale from {metric.lo} to {metric.hi}",
                        field=f"items.{item.id}.{name}",
                    )
                found[name].append(score)
        for name, scores in found.items() if self.items else ():
            _check_mean(by_name[name], scores)

    def __str__(self) -> str:
        return "\n".join([f"{self.suite} on {', '.join(self.targets)}", *(f"  {metric}" for metric in self.metrics)])

    def __hash__(self) -> int:
        return hash((self.suite, self.dataset, self.metrics, self.started, self.ended))

    def metric(self, name: str) -> Metric:
        """One metric's aggregate. Raises `NotFound`."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        names = [m.name for m in self.metrics]
        raise NotFound(f"no metric {name!r:.60}", what="metric", name=str(name), near=near_names(str(name), names))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` is the inverse."""
        from llmartifacts.kinds.report.kind import to_config

        return {**to_config(self), "items": [item.to_json() for item in self.items]}

    @classmethod
    def from_json(cls, body: Any, *, origin: str = "") -> Report:
        """A report from plain JSON: the fields of the config (see `ReportConfig`), and `items`.

        Raises:
            InvalidValue: It does not fit; the field is named.
        """
        from llmartifacts.kinds.report.kind import from_body

        try:
            return from_body(body)
        except InvalidValue as error:
            where = error.field.removeprefix("config.")
            raise InvalidValue.of(error, field=where, origin=origin) from None

    @classmethod
    def from_file(cls, path: AnyPath) -> Report:
        """Read a JSON file of at most 512 MiB.

        Raises:
            InvalidManifest: Not JSON.
            InvalidValue: Not a report.
            NotFound: There is no such file.
            TooLarge: More than 512 MiB.
        """
        data = read_regular(find_regular(path, field="path"), MAX_BYTES, field="path")
        return cls.from_json(parse_json(data, origin=str(path), max_bytes=MAX_BYTES), origin=str(path))


def current_environment(*packages: str) -> dict[str, str]:
    """The versions of this interpreter, this platform, and some installed packages, for `Report.environment`."""
    from importlib.metadata import PackageNotFoundError, version

    made = {"python": platform.python_version(), "platform": f"{sys.platform} {platform.machine()}"}
    for package in packages:
        try:
            made[package] = version(package)
        except PackageNotFoundError:
            made[package] = "absent"
    return made


def _items(items: Iterable[ItemScore]) -> tuple[ItemScore, ...]:
    made: list[ItemScore] = []
    seen: set[str] = set()
    for i, item in enumerate(items):
        where = f"items[{i}]"
        if not isinstance(item, ItemScore):
            raise InvalidValue(f"a {type(item).__name__} is no ItemScore", field=where)
        _name(item.id, f"{where}.id")
        if item.id in seen:
            raise InvalidValue(f"the item {item.id!r:.80} appears twice", field=f"{where}.id")
        seen.add(item.id)
        if not isinstance(item.error, str):
            raise InvalidValue("error is not text", field=f"{where}.error")
        error = str(_plain(item.error, f"{where}.error"))
        scores = {
            _name(name, f"{where}.scores"): None if score is None else _number(score, f"{where}.scores.{name}")
            for name, score in item.scores.items()
        }
        output = _plain(item.output, f"{where}.output")
        made.append(ItemScore(item.id, MappingProxyType(scores), output, error))
    return tuple(made)


def _check_mean(metric: Metric, scores: Sequence[float]) -> None:
    where = f"metrics.{metric.name}"
    if metric.n > len(scores):
        raise InvalidValue(f"n is {metric.n}, and {len(scores)} items have a score", field=f"{where}.n")
    if metric.value is None:
        if scores:
            raise InvalidValue(f"{len(scores)} items have a score, and there is no value", field=where)
        return
    mean = math.fsum(scores) / len(scores)
    if abs(mean - metric.value) > _CLOSE * (metric.hi - metric.lo):
        raise InvalidValue(
            f"the value is {metric.value}, and the mean of the items {mean}",
            field=f"{where}.value",
            next_step="A report's aggregates are those of its own items.",
        )


def _digest(value: Any, where: str) -> None:
    try:
        parse_digest(value, field=where)
    except InvalidReference as error:
        raise InvalidValue.of(error) from None


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidValue(f"{value!r:.40} is not a finite number", field=where)
    return float(value)


def _name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME or not value.isprintable():
        raise InvalidValue(
            f"{value!r:.40} is not text of 1 to {MAX_NAME} printable characters",
            field=where if where.isprintable() else where.partition(".")[0],
        )
    return value


def _time(value: Any, where: str) -> str:
    try:
        return to_text(parse_time(value, field=where))
    except LlmartifactsError as error:
        raise InvalidValue.of(error) from None


def _plain(value: Any, where: str) -> Any:
    try:
        return plain_json(value, field=where)
    except LlmartifactsError as error:
        raise InvalidValue.of(error, field=error.field or where) from None
