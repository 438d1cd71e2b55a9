"""`backup`, `restore`: all of a registry, elsewhere and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts import wire
from llmartifacts.cli.command import KEEP, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.failures import tell
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, WARN, Column, Output
from llmartifacts.cli.plain import plain
from llmartifacts.errors import InvalidInput, NotFound
from llmartifacts.records.arguments import check_count
from llmartifacts.records.wording import counted, size

if TYPE_CHECKING:
    from llmartifacts.records.backup import Backup
    from llmartifacts.registry import Registry
    from llmartifacts.versioning.backups.look import Pruned

Database = Annotated[
    str | None, typer.Option("--database", metavar="URL", help="postgresql://…; a registry that servers share.")
]
Blobs = Annotated[str | None, typer.Option("--blobs", metavar="PLACE", help="Folder or URL of its bytes.")]
_ONE = "a backup is taken, or listed, or read, or older ones are removed: name one of them"


@command(
    "backup",
    panel=KEEP,
    examples=(
        "backup /mnt/backups/registry",
        "backup s3://bucket/registry --keep 30",
        "backup /mnt/backups/registry --list",
    ),
    shape='{"backup": Backup, "pruned": Pruned or null}, with --list {"backups": [Backup], "problems": […]},\n'
    "  with --check\n"
    '  {"ok": bool, "backup": Backup, "problems": […]}; all sizes in bytes',
    more={
        "Registries of a team": "  On the server's host: --database and --blobs as for serve, or the variables\n"
        "  $LLMARTIFACTS_SERVE_DATABASE and $LLMARTIFACTS_SERVE_BLOBS."
    },
)
def backup(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="PLACE", help="Folder or URL where backups are kept.")],
    read_back: Annotated[
        bool, typer.Option("--verify", help="Read what is there already to the last bit, and mend it.")
    ] = False,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", help="Afterwards keep the newest N, remove the others.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Take none; list those that are there.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Take none; read the newest, or --backup, to the last bit.")
    ] = False,
    which: Annotated[
        str | None, typer.Option("--backup", metavar="ID", help="With --check: its number, or its id.")
    ] = None,
    database: Database = None,
    blobs: Blobs = None,
) -> None:
    """Take a backup of everything, while others go on writing; only what is new is sent."""
    if listed + check + (keep is not None or read_back) > 1 or (which is not None and not check):
        raise InvalidInput(_ONE, field="--list" if listed else "--check" if check else "--backup")
    if listed:
        _list(session.out, target)
    elif check:
        _check(session.out, target, which)
    else:
        _take(session, target, read_back, keep, database, blobs)


def _take(
    session: Session, target: str, read_back: bool, keep: int | None, database: str | None, blobs: str | None
) -> None:
    from llmartifacts.versioning.backups.look import prune

    out = session.out
    if keep is not None:
        check_count(keep, field="--keep")
    with opened(session, database, blobs) as registry, out.working("taking a backup"):
        made = registry.backup(target, read_back=read_back)
    pruned = None
    if keep is not None:
        with out.working("removing older backups"):
            pruned = prune(target, keep)

    def text() -> None:
        out.line(("backup ", GOOD), (str(made.number), NAME), f" of {counted(made.versions, 'version')}")
        out.fields(_told(made))
        if pruned is not None:
            _tell_pruned(out, pruned)

    out.result({"backup": made, "pruned": None if pruned is None else plain(pruned)}, text)


def _told(made: Backup) -> list[tuple[str, str]]:
    return [
        ("id", made.id),
        ("registry", made.origin),
        ("as of", f"{made.at}, {counted(made.entries, 'audit entry').replace('entrys', 'entries')}"),
        ("stored", f"{size(made.stored)}, of which {size(made.sent)} were not there before"),
    ]


def _tell_pruned(out: Output, pruned: Pruned) -> None:
    if pruned.removed:
        out.line(f"removed {counted(len(pruned.removed), 'older backup')}: {size(pruned.freed)} freed")
    else:
        out.line((f"no older backups to remove: {len(pruned.kept)} there", FAINT))


def _list(out: Output, target: str) -> None:
    from llmartifacts.versioning.backups.look import listed

    records, problems = listed(target)
    found = [record.summary for record in records]

    def text() -> None:
        for problem in problems:
            tell(problem, out, as_result=True)
        if not found:
            out.line("no backups here")
            return
        out.table(
            (
                Column("backup", NAME, right=True),
                Column("id", FAINT),
                Column("as of"),
                Column("versions", right=True),
                Column("stored", right=True),
                Column("new", right=True, optional=True),
                Column("registry", FAINT, shrinks=True),
            ),
            [
                (
                    str(b.number), b.id[:12], b.at[:16].replace("T", " "), f"{b.versions:,}", size(b.stored),
                    size(b.sent), b.origin,
                )
                for b in found
            ],
        )  # fmt: skip

    out.result({"backups": found, "problems": plain(problems)}, text)
    if problems:
        raise typer.Exit(wire.exit_code(problems[0]))


def _check(out: Output, target: str, which: str | None) -> None:
    from llmartifacts.versioning.backups.look import check

    with out.working("reading every byte of a backup"):
        record, problems = check(target, which)
    made = record.summary

    def text() -> None:
        out.line(f"backup {made.number}: {counted(made.versions, 'version')}, {size(made.stored)} read and hashed")
        if not problems:
            out.line(("all well", GOOD))
            return
        out.line((f"{len(problems)} damaged", BAD))
        for problem in problems:
            tell(problem, out, as_result=True)

    out.result({"ok": not problems, "backup": made, "problems": plain(problems)}, text)
    if problems:
        raise typer.Exit(wire.DAMAGED)


@contextmanager
def opened(session: Session, database: str | None, blobs: str | None) -> Iterator[Registry]:
    """The registry: a directory, or what servers share, by options or by their variables."""
    named = session.options.registry or os.environ.get("LLMARTIFACTS_REGISTRY")
    if named and (database or blobs):
        raise InvalidInput("a registry and --database exclude each other", field="--database")
    if not named:
        database = database or os.environ.get("LLMARTIFACTS_SERVE_DATABASE")
        blobs = blobs or os.environ.get("LLMARTIFACTS_SERVE_BLOBS")
    if named or not (database or blobs):
        with session.open() as registry:
            yield registry
        return
    if not database or not blobs:
        raise InvalidInput(
            "a registry that servers share is a database and a place of bytes", field="--blobs",
            next_step="Give both: --database postgresql://… --blobs PLACE.",
        )  # fmt: skip
    from llmartifacts.connect import home_project, who
    from llmartifacts.metadata import dump
    from llmartifacts.registry import Registry
    from llmartifacts.versioning.team import database_at, open_team

    found = database_at(database)
    try:
        if dump.is_empty(found):
            raise NotFound("there is no registry in that database", what="registry", name="--database")
    finally:
        found.close()
    with Registry(open_team(database, blobs), project=home_project(session.options.project), actor=who()) as registry:
        yield registry


@command(
    "restore",
    panel=KEEP,
    examples=(
        "restore /mnt/backups/registry --to /srv/registry",
        "restore s3://bucket/registry --backup 12 --to ./then",
        "restore PLACE --database postgresql://db/new --blobs /srv/new",
    ),
    shape='{"backup": Backup, "location": text, "revisions": {project: int}, "ok": bool, "problems": […]}',
)
def restore(
    session: Session,
    source: Annotated[str, typer.Argument(metavar="PLACE", help="Folder or URL where backups are kept.")],
    to: Annotated[str | None, typer.Option("--to", metavar="DIR", help="New folder for the registry.")] = None,
    which: Annotated[
        str | None,
        typer.Option("--backup", metavar="ID", help="Its number, or its id.", show_default="the newest"),
    ] = None,
    read_data: Annotated[
        bool, typer.Option("--read-data", help="Also put every file together and hash it, before it appears.")
    ] = False,
    accept_damage: Annotated[
        bool, typer.Option("--accept-damage", help="Restore also what verify finds fault with.")
    ] = False,
    database: Annotated[
        str | None, typer.Option("--database", metavar="URL", help="postgresql://…, empty: a registry for servers.")
    ] = None,
    blobs: Annotated[
        str | None, typer.Option("--blobs", metavar="PLACE", help="Folder or URL for its bytes, empty.")
    ] = None,
) -> None:
    """Make a registry of a backup, in an empty place; checked before it appears."""
    from llmartifacts.connect import who
    from llmartifacts.versioning.backups.restore import restore_folder, restore_team

    if (to is None) == (database is None) or (database is None) != (blobs is None):
        raise InvalidInput(
            "it is restored to a folder, or to a database and a place of bytes",
            field="--to",
            next_step="Give --to DIR; or --database postgresql://… and --blobs PLACE.",
        )
    out = session.out
    with out.working("restoring"):
        if to is not None:
            done = restore_folder(
                source, Path(to), which=which, read_data=read_data, accept_damage=accept_damage, actor=who()
            )
        else:
            done = restore_team(
                source,
                database or "",
                blobs or "",
                which=which,
                read_data=read_data,
                accept_damage=accept_damage,
                actor=who(),
            )
    made, found = done.backup.summary, done.verification
    result = {"backup": made, "location": done.location, "revisions": done.revisions}

    def text() -> None:
        out.line(("restored ", GOOD), (done.location, NAME), f" from backup {made.number}")
        pairs = [*_told(made)[:3], ("audit root", made.root)]
        if len(done.revisions) <= 10:
            pairs.append(("revisions", ", ".join(f"{name} {number}" for name, number in done.revisions.items())))
        pairs.append(("checked", f"{counted(found.versions, 'version')}, {counted(found.blobs, 'file')}"))
        out.fields(pairs)
        if not found.ok:
            out.line((f"{len(found.problems)} damaged, and accepted: llmartifacts verify names them", WARN))

    out.result({**result, "ok": found.ok, "problems": plain(found.problems)}, text)
