"""The kind `eval_suite`: a config without files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.base import FileSink, FileView, Kind, check_options
from llmartifacts.kinds.eval_suite.config import NO_BASELINE, SuiteConfig
from llmartifacts.kinds.eval_suite.value import EvalSuite
from llmartifacts.records.canonical import plain_json
from llmartifacts.records.diff import Change, Diff, diff_json, excluding
from llmartifacts.records.evidence import Threshold
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.wording import printable

MAX_SUMMARY = 240


class EvalSuiteKind(Kind[EvalSuite]):
    """Packs a suite; its scorers are told by the metric they give."""

    name: ClassVar[str] = "eval_suite"
    value_type = EvalSuite
    config_model = SuiteConfig

    def pack(self, value: EvalSuite, files: FileSink) -> dict[str, Any]:
        """The suite is its config."""
        return value.to_config()

    def unpack(self, config: Mapping[str, Any], files: FileView) -> EvalSuite:
        """Read a suite; scorers that are not installed here stay as they are."""
        if paths := list(files.paths()):
            raise InvalidValue(f"a suite has no files, and here is {paths[0]!r:.80}", field="files")
        try:
            return EvalSuite.from_config(cast(SuiteConfig, self.parse(config)))
        except InvalidValue as error:
            where = error.field if error.field.startswith("config") else f"config.{error.field}"
            raise InvalidValue.of(error, field=where) from None

    def check(self, config: Mapping[str, Any]) -> list[str]:
        """Problems of a config; whether its parts fit each other is checked too."""
        problems = super().check(config)
        if not problems:
            try:
                EvalSuite.from_config(cast(SuiteConfig, self.parse(config)))
            except InvalidValue as error:
                problems.append(f"{error.field}: {error.message}")
        return problems

    def diff(self, before: Manifest, after: Manifest, files: tuple[FileView, FileView]) -> Diff:
        """Scorers by the metric they give, thresholds by metric, then the rest."""
        changes = diff_json(_by_metric(before.config), _by_metric(after.config))
        return Diff(self.name, "", "", tuple(_ordered(changes)))

    def summary(self, config: Mapping[str, Any]) -> str:
        """Such as `stdlib-questions:latest against prod; recall@5 (margin 0.05), latency`."""
        suite = EvalSuite.from_config(cast(SuiteConfig, self.parse(config)))
        told = [_with_threshold(metric, suite.thresholds.get(metric)) for metric in suite.metrics]
        against = "" if suite.baseline is None else f" against {suite.baseline}"
        line = printable(f"{suite.dataset}{against}; {', '.join(told)}")
        return line if len(line) <= MAX_SUMMARY else line[: MAX_SUMMARY - 1] + "…"

    def text(self, config: Mapping[str, Any]) -> str:
        """The whole suite, a line for each field, scorer and threshold."""
        suite = EvalSuite.from_config(cast(SuiteConfig, self.parse(config)))
        lines = [
            f"dataset: {suite.dataset}" + (f", split {suite.split}" if suite.split else ""),
            f"target: {suite.target or 'named by each evaluation'}",
            f"baseline: {suite.baseline or NO_BASELINE}",
            f"outputs: {_json(config['outputs']) if suite.outputs else 'given by each evaluation'}",
            f"repeats: {suite.repeats}, seed {suite.seed}, timeout {suite.timeout:g} s, on error: {suite.on_error}",
        ]
        lines += [f"cluster: {suite.cluster}"] if suite.cluster else []
        lines.append("scorers:")
        for entry in suite.scorers:
            better = "more" if entry["higher_is_better"] else "less"
            told = f"  {entry['metric']}: {entry['type']} from {entry['lo']:g} to {entry['hi']:g}, {better} is better"
            options = {name: value for name, value in plain_json(entry["options"]).items() if value is not None}
            lines.append(f"{told}; {_json(options)}" if options else told)
        if suite.thresholds:
            lines.append("thresholds:")
            lines += [f"  {_with_threshold(metric, limit)}" for metric, limit in suite.thresholds.items()]
        return "\n".join(printable(line) for line in lines)

    def read_source(self, paths: Sequence[Path], options: Mapping[str, str]) -> EvalSuite:
        """Read one YAML file, as `EvalSuite.from_file` does."""
        check_options(options, ())
        if len(paths) != 1:
            raise InvalidValue(f"{len(paths)} sources", field="paths", next_step="A suite is read from one YAML file.")
        return EvalSuite.from_file(paths[0])


def _by_metric(config: Mapping[str, Any]) -> dict[str, Any]:
    entries = {entry["metric"]: {k: v for k, v in entry.items() if k != "metric"} for entry in config["scorers"]}
    return {**config, "scorers": entries}


def _ordered(changes: Iterator[Change]) -> Iterator[Change]:
    found = list(changes)
    for prefix in ("scorers", "thresholds"):
        yield from (c for c in found if c.path.startswith(prefix))
    yield from excluding(found, "scorers", "thresholds")


def _with_threshold(metric: str, limit: Threshold | None) -> str:
    if limit is None:
        return metric
    told = [f"margin {limit.margin:g}"] if limit.margin is not None else []
    told += [f"at least {limit.at_least:g}"] if limit.at_least is not None else []
    told += [f"at most {limit.at_most:g}"] if limit.at_most is not None else []
    told += ["by its point estimate"] if limit.estimate == "point" else []
    return f"{metric} ({', '.join(told)}, {limit.min_samples} samples)"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
