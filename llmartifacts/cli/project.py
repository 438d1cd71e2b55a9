"""`project ls`, `project create`, `project rm`: namespaces."""

from __future__ import annotations

from typing import Annotated

import typer

from llmartifacts.cli.arguments import Reason
from llmartifacts.cli.command import KEEP, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.gc import length
from llmartifacts.cli.output import FAINT, GOOD, NAME, WARN, Column
from llmartifacts.records.wording import counted, size


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


@command(
    "rm",
    examples=(
        "project rm acme --reason 'contract ended'",
        "project rm acme --reason 'it ended' --json > proof.json",
    ),
    shape="RemovedProject, the proof; sizes in bytes",
)
def rm(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The project.")],
    reason: Reason,
    grace: Annotated[
        str | None, typer.Option("--grace", metavar="TIME", help="How long its bytes stay; as of gc.")
    ] = None,
    even_default: Annotated[
        bool,
        typer.Option("--even-default", help="Remove also 'default': then every name has to say its project."),
    ] = False,
) -> None:
    """Remove a project with all of its content, and prove it; the name is not used again."""
    out = session.out
    with session.open() as registry, out.working("removing what no other project needs"):
        made = registry.remove_project(name, reason=reason, grace=length(grace, "--grace"), even_default=even_default)

    def text() -> None:
        out.line(("removed ", WARN), (made.project, NAME), f" with {counted(made.versions, 'version')}")
        out.line(f"{counted(len(made.gone), 'digest')} stored nowhere now; {size(made.freed)} freed")
        if made.remaining:
            out.line((f"{counted(len(made.remaining), 'digest')} stay, for other projects", FAINT))
        if made.waiting:
            told = "wait for their grace period; the same command frees them then, and gives the proof anew"
            out.line((f"{counted(len(made.waiting), 'digest')} {told}", WARN))
        out.line((f"audit entry {made.entry} tells of it; --json prints the proof with every digest", FAINT))

    out.result(made, text)


GROUP = CommandGroup("project", "Namespaces with their own names and aliases.", KEEP, (ls, create, rm))
