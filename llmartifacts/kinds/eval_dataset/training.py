"""Training items in any form: a dataset, a fine-tuning file, or rows; read once, one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.disk import AnyPath
from llmartifacts.kinds.eval_dataset import texts
from llmartifacts.kinds.eval_dataset.fields import may_be_id
from llmartifacts.kinds.eval_dataset.rows import ID, plain_row
from llmartifacts.kinds.eval_dataset.sources import Limits, Origin

if TYPE_CHECKING:
    from llmartifacts.kinds.eval_dataset.value import EvalDataset


class Part(NamedTuple):
    """One text of a training item.

    Attributes:
        place: Where it stands, such as `messages[1].content`.
        text: The text.
    """

    place: str
    text: str


class TrainingItem(NamedTuple):
    """One training item.

    Attributes:
        label: What it is called: its id in a dataset, else its place.
        id: Its id, where one of its columns is known to be one; else empty.
        id_column: That column.
        parts: Its texts, in order.
        values: The columns that they are from.
    """

    label: str
    id: str
    id_column: str
    parts: list[Part]
    values: Mapping[str, Any]

    def joined(self) -> Iterator[tuple[str, str]]:
        """Each column that has several texts, as one: with the instructions of a chat, and without."""
        for name, value in self.values.items():
            if not isinstance(value, str):
                whole, rest = texts.text_of(value), texts.text_of(value, instructions=False)
                yield name, whole
                if rest != whole:
                    yield name, rest


class Training:
    """A training set, opened but not yet read.

    Args:
        train: A dataset, whose metadata and splits are left out; one file or several, by their suffixes; or one mapping
            an item: column -> plain JSON.
        columns: The columns to read; all by default.
        limits: Caps on what is read.

    Raises:
        InvalidValue: It is none of these, an unknown suffix, or as the format's own reader.
        NotFound: There is no such file.
    """

    def __init__(
        self,
        train: EvalDataset | AnyPath | Sequence[AnyPath] | Iterable[Mapping[str, Any]],
        columns: Sequence[str] | None,
        limits: Limits,
    ) -> None:
        self._columns = None if columns is None else {columns} if isinstance(columns, str) else set(columns)
        self._rows = _rows(train, limits)
        self.count = 0
        """Number of items read so far."""

    def items(self) -> Iterator[TrainingItem]:
        """Every item, once.

        Raises:
            InvalidValue: There is none, one is no plain JSON, or none has a column that was asked for.
        """
        seen: set[str] = set()
        for label, row, id_column in self._rows:
            self.count += 1
            given = row.get(id_column)
            item_id = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else ""
            wanted = {
                name: value
                for name, value in row.items()
                if name != id_column and (self._columns is None or name in self._columns)
            }
            if self._columns is not None:
                seen.update(wanted)
            parts = [Part(*leaf) for name, value in wanted.items() for leaf in texts.leaves(value, name)]
            yield TrainingItem(label or item_id, item_id, id_column, parts, wanted)
        if not self.count:
            raise InvalidValue("the training set has no items", field="train")
        if self._columns is not None and (missing := self._columns - seen):
            raise InvalidValue(f"no training item has the column {min(missing)!r:.60}", field="train_columns")


def _rows(train: Any, limits: Limits) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Label, columns, and the name of the column that is the id."""
    from llmartifacts.kinds.eval_dataset.value import EvalDataset

    if isinstance(train, EvalDataset):
        return _of_dataset(train)
    if isinstance(train, str | os.PathLike) or (
        isinstance(train, list | tuple) and train and all(isinstance(p, str | os.PathLike) for p in train)
    ):
        return _of_files(cast("AnyPath | Sequence[AnyPath]", train), limits)
    if isinstance(train, Iterable) and not isinstance(train, Mapping | bytes | bytearray | memoryview):
        return _of_mappings(train)
    raise InvalidValue(
        f"a {type(train).__name__} is no training set",
        field="train",
        next_step="Give an EvalDataset, a file, or one mapping an item.",
    )


def _of_dataset(train: EvalDataset) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    left_out = {train.fields[f] for f in ("metadata", "split") if f in train.fields}
    for row in train.rows():
        yield "", {name: value for name, value in row.items() if name not in left_out}, ID


def _of_files(train: AnyPath | Sequence[AnyPath], limits: Limits) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    from llmartifacts.kinds.eval_dataset.formats.files import read

    return _of_rows((row.origin, row.values) for row in read(train, limits, {}))


def _of_mappings(train: Iterable[Any]) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    return _of_rows(((Origin("", "item", i), row) for i, row in enumerate(train, 1)))


def _of_rows(rows: Iterable[tuple[Origin, Any]]) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    for origin, values in rows:
        row = plain_row(values, origin)
        id_column = ID if ID in row else next((name for name in row if may_be_id(name)), "")
        yield str(origin), row, id_column
