"""`project ls`, `project create`: namespaces."""

from __future__ import annotations

from typing import Annotated

import typer

from llmartifacts.cli.command import KEEP, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, GOOD, NAME, Column


@command("ls", examples=("project ls",), shape='{"projects": [Project]}')
def ls(session: Session) -> None:
    """List projects."""
    with session.open() as registry:
        projects = registry.projects()
        remote = "://" in registry.backend.location
    out = session.out

    def text() -> None:
        if not projects:
            if remote:
                out.line("no projects that you may see; what you may do: ", ("llmartifacts user whoami", NAME))
                out.line("an administrator makes projects, and gives roles in them: ", ("llmartifacts grant add", NAME))
            else:
                out.line("no projects yet; the first log makes one")
            return
        out.table(
            (
                Column("name", NAME),
                Column("collections", right=True),
                Column("revision", right=True),
                Column("since", FAINT),
            ),
            [(p.name, str(p.collections), str(p.revision), f"{p.created_at:%Y-%m-%d}") for p in projects],
        )

    out.result({"projects": projects}, text)


@command("create", examples=("project create acme",), shape="Project")
def create(session: Session, name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")]) -> None:
    """Make a project."""
    with session.open() as registry:
        made = registry.create_project(name)
    out = session.out
    out.result(made, lambda: out.line(("made project ", GOOD), (made.name, NAME)))


GROUP = CommandGroup("project", "Namespaces with their own names and aliases.", KEEP, (ls, create))
