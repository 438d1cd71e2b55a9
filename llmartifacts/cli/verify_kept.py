"""`verify --cache` and `verify --installed`: what lies beside a service, without the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts.cli.output import BAD, GOOD, NAME
from llmartifacts.cli.plain import plain
from llmartifacts.cli.problems import tell_problems
from llmartifacts.cli.progress import measured
from llmartifacts.errors import InvalidInput
from llmartifacts.records.wording import counted, size

if TYPE_CHECKING:
    from llmartifacts.cli.context import Session
    from llmartifacts.runtime.verify_kept import KeptVerification

CacheOption = Annotated[
    bool,
    typer.Option(
        "--cache", help="Check this user's cache instead, every byte, and the sets it keeps for a start without one."
    ),
]
InstalledOption = Annotated[
    Path | None,
    typer.Option(
        "--installed", metavar="DIR", help="Check a folder that `install --to` made instead: its lockfile, every byte."
    ),
]


def check(session: Session, *, cache: bool, installed: Path | None, others: dict[str, bool]) -> KeptVerification | None:
    """Check and tell what lies beside a service, where that is asked for; None where it is not.

    Args:
        session: The session.
        cache: Whether the cache is to be checked.
        installed: The folder that is to be checked.
        others: What else is given that only means something for a registry.

    Raises:
        InvalidInput: Both are asked for, or something else besides.
    """
    if not cache and installed is None:
        return None
    which = "--cache" if cache else "--installed"
    if cache and installed is not None:
        raise InvalidInput("--cache and --installed exclude each other", field=which, next_step="Give one of them.")
    given = next((name for name, is_given in others.items() if is_given), None)
    if given is not None:
        told = f"{which} reads no registry, and every byte of what it checks"
        raise InvalidInput(told, field=given, next_step=f"Leave out {given}.")
    from llmartifacts.runtime.verify_kept import verify_cache, verify_installed

    out = session.out
    with measured(out, "reading and hashing what is kept") as progress:
        if installed is not None:
            found = verify_installed(installed, progress=progress)
        else:
            found = verify_cache(progress=progress)

    def text() -> None:
        sets = f", {counted(found.sets, 'last-known-good set')}" if installed is None else ", the lockfile"
        out.line(
            f"{counted(found.objects, 'object')} ({size(found.size)}){sets} read and hashed in ", (found.place, NAME)
        )
        if found.ok:
            out.line(("all well", GOOD))
            return
        out.line((f"{len(found.problems) + found.more:,} damaged or missing", BAD))
        tell_problems(out, found.problems, found.more)

    out.result({"ok": found.ok, **plain(found)}, text)
    return found
