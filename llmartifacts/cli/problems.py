"""What a check found wrong: told to people, and as an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmartifacts import wire
from llmartifacts.cli.failures import tell
from llmartifacts.cli.output import BAD

if TYPE_CHECKING:
    from llmartifacts.cli.output import Output
    from llmartifacts.errors import LlmartifactsError

_ORDER = (wire.DAMAGED, wire.NEWER_FORMAT, wire.UNREACHABLE, wire.NOT_ALLOWED)


def tell_problems(out: Output, problems: Sequence[LlmartifactsError], more: int) -> None:
    """Print them as the result of a command.

    Args:
        out: Where to.
        problems: What is wrong.
        more: How many there are besides.
    """
    for problem in problems:
        tell(problem, out, as_result=True)
    if more:
        out.line((f"and {more:,} more", BAD))


def code_of(problems: Sequence[LlmartifactsError]) -> int:
    """The exit code of the gravest of what was found, damage first."""
    codes = {wire.exit_code(problem) for problem in problems}
    return next((code for code in _ORDER if code in codes), wire.DAMAGED)
