"""Parquet through pyarrow.

In: dates, times and timestamps become ISO 8601 text, decimals their exact text, maps objects. Bytes, durations and NaN
are refused with the column named, since none has one JSON form. Out: a column of one scalar type is stored as that
type; any other as JSON text, marked in the field's metadata, so that reading gives the same items.
"""

from __future__ import annotations

import datetime
import decimal
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import InvalidValue, MissingExtra, TooLarge
from llmartifacts.kinds.disk import AnyPath, find_regular, open_regular
from llmartifacts.kinds.eval_dataset.rows import ID, parse_document
from llmartifacts.kinds.eval_dataset.sources import MIB, Limits, Origin, Row, name_of, replacing
from llmartifacts.records.canonical import canonical_bytes

if TYPE_CHECKING:
    from llmartifacts.kinds.eval_dataset.value import EvalDataset

_MARK = {b"llmartifacts": b"json"}
_BATCH = 256
_RATIO_FROM = 16 * MIB


def read(path: AnyPath, limits: Limits) -> Iterator[Row]:
    """The rows of a file, 256 at a time.

    Raises:
        MissingExtra: pyarrow is not installed.
        InvalidValue: Not Parquet, or a value without a JSON form; the column is named.
        TooLarge: It has more rows or bytes than the limits take.
    """
    pyarrow, parquet = _pyarrow()
    name = name_of(path)
    with open_regular(find_regular(path, field="path")) as raw:
        try:
            file = parquet.ParquetFile(raw)
            size = raw.seek(0, 2)
            _check_size(file.metadata, size, name, limits)
            marked = _columns(file.schema_arrow, name)
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                if batch.nbytes > limits.total_bytes:
                    raise TooLarge("a batch of rows is too large", field="path", origin=name)
                for row in _batch_rows(batch, name, number):
                    number += 1
                    origin = Origin(name, "row", number)
                    yield Row(origin, _plain_row(row, marked, origin))
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InvalidValue(f"not readable as Parquet: {told:.200}", field="path", origin=name) from None


def write(dataset: EvalDataset, path: AnyPath) -> None:
    """One row an item, zstd."""
    _, parquet = _pyarrow()
    table = to_table(dataset)
    with replacing(path) as out:
        parquet.write_table(table, out, compression="zstd")


def to_table(dataset: EvalDataset) -> Any:
    """The dataset as a `pyarrow.Table`: `id`, the columns of the fields, then the others by name."""
    pyarrow, _ = _pyarrow()
    types = {
        frozenset({"string"}): pyarrow.string(),
        frozenset({"boolean"}): pyarrow.bool_(),
        frozenset({"integer"}): pyarrow.int64(),
        frozenset({"number"}): pyarrow.float64(),
        frozenset({"integer", "number"}): pyarrow.float64(),  # exact: integers are within 2^53-1
    }
    names = dict.fromkeys((*dataset.fields.values(), *dataset.schema))
    chosen = {n: types.get(frozenset(dataset.schema[n].types)) for n in names if n in dataset.schema}
    values: dict[str, list[Any]] = {ID: [], **{name: [] for name in chosen}}
    for row in dataset.rows():
        values[ID].append(row[ID])
        for name, kind in chosen.items():
            value = row.get(name)
            values[name].append(canonical_bytes(value).decode() if kind is None and name in row else value)
    fields = [pyarrow.field(ID, pyarrow.string(), nullable=False)]
    for name, kind in chosen.items():
        fields.append(pyarrow.field(name, kind or pyarrow.string(), metadata=None if kind else _MARK))
    schema = pyarrow.schema(fields)
    return pyarrow.table([pyarrow.array(values[f.name], f.type) for f in schema], schema=schema)


def plain(value: Any, column: str, origin: Origin) -> Any:
    """A value of pyarrow, or of another library that speaks its types, as JSON.

    Raises:
        InvalidValue: It has no one JSON form; the column is named.
    """
    if isinstance(value, Mapping):
        return {key: plain(item, f"{column}.{key}", origin) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{column}[{i}]", origin) for i, item in enumerate(value)]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview | datetime.timedelta):
        what = "a duration" if isinstance(value, datetime.timedelta) else "bytes"
        raise InvalidValue(
            f"{what} cannot be part of an item",
            field=column,
            origin=str(origin),
            next_step="Write it as text or a number first, or drop the column.",
        )
    return value


def _plain_row(row: Mapping[str, Any], marked: frozenset[str], origin: Origin) -> dict[str, Any]:
    made = {}
    for column, value in row.items():
        if column in marked and isinstance(value, str):
            made[column] = parse_document(value, f"{origin}, column {column}")
        else:
            made[column] = plain(value, column, origin)
    return made


def _batch_rows(batch: Any, name: str, before: int) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = batch.to_pylist(maps_as_pydicts="strict")
    except (ValueError, KeyError, OverflowError) as error:
        raise InvalidValue(
            f"a value has no JSON form: {str(error).splitlines()[0]:.200}",
            origin=f"{name}, rows {before + 1} to {before + batch.num_rows}",
            next_step="Timestamps finer than a microsecond, and maps with a key twice, have none: cast them to text.",
        ) from None
    return rows


def _check_size(metadata: Any, size: int, name: str, limits: Limits) -> None:
    if metadata.num_columns > limits.columns:
        raise TooLarge(f"{metadata.num_columns} columns, the limit is {limits.columns}", field="path", origin=name)
    if metadata.num_rows > limits.items:
        raise TooLarge(f"{metadata.num_rows} rows, the limit is {limits.items}", field="path", origin=name)
    claimed = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if claimed > limits.total_bytes or (claimed > _RATIO_FROM and claimed > limits.ratio * max(1, size)):
        raise TooLarge(
            f"decompresses to {claimed} bytes from {size}",
            field="path",
            origin=name,
            next_step="Split it into several datasets; if you trust it, write it as JSON Lines first.",
        )


def _columns(schema: Any, name: str) -> frozenset[str]:
    for column, times in Counter(schema.names).items():
        if times > 1:
            raise InvalidValue(f"the column {column!r:.60} appears twice", field="header", origin=name)
    return frozenset(f.name for f in schema if (f.metadata or {}).items() >= _MARK.items())


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtra("reading and writing Parquet needs pyarrow", extra="parquet") from None
    return pyarrow, parquet
