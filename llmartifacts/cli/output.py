"""The one place that decides what a command prints: text for people, or one JSON document.

With `--json` standard output carries exactly one document: the result, or `{"errors": [...]}`; the exit code tells
which. Warnings, progress and, without `--json`, errors go to standard error. Colours and progress are for terminals.
Everything printed is made safe first: names are validated, but messages, tags, templates and documents are not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from llmartifacts.cli.plain import clean, dumps, one_line

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod

Piece = str | tuple[str, str]
"""Text, or text with a Rich style."""

NAME = "bold cyan"
GOOD = "green"
BAD = "bold red"
WARN = "yellow"
FAINT = "dim"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: Its heading.
        style: Rich style of its cells.
        right: Whether it holds numbers, set to the right.
        shrinks: Whether it gives way, with an ellipsis, where the terminal is narrow.
        wraps: Whether it goes on below itself where the terminal is narrow.
        optional: Whether it is left out where the terminal is narrow, the last one first.
    """

    title: str
    style: str = ""
    right: bool = False
    shrinks: bool = False
    wraps: bool = False
    optional: bool = False


class Quiet:
    """A text stream whose reader may leave: what nobody reads is dropped, and the command ends as it would have."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.encoding = stream.encoding or "utf-8"

    def write(self, text: str) -> int:
        """Write, unless the reader has left."""
        try:
            return self.stream.write(text)
        except UnicodeEncodeError:
            return self.stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Flush, unless the reader has left."""
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._drop()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self.stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _drop(self) -> None:
        # Python flushes once more when it ends; let that go nowhere instead of failing again.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.stream.fileno())
        os.close(null)


class Output:
    """What one call prints.

    Args:
        json: Whether standard output carries one JSON document instead of text.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._out = Quiet(sys.stdout)
        self._err = Quiet(sys.stderr)
        self._consoles: dict[bool, Console] = {}

    def result(self, data: Any, text: Callable[[], None]) -> None:
        """Print a command's result.

        Args:
            data: Records or plain values, for `--json`.
            text: Prints the same for people.
        """
        if self.json:
            self.document(data)
        else:
            text()
        self._out.flush()

    def document(self, data: Any) -> None:
        """Print one JSON document on standard output."""
        utf8 = self._out.encoding.lower().replace("-", "").startswith("utf8")
        self._out.write(dumps(data, ascii_only=not utf8) + "\n")
        self._out.flush()

    def line(self, *pieces: Piece, error: bool = False) -> None:
        """Print one line; a terminal breaks it where it must."""
        self._print(pieces, error=error, safe=one_line_kept)

    def indented(self, *pieces: Piece, indent: int) -> None:
        """Print one line that goes on below itself, indented, where a terminal breaks it."""
        if not self._out.isatty():
            self.line(" " * indent, *pieces)
            return
        from rich.padding import Padding
        from rich.text import Text

        parts = [(one_line_kept(p), "") if isinstance(p, str) else (one_line_kept(p[0]), p[1]) for p in pieces]
        self._console(error=False).print(Padding(Text.assemble(*parts), (0, 0, 0, indent), expand=False))

    def block(self, text: str, style: str = "", *, error: bool = False) -> None:
        """Print text of several lines as it is."""
        if text:
            self._print([(text.rstrip("\n"), style)], error=error, safe=clean)

    def fields(self, pairs: Iterable[tuple[str, str]], *, indent: int = 2) -> None:
        """Print names and values under each other; pairs without a value are left out."""
        shown = [(name, value) for name, value in pairs if value]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            hang = "\n" + " " * (indent + width + 2)
            self.block(f"{'':{indent}}{name:{width}}  {clean(value).strip().replace(chr(10), hang)}")

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Piece]], *, indent: int = 0) -> None:
        """Print a table: fitted to a terminal, complete and without colours anywhere else."""
        cells = [[(one_line(p), "") if isinstance(p, str) else (one_line(p[0]), p[1]) for p in row] for row in rows]
        shown = [i for i, _ in enumerate(columns) if any(row[i][0] for row in cells)]
        if self._out.isatty():
            shown = _fitting(columns, cells, shown, self._console(error=False).width - indent)
        columns = [columns[i] for i in shown]
        cells = [[row[i] for i in shown] for row in cells]
        if self._out.isatty():
            self._rich_table(columns, cells, indent)
        else:
            self._plain_table(columns, cells, indent)

    @contextmanager
    def working(self, label: str) -> Iterator[Callable[[str], None]]:
        """Show, on a terminal, that something is being done; gives a function that changes what is said of it."""
        if self.json or not self._err.isatty():
            yield lambda text: None
            return
        with self._console(error=True).status(one_line(label), spinner="dots") as status:
            yield lambda text: status.update(one_line(text))

    @property
    def shows_progress(self) -> bool:
        """Whether progress is shown: on a terminal, and not with `--json`."""
        return self._err.isatty() and not self.json

    def progress_console(self) -> Console:
        """The console that progress is shown on: standard error."""
        return self._console(error=True)

    def _print(self, pieces: Iterable[Piece], *, error: bool, safe: Callable[[str], str]) -> None:
        parts = [(safe(p), "") if isinstance(p, str) else (safe(p[0]), p[1]) for p in pieces]
        stream = self._err if error else self._out
        if not stream.isatty():
            stream.write("".join(text for text, _ in parts).rstrip() + "\n")
            return
        from rich.text import Text

        self._console(error=error).print(Text.assemble(*parts), soft_wrap=True)

    def _plain_table(self, columns: Sequence[Column], cells: list[list[tuple[str, str]]], indent: int) -> None:
        lines = [[c.title for c in columns], *[[text for text, _ in row] for row in cells]]
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
        for line in lines:
            shown = [
                text.rjust(width) if c.right else text.ljust(width)
                for text, width, c in zip(line, widths, columns, strict=True)
            ]
            self._out.write((" " * indent + "  ".join(shown)).rstrip() + "\n")

    def _rich_table(self, columns: Sequence[Column], cells: list[list[tuple[str, str]]], indent: int) -> None:
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for c in columns:
            justify: JustifyMethod = "right" if c.right else "left"
            # Rich takes width from columns that wrap only; those that shrink do not wrap, for their cells say so.
            table.add_column(Text(c.title), style=c.style, justify=justify, no_wrap=not (c.shrinks or c.wraps))
        for row in cells:
            table.add_row(
                *(
                    Text(text, style, no_wrap=not c.wraps, overflow="fold" if c.wraps else "ellipsis")
                    for (text, style), c in zip(row, columns, strict=True)
                )
            )
        self._console(error=False).print(Padding(table, (0, 0, 0, indent), expand=False))

    def _console(self, *, error: bool) -> Console:
        if error not in self._consoles:
            from rich.console import Console

            stream: Any = self._err if error else self._out
            self._consoles[error] = Console(file=stream, highlight=False, markup=False, emoji=False)
        return self._consoles[error]


_ENOUGH = 16
"""Characters below which a column that gives way is of no use."""


def _fitting(columns: Sequence[Column], cells: list[list[tuple[str, str]]], shown: list[int], width: int) -> list[int]:
    """The columns that a terminal has room for: optional ones go, the last first, until the others fit."""
    natural = [max([len(c.title), *(len(row[i][0]) for row in cells)]) for i, c in enumerate(columns)]
    needed = [min(n, _ENOUGH) if c.shrinks or c.wraps else n for n, c in zip(natural, columns, strict=True)]
    kept = list(shown)
    for i in reversed(shown):
        if columns[i].optional and sum(needed[k] + 2 for k in kept) - 2 > width:
            kept.remove(i)
    return kept


def one_line_kept(text: str) -> str:
    """All of a text on one line, made safe: line breaks become spaces, spaces at the ends stay."""
    return clean(text).replace("\n", " ").replace("\t", " ")


def joined(labels: Mapping[str, str]) -> str:
    """`a=1, b=2`."""
    return ", ".join(f"{key}={value}" for key, value in labels.items())
