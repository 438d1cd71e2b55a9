"""Files of any format, told by their suffix."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.base import check_options
from llmartifacts.kinds.disk import AnyPath
from llmartifacts.kinds.eval_dataset.formats import csv, json, jsonl, parquet
from llmartifacts.kinds.eval_dataset.sources import Limits, Row, suffix_of

CSV_OPTIONS = ("delimiter", "json_columns")
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".json", ".parquet")


def read(path: AnyPath | Sequence[AnyPath], limits: Limits, options: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of one file or of several, one after the other.

    Raises:
        InvalidValue: No file, an unknown suffix or option, or as the format's own reader.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    check_options(dict.fromkeys(options, ""), CSV_OPTIONS)
    if not paths:
        raise InvalidValue("no file is named", field="path")
    for one in paths:  # all before any is read
        if suffix_of(one) not in SUFFIXES or Path(one).name.lower().endswith(".parquet.gz"):
            raise InvalidValue(
                f"{Path(one).name!r} has no suffix that tells its format",
                field="path",
                origin=str(one),
                next_step=f"Known suffixes: {', '.join(SUFFIXES)}; all but .parquet also with .gz.",
            )
        if options and suffix_of(one) not in (".csv", ".tsv"):
            raise InvalidValue(f"{', '.join(options)} is for CSV only", field=next(iter(options)), origin=str(one))
    for one in paths:
        yield from _read(one, limits, options)


def _read(path: AnyPath, limits: Limits, options: Mapping[str, Any]) -> Iterator[Row]:
    suffix = suffix_of(path)
    if suffix in (".csv", ".tsv"):
        return csv.read(path, limits, **{"delimiter": "\t" if suffix == ".tsv" else ",", **options})
    if suffix == ".parquet":
        return parquet.read(path, limits)
    return json.read(path, limits) if suffix == ".json" else jsonl.read(path, limits)
