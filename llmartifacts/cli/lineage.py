"""`lineage`: what a version came from, and what came of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from llmartifacts.cli.arguments import ReferenceArgument
from llmartifacts.cli.command import TRACE, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT
from llmartifacts.errors import InvalidInput


class Format(StrEnum):
    """How to write a graph."""

    text = "text"
    mermaid = "mermaid"
    json = "json"
    html = "html"


@command(
    "lineage",
    panel=TRACE,
    examples=(
        "lineage stack:prod",
        "lineage docs:v3 --down",
        "lineage stack:prod --format html > lineage.html",
    ),
    shape='{"root", "direction", "nodes": [Node], "edges": [Edge]}',
)
def lineage(
    session: Session,
    ref: ReferenceArgument,
    up: Annotated[bool, typer.Option("--up", help="What it came from; the default.")] = False,
    down: Annotated[bool, typer.Option("--down", help="What came of it.")] = False,
    format: Annotated[  # noqa: A002 - the option's name
        Format, typer.Option("--format", help="How to write it.")
    ] = Format.text,
) -> None:
    """The whole family of a version, as a tree or a graph."""
    if up and down:
        raise InvalidInput("--up and --down exclude each other", field="--down", next_step="Give one of them.")
    with session.open() as registry:
        graph = registry.lineage(ref, "down" if down else "up")
    out = session.out
    if session.options.json or format is Format.json:
        out.document(graph)
        return
    writers = {Format.text: graph.to_text, Format.mermaid: graph.to_mermaid, Format.html: graph.to_html}

    def text() -> None:
        out.block(writers[format]())
        if format is Format.text and not graph.edges:
            here, there = ("came of it yet", "--up shows what it came from")
            if not down:
                here, there = ("that was logged led to it", "--down shows what came of it")
            out.line((f"nothing {here}; {there}", FAINT))

    out.result(graph, text)
