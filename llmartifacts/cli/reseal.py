"""`repair --database`: the checksums of an embedded registry's database, made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, GOOD
from llmartifacts.cli.plain import plain
from llmartifacts.errors import InvalidInput, NotAllowed
from llmartifacts.records.wording import counted

DatabaseOption = Annotated[
    bool,
    typer.Option(
        "--database",
        help="Make the checksums of the database's pages anew, if all its records are right without them: for one that"
        " another program (sqlite3) had open, or that lost the end of its log.",
    ),
]


def reseal(session: Session, given: dict[str, bool]) -> None:
    """Do it, and say what was done.

    Args:
        session: What was given on the command line.
        given: Other options of `repair` -> whether they were given; none goes with it.
    """
    from llmartifacts.connect import find, who
    from llmartifacts.versioning import reseal as work

    for name, there in given.items():
        if there:
            raise InvalidInput(
                f"{name} is about bytes, and --database about records",
                field=name,
                next_step="Run repair --database first, then repair without it.",
            )
    place = find(session.options.registry)
    if "://" in place:
        raise NotAllowed(
            "a server's database is repaired where it is",
            next_step="Run this on the server's host, over its directory.",
        )
    done = work.reseal(Path(place), actor=who())
    out = session.out

    def text() -> None:
        out.line((f"{counted(done.versions, 'version')}: every record is right; the checksums were made anew", GOOD))
        out.line((f"the files as they were are in {done.kept}, and may be deleted", FAINT))

    out.result({"ok": True, **plain(done)}, text)
