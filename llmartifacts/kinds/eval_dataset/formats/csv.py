r"""CSV as RFC 4180 has it, which the standard library cannot tell: an empty cell is null and `""` is empty text.

Each row is one record; a record goes on over line ends while a quote is open; a quote inside quotes is doubled. A quote
inside an unquoted cell is refused, since programs disagree about it. Lines end in `\n` or `\r\n`.

Source: RFC 4180, section 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import InvalidValue, TooLarge
from llmartifacts.kinds.disk import AnyPath
from llmartifacts.kinds.eval_dataset.rows import ID, parse_document
from llmartifacts.kinds.eval_dataset.sources import Limits, Origin, Row, name_of, reading, replacing, text_lines
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.names import did_you_mean

if TYPE_CHECKING:
    from llmartifacts.kinds.eval_dataset.value import EvalDataset

Cells = list[str | None]


def read(path: AnyPath, limits: Limits, *, delimiter: str = ",", json_columns: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a file with a header line.

    Raises:
        InvalidValue: A row is longer or shorter than the header, a column appears twice, …; the line is named.
    """
    name = name_of(path)
    split = _Splitter(delimiter)
    with reading(path, limits) as stream:
        records = _records(text_lines(stream, name, limits), name, limits)
        first = next(records, None)
        if first is None:
            return
        header = _header(split(*first, name), f"{name}, line {first[0]}", delimiter)
        if len(header) > limits.columns:
            raise TooLarge(f"{len(header)} columns, the limit is {limits.columns}", field="header", origin=name)
        parsed = _known(json_columns, header)
        for number, record in records:
            origin = Origin(name, "line", number)
            cells = split(number, record, name)
            if len(cells) != len(header):
                raise InvalidValue(
                    f"the row has {len(cells)} cells, the header {len(header)}",
                    origin=str(origin),
                    next_step="Quote cells that hold the delimiter or a line end.",
                )
            row: dict[str, Any] = dict(zip(header, cells, strict=True))
            for column in parsed:
                text = row[column]
                if text is not None:
                    row[column] = _json(text, column, origin)
            yield Row(origin, row)


def write(dataset: EvalDataset, path: AnyPath, *, delimiter: str = ",") -> tuple[str, ...]:
    """The header, then one record an item: `id`, the columns of the fields, then the others by name.

    Returns:
        The columns that are written as JSON.
    """
    _Splitter(delimiter)
    as_json = tuple(name for name, column in dataset.schema.items() if column.types.keys() != {"string"})
    header = [ID, *dict.fromkeys(c for c in (*dataset.fields.values(), *dataset.schema) if c in dataset.schema)]
    quoted = re.compile(rf'[\n\r"{re.escape(delimiter)}]')

    def record(cells: Iterable[str | None]) -> bytes:
        return (delimiter.join(_cell(c, quoted) for c in cells) + "\r\n").encode()

    with replacing(path) as out:
        out.write(record(header))
        for row in dataset.rows():
            for name in as_json:
                if name in row:
                    row[name] = canonical_bytes(row[name]).decode()
            out.write(record(row.get(name) for name in header))
    return as_json


def _cell(text: str | None, quoted: re.Pattern[str]) -> str:
    if text is None:
        return ""
    # A mark that opens the file would be taken for a byte order mark.
    if text == "" or text[0] == "\ufeff" or quoted.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _records(lines: Iterable[tuple[int, str]], name: str, limits: Limits) -> Iterator[tuple[int, str]]:
    """Whole records with the line they begin at; blank lines outside quotes are skipped."""
    begun, parts, size, quotes = 0, list[str](), 0, 0
    for number, line in lines:
        if not parts:
            begun = number
        parts.append(line)
        size += len(line)
        quotes += line.count('"')
        if size > limits.item_bytes:
            raise TooLarge(
                f"the row is longer than {limits.item_bytes} characters",
                field="row",
                origin=f"{name}, line {begun}",
                next_step="Most often a quote is not closed.",
            )
        if quotes % 2 == 0:
            record = "".join(parts).removesuffix("\n").removesuffix("\r")
            if record.strip(" \t"):
                yield begun, record
            parts, size, quotes = [], 0, 0
    if parts:
        raise InvalidValue(
            "a quote is opened and never closed",
            origin=f"{name}, line {begun}",
            next_step="Double a quote inside a quoted cell.",
        )


class _Splitter:
    """Cuts one record into cells."""

    def __init__(self, delimiter: str) -> None:
        if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
            raise InvalidValue(f"{delimiter!r:.20} is not one character that can part cells", field="delimiter")
        d = re.escape(delimiter)
        self._delimiter = delimiter
        self._cell = re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^"{d}]*))(?:{d}|(\Z))')

    def __call__(self, number: int, record: str, name: str) -> Cells:
        if '"' not in record:
            return [cell or None for cell in record.split(self._delimiter)]
        cells: Cells = []
        at = 0
        while True:
            found = self._cell.match(record, at)
            if found is None:
                raise InvalidValue(
                    f"cell {len(cells) + 1} has a quote where none can be",
                    origin=f"{name}, line {number}",
                    next_step="Quote the whole cell and double the quotes inside it.",
                )
            quoted, bare, last = found.groups()
            cells.append(quoted.replace('""', '"') if quoted is not None else bare or None)
            at = found.end()
            if last is not None:
                return cells


def _header(cells: Cells, origin: str, delimiter: str) -> list[str]:
    header: dict[str, None] = {}
    for i, cell in enumerate(cells, 1):
        if cell is None or not cell.strip():
            raise InvalidValue(
                f"column {i} has no name",
                field="header",
                origin=origin,
                next_step="Name it or drop it (pandas: to_csv(…, index=False)).",
            )
        if cell in header:
            raise InvalidValue(
                f"the column {cell!r:.60} appears twice", field="header", origin=origin, next_step="Rename one of them."
            )
        header[cell] = None
    only = next(iter(header)) if len(header) == 1 else ""
    other = next((d for d in ";\t|," if d != delimiter and d in only), None)
    if other:
        raise InvalidValue(
            f"the header is one column, {only!r:.60}",
            field="delimiter",
            origin=origin,
            next_step=f"Say which character parts the cells: delimiter={other!r}.",
        )
    return list(header)


def _known(names: Sequence[str], header: Sequence[str]) -> tuple[str, ...]:
    wanted = (names,) if isinstance(names, str) else tuple(names)
    for name in wanted:
        if name not in header:
            hint = did_you_mean(name, header, f"Columns: {', '.join(header[:20])}.")
            raise InvalidValue(f"there is no column {name!r:.60}", field="json_columns", next_step=hint)
    return wanted


def _json(text: str, column: str, origin: Origin) -> Any:
    try:
        return parse_document(text, str(origin))
    except InvalidValue as error:
        raise InvalidValue.of(error, field=error.field or column) from None
