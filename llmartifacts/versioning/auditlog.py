"""The audit as it is read: its newest entries, its export, its checkpoint, and proofs about it.

What is signed, proved or exported was hashed anew, entry by entry; an audit with an entry that was altered or is
missing gives nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llmartifacts.errors import Damaged, InvalidInput, LlmartifactsError
from llmartifacts.metadata import audit, projects
from llmartifacts.metadata.audit import StoredEntry, gap_told
from llmartifacts.metadata.database import Session
from llmartifacts.records.audit import AuditEntry, AuditEvent, origin_of
from llmartifacts.records.checkpoint import Checkpoint
from llmartifacts.records.merkle import Range, Tree, consistency_ranges, inclusion_ranges, leaf_hash, range_roots
from llmartifacts.records.proof import ConsistencyProof, InclusionProof
from llmartifacts.versioning.parts import Parts

_LOOK = "See all that is wrong: llmartifacts audit verify, with a checkpoint if you keep one."


def log(
    parts: Parts,
    project: str | None = None,
    *,
    verb: str | None = None,
    limit: int = 50,
    before: int | None = None,
) -> list[AuditEntry]:
    """The newest entries below a number, the newest last; of one project, and of one verb, where they are given."""
    with parts.metadata.reading() as s:
        project_id = None if project is None else projects.find_project(s, project)[0]
        return [_shown(stored) for stored in audit.newest(s, project_id, verb, limit, before)]


def checkpoint(parts: Parts) -> Checkpoint:
    """Size and root of the audit now.

    Raises:
        Damaged: An entry was altered or is missing: such an audit is not worth a signature.
    """
    return with_earlier(parts, 0)[0]


def with_earlier(parts: Parts, entries: int) -> tuple[Checkpoint, bytes | None]:
    """Size and root of the audit now, and the root that it had when it had so many entries; None if it never had.

    Raises:
        Damaged: As `checkpoint`.
    """
    tree = Tree()
    first, earlier = b"", None
    with parts.metadata.reading() as s:
        for leaf in _leaves(_sound(audit.stored(s), parts)):
            first = first or leaf
            tree.add(leaf)
            if tree.size == entries:
                earlier = tree.root()
    return Checkpoint(origin_of(first) if first else "", tree.size, tree.root()), earlier


def inclusion(parts: Parts, index: int, size: int) -> InclusionProof:
    """The proof that an entry is among the first of the audit.

    Args:
        parts: The stores.
        index: Place of the entry, from 0: its number less one.
        size: How many entries the tree has that it is proved for.

    Raises:
        InvalidInput: There is no such entry in a tree of this size, or the audit is shorter.
        Damaged: An entry was altered or is missing.
    """
    ranges = inclusion_ranges(index, size)
    with parts.metadata.reading() as s:
        page = audit.stored_after(s, index, 1)
        path = _path(s, parts, ranges, size)
        if not page or page[0].number != index + 1:
            raise _gap(index + 1, index + 1, parts)
        if page[0].altered:
            raise Damaged(f"audit entry {index + 1} was altered", file=parts.location, next_step=_LOOK)
    return InclusionProof(page[0].entry, index, size, path)


def consistency(parts: Parts, old: int, new: int) -> ConsistencyProof:
    """The proof that the audit of `new` entries begins with the one of `old`.

    Raises:
        InvalidInput: `old` is greater than `new`, or the audit is shorter.
        Damaged: An entry was altered or is missing.
    """
    if old == 0 <= new:
        return ConsistencyProof(old, new, ())
    with parts.metadata.reading() as s:
        return ConsistencyProof(old, new, _path(s, parts, consistency_ranges(old, new), new))


def export(parts: Parts) -> Iterator[bytes]:
    """Every entry in order, exactly the bytes that are hashed, without line ends.

    Raises:
        Damaged: An entry was altered or is missing; those before it have been given.
    """
    yield from (stored.entry for stored in _sound(_pages(parts), parts))


# --- helpers


def _shown(stored: StoredEntry) -> AuditEntry:
    try:
        event = AuditEvent.from_bytes(stored.entry)
        wrong = stored.misfiled
    except LlmartifactsError as error:
        event, wrong = None, error.message
    if stored.altered:
        wrong = "its hash is not the recorded one"
    return AuditEntry(stored.number, event, leaf_hash(stored.entry).hex(), wrong)


def _pages(parts: Parts) -> Iterator[StoredEntry]:
    """Every entry, each page in a transaction of its own: whoever reads slowly holds nobody up."""
    last = 0
    while True:
        with parts.metadata.reading() as s:
            page = audit.stored_after(s, last)
        if not page:
            return
        yield from page
        last = page[-1].number


def _sound(entries: Iterable[StoredEntry], parts: Parts) -> Iterator[StoredEntry]:
    """The entries, as long as each is there and is the recorded one. Raises `Damaged`."""
    last = 0
    for stored in entries:
        if stored.number != last + 1:
            raise _gap(last + 1, stored.number - 1, parts)
        if stored.altered or b"\n" in stored.entry:
            raise Damaged(f"audit entry {stored.number} was altered", file=parts.location, next_step=_LOOK)
        last = stored.number
        yield stored


def _leaves(entries: Iterable[StoredEntry]) -> Iterator[bytes]:
    return (stored.leaf for stored in entries)


def _path(s: Session, parts: Parts, ranges: Sequence[Range], size: int) -> tuple[bytes, ...]:
    row = s.row("select count(*) from audit")
    there = int(row[0]) if row else 0
    if there < size:
        raise InvalidInput(
            f"the audit has {there:,} entries, and the proof is wanted for {size:,}",
            field="size",
            next_step="If a checkpoint says that there were so many, the end was cut off: see `llmartifacts verify`.",
        )
    return tuple(range_roots(_leaves(_sound(audit.stored(s), parts)), ranges))


def _gap(low: int, high: int, parts: Parts) -> Damaged:
    return Damaged(f"audit {gap_told(low, high)}", file=parts.location, next_step=_LOOK)
