"""The kind `eval_dataset`: `items.jsonl`, one canonical JSON line an item, and a config that says what is in it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, Literal, cast

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from llmartifacts.errors import InvalidInput, InvalidValue
from llmartifacts.kinds.base import Config, FileSink, FileView, Kind, check_options
from llmartifacts.kinds.eval_dataset import rows
from llmartifacts.kinds.eval_dataset.drift import measure
from llmartifacts.kinds.eval_dataset.fields import FIELDS
from llmartifacts.kinds.eval_dataset.formats.files import SUFFIXES
from llmartifacts.kinds.eval_dataset.schema import MAX_PROPERTIES, MAX_VALUES
from llmartifacts.kinds.eval_dataset.sources import LIMITS, Origin, suffix_of, text_lines
from llmartifacts.kinds.eval_dataset.value import EvalDataset
from llmartifacts.records.diff import Diff
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.wording import counted

ITEMS = "items.jsonl"
SHOWN = 5
"""Splits that a summary names."""

JsonType = Literal["string", "integer", "number", "boolean", "array", "object"]
Count = StrictInt


def _typed(check: Callable[[Any], str]) -> AfterValidator:
    """One of this package's checks, as pydantic wants it."""

    def checked(value: str) -> str:
        try:
            return check(value)
        except InvalidInput as error:
            raise ValueError(error.message) from None

    return AfterValidator(checked)


ColumnName = Annotated[StrictStr, _typed(rows.check_name)]
SplitName = Annotated[StrictStr, _typed(rows.check_split)]


class ColumnConfig(Config):
    """What one column holds; see `llmartifacts.kinds.eval_dataset.schema.Column`."""

    types: dict[JsonType, Count]
    present: Count = Field(ge=0)
    null: Count = Field(ge=0)
    distinct: Count | None = Field(default=None, ge=0)
    values: tuple[StrictBool | StrictInt | StrictFloat | StrictStr, ...] | None = Field(None, max_length=MAX_VALUES)
    properties: tuple[ColumnName, ...] | None = Field(None, max_length=MAX_PROPERTIES)


class EvalDatasetConfig(Config):
    """Config of an `eval_dataset`. The file format that the items came in is not part of it.

    Attributes:
        count: Number of items.
        fields: Field -> the column it is read from.
        schema: Column -> what it holds; the id, which every item has, is left out.
        splits: Split -> number of items.
    """

    count: Count = Field(ge=1, le=LIMITS.items)
    fields: dict[Literal["input", "expected_output", "metadata", "split"], ColumnName]
    columns: dict[ColumnName, ColumnConfig] = Field(alias="schema", max_length=LIMITS.columns)
    splits: dict[SplitName, Count] = Field(default_factory=dict, max_length=rows.MAX_SPLITS)

    @model_validator(mode="after")
    def _agrees(self) -> EvalDatasetConfig:
        if "input" not in self.fields:
            raise ValueError("fields has no input")
        for field, column in self.fields.items():
            if column not in self.columns:
                raise ValueError(f"fields.{field} names the column {column!r}, which is not in schema")
        for name, held in self.columns.items():
            if held.present + held.null != self.count or sum(held.types.values()) != held.present:
                raise ValueError(f"schema.{name} does not add up to count")
        if self.columns[self.fields["input"]].null:
            raise ValueError("some items have no input")
        if sum(self.splits.values()) > self.count:
            raise ValueError("splits has more items than count")
        return self


class EvalDatasetKind(Kind[EvalDataset]):
    """Packs, unpacks and compares datasets. Unpacking is eager: every line is parsed and checked once."""

    name: ClassVar[str] = "eval_dataset"
    value_type = EvalDataset
    config_model = EvalDatasetConfig

    def pack(self, value: EvalDataset, files: FileSink) -> Mapping[str, Any]:
        """Write `items.jsonl`, streamed, in the dataset's order."""
        files.add(ITEMS, cast(BinaryIO, io.BufferedReader(_Lines(value.lines))))
        return {
            "count": len(value),
            "fields": dict(value.fields),
            "schema": {name: column.to_config() for name, column in value.schema.items()},
            "splits": dict(value.splits),
        }

    def unpack(self, config: Mapping[str, Any], files: FileView) -> EvalDataset:
        """Read the items; their number, ids and fields must be what the config says."""
        parsed = cast(EvalDatasetConfig, self.parse(config))
        if list(files.paths()) != [ITEMS]:
            raise InvalidValue(f"an eval_dataset has one file, {ITEMS}", field="files")
        with files.open(ITEMS) as stream:
            ids, lines = _checked(stream, parsed)
        fields: dict[str, str] = {str(field): column for field, column in parsed.fields.items()}
        made = EvalDataset.of(rows.Built(ids, lines, fields))
        if len(made) != parsed.count:
            raise InvalidValue(f"{ITEMS} has {len(made)} items, the config says {parsed.count}", field="config.count")
        return made

    def diff(self, before: Manifest, after: Manifest, files: tuple[FileView, FileView]) -> Diff:
        """Item-level differences, matched by id; the text is the drift report."""
        if before.digest == after.digest:
            return Diff(self.name, "", "", (), "", {"added": 0, "removed": 0, "changed": 0, "unchanged": 0})
        first, second = self.unpack(before.config, files[0]), self.unpack(after.config, files[1])
        found = first.diff(second)
        numbers = {
            "added": len(found.added),
            "removed": len(found.removed),
            "changed": len(found.changed),
            "unchanged": found.unchanged,
        }
        return Diff(self.name, "", "", tuple(found.changes()), str(measure(first, second, found)), numbers)

    def documents(self, config: Mapping[str, Any], files: FileView) -> Iterator[str]:
        """The ids of the items."""
        with files.open(ITEMS) as stream:
            for number, text in text_lines(stream, ITEMS, LIMITS):
                origin = str(Origin(ITEMS, "line", number))
                row = rows.parse_document(text, origin)
                yield rows.check_id(row.get(rows.ID) if isinstance(row, dict) else None, field=rows.ID, origin=origin)

    def summary(self, config: Mapping[str, Any]) -> str:
        """Such as `1,319 items; input: question, expected_output: answer; splits: dev 132, test 1,187`."""
        parsed = cast(EvalDatasetConfig, self.parse(config))
        told = [counted(parsed.count, "item")]
        told.append(", ".join(f"{f}: {parsed.fields[f]:.40}" for f in FIELDS if f in parsed.fields))
        if parsed.splits:
            shown = [f"{name:.40} {n:,}" for name, n in sorted(parsed.splits.items())[:SHOWN]]
            told.append("splits: " + ", ".join(shown) + (", …" if len(parsed.splits) > SHOWN else ""))
        return "; ".join(told)

    def read_source(self, paths: Sequence[Path], options: Mapping[str, str]) -> EvalDataset:
        """Read files (a folder: the files in it that are data, by name) as one dataset.

        Options: `id`, `input`, `expected_output`, `metadata`, `split` (the column of each; `-` for none), `id_from` and
        `json_columns` (columns, parted by commas), `delimiter`.
        """
        check_options(options, (*FIELDS, "id_from", "json_columns", "delimiter"))
        columns = {f: None if options[f] == "-" else options[f] for f in FIELDS if f in options}
        for_csv: dict[str, Any] = {}
        if "delimiter" in options:
            for_csv["delimiter"] = "\t" if options["delimiter"] in ("tab", "\\t") else options["delimiter"]
        if "json_columns" in options:
            for_csv["json_columns"] = options["json_columns"].split(",")
        id_from = options["id_from"].split(",") if "id_from" in options else None
        found = list(itertools.chain.from_iterable(map(_expand, paths)))
        return EvalDataset.from_file(found, columns=columns, id_from=id_from, **for_csv)


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if suffix_of(p) in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise InvalidValue(
            "the folder holds no data file", field="path", origin=str(path), next_step=f"Known: {', '.join(SUFFIXES)}."
        )
    return found


def _checked(stream: BinaryIO, config: EvalDatasetConfig) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    # The bytes are those that were logged, but whoever logged them need not have used this package.
    ids: dict[str, None] = {}
    lines: list[bytes] = []
    for number, text in text_lines(stream, ITEMS, LIMITS):
        origin = Origin(ITEMS, "line", number)
        if number > config.count:
            raise InvalidValue(f"more items than the config says ({config.count})", origin=str(origin))
        row = rows.parse_document(text, str(origin))
        if not isinstance(row, dict):
            raise InvalidValue("the line is no object", origin=str(origin))
        item_id = rows.check_id(row.get(rows.ID), field=rows.ID, origin=str(origin))
        if item_id in ids:
            raise InvalidValue(f"the id {item_id!r:.80} appears twice", field=rows.ID, origin=str(origin))
        line = text.removesuffix("\n").encode()
        if rows.encode(rows.plain_row(row, origin), origin, LIMITS) != line:
            raise InvalidValue("the line is not in canonical form", origin=str(origin))
        _check_fields(row, config, str(origin))
        ids[item_id] = None
        lines.append(line)
    return tuple(ids), tuple(lines)


def _check_fields(row: Mapping[str, Any], config: EvalDatasetConfig, origin: str) -> None:
    unknown = row.keys() - config.columns.keys() - {rows.ID}
    if unknown:
        raise InvalidValue("a column that the config does not name", field=min(unknown), origin=origin)
    for field, kind in (("input", object), ("metadata", dict), ("split", str)):
        column = config.fields.get(field)  # type: ignore[call-overload]
        if column is not None and (field == "input" or column in row) and not isinstance(row.get(column), kind):
            raise InvalidValue(f"the {field} is not what it must be", field=column, origin=origin)
    if row.get(config.fields["input"]) is None:
        raise InvalidValue("the item has no input", field=config.fields["input"], origin=origin)


class _Lines(io.RawIOBase):
    """Lines as a stream, so that a large dataset is never joined in memory."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._parts: Iterator[bytes] = (part for line in lines for part in (line, b"\n"))
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        filled = 0
        while filled < len(buffer):
            if not self._rest:
                self._rest = memoryview(next(self._parts, b""))
                if not self._rest:
                    break
            taken = self._rest[: len(buffer) - filled]
            buffer[filled : filled + len(taken)] = taken
            self._rest = self._rest[len(taken) :]
            filled += len(taken)
        return filled
