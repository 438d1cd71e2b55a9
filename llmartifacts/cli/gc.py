"""`gc`: versions that no rule keeps go, and what no version needs is freed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts.cli.command import KEEP, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, GOOD, NAME, WARN, Column, Output, Piece
from llmartifacts.cli.plain import plain
from llmartifacts.errors import InvalidInput
from llmartifacts.records.times import parse_duration
from llmartifacts.records.wording import counted, size

if TYPE_CHECKING:
    from llmartifacts.records.backend import Collected

_SHOWN = 20


def length(text: str | None, option: str) -> timedelta | None:
    """A length of time as an option gives it, such as `36h`; `0` for none at all. Raises `InvalidInput`."""
    if text is None:
        return None
    return timedelta(0) if text == "0" else parse_duration(text, field=option)


@command(
    "gc",
    panel=KEEP,
    examples=(
        "gc --dry-run",
        "gc",
        "gc --compact",
        "gc --keep-last 10 --keep-within 90d --dry-run",
        "gc --keep-last 3 --collection nightly-kb --reason 'old builds'",
    ),
    shape='Collected, with "freed"; all sizes in bytes',
    more={
        "Kept whatever the rules say": "\n".join(
            (
                "  what an alias names, or named within --history, and the latest version",
                "  what a lease holds, and what a bundle that stays contains",
                "  what the policy names, and the reports that let those in, with what they were measured against",
            )
        )
    },
)
def gc(
    session: Session,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact", help="Also erase removed rows for good, and rewrite every pack with unneeded chunks."
        ),
    ] = False,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace",
            metavar="TIME",
            help="How long what nothing needs stays, such as 36h; 0 for not at all. Default: 0 for a registry in a"
            " directory, 24h where servers share it.",
        ),
    ] = None,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", min=1, metavar="N", help="Keep the newest N versions of each name.")
    ] = None,
    keep_within: Annotated[
        str | None, typer.Option("--keep-within", metavar="TIME", help="Keep versions logged within it, such as 90d.")
    ] = None,
    collections: Annotated[
        list[str] | None,
        typer.Option("--collection", metavar="NAME", help="Only versions of this name. Repeatable; else of every one."),
    ] = None,
    history: Annotated[
        str, typer.Option("--history", metavar="TIME", help="Keep what an alias named within this time.")
    ] = "30d",
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why versions go; kept for good.")] = "",
) -> None:
    """Free what no version needs; with rules, remove the versions that none of them keeps first."""
    if keep_last is None and keep_within is None and (collections or reason):
        raise InvalidInput(
            "no rule says which versions are kept",
            field="--collection" if collections else "--reason",
            next_step="Add --keep-last N, --keep-within TIME, or both.",
        )
    out = session.out
    with session.open() as registry, out.working("looking for what no version needs"):
        done = registry.gc(
            dry_run=dry_run,
            compact=compact,
            grace=length(grace, "--grace"),
            keep_last=keep_last,
            keep_within=length(keep_within, "--keep-within"),
            collections=collections or (),
            history=length(history, "--history") or timedelta(0),
            reason=reason,
        )
    out.result({**plain(done), "freed": done.freed}, lambda: tell_freed(out, done, compact))


def tell_freed(out: Output, done: Collected, compact: bool) -> None:
    """Say what was freed, or would be."""
    goes = "would go" if done.dry_run else "gone"
    if done.removed:
        out.line((f"{counted(len(done.removed), 'version')} that no rule keeps, {goes}:", WARN))
        for one in done.removed[:_SHOWN]:
            out.line("  ", (one, NAME))
        if len(done.removed) > _SHOWN:
            out.line((f"  and {len(done.removed) - _SHOWN:,} more; --json names all", FAINT))
        out.line()
    rows: list[tuple[Piece, ...]] = [
        ("objects", f"{done.objects:,}", "that no version needs" if done.objects else ""),
        ("chunks", f"{done.chunks:,}", "that no version needs" if done.chunks else ""),
        ("packs", f"{done.packs:,}", f"{done.written:,} written in their place" if done.written else ""),
    ]
    if compact:
        rows.append(("dead rows", size(done.dead), f"in {counted(done.recoded, 'file')}" if done.recoded else ""))
    rows = [row for row in rows if row[1] not in ("0", "0 B")]
    if rows:
        out.table((Column("what", NAME), Column(goes, right=True), Column("", FAINT, shrinks=True)), rows)
        out.line()
    change = ("frees" if done.dry_run else "freed") if done.freed >= 0 else ("adds" if done.dry_run else "added")
    told = f"{change} {size(abs(done.freed))}: {size(done.before)} stored before, {size(done.after)} after"
    if not rows and not done.freed:
        out.line(("nothing to free", GOOD), f"; {size(done.after)} stored")
    else:
        out.line((told, GOOD if done.freed >= 0 else WARN))
    if done.condemned:
        waits = f"{size(done.waiting)} in {counted(done.condemned, 'stored file')}"
        out.line((f"{waits} that nothing needs wait for their grace period; a later gc frees them", FAINT))
    elif done.freed < 0:
        out.line(("versions that shared rows do not any more: each holds only its own", FAINT))
    if done.left and not compact:
        out.line((f"{size(done.left)} more lie in packs that are mostly in use: --compact frees them too", FAINT))
