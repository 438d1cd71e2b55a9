"""`run ls`, `run show`: executions that used and produced versions."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from llmartifacts.cli.command import TRACE, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, WARN, Column
from llmartifacts.cli.plain import minute, plain, when

_STYLES = {"done": GOOD, "failed": BAD, "running": WARN}


@command("ls", examples=("run ls", "run ls --limit 5"), shape='{"runs": [RunRecord]}, newest first')
def ls(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many runs.")] = 50,
) -> None:
    """List runs."""
    with session.open() as registry:
        runs = registry.runs(limit=limit)
    out = session.out

    def text() -> None:
        if not runs:
            out.line("no runs; ", ("with registry.run('build-index') as run:", NAME), " records one, from Python")
            return
        out.table(
            (
                Column("id", NAME),
                Column("name"),
                Column("status"),
                Column("began, UTC", FAINT),
                Column("by", optional=True),
                Column("used", right=True, optional=True),
                Column("produced", wraps=True),
            ),
            [
                (
                    r.id,
                    r.name,
                    (r.status, _STYLES.get(r.status, "")),
                    minute(r.started_at),
                    r.author,
                    str(len(r.used)),
                    ", ".join(f"{v.name}:{v.selector}" for v in r.produced),
                )
                for r in runs
            ],
        )

    out.result({"runs": runs}, text)


@command("show", examples=("run show RUN",), shape="RunRecord")
def show(session: Session, run: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")]) -> None:
    """Show one run: what it ran with, what it read, what it logged."""
    with session.open() as registry:
        found = registry.get_run(run)
    out = session.out

    def text() -> None:
        out.line((found.name, NAME), "  ", (found.status, _STYLES.get(found.status, "")), (f"  {found.id}", FAINT))
        out.fields(
            (
                ("began", f"{when(found.started_at)} by {found.author}"),
                ("ended", when(found.ended_at) if found.ended_at else ""),
                ("error", found.error),
                ("commit", found.git_commit),
                ("used", "\n".join(map(str, found.used))),
                ("produced", "\n".join(map(str, found.produced))),
                *(
                    (f"{key} =", json.dumps(plain(value), ensure_ascii=False))
                    for key, value in found.parameters.items()
                ),
            )
        )

    out.result(found, text)


GROUP = CommandGroup("run", "Executions that used and produced versions.", TRACE, (ls, show))
