"""How the demo tells its story: numbered steps, each with what happens, why, and the line that does it."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from llmartifacts.cli.output import FAINT, GOOD, NAME, Column, Output, Piece
from llmartifacts.cli.plain import clean
from llmartifacts.errors import LlmartifactsError

INDENT = 3
WIDEST = 100


class Screen:
    """Prints the story, and keeps the record of it that `--json` prints in its place.

    Args:
        out: What to print on; with its `json`, nothing is printed.

    Attributes:
        steps: What was told, step by step.
        width: Columns that a line may take.
    """

    def __init__(self, out: Output) -> None:
        self.out = out
        self.steps: list[dict[str, Any]] = []
        self.width = min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST) - 1

    def title(self, text: str, *more: str) -> None:
        """The first lines."""
        self._line((text, "bold"))
        for line in more:
            self._wrapped(line, 0, FAINT)

    def step(self, title: str) -> None:
        """Begin the next step."""
        self.steps.append({"step": title, "code": [], "checked": []})
        self._line()
        self._line((f"{len(self.steps):<{INDENT}}", NAME), (title, "bold"))

    def say(self, text: str) -> None:
        """What happens, and why."""
        self._wrapped(text, INDENT)

    def python(self, text: str) -> None:
        """The lines of Python that do it."""
        self._code("| ", text)

    def shell(self, text: str) -> None:
        """The command lines that do it."""
        self._code("$ ", text)

    def quote(self, text: str, *, label: str = "", style: str = "") -> None:
        """Text that came from somewhere else, wrapped, beside its label."""
        self._wrapped(text, INDENT + 2, style, label=label)

    def tree(self, text: str) -> None:
        """Text whose line breaks are its own."""
        if not self.out.json:
            self.out.block(textwrap.indent(text, " " * INDENT))

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Piece]]) -> None:
        """A table."""
        if not self.out.json:
            self.out.table(columns, list(rows), indent=INDENT)

    def blank(self) -> None:
        """An empty line."""
        self._line()

    def check(self, claim: str, held: bool) -> None:
        """Print a claim that was checked.

        Raises:
            LlmartifactsError: It does not hold, so the demo ends here.
        """
        if not held:
            raise LlmartifactsError(
                f"the demo checked this, and it does not hold: {claim}",
                origin=f"step {len(self.steps)}, {self.steps[-1]['step']}",
                next_step="This is a bug in llmartifacts; run it again with --keep DIR and report it with that folder.",
            )
        self.steps[-1]["checked"].append(claim)
        self._wrapped(claim, INDENT, GOOD, label="ok")

    def working(self, label: str) -> AbstractContextManager[Callable[[str], None]]:
        """Show, on a terminal, that something takes a moment."""
        return self.out.working(label)

    def _code(self, lead: str, text: str) -> None:
        lines = textwrap.dedent(text).strip("\n").splitlines()
        self.steps[-1]["code"] += lines
        for line in lines:
            self._line((f"{'':{INDENT}}{lead}", FAINT), (line, NAME))

    def _wrapped(self, text: str, indent: int, style: str = "", *, label: str = "") -> None:
        lead = f"{'':{indent}}{label} " if label else " " * indent
        body = textwrap.fill(
            " ".join(clean(text).split()),
            self.width,
            initial_indent=lead,
            subsequent_indent=" " * len(lead),
            break_on_hyphens=False,
        )
        for line in body.splitlines():
            self._line((line, style))

    def _line(self, *pieces: Piece) -> None:
        if not self.out.json:
            self.out.line(*pieces)
