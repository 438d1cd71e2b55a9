"""Hugging Face `datasets`, by what its objects do: a dataset iterates over rows, a `DatasetDict` maps splits to it.

Source: https://huggingface.co/docs/datasets/access (Dataset, IterableDataset, DatasetDict).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import InvalidValue, MissingExtra
from llmartifacts.kinds.eval_dataset.formats.parquet import plain
from llmartifacts.kinds.eval_dataset.rows import ID
from llmartifacts.kinds.eval_dataset.sources import Origin, Row
from llmartifacts.records.canonical import canonical_bytes

if TYPE_CHECKING:
    from llmartifacts.kinds.eval_dataset.value import EvalDataset

SPLIT = "split"
_SCALAR = ({"string"}, {"boolean"}, {"integer"}, {"number"}, {"integer", "number"})


def read(dataset: Any) -> Iterator[Row]:
    """The rows of a dataset; of a `DatasetDict`, the rows of each with its key as the column `split`.

    Raises:
        InvalidValue: It does not iterate over mappings, or has a column `split` and splits.
    """
    if isinstance(dataset, Mapping):
        for name, part in dataset.items():
            for row in _rows(part, f"{name}"):
                if row.values.get(SPLIT, name) != name:
                    raise InvalidValue(
                        "the rows have a column 'split' that says something else than the split they are in",
                        field=SPLIT,
                        origin=str(row.origin),
                        next_step="Rename that column, or take one split at a time.",
                    )
                yield Row(row.origin, {**row.values, SPLIT: name})
    else:
        yield from _rows(dataset, "")


def write(dataset: EvalDataset) -> Any:
    """A `datasets.Dataset`: `id`, the columns of the fields, then the others by name; absent values are None.

    Raises:
        MissingExtra: datasets is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtra("this needs the library datasets", extra="datasets") from None
    names = [c for c in dict.fromkeys((*dataset.fields.values(), *dataset.schema)) if c in dataset.schema]
    # Arrow takes one type a column; arrays and objects pass if pyarrow can tell their type, so they become text.
    as_text = {name for name in names if set(dataset.schema[name].types) not in _SCALAR}
    values: dict[str, list[Any]] = {ID: list(dataset.ids), **{name: [] for name in names}}
    for row in dataset.rows():
        for name in names:
            value = row.get(name)
            values[name].append(canonical_bytes(value).decode() if name in as_text and name in row else value)
    return datasets.Dataset.from_dict(values)


def _rows(dataset: Any, name: str) -> Iterator[Row]:
    try:
        items = iter(dataset)
    except TypeError:
        raise InvalidValue(
            f"a {type(dataset).__name__} is no dataset", field="dataset", next_step="Give a datasets.Dataset."
        ) from None
    for number, values in enumerate(items, 1):
        origin = Origin(name, "row", number)
        if not isinstance(values, Mapping):
            raise InvalidValue(f"a {type(values).__name__} is no row", field="dataset", origin=str(origin))
        yield Row(origin, {column: plain(value, str(column), origin) for column, value in values.items()})
