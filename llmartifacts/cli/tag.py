"""`tag`: labels of a version."""

from __future__ import annotations

from typing import Annotated

import typer

from llmartifacts.cli.arguments import ReferenceArgument, pairs
from llmartifacts.cli.command import MOVE, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, NAME


@command(
    "tag",
    panel=MOVE,
    examples=("tag agent:v2 ticket=CHG-1042 owner=qa", "tag agent:v2 --remove owner"),
    shape="Version",
)
def tag(
    session: Session,
    ref: ReferenceArgument,
    labels: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Labels to set.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="KEY", help="Label to take away. Repeatable.")
    ] = None,
) -> None:
    """Set, take away or show the labels of a version."""
    wanted = pairs(labels or (), "KEY=VALUE")
    with session.open() as registry:
        version = registry.tag(ref, set=wanted, remove=remove or ()) if wanted or remove else registry.get(ref)
    out = session.out

    def text() -> None:
        out.line((str(version), NAME), ("" if version.tags else "  no tags", FAINT))
        out.fields(version.tags.items())

    out.result(version, text)
