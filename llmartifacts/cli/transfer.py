"""`export`, `import`: collections as one file, from one registry to another."""

from __future__ import annotations

from typing import Annotated

import typer

from llmartifacts.cli.backup import Blobs, Database, opened
from llmartifacts.cli.command import KEEP, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, GOOD, NAME, WARN, Column
from llmartifacts.cli.plain import plain
from llmartifacts.errors import InvalidInput
from llmartifacts.records.wording import counted, size


@command(
    "export",
    panel=KEEP,
    examples=(
        "export support.llmx support-agent support-kb",
        "export stack.llmx support-stack:prod --sign ann",
        "export everything.llmx --all",
    ),
    shape='{"file": text, "origin": text, "versions": int, "collections": int, "files": int, "size": bytes,\n'
    '  "signed": bool}',
)
def export(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="File to write; nothing lies there.")],
    references: Annotated[
        list[str] | None, typer.Argument(metavar="[REF]…", help="Collections, or single versions; see --all.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every collection of every project.")] = False,
    sign: Annotated[
        str | None, typer.Option("--sign", metavar="KEY", help="Sign it with a key of this machine.")
    ] = None,
    database: Database = None,
    blobs: Blobs = None,
) -> None:
    """Write collections, with everything they need, to one file."""
    if everything == bool(references):
        raise InvalidInput("name collections or versions, or give --all", field="REF")
    out = session.out
    with opened(session, database, blobs) as registry, out.working("exporting"):
        done = registry.export(file, None if everything else references, key=sign or "")

    def text() -> None:
        out.line(("wrote ", GOOD), (done.file, NAME), f", {size(done.size)}{', signed' if done.signed else ''}")
        told = f"{counted(done.versions, 'version')} of {counted(done.collections, 'collection')}"
        out.line((f"{told}, {counted(done.files, 'file')}, of {done.origin}", FAINT))

    out.result(done, text)


@command(
    "import",
    panel=KEEP,
    examples=(
        "import support.llmx --dry-run",
        "import support.llmx --project acme",
        "import stack.llmx --aliases --require-signature",
    ),
    shape='{"dry_run": bool, "origin": text, "by": text, "digest": text, "signed": Signer or null,\n'
    '  "collections": [ImportedCollection], "beyond": int, "yanked": int, "aliases": [text], "new": int,\n'
    '  "present": int}',
)
def import_(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What export wrote.")],
    aliases: Annotated[
        bool, typer.Option("--aliases", help="Also move the aliases that it knows, where gates let them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
    require_signature: Annotated[
        bool, typer.Option("--require-signature", help="Refuse it unless signed by a key that is trusted here.")
    ] = False,
) -> None:
    """Log what an export holds; importing it twice adds nothing.

    With --project all of it goes there, else to projects of the same names.
    """
    out = session.out
    with session.open() as registry, out.working("importing"):
        done = registry.import_file(
            file,
            project=session.options.project,
            aliases=aliases,
            dry_run=dry_run,
            require_signature=require_signature,
        )

    def text() -> None:
        goes = "would be new" if done.dry_run else "new"
        out.table(
            (
                Column("collection", NAME, wraps=True),
                Column("kind", optional=True),
                Column(goes, right=True),
                Column("here already", right=True),
                Column("renumbered", FAINT, right=True, optional=True),
            ),
            [
                (f"{c.project}/{c.name}", c.kind, f"{c.new:,}", f"{c.present:,}", f"{c.renumbered or '-'}")
                for c in done.collections
            ],
        )
        out.line()
        verb = "would be imported" if done.dry_run else "imported"
        out.line((f"{counted(done.new, 'version')} {verb}", GOOD), f" from {done.origin}, exported by {done.by}")
        if done.signed is not None:
            whose = f"{done.signed.person}'s" if done.signed.person else "a key that was revoked"
            out.line((f"signed with {whose} key {done.signed.key[:12]}" if done.signed.person else whose, FAINT))
        if done.beyond:
            out.line((f"{counted(done.beyond, 'edge')} left out: to versions that are not here", WARN))
        if done.aliases:
            out.line("moved ", (", ".join(done.aliases), NAME))

    out.result({**plain(done), "new": done.new, "present": done.present}, text)
