"""The kind `report`: config, `items.jsonl`, and what changed between two reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, cast

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StrictStr

from llmartifacts.errors import InvalidReference, InvalidValue, LlmartifactsError, TooLarge
from llmartifacts.kinds.base import Config, FileSink, FileView, Kind, check_options
from llmartifacts.kinds.report.value import ItemScore, Metric, Report
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.diff import Change, Diff, diff_json, excluding
from llmartifacts.records.digest import parse_digest
from llmartifacts.records.evidence import Comparison
from llmartifacts.records.lineage import Relation
from llmartifacts.records.manifest import Manifest

ITEMS = "items.jsonl"
MAX_LINE = 16 * 1024 * 1024
SHOWN = 3
"""Targets and metrics that a summary names."""


def _checked_digest(text: str) -> str:
    try:
        return parse_digest(text)
    except InvalidReference as error:
        raise ValueError(error.message) from None


DigestText = Annotated[StrictStr, AfterValidator(_checked_digest)]


class ComparisonConfig(Config):
    """Against the baseline; see `records.evidence.Comparison`."""

    delta: float = Field(strict=True)
    lower: float = Field(strict=True)
    upper: float = Field(strict=True)
    family_upper: float = Field(strict=True)
    n: StrictInt
    sd: float = Field(strict=True)
    alpha: float = Field(strict=True)
    metrics: StrictInt


class MetricConfig(Config):
    """One aggregate; see `Metric`. The last four are left out where they are not known."""

    name: StrictStr
    value: float | None = Field(strict=True)
    lower: float | None = Field(strict=True)
    upper: float | None = Field(strict=True)
    n: StrictInt
    lo: float = Field(strict=True)
    hi: float = Field(strict=True)
    higher_is_better: StrictBool
    alpha: float = Field(strict=True)
    sd: float | None = Field(default=None, strict=True)
    errors: StrictInt = Field(default=0, ge=0)
    scorer: DigestText | None = None
    comparison: ComparisonConfig | None = None


class SuiteConfig(Config):
    """The suite of a report.

    Attributes:
        name: Its name.
        digest: Its digest; None if it is not versioned.
    """

    name: StrictStr
    digest: DigestText | None = None


class ReportConfig(Config):
    """Config of a `report`.

    Attributes:
        suite: Name and digest of the suite.
        targets: Reference -> digest of what was evaluated.
        dataset: Digest of the dataset.
        baseline: Digest of what it was compared with.
        metrics: The aggregates, in the suite's order.
        count: Number of lines of `items.jsonl`; 0 if it is not kept.
        environment: Versions that took part.
        seed: Seed of what was random.
        started: UTC, ISO 8601.
        ended: UTC, ISO 8601.
    """

    suite: SuiteConfig
    targets: dict[StrictStr, DigestText] = Field(min_length=1)
    dataset: DigestText
    baseline: DigestText | None = None
    metrics: tuple[MetricConfig, ...] = Field(min_length=1)
    count: StrictInt = Field(default=0, ge=0)
    environment: dict[StrictStr, StrictStr] = Field(default_factory=dict)
    seed: StrictInt | None = None
    started: StrictStr = ""
    ended: StrictStr = ""


class ReportKind(Kind[Report]):
    """Packs, unpacks and compares reports."""

    name: ClassVar[str] = "report"
    value_type = Report
    config_model = ReportConfig
    input_relation: ClassVar[Relation] = "evaluated_with"

    def pack(self, value: Report, files: FileSink) -> Mapping[str, Any]:
        """Write `items.jsonl`, if there are items."""
        if value.items:
            files.add(ITEMS, b"".join(canonical_bytes(item.to_json()) + b"\n" for item in value.items))
        return to_config(value)

    def unpack(self, config: Mapping[str, Any], files: FileView) -> Report:
        """Read a report; its aggregates must be what its items say."""
        parsed = cast(ReportConfig, self.parse(config))
        paths = list(files.paths())
        if paths != ([ITEMS] if parsed.count else []):
            raise InvalidValue(f"a report has the file {ITEMS} if it has items, and no other", field="files")
        items: list[ItemScore] = []
        if paths:
            with files.open(ITEMS) as stream:
                items = list(_read_items(stream, parsed.count))
        return _report(parsed, items)

    def check(self, config: Mapping[str, Any]) -> list[str]:
        """Problems of a config; the order of each interval is checked too."""
        problems = super().check(config)
        if not problems:
            try:
                _report(cast(ReportConfig, self.parse(config)), None)
            except InvalidValue as error:
                problems.append(f"{error.field}: {error.message}")
        return problems

    def diff(self, before: Manifest, after: Manifest, files: tuple[FileView, FileView]) -> Diff:
        """Metrics by name, then the rest of the config; numbers: each metric's step and how many items moved."""
        first, second = self.unpack(before.config, files[0]), self.unpack(after.config, files[1])
        old, new = to_config(first), to_config(second)
        changes = [*diff_json(_by_name(old), _by_name(new), "metrics")]
        changes += excluding(diff_json(old, new), "metrics")
        numbers: dict[str, float] = {}
        for metric in second.metrics:
            was = next((m for m in first.metrics if m.name == metric.name), None)
            if was is not None and was.value is not None and metric.value is not None:
                numbers[metric.name] = metric.value - was.value
        moved = list(_moved(first.items, second.items))
        numbers["items_changed"] = len(moved)
        return Diff(self.name, "", "", (*changes, *moved), "", numbers)

    def documents(self, config: Mapping[str, Any], files: FileView) -> Iterator[str]:
        """The ids of the items that it has scores and outputs of."""
        if ITEMS in files.paths():
            with files.open(ITEMS) as stream:
                yield from (item.id for item in _read_items(stream, cast(ReportConfig, self.parse(config)).count))

    def summary(self, config: Mapping[str, Any]) -> str:
        """Such as `support-retrieval on support-kb:v5; recall@5: 0.83 [0.78, 0.87], n = 300`."""
        report = _report(cast(ReportConfig, self.parse(config)), None)
        targets = [f"{name:.80}" for name in report.targets]
        told = [f"{report.suite:.80} on {', '.join(targets[:SHOWN])}{', …' if len(targets) > SHOWN else ''}"]
        told += [f"{metric!s:.120}" for metric in report.metrics[:SHOWN]]
        more = len(report.metrics) - SHOWN
        return "; ".join(told + ([f"and {more} more"] if more > 0 else []))

    def read_source(self, paths: Sequence[Path], options: Mapping[str, str]) -> Report:
        """Read one JSON file with the fields of a report."""
        check_options(options, ())
        if len(paths) != 1:
            raise InvalidValue(f"a report is one file, not {len(paths)}", field="paths")
        return Report.from_file(paths[0])


def to_config(report: Report) -> dict[str, Any]:
    """A report's config, as plain JSON."""
    made: dict[str, Any] = {
        "suite": {"name": report.suite},
        "targets": dict(report.targets),
        "dataset": report.dataset,
        "metrics": [_metric(m) for m in report.metrics],
        "count": len(report.items),
    }
    if report.suite_digest is not None:
        made["suite"]["digest"] = report.suite_digest
    for name in ("baseline", "seed"):
        if getattr(report, name) is not None:
            made[name] = getattr(report, name)
    for name in ("environment", "started", "ended"):
        if getattr(report, name):
            value = getattr(report, name)
            made[name] = dict(value) if isinstance(value, Mapping) else value
    return made


def _metric(metric: Metric) -> dict[str, Any]:
    made = {name: getattr(metric, name) for name in MetricConfig.model_fields if name != "comparison"}
    for name in ("sd", "scorer"):
        if made[name] is None:
            del made[name]
    if not made["errors"]:
        del made["errors"]
    if metric.comparison is not None:
        made["comparison"] = asdict(metric.comparison)
    return made


def _metric_of(config: MetricConfig) -> Metric:
    compared = config.comparison
    rest = config.model_dump(exclude={"comparison"})
    return Metric(**rest, comparison=None if compared is None else Comparison(**compared.model_dump()))


def _report(config: ReportConfig, items: Sequence[ItemScore] | None) -> Report:
    """A report of its config; `items` None leaves them out unchecked."""
    if items is not None and "count" in config.model_fields_set and len(items) != config.count:
        raise InvalidValue(f"there are {len(items)} items, the config says {config.count}", field="config.count")
    return Report(
        suite=config.suite.name,
        targets=config.targets,
        dataset=config.dataset,
        metrics=[_metric_of(metric) for metric in config.metrics],
        items=items or (),
        suite_digest=config.suite.digest,
        baseline=config.baseline,
        environment=config.environment,
        seed=config.seed,
        started=config.started,
        ended=config.ended,
    )


def from_body(body: Any) -> Report:
    """A report from plain JSON, as `Report.to_json` writes it."""
    if not isinstance(body, Mapping):
        raise InvalidValue("a report is an object")
    rest = dict(body)
    items = rest.pop("items", [])
    if not isinstance(items, list | tuple):
        raise InvalidValue("items is not a list", field="items")
    config = cast(ReportConfig, ReportKind().parse(rest))
    return _report(config, [_item(item, f"items[{i}]") for i, item in enumerate(items)])


def _item(body: Any, where: str) -> ItemScore:
    if not isinstance(body, Mapping):
        raise InvalidValue("an item is an object", field=where)
    unknown = body.keys() - {"id", "scores", "output", "error"}
    if unknown:
        raise InvalidValue("unknown field of an item", field=f"{where}.{min(unknown)}")
    scores = body.get("scores")
    if not isinstance(scores, Mapping):
        raise InvalidValue("scores is not an object", field=f"{where}.scores")
    return ItemScore(body.get("id", ""), scores, body.get("output"), body.get("error", ""))


def _read_items(stream: BinaryIO, count: int) -> Iterable[ItemScore]:
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        origin = f"{ITEMS}, line {number}"
        if len(line) > MAX_LINE:
            raise TooLarge(f"the line is longer than {MAX_LINE} bytes", field="line", origin=origin)
        if number > count:
            raise InvalidValue(f"more items than the config says ({count})", origin=origin)
        try:
            yield _item(parse_json(line, origin=origin), "item")
        except LlmartifactsError as error:
            raise InvalidValue.of(error, origin=origin) from None


def _moved(before: Sequence[ItemScore], after: Sequence[ItemScore]) -> Iterable[Change]:
    old = {item.id: item for item in before}
    new = {item.id: item for item in after}
    for item_id in sorted(old.keys() | new.keys()):
        a, b = (d[item_id].to_json() if item_id in d else None for d in (old, new))
        where = f"items/{item_id}"
        if a is None or b is None:
            yield Change(where, a, b, "added" if a is None else "removed")
        else:
            yield from diff_json(a, b, where)


def _by_name(config: Mapping[str, Any]) -> dict[str, Any]:
    return {m["name"]: {k: v for k, v in m.items() if k != "name"} for m in config["metrics"]}
