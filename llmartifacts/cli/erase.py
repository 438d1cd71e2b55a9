"""`erase`, `lease`: content that goes for good, and content that is held."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts.cli.arguments import Reason, existing
from llmartifacts.cli.command import KEEP, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.gc import length
from llmartifacts.cli.output import FAINT, GOOD, NAME, WARN, Column, Output
from llmartifacts.cli.plain import plain, when
from llmartifacts.errors import InvalidInput
from llmartifacts.records.digest import short
from llmartifacts.records.removal import MAX_DOCUMENTS, MAX_ID
from llmartifacts.records.wording import counted, size

if TYPE_CHECKING:
    from llmartifacts.records.removal import Erased

_MAX_FILE = MAX_DOCUMENTS * (MAX_ID + 2)


@command(
    "erase",
    panel=KEEP,
    examples=(
        "erase kb --documents ids.txt --reason 'request 47' --dry-run",
        "erase kb --document ticket-88 --reason 'request 47'",
    ),
    shape='Erased, with "complete"; sizes in bytes',
    more={
        "What is left": "\n".join(
            (
                "  nothing in the store, in the database's files and in this machine's cache",
                "  rows of the versions, marked as erased, and the audit: digests, and not which documents it was",
                "  backups, caches of other machines, and what a database server archives of its log: see to those",
            )
        )
    },
)
def erase(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="An index, a dataset or a report.")],
    reason: Reason,
    file: Annotated[
        Path | None, typer.Option("--documents", metavar="FILE", help="Ids of documents or items, one a line.")
    ] = None,
    document: Annotated[list[str] | None, typer.Option("--document", metavar="ID", help="One id. Repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would go.")] = False,
) -> None:
    """Erase documents for good: every version that holds one of them goes, with all of its bytes."""
    ids = [*(document or ()), *(() if file is None else _ids(file))]
    if not ids:
        raise InvalidInput(
            "no document is named", field="--documents", next_step="Give a file of ids, one a line, or --document ID."
        )
    out = session.out
    with session.open() as registry, out.working("looking for the documents"):
        done = registry.erase(name, ids, reason=reason, dry_run=dry_run)
    out.result({**plain(done), "complete": done.complete}, lambda: _tell(out, done))


def _ids(file: Path) -> list[str]:
    (path,) = existing([file], field="--documents")
    with open(path, "rb") as stream:
        data = stream.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise InvalidInput(f"the file has more than {_MAX_FILE:,} bytes", field="--documents", origin=str(path))
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the file is no UTF-8: {error}", field="--documents", origin=str(path)) from None
    return [line for line in (one.removesuffix("\r") for one in lines) if line]


def _tell(out: Output, done: Erased) -> None:
    goes = "would go" if done.dry_run else "gone"
    out.line(
        f"{counted(done.found, 'document')} found in {len(done.versions)} of {counted(done.searched, 'version')} of ",
        (done.name, NAME),
    )
    for one in done.versions:
        out.line("  ", (one, NAME), (f"  {goes}", WARN))
    for one in done.bundles:
        out.line("  ", (one, NAME), (f"  {goes}: it contains one of them", WARN))
    if done.dry_run:
        return
    if done.complete:
        out.line(("nothing of them is stored any more", GOOD), f"; {size(done.freed)} freed")
    else:
        out.line((f"{counted(len(done.remaining), 'file')} of them stay, for versions of other names:", WARN))
        out.line("  ", (", ".join(done.holders) or "in other projects", NAME))
        out.line(("erase them there too, and this is complete", FAINT))
    out.line(("not reached: backups, and caches of other machines", FAINT))


# --- lease


@command("ls", examples=("lease ls",), shape='{"leases": [Lease]}')
def ls(session: Session) -> None:
    """List who holds what, until when."""
    with session.open() as registry:
        found = registry.leases()
    out = session.out

    def text() -> None:
        if not found:
            out.line("nothing is held; ", ("llmartifacts lock --lease 90d", NAME), " holds what a lockfile names")
            return
        out.table(
            (
                Column("holder", NAME, wraps=True),
                Column("versions", right=True),
                Column("until, UTC"),
                Column("by", optional=True),
                Column("digests", FAINT, shrinks=True, optional=True),
            ),
            [
                (one.holder, str(len(one.digests)), when(one.until), one.account, " ".join(map(short, one.digests)))
                for one in found
            ],
        )

    out.result({"leases": found}, text)


@command("take", examples=("lease take web-3 agent:prod kb:v5 --for 30d",), shape="Lease")
def take(
    session: Session,
    holder: Annotated[str, typer.Argument(metavar="HOLDER", help="Who holds them, such as a service's name.")],
    refs: Annotated[list[str], typer.Argument(metavar="REF…", help="name:alias, name:vN or name@sha256:…")],
    time: Annotated[str, typer.Option("--for", metavar="TIME", help="How long, from now; 0 lets go of them.")] = "90d",
) -> None:
    """Hold versions for a time: `gc --keep-last` and `--keep-within` remove none of them."""
    lasts = length(time, "--for")
    if lasts is None:  # pragma: no cover - there is a default
        raise InvalidInput("no time was given", field="--for")
    with session.open() as registry:
        made = registry.lease(refs, holder=holder, length=lasts)
    out = session.out

    def text() -> None:
        if not made.digests:
            out.line((holder, NAME), " holds nothing any more")
        else:
            out.line((holder, NAME), f" holds {counted(len(made.digests), 'version')} until {when(made.until)}")

    out.result(made, text)


GROUP = CommandGroup("lease", "Versions that are held for a time.", KEEP, (ls, take))
