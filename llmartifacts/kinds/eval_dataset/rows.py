"""Rows -> items: every value made JSON-plain, fields found, ids given or derived.

**Derived ids.** Where no column is the id, an item's id is the first 16 hex digits of the SHA-256 of the canonical
JSON (RFC 8785) of what is asked: all columns but those of `expected_output`, `metadata` and `split` (or just those of
`id_from`). So an id stays when items are added or reordered, and when an answer is corrected. Rows that are
equal in everything get `-2`, `-3`, … ; rows that ask the same and differ elsewhere are refused, since only their
order could tell them apart.

**Plain values.** A number without a fraction is an integer (`2.0` is `2`), as in canonical JSON. A column that is null
is a column that is absent. Both make JSONL, CSV and Parquet of the same items the same items.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from llmartifacts.errors import InvalidInput, InvalidManifest, InvalidValue, TooLarge
from llmartifacts.kinds.eval_dataset.fields import find_fields, may_be_id
from llmartifacts.kinds.eval_dataset.sources import Limits, Origin, Row
from llmartifacts.records.canonical import MAX_DEPTH, MAX_INTEGER, canonical_bytes, check_json, check_key, decode_json
from llmartifacts.records.names import did_you_mean

ID = "id"
SOURCE_ID = "source_id"
"""Where a column `id` that is not the id is kept."""

MAX_ID = 512
MAX_NAME = 256
MAX_SPLITS = 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BIG_AS_WRITTEN = 10.0**21  # below, RFC 8785 writes a whole float as an integer
_AS_TEXT = "Write it as text: JSON parsers disagree about integers of this size."


class Built(NamedTuple):
    """Items, ready.

    Attributes:
        ids: In order, unique.
        lines: Canonical JSON of each item's row, with its id under `id`.
        fields: Field -> column, without `id`.
    """

    ids: tuple[str, ...]
    lines: tuple[bytes, ...]
    fields: dict[str, str]


def build(
    rows: Iterable[Row],
    *,
    columns: Mapping[str, str | None] | None = None,
    id_from: Sequence[str] | None = None,
    limits: Limits,
) -> Built:
    """Make items of rows.

    Raises:
        InvalidValue: No rows, a value that is not JSON, a missing input, duplicate ids, …; field and origin are named.
        TooLarge: A limit is passed.
    """
    gathered = _gather(rows, limits, (columns or {}).get(ID))
    fields = find_fields(gathered.names, columns, no_object=gathered.no_object, no_text=gathered.no_text)
    keys = _key_columns(id_from, gathered.names)
    if keys is not None and (columns or {}).get(ID) is None:
        fields.pop(ID, None)
    finish = _Finish(fields, keys, limits)
    for origin, line in zip(gathered.origins, gathered.lines, strict=True):
        finish.add(origin, line)
    return Built(tuple(finish.ids), tuple(finish.lines), {k: v for k, v in fields.items() if k != ID})


class _Gathered(NamedTuple):
    origins: list[Origin]
    lines: list[bytes]
    names: dict[str, None]
    no_object: set[str]
    no_text: set[str]


def _gather(rows: Iterable[Row], limits: Limits, id_column: str | None) -> _Gathered:
    # Rows are kept as canonical bytes: a fifth of the memory of parsed ones.
    made = _Gathered([], [], {}, set(), set())
    total = 0
    for origin, values in rows:
        row = plain_row(values, origin, id_column)
        line = encode(row, origin, limits)
        total += len(line)
        if total > limits.total_bytes:
            raise TooLarge(f"the items take more than {limits.total_bytes} bytes", field="items", origin=str(origin))
        if len(made.lines) >= limits.items:
            raise TooLarge(f"more than {limits.items} items", field="items", origin=str(origin))
        for name, value in row.items():
            made.names[name] = None
            if type(value) is not dict:
                made.no_object.add(name)
            if type(value) is not str:
                made.no_text.add(name)
        if len(made.names) > limits.columns:
            raise TooLarge(
                f"more than {limits.columns} columns",
                field="columns",
                origin=str(origin),
                next_step="Put what belongs together into one object, such as metadata.",
            )
        made.origins.append(origin)
        made.lines.append(line)
    if not made.lines:
        raise InvalidValue("the dataset has no items", field="items", next_step="Log at least one item.")
    return made


def _key_columns(id_from: Sequence[str] | None, names: Mapping[str, None]) -> tuple[str, ...] | None:
    if id_from is None:
        return None
    wanted = (id_from,) if isinstance(id_from, str) else tuple(id_from)
    for name in wanted:
        if name not in names:
            raise InvalidValue(f"there is no column {name!r}", field="id_from", next_step=did_you_mean(name, names))
    if not wanted:
        raise InvalidValue("id_from names no column", field="id_from")
    return wanted


class _Finish:
    """The second pass: fields checked, ids set."""

    def __init__(self, fields: Mapping[str, str], keys: tuple[str, ...] | None, limits: Limits) -> None:
        self._fields, self._keys, self._limits = fields, keys, limits
        self._answers = {fields[f] for f in ("expected_output", "metadata", "split") if f in fields}
        self._seen: dict[str, Origin] = {}
        self._rows: dict[str, tuple[bytes, int]] = {}
        self._splits: set[str] = set()
        self.ids: list[str] = []
        self.lines: list[bytes] = []

    def add(self, origin: Origin, line: bytes) -> None:
        row = decode_line(line)
        self._check(row, origin)
        column = self._fields.get(ID)
        found = self._given(row, column, origin) if column else self._derived(row, line, origin)
        if found in self._seen:
            raise InvalidValue(
                f"the id {found!r:.80} appears twice, first at {self._seen[found]}",
                field=column or ID,
                origin=str(origin),
                next_step=f"Ids name items: make them unique, or derive them: {_without('id')}.",
            )
        self._seen[found] = origin
        if column != ID and ID in row:
            if SOURCE_ID in row:
                raise InvalidValue(
                    "the columns 'id' and 'source_id' are both there, and neither is the id", origin=str(origin)
                )
            row[SOURCE_ID] = row.pop(ID)
        if row.get(ID) != found:
            row[ID] = found
            line = encode(row, origin, self._limits)
        self.ids.append(found)
        self.lines.append(line)

    def _check(self, row: dict[str, Any], origin: Origin) -> None:
        column = self._fields["input"]
        if row.get(column) is None:
            raise InvalidValue("the item has no input", field=column, origin=str(origin))
        column = self._fields.get("metadata", "")
        if type(row.get(column, {})) is not dict:
            raise InvalidValue(
                f"metadata is {json_type(row[column])}, not an object",
                field=column,
                origin=str(origin),
                next_step=f"Keep it as a column of its own: {_without('metadata')}.",
            )
        column = self._fields.get("split", "")
        split = row.get(column)
        if split is not None:
            check_split(split, field=column, origin=str(origin))
            self._splits.add(split)
            if len(self._splits) > MAX_SPLITS:
                raise TooLarge(
                    f"more than {MAX_SPLITS} splits",
                    field=column,
                    origin=str(origin),
                    next_step=f"This column is no split: {_without('split')}.",
                )

    def _given(self, row: dict[str, Any], column: str, origin: Origin) -> str:
        value = row.get(column)
        return check_id(str(value) if type(value) is int else value, field=column, origin=str(origin))

    def _derived(self, row: dict[str, Any], line: bytes, origin: Origin) -> str:
        if self._keys is not None:
            key = {name: row.get(name) for name in self._keys}
        else:
            key = {name: value for name, value in row.items() if name not in self._answers and name != ID}
        base = hashlib.sha256(canonical_bytes(key)).hexdigest()[:16]
        whole = hashlib.sha256(line).digest()
        first, times = self._rows.get(base, (whole, 0))
        if first != whole:
            raise InvalidValue(
                f"this item asks the same as the one at {self._seen[base]}, and differs elsewhere",
                field=ID,
                origin=str(origin),
                next_step="Give the items ids, or say which columns tell them apart: id_from=[…].",
            )
        self._rows[base] = (first, times + 1)
        return base if not times else f"{base}-{times + 1}"


def _without(field: str) -> str:
    return f"columns={{{field!r}: None}}, or -o {field}=- in the shell"


def check_id(value: Any, *, field: str, origin: str) -> str:
    """Refuse what cannot be an item's id.

    Raises:
        InvalidValue: Absent, empty, longer than 512 characters, with control characters, or neither text nor integer.
    """
    if value is None:
        problem = "the item has no id"
    elif type(value) is not str:
        problem = f"the id is {json_type(value)}, not text or an integer"
    elif not value.strip():
        problem = "the id is empty"
    elif len(value) > MAX_ID:
        problem = f"the id has {len(value)} characters, the limit is {MAX_ID}"
    elif _CONTROL.search(value):
        problem = f"the id {value!r:.80} holds control characters"
    else:
        return value
    raise InvalidValue(
        problem, field=field, origin=origin, next_step=f"Give every item an id, or derive them: {_without('id')}."
    )


def check_split(value: Any, *, field: str = "split", origin: str = "") -> str:
    """Refuse what cannot be the name of a split.

    Raises:
        InvalidValue: Not text, empty, longer than 128 characters, or with control characters.
    """
    if type(value) is not str or not value.strip() or len(value) > 128 or _CONTROL.search(value):
        raise InvalidValue(
            f"{value!r:.60} is not the name of a split",
            field=field,
            origin=origin,
            next_step=f"Use short text, or keep it as a column of its own: {_without('split')}.",
        )
    return value


def plain_row(values: Any, origin: Origin, id_column: str | None = None) -> dict[str, Any]:
    """A private, JSON-plain copy of a row, without its null columns.

    Raises:
        InvalidValue: Not an object, or a value that is not JSON; the field is named.
    """
    if not isinstance(values, Mapping):
        raise InvalidValue(
            f"the item is {json_type(values)}, not an object",
            origin=str(origin),
            next_step="Each item is an object: column -> value.",
        )
    row: dict[str, Any] = {}
    try:
        for name, value in values.items():
            check_name(name)
            if type(value) is int and abs(value) > MAX_INTEGER and (name == id_column or may_be_id(name)):
                value = str(value)  # ids are text; here no parser can misread them
            made = _plain(value, name, 1)
            if made is not None:
                row[name] = made
    except InvalidInput as error:
        raise InvalidValue.of(error, origin=str(origin)) from None
    return row


def is_name(name: Any) -> TypeGuard[str]:
    """Whether something is text of 1 to 256 characters, not all blank, without control characters."""
    return type(name) is str and bool(name.strip()) and len(name) <= MAX_NAME and not _CONTROL.search(name)


def check_name(name: Any) -> str:
    """Refuse what cannot be the name of a column.

    Raises:
        InvalidInput: Not text, empty, longer than 256 characters, or with control characters or lone surrogates.
    """
    if not is_name(name):
        raise InvalidValue(
            f"{name!r:.80} is not the name of a column",
            field="columns",
            next_step=f"Use text of 1 to {MAX_NAME} characters without control characters.",
        )
    check_json(name, field=f"(column {name!a:.60})")
    return name


def _plain(value: Any, field: str, depth: int) -> Any:
    kind = type(value)
    if kind is float:
        if value.is_integer() and abs(value) < _BIG_AS_WRITTEN:
            if abs(value) > MAX_INTEGER:
                raise InvalidValue(f"the number {value:.3e} is beyond 2^53-1", field=field, next_step=_AS_TEXT)
            return int(value)
    elif isinstance(value, Mapping):
        if depth >= MAX_DEPTH:
            raise InvalidValue(f"nested deeper than {MAX_DEPTH} levels", field=field)
        made = {}
        for key, item in value.items():
            check_key(key, field=field)
            made[key] = _plain(item, f"{field}.{key}", depth + 1)
        return made
    elif kind is list or kind is tuple:
        if depth >= MAX_DEPTH:
            raise InvalidValue(f"nested deeper than {MAX_DEPTH} levels", field=field)
        return [_plain(item, f"{field}[{i}]", depth + 1) for i, item in enumerate(value)]
    check_json(value, field=field)
    return value


def encode(row: Mapping[str, Any], origin: Origin | str, limits: Limits) -> bytes:
    """The canonical JSON of a plain row.

    Raises:
        TooLarge: Longer than `item_bytes`.
    """
    line = canonical_bytes(row)
    if len(line) > limits.item_bytes:
        raise TooLarge(
            f"the item takes {len(line)} bytes, the limit is {limits.item_bytes}",
            field="item",
            origin=str(origin),
            next_step="Keep large content in Files and name it here.",
        )
    return line


def decode_line(line: bytes) -> dict[str, Any]:
    """The inverse of `encode`, for lines that were checked when they came in; a fresh object each time."""
    row: dict[str, Any] = json.loads(line)
    return row


def occurring(fields: Mapping[str, str], lines: Iterable[bytes]) -> dict[str, str]:
    """The fields whose column some item has, of a part of a dataset."""
    missing = set(fields.values())
    for line in lines:
        missing -= decode_line(line).keys()
        if not missing:
            break
    return {field: column for field, column in fields.items() if column not in missing}


def parse_document(text: str, origin: str) -> Any:
    """Parse JSON strictly, but for integers: ids of other tools are often beyond 2^53-1, and become text.

    Raises:
        InvalidValue: Not JSON, duplicate keys, NaN, or nested too deep.
    """
    try:
        return decode_json(text)
    except InvalidManifest as error:
        raise InvalidValue.of(error, origin=origin) from None


def json_type(value: Any) -> str:
    """The JSON Schema word for a value's type."""
    for kind, word in _TYPES:
        if isinstance(value, kind):
            return word
    return f"a {type(value).__name__}"


_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (str, "string"),
    (int, "integer"),
    (float, "number"),
    (list, "array"),
    (dict, "object"),
    (type(None), "null"),
)
