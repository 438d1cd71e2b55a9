"""`verify` and `repair`: whether everything is there and right, and making it so."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmartifacts.cli import external as outside
from llmartifacts.cli import reseal as records
from llmartifacts.cli import verify_kept as beside
from llmartifacts.cli.command import KEEP, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import BAD, FAINT, GOOD, WARN, Output
from llmartifacts.cli.plain import plain
from llmartifacts.cli.problems import code_of, tell_problems
from llmartifacts.cli.progress import measured
from llmartifacts.records.wording import counted, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmartifacts.records.verification import Repaired, Verification

_PROBLEM = 'each problem {"code", "message", "digest", "file", "versions", "needed_by", "hint", …}'


@command(
    "verify",
    panel=KEEP,
    examples=(
        "verify",
        "verify --read-data",
        "verify --read-data-subset 3/20",
        "verify support-kb --read-data",
        "verify --cache",
        "verify --installed /srv/support",
    ),
    shape='Verification, with "ok", and external where that was read; with --cache or --installed {"ok", "place",'
    f' "objects", "size", "sets", "problems", "more"}}; {_PROBLEM}',
)
def verify(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Collection whose bytes are checked, instead of all.")
    ] = None,
    read_data: Annotated[bool, typer.Option("--read-data", help="Read and hash every stored byte.")] = False,
    subset: Annotated[
        str,
        typer.Option(
            "--read-data-subset",
            metavar="N/T",
            help="Read and hash a part: 3/20 is the third of twenty, which together are all; 5% or 50G draw one.",
        ),
    ] = "",
    external: outside.ExternalOption = None,
    cache: beside.CacheOption = False,
    installed: beside.InstalledOption = None,
) -> None:
    """Check that everything the versions need is there and right.

    Nothing is changed. With --cache or --installed, what a service keeps beside itself; then no registry is asked.
    Exit code 5 where something is damaged or missing, 10 where all that is wrong is that a newer release wrote it, 4
    where somebody holds the registry, 3 where there is none (or no such cache, or no lockfile).
    """
    others = {"NAME": name is not None, "--read-data": read_data, "--read-data-subset": bool(subset)}
    others["--external"] = external is not None
    kept = beside.check(session, cache=cache, installed=installed, others=others)
    if kept is not None:
        if not kept.ok:
            raise typer.Exit(code_of(kept.problems))
        return
    out = session.out
    reads = read_data or bool(subset)
    label = "reading and hashing stored bytes" if reads else "checking that every file is there"
    with ExitStack() as stack:
        registry = stack.enter_context(session.open())
        progress = None
        if reads:
            progress = stack.enter_context(measured(out, label))
        else:
            stack.enter_context(out.working(label))
        found = registry.verify(name, read_data=reads, subset=subset, progress=progress)
        elsewhere = outside.check(registry, name, external, read_data=read_data)

    def text() -> None:
        _tell_found(out, found)
        outside.say(out, elsewhere)

    out.result({"ok": found.ok, **plain(found), **outside.plain(elsewhere)}, text)
    if not found.ok:
        raise typer.Exit(code_of(found.problems))
    outside.refuse(elsewhere, external)


def _tell_found(out: Output, found: Verification) -> None:
    packs = f", {counted(found.packs, 'pack')}" if found.packs else ""
    done = "looked up"
    if found.read_data:
        done = f"looked up, part {found.part} of the bytes read and hashed" if found.part else "read and hashed"
    out.line(f"{counted(found.versions, 'version')}, {counted(found.blobs, 'blob')}{packs} {done}")
    if found.ok:
        out.line(("all well", GOOD), "" if found.read_data else ("; --read-data also reads every byte", FAINT))
        return
    out.line((f"{len(found.problems) + found.more:,} damaged", BAD))
    tell_problems(out, found.problems, found.more)
    out.line(("llmartifacts repair mends what can be had elsewhere: --from URL", FAINT))


@command(
    "repair",
    panel=KEEP,
    examples=(
        "repair --dry-run",
        "repair --from https://registry.example.com",
        "repair --from ../other/.llmartifacts",
        "repair --from s3://bucket/blobs",
        "repair --database",
    ),
    shape=f'Repaired, with "ok"; Resealed with "ok" for --database; {_PROBLEM}',
)
def repair(
    session: Session,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URL",
            help="Where damaged and missing bytes may be had: another registry (a directory or https://…), or a place"
            " of bytes (a folder, s3://…).",
        ),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be done, and what cannot be had.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look only for what is missing or cut short; read no data.")
    ] = False,
    database: records.DatabaseOption = False,
) -> None:
    """Make damaged and missing bytes right again, in place.

    Everything is taken by its SHA-256, and verified. It may be interrupted and called again. Exit code 5 where
    something is still wrong. Damaged records of the database are restored from a backup.
    """
    if database:
        records.reseal(session, {"--from": bool(source), "--dry-run": dry_run, "--quick": quick})
        return
    out = session.out
    with session.open() as registry, _opened(source, session) as there, measured(out, "looking for damage") as progress:
        done = registry.repair(there, dry_run=dry_run, read_data=not quick, progress=progress)
    out.result({"ok": done.ok, **plain(done)}, lambda: _tell_repaired(out, done))
    if not done.ok:
        raise typer.Exit(code_of(done.problems))


def _tell_repaired(out: Output, done: Repaired) -> None:
    verb = "would be" if done.dry_run else "was"
    plural = "would be" if done.dry_run else "were"
    lines = [
        (done.blobs, f"{counted(done.blobs, 'blob')} ({size(done.size)}) {plural if done.blobs != 1 else verb} mended"),
        (done.packs, f"{counted(done.packs, 'pack')} {plural if done.packs != 1 else verb} mended"),
        (done.removed, f"{counted(done.removed, 'damaged pack')} that no version needs {plural} removed"),
        (done.manifests, f"{counted(done.manifests, 'manifest')} {plural if done.manifests != 1 else verb} put back"),
        (int(done.index), f"the index of chunks {verb} made anew"),
    ]
    for count, line in lines:
        if count:
            out.line((line, GOOD if not done.dry_run else WARN))
    if done.ok:
        out.line(("nothing is wrong", GOOD) if not any(count for count, _ in lines) else ("all well", GOOD))
        return
    out.line((f"{len(done.problems) + done.more:,} still damaged", BAD))
    tell_problems(out, done.problems, done.more)
    if not done.source:
        out.line(("--from URL names another registry, or a copy of the bytes, that may have them", FAINT))


@contextmanager
def _opened(source: str, session: Session) -> Iterator[Any]:
    """The other place, closed at the end: a registry, or a store of bytes alone."""
    if not source:
        yield None
        return
    scheme = source.partition("://")[0].lower() if "://" in source else ""
    folder = Path(source)
    if scheme in ("http", "https") or (not scheme and _is_registry(folder)):
        from llmartifacts.connect import connect

        with connect(source, project=session.options.project) as registry:
            yield registry
        return
    import tempfile

    from llmartifacts.versioning.place import open_place

    with tempfile.TemporaryDirectory(prefix="llmartifacts-") as scratch:
        yield open_place(source, Path(scratch))


def _is_registry(folder: Path) -> bool:
    return (folder / "registry.db").exists()
