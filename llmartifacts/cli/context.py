"""The session of one call: the options accepted everywhere, the registry, the output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmartifacts.cli.output import Output

if TYPE_CHECKING:
    from llmartifacts.registry import Registry


@dataclass(frozen=True, slots=True)
class Everywhere:
    """The options that every command takes, before its name and after it.

    Attributes:
        json: Whether to print one JSON document.
        project: Project that names without a prefix mean; None for the default.
        registry: Where the registry is; None to look for it.
    """

    json: bool = False
    project: str | None = None
    registry: str | None = None

    def then(self, later: Everywhere) -> Everywhere:
        """These options, and those given later on the line, which win."""
        return Everywhere(self.json or later.json, later.project or self.project, later.registry or self.registry)


class Session:
    """What a command works with.

    Args:
        options: The options accepted everywhere.
    """

    def __init__(self, options: Everywhere) -> None:
        self.options = options
        self.out = Output(json=options.json)

    def within(self, project: str | None) -> Session:
        """The same session with another project; None changes nothing."""
        return Session(self.options.then(Everywhere(project=project)))

    @contextmanager
    def open(self) -> Iterator[Registry]:
        """The registry, closed at the end. Raises as `llmartifacts.connect`."""
        from llmartifacts.connect import connect  # 150 ms, not needed for help

        with connect(self.options.registry, project=self.options.project) as registry:
            yield registry
