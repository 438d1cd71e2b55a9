"""`alias ls`, `alias rm`. Aliases are set by `promote`."""

from __future__ import annotations

from typing import Annotated

import typer

from llmartifacts.cli.arguments import Reason, bare_name
from llmartifacts.cli.command import MOVE, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import GOOD, NAME, WARN, Column
from llmartifacts.cli.plain import version_text
from llmartifacts.errors import NotFound
from llmartifacts.records.names import near_names
from llmartifacts.records.reference import Reference


@command(
    "ls",
    examples=("alias ls", "alias ls agent"),
    shape='{"aliases": [{"project", "name", "kind", "alias", "number"}]}',
)
def ls(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this collection.")] = None,
) -> None:
    """List aliases and the versions they mean."""
    if name is not None:
        bare_name(name, field="NAME", next_step=f"To see what one alias means: llmartifacts show {name}.")
    wanted = None if name is None else Reference.parse(name)
    with session.within(wanted.project if wanted else None).open() as registry:
        collections = registry.collections()
    if wanted is not None:
        known = [c.name for c in collections]
        if wanted.name not in known:
            raise NotFound(
                f"there is no collection {wanted.name!r}",
                what="collection",
                name=wanted.name,
                near=near_names(wanted.name, known),
                field="NAME",
            )
        collections = [c for c in collections if c.name == wanted.name]
    rows = [(c, alias, number) for c in collections for alias, number in sorted(c.aliases.items())]
    data = [
        {"project": c.project, "name": c.name, "kind": c.kind, "alias": alias, "number": number}
        for c, alias, number in rows
    ]
    out = session.out

    def text() -> None:
        if not rows:
            out.line("no aliases; ", ("llmartifacts promote REF --to prod", NAME), " sets one")
            return
        out.table(
            (Column("name", NAME), Column("kind"), Column("alias", GOOD), Column("version")),
            [(c.name, c.kind, alias, version_text(number)) for c, alias, number in rows],
        )

    out.result({"aliases": data}, text)


@command("rm", examples=("alias rm agent:canary --reason 'trial is over'",), shape="Promotion")
def rm(
    session: Session,
    ref: Annotated[str, typer.Argument(metavar="NAME:ALIAS", help="The alias to remove.")],
    reason: Reason,
) -> None:
    """Remove an alias; its history stays, and rollback brings it back."""
    with session.open() as registry:
        made = registry.remove_alias(ref, reason=reason)
    out = session.out

    def text() -> None:
        for move in made.moves:
            out.line((f"{move.name}:{move.alias}", NAME), (" removed", WARN), f", it meant {version_text(move.old)}")

    out.result(made, text)


GROUP = CommandGroup("alias", "List and remove aliases; promote sets them.", MOVE, (ls, rm))
