"""`stats`, `migrate`: keeping a registry in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts import wire
from llmartifacts.cli.command import KEEP, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.failures import tell
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, Column, Output
from llmartifacts.cli.plain import version_text
from llmartifacts.cli.progress import measured
from llmartifacts.records.wording import counted, size

if TYPE_CHECKING:
    from llmartifacts.records.backend import CollectionStats, Migrated

DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")]


@command(
    "stats",
    panel=KEEP,
    examples=("stats", "stats support-kb"),
    shape="Stats; all sizes in bytes",
)
def stats(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Collection to show version by version.")] = None,
) -> None:
    """Sizes: what the versions hold, and what is stored for it."""
    with session.open() as registry:
        found = registry.stats(name)
    out = session.out

    def text() -> None:
        if name is not None:
            _tell_versions(out, found.collections[0])
            return
        out.table(
            (
                Column("collection", NAME, wraps=True),
                Column("kind", optional=True),
                Column("versions", right=True),
                Column("logical", right=True),
                Column("stored", right=True),
                Column("dead", right=True, optional=True),
            ),
            [
                (c.name, c.kind, str(c.versions), size(c.logical), size(c.stored), size(c.dead) if c.dead else "")
                for c in found.collections
            ],
        )
        if found.collections:
            out.line()
        dead = sum(c.dead for c in found.collections)
        unused = f"{size(found.unused)} that no version needs: llmartifacts gc" if found.unused else ""
        out.fields(
            (
                ("logical", size(found.logical)),
                ("stored", f"{size(found.stored)} for {counted(found.blobs, 'file')}, and the manifests"),
                ("unused", unused),
                ("dead", f"{size(dead)} of removed rows: llmartifacts gc --compact" if dead else ""),
                ("database", size(found.database)),
            ),
            indent=0,
        )

    out.result(found, text)


def _tell_versions(out: Output, found: CollectionStats) -> None:
    out.table(
        (
            Column("version", NAME),
            Column("logical", right=True),
            Column("added", right=True),
            Column("dead", right=True),
            Column("stored as", FAINT, shrinks=True),
        ),
        [
            (version_text(v.number), size(v.logical), size(v.added), size(v.dead) if v.dead else "", _codecs(v.codecs))
            for v in found.by_version
        ],
    )
    if found.by_version:
        out.line()
    told = f"{size(found.logical)} in {counted(found.versions, 'version')}, {size(found.stored)} stored"
    out.line((found.name, NAME), f"  {told}")
    if found.dead:
        out.line((f"{size(found.dead)} are rows that the newest does not hold any more: gc --compact", FAINT))


def _codecs(codecs: Mapping[str, str]) -> str:
    """`faiss-ivf index.faiss, 3 raw, 1 zstd`: the codec of each large file, and how many small ones are stored how."""
    counts = Counter(form for form in codecs.values() if form in ("raw", "zstd"))
    large = [f"{form} {path}" for path, form in codecs.items() if form not in counts]
    more = [f"and {len(large) - 3} more"] if len(large) > 3 else []
    return ", ".join([*large[:3], *more, *(f"{count} {form}" for form, count in sorted(counts.items()))])


@command(
    "migrate",
    panel=KEEP,
    examples=("migrate --dry-run", "migrate"),
    shape='Migrated; all sizes in bytes, "after" null with --dry-run',
)
def migrate(session: Session, dry_run: DryRun = False) -> None:
    """Move large files that an earlier release stored whole into packs; may be interrupted and called again."""
    out = session.out
    with session.open() as registry, measured(out, "moving files into packs") as progress:
        done = registry.migrate(dry_run=dry_run, progress=progress)
    out.result(done, lambda: _tell_moved(out, done))
    if done.problems:
        raise typer.Exit(wire.exit_code(done.problems[0]))


def _tell_moved(out: Output, done: Migrated) -> None:
    files = counted(done.files, "file")
    if not done.files and not done.problems:
        out.line(("nothing to move", GOOD), ": every large file is stored in packs")
    elif done.after is None:
        out.line(f"{files} of {size(done.before)} would be moved; how small they get shows only by doing it")
    else:
        out.line((f"moved {files}", GOOD), f": {size(done.before)} stored before, {size(done.after)} after")
    if done.problems:
        out.line((f"{len(done.problems)} could not be moved, and stay as they were", BAD))
        for problem in done.problems:
            tell(problem, out, as_result=True)
