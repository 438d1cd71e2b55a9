"""Where a template stands, for error messages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from llmartifacts.errors import InvalidTemplate

E = TypeVar("E", bound=InvalidTemplate)

TEMPLATE_FORMATS = ("jinja2", "f-string", "mustache")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a template stands.

    Attributes:
        field: Field of the prompt, such as `template` or `messages[2].template`.
        origin: The file it was read from; empty if there is none.
    """

    field: str = "template"
    origin: str = ""

    def error(
        self,
        message: str,
        line: int | None = None,
        *,
        variable: str = "",
        next_step: str = "",
        kind: type[InvalidTemplate] = InvalidTemplate,
    ) -> InvalidTemplate:
        """An error that says where."""
        return kind(
            message,
            field=self.field,
            origin=self.at(line),
            line=line,
            variable=variable,
            next_step=next_step,
        )

    def settle(self, error: E, line: int | None = None) -> E:
        """An error that was raised by somebody who does not know the place, with the place."""
        return replace(error, field=self.field, origin=self.at(line), line=line)

    def at(self, line: int | None) -> str:
        """File and line, as far as they are known."""
        where = [self.origin] if self.origin else []
        if line is not None:
            where.append(f"line {line}")
        return ", ".join(where)


@dataclass(frozen=True, slots=True)
class Use:
    """How a template uses a variable.

    Attributes:
        line: Line of its first use, from 1.
        required: Whether it must be given.
    """

    line: int
    required: bool
