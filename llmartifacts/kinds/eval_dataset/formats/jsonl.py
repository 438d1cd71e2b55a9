"""JSON Lines: one object a line, UTF-8. Source: https://jsonlines.org."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.disk import AnyPath
from llmartifacts.kinds.eval_dataset.rows import parse_document
from llmartifacts.kinds.eval_dataset.sources import Limits, Origin, Row, name_of, reading, replacing, text_lines

if TYPE_CHECKING:
    from llmartifacts.kinds.eval_dataset.value import EvalDataset


def read(source: AnyPath | Iterable[str | bytes], limits: Limits) -> Iterator[Row]:
    """The rows of a file, or of its lines; blank lines are skipped.

    Raises:
        InvalidValue: A line is not JSON or not UTF-8; it is named.
    """
    if isinstance(source, str | os.PathLike):
        with reading(source, limits) as stream:
            yield from _rows(text_lines(stream, name_of(source), limits), name_of(source))
    elif isinstance(source, Iterable) and not isinstance(source, bytes | bytearray | memoryview):
        yield from _rows(text_lines(source, name_of(source), limits), name_of(source))
    else:
        raise InvalidValue(
            f"a {type(source).__name__} is no file", field="source", next_step="Give a path, or an iterable of lines."
        )


def _rows(lines: Iterable[tuple[int, str]], name: str) -> Iterator[Row]:
    for number, line in lines:
        if line.strip():
            origin = Origin(name, "line", number)
            yield Row(origin, parse_document(line, str(origin)))


def write(dataset: EvalDataset, path: AnyPath) -> None:
    """One canonical line an item."""
    with replacing(path) as out:
        for line in dataset.lines:
            out.write(line + b"\n")
