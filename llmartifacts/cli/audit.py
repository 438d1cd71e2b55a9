"""`audit log`, `verify`, `export`, `checkpoint`, `prove`: the record of every change, and whether it is whole."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmartifacts import wire
from llmartifacts.cli.arguments import existing
from llmartifacts.cli.command import TRACE, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, Column, Output, Piece, Quiet
from llmartifacts.cli.particulars import particulars
from llmartifacts.cli.plain import clean, dumps, minute, plain
from llmartifacts.errors import Conflict, Damaged, InvalidInput
from llmartifacts.records.audit import entries_told

if TYPE_CHECKING:
    from llmartifacts.records.audit import AuditEntry, AuditEvent, AuditVerification
    from llmartifacts.records.backend import Backend
    from llmartifacts.records.checkpoint import Checkpoint, VerifierKey
    from llmartifacts.signing.note import SignedCheckpoint

Keys = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="KEY", help="Verifier key that `audit checkpoint` printed, or a file with it."),
]
OutFile = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write there, and never over a file that is there.")
]
_NOTE_BYTES = 64 * 1024
_PROOF_BYTES = 4 * 1024 * 1024
_KEY_BYTES = 4096


@command(
    "log",
    examples=("audit log", "audit log --verb promote --limit 10", "audit log --project acme --json"),
    shape='{"entries": [{"number", "project", "at", "actor", "verb", "subject", "body", "leaf", "damaged"}]}',
)
def log(
    session: Session,
    verb: Annotated[
        str | None, typer.Option("--verb", metavar="VERB", help="Only such changes: log, promote, rollback, yank, …")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many entries.")] = 50,
) -> None:
    """Show what was changed, by whom and when, the newest last; of every project, unless --project names one."""
    project = session.options.project
    with session.open() as registry:
        entries = registry.backend.audit_log(project, verb=verb, limit=limit)
    out = session.out
    damaged = [entry for entry in entries if entry.damaged]

    def text() -> None:
        _table(out, entries)
        for entry in damaged:
            out.line((f"entry {entry.number} is damaged: ", BAD), entry.damaged)
        if len(entries) == limit:
            out.line((f"the newest {limit}; --limit shows more", FAINT))

    out.result({"entries": [_entry(entry) for entry in entries]}, text)
    if damaged:
        raise typer.Exit(wire.DAMAGED)


def _table(out: Output, entries: Sequence[AuditEntry]) -> None:
    if not entries:
        out.line("no such entries")
        return
    several = len({e.event.project for e in entries if e.event and e.event.project}) > 1
    columns = (
        Column("entry", NAME, right=True),
        Column("at, UTC", FAINT),
        Column("project", optional=True),
        Column("who", shrinks=True),
        Column("what"),
        Column("of", shrinks=True),
        Column("", FAINT, shrinks=True, optional=True),
    )
    rows: list[tuple[Piece, ...]] = []
    for entry in entries:
        event = entry.event
        if event is None:
            rows.append((str(entry.number), "", "", "", ("DAMAGED", BAD), "", entry.damaged))
            continue
        verb = (event.verb, BAD) if entry.damaged else event.verb
        project = event.project if several else ""
        rows.append(
            (str(entry.number), minute(event.at), project, event.actor, verb, _subject(event), particulars(event))
        )
    out.table(columns, rows)


def _subject(event: AuditEvent) -> str:
    """What it was done to; of a key, as much of the id as names it."""
    return event.subject[: len("key:") + 12] if event.subject.startswith("key:") else event.subject


def _entry(entry: AuditEntry) -> dict[str, Any]:
    event = entry.event
    names = ("project", "at", "actor", "verb", "subject", "body")
    said = {name: None if event is None else plain(getattr(event, name)) for name in names}
    return {"number": entry.number, **said, "leaf": entry.leaf, "damaged": entry.damaged}


@command(
    "verify",
    examples=(
        "audit verify",
        "audit verify --checkpoint march.note --key verifier.key",
        "audit verify --proof entry-7.json --key verifier.key",
    ),
    shape='{"ok", "origin", "size", "root", "proven", "first_wrong", "checkpoints", "problems"}\n'
    '  {"ok", "proof", "checkpoint", "old_checkpoint", "entry"} with --proof',
)
def verify(
    session: Session,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", metavar="FILE", help="A signed checkpoint that was kept elsewhere; repeatable."),
    ] = None,
    key: Keys = None,
    proof: Annotated[
        Path | None,
        typer.Option("--proof", metavar="FILE", help="Check this proof instead; no registry is needed for it."),
    ] = None,
) -> None:
    """Check that no entry was altered, removed, put in or moved; exit code 5 if one was.

    By itself a registry shows what was altered by those who do not hide it.
    A checkpoint kept elsewhere shows the rest: a cut end, a rewritten audit.
    """
    files = existing(checkpoint or [], field="--checkpoint")
    if proof is not None:
        if files:
            raise InvalidInput("--proof brings its own checkpoint", field="--checkpoint", next_step="Leave one out.")
        _verify_proof(session.out, proof, _keys(key, "--proof"))
        return
    if not files and key:
        raise InvalidInput(
            "--key is for a checkpoint, and none is given", field="--key", next_step="Give --checkpoint FILE too."
        )
    keys = _keys(key, "--checkpoint") if files else []
    kept = [(str(path), _checkpoint(path, keys).checkpoint) for path in files]
    out = session.out
    with session.open() as registry, out.working("hashing every entry"):
        found = registry.backend.verify_audit(kept)
    out.result({"ok": found.ok, **plain(found)}, lambda: _tell_found(out, found))
    if not found.ok:
        raise typer.Exit(wire.DAMAGED)


def _tell_found(out: Output, found: AuditVerification) -> None:
    out.line(f"{entries_told(found.size)}, root {found.root[:16]}…")
    for finding in found.checkpoints:
        told = ("unchanged", GOOD) if finding.ok else ("NOT THE SAME", BAD)
        out.line(f"{finding.source}: {entries_told(finding.size)} ", told)
    if found.ok:
        more = "" if found.checkpoints else "; only a checkpoint kept elsewhere shows a cut end or a rewritten audit"
        out.line(("all well", GOOD), (more, FAINT))
        return
    out.line((f"{len(found.problems)} wrong", BAD))
    if found.first_wrong is not None:
        out.line(f"the first wrong entry that can be told is {found.first_wrong}")
    for problem in found.problems:
        where = problem.details().get("file", "")
        out.line(("wrong: ", BAD), f"{where}: " if where else "", problem.message)
    for hint in dict.fromkeys(problem.hint() for problem in found.problems):
        out.line(("hint: ", NAME), hint)


def _verify_proof(out: Output, path: Path, keys: list[VerifierKey]) -> None:
    from llmartifacts.records.proof import ProofFile
    from llmartifacts.signing.note import read_checkpoint

    (file,) = existing([path], field="--proof")
    proof = ProofFile.from_bytes(_read(file, _PROOF_BYTES), origin=str(path))
    made = read_checkpoint(proof.checkpoint, keys, origin=str(path)).checkpoint
    old = read_checkpoint(proof.old_checkpoint, keys, origin=str(path)).checkpoint if proof.entry is None else None
    if not proof.holds(made, old):
        raise Damaged(
            "the proof does not hold: this is not what the checkpoint was signed over",
            file=str(path),
            next_step="Have it made again with `audit prove`; if it still does not hold, the audit was altered.",
        )
    said = None if proof.entry is None else proof.entry.decode()

    def text() -> None:
        if old is not None:
            told = f"the audit of {entries_told(made.size)} begins with that of {entries_told(old.size)}"
        else:
            told = f"entry {proof.index + 1} of {made.size:,} is"
        out.line(("proven", GOOD), f": {told}")
        out.block(said or "")

    kind = "inclusion" if old is None else "consistency"
    older = None if old is None else _shown(old)
    out.result({"ok": True, "proof": kind, "checkpoint": _shown(made), "old_checkpoint": older, "entry": said}, text)


@command(
    "export",
    examples=("audit export > audit.jsonl", "audit export --out audit.jsonl"),
    shape='{"file", "entries"}; needs --out',
)
def export(session: Session, out_file: OutFile = None) -> None:
    """Write every entry as one line of JSON, exactly the bytes that are hashed."""
    out = session.out
    if out.json and out_file is None:
        raise InvalidInput("with --json the entries need a file", field="--out", next_step="Give --out FILE.")
    count = 0

    def lines(backend: Backend) -> Iterable[bytes]:
        nonlocal count
        for count, entry in enumerate(backend.export_audit(), 1):  # noqa: B007 - told at the end
            yield entry + b"\n"

    with session.open() as registry:
        if out_file is None:
            _print(lines(registry.backend))
            return
        _write(out_file, lines(registry.backend))
    out.result(
        {"file": str(out_file), "entries": count}, lambda: out.line(f"{entries_told(count)} written to {out_file}")
    )


@command(
    "checkpoint",
    examples=(
        "audit checkpoint --key auditor > march.note",
        "audit checkpoint --key auditor --after march.note > april.note",
    ),
    shape='{"checkpoint", "origin", "size", "root", "key"}',
)
def checkpoint(
    session: Session,
    key: Annotated[str, typer.Option("--key", metavar="NAME", help="Your key that signs it; see `key create`.")],
    after: Annotated[
        Path | None,
        typer.Option(
            "--after", metavar="FILE", help="An earlier checkpoint by the same key; refused if the audit is not its."
        ),
    ] = None,
    out_file: OutFile = None,
) -> None:
    """Sign size and root of the audit now. Keep it where nobody who can write the registry can write.

    The verifier key, which others check it with, goes to standard error.
    """
    from llmartifacts.signing.key_files import load
    from llmartifacts.signing.note import sign_checkpoint, verifier_key

    private = load(key).private.crypto()
    earlier = None if after is None else existing([after], field="--after")[0]
    out = session.out
    with session.open() as registry, out.working("hashing every entry"):
        made = registry.backend.audit_checkpoint()
        if earlier is not None:
            old = _checkpoint(earlier, [verifier_key(made.origin, private)]).checkpoint
            found = registry.backend.verify_audit([(str(earlier), old)])
            if not found.ok:
                raise found.problems[0]
    signed = sign_checkpoint(made, private)
    note = signed.note.to_text()
    if out_file is not None:
        _write(out_file, [note.encode()])
    if out.json:
        out.document({"checkpoint": note, **_shown(made), "key": str(signed.key)})
        return
    if out_file is None:
        _print([note.encode()])
    else:
        out.line(f"checkpoint of {entries_told(made.size)} written to {out_file}")
    out.line("verifier key: ", (str(signed.key), NAME), error=True)


@command(
    "prove",
    examples=(
        "audit prove 7 --checkpoint march.note > entry-7.json",
        "audit prove --since march.note --checkpoint april.note",
    ),
    shape='{"schema", "proof", "entry", "index", "path", "checkpoint"}\n'
    '  {"schema", "proof", "path", "old_checkpoint", "checkpoint"} with --since',
)
def prove(
    session: Session,
    checkpoint: Annotated[
        Path, typer.Option("--checkpoint", metavar="FILE", help="The signed checkpoint that it is proved for.")
    ],
    entry: Annotated[
        int | None, typer.Argument(metavar="ENTRY", min=1, help="Number of the entry, as `audit log` shows it.")
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option("--since", metavar="FILE", help="An older checkpoint: prove that nothing before it changed."),
    ] = None,
    key: Keys = None,
    out_file: OutFile = None,
) -> None:
    """Prove to somebody without the registry that an entry is in it, or that the audit only grew.

    The proof is one JSON document. With --key the checkpoints' signatures are checked first.
    """
    if (entry is None) == (since is None):
        raise InvalidInput(
            "either an entry is proved, or that nothing changed since a checkpoint",
            field="ENTRY",
            next_step="Give ENTRY, or --since FILE.",
        )
    keys = _keys(key, "--checkpoint") if key else []
    (path,) = existing([checkpoint], field="--checkpoint")
    note, made = _note(path, keys)
    if entry is not None and entry > made.size:
        raise InvalidInput(
            f"entry {entry} is not among the {entries_told(made.size)} of the checkpoint",
            field="ENTRY",
            next_step="Give a newer checkpoint.",
        )
    out = session.out
    with session.open() as registry, out.working("hashing every entry"):
        backend = registry.backend
        _require_same(backend.audit_checkpoint(), made, path)
        if since is not None:
            (older,) = existing([since], field="--since")
            old_note, old = _note(older, keys)
            _require_same(made, old, older)
            consistent = backend.audit_consistency(old.size, made.size)
            holds, document = consistent.holds(old, made), consistent.to_json(old_note, note)
        else:
            included = backend.audit_inclusion((entry or 0) - 1, made.size)
            holds, document = included.holds(made), included.to_json(note)
    if not holds:
        raise _another(path)
    if out_file is None:
        out.document(document)
        return
    _write(out_file, [dumps(document).encode() + b"\n"])
    out.result(document, lambda: out.line(("proven", GOOD), f"; the proof is in {out_file}"))


def _require_same(now: Checkpoint, made: Checkpoint, path: Path) -> None:
    """Raises `Damaged` where a checkpoint can be none of an audit with the size and origin of another."""
    if made.origin != now.origin or made.size > now.size:
        raise _another(path)


def _another(path: Path) -> Damaged:
    return Damaged(
        "this audit is not the one that the checkpoint was signed over, so nothing can be proved from it",
        file=str(path),
        next_step="See where it differs: llmartifacts audit verify --checkpoint FILE --key KEY.",
    )


# --- files and keys


def _keys(texts: Sequence[str] | None, option: str) -> list[VerifierKey]:
    """Verifier keys, each as text or in a file."""
    from llmartifacts.records.checkpoint import VerifierKey

    if not texts:
        raise InvalidInput(
            f"{option} needs the key that it is checked with",
            field="--key",
            next_step="Give --key, as `audit checkpoint` printed it: from a place where nobody could have changed it.",
        )
    made = []
    for text in texts:
        is_file = len(text) < _KEY_BYTES and os.path.isfile(text)
        given = _read(Path(text), _KEY_BYTES).decode("utf-8", "replace") if is_file else text
        made.append(VerifierKey.parse(given, field="--key", origin=text if is_file else ""))
    return made


def _checkpoint(path: Path, keys: Sequence[VerifierKey]) -> SignedCheckpoint:
    from llmartifacts.signing.note import read_checkpoint

    return read_checkpoint(_read(path, _NOTE_BYTES), keys, origin=str(path))


def _note(path: Path, keys: Sequence[VerifierKey]) -> tuple[str, Checkpoint]:
    """The text of a signed checkpoint, and what it says; its signatures are checked if keys are given."""
    from llmartifacts.records.checkpoint import Checkpoint, Note

    if keys:
        signed = _checkpoint(path, keys)
        return signed.note.to_text(), signed.checkpoint
    note = Note.from_bytes(_read(path, _NOTE_BYTES), origin=str(path))
    return note.to_text(), Checkpoint.from_text(note.text, origin=str(path))


def _shown(made: Checkpoint) -> dict[str, Any]:
    return {"origin": made.origin, "size": made.size, "root": made.root.hex()}


def _read(path: Path, limit: int) -> bytes:
    from llmartifacts.runtime.text_file import read_bounded

    return read_bounded(path, limit, follow=True)


def _write(path: Path, parts: Iterable[bytes]) -> None:
    """Write a new file, and leave none behind that is not complete. Raises `Conflict` if there is one already."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        told = f"there is something at {str(path)!r} already"
        raise Conflict(told, field="--out", next_step="Name another file: an older checkpoint is evidence.") from None
    try:
        with open(fd, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise


def _print(parts: Iterable[bytes]) -> None:
    """Exact bytes on standard output; on a terminal, text that it does not obey."""
    stream = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="\n")
    quiet = Quiet(stream)
    terminal = sys.stdout.isatty()
    try:
        for part in parts:
            text = part.decode()
            quiet.write(clean(text) if terminal else text)
    finally:
        quiet.flush()
        stream.detach()


GROUP = CommandGroup(
    "audit",
    "The record of every change, and the proof that it is whole.",
    TRACE,
    (log, verify, export, checkpoint, prove),
)
