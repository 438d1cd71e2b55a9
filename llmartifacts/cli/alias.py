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


@command(
    "protect",
    examples=("alias protect prod --role admin", "alias protect 'rc-*' --remove", "alias protect"),
    shape='{"project", "protected": [{"pattern", "role"}]}',
)
def protect(
    session: Session,
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="Which aliases, such as prod or rc-*; none to list.")
    ] = None,
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help="Who alone may move them, beside what their grants say.")
    ] = "admin",
    remove: Annotated[bool, typer.Option("--remove", help="Protect them no more.")] = False,
) -> None:
    """Let only those of a role move some aliases; on a server."""
    from llmartifacts.cli.accounts import accounts_of
    from llmartifacts.records.rights import check_protection

    with session.open() as registry:
        asked, project = accounts_of(registry), registry.project
        found = asked.protections(project)
        if pattern is not None:
            wanted = check_protection(pattern, role)
            if remove and wanted.pattern not in (one.pattern for one in found):
                raise NotFound(f"{pattern!r} is not protected", what="protection", name=pattern, field="PATTERN")
            others = tuple(one for one in found if one.pattern != wanted.pattern)
            found = asked.protect(project, others if remove else (*others, wanted))
    out = session.out

    def text() -> None:
        if not found:
            out.line(f"no alias of {project} is protected")
            return
        out.table((Column("alias", NAME), Column("moved by")), [(one.pattern, f"{one.role} only") for one in found])

    out.result({"project": project, "protected": found}, text)


GROUP = CommandGroup("alias", "List, remove and protect aliases; promote sets them.", MOVE, (ls, rm, protect))
