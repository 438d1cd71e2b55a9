"""audit verify: whether the audit is still what it was, by itself and held against checkpoints kept elsewhere.

Every hash is made anew from the entry itself; the recorded hash beside it only tells which entries were altered. What
somebody who can write the database may also rewrite (hashes, numbers, times) is held against checkpoints, which are
kept where that somebody cannot write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from llmartifacts.errors import Damaged, LlmartifactsError
from llmartifacts.metadata import audit
from llmartifacts.metadata.audit import StoredEntry, gap_told
from llmartifacts.records.audit import AuditVerification, CheckpointFinding, entries_told, origin_of
from llmartifacts.records.checkpoint import Checkpoint
from llmartifacts.records.merkle import Tree, leaf_hash
from llmartifacts.records.wording import printable
from llmartifacts.versioning.invariants import broken
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.replay import disagreements

NAMED = 20
"""Problems of one sort that are told one by one; more are counted."""
_RESTORE = "Restore the registry from a backup that agrees with the checkpoint, and find out who could write here."


def verify_audit(parts: Parts, checkpoints: Sequence[tuple[str, Checkpoint]] = ()) -> AuditVerification:
    """Check every entry, the tree over them, the records against them, and the tree against checkpoints.

    Args:
        parts: The stores.
        checkpoints: Where each was kept, and what it says; their signatures were checked before.
    """
    walk = _Walk()
    problems: list[LlmartifactsError] = []
    try:
        with parts.metadata.reading() as s:
            walk.go(audit.stored(s), {made.size for _, made in checkpoints})
            row = s.row("select count(*) from audit")
            if row is not None and row[0] != walk.tree.size:
                line = f"there are rows without a number from 1 on, which are no entries: {row[0] - walk.tree.size}"
                problems.append(Damaged(line, next_step=_RESTORE))
            problems += [Damaged(line, next_step=_RESTORE) for line in _few(chain(disagreements(s), broken(s)))]
    except Damaged as error:
        problems.append(error)
    against = _Against(walk, checkpoints)
    return AuditVerification(
        walk.origin,
        walk.tree.size,
        walk.tree.root().hex(),
        against.proven,
        against.first_wrong(),
        against.findings,
        (*against.problems(), *_seen(walk, against.proven), *problems),
    )


# --- one pass over all entries


@dataclass
class _Walk:
    """The tree of what the entries say, the tree of the recorded hashes, and what is seen to be off on the way.

    Attributes:
        tree: Over the entries.
        recorded: Over the hashes that are recorded beside them.
        origin: Which registry it is, by the first entry.
        roots: Size -> roots of both trees at that size, for those sizes that are asked for.
        altered: Numbers of entries whose hash is not the recorded one.
        misfiled: Numbers of entries beside which something else is recorded, and what.
        missing: First and last number of each gap.
        backwards: Numbers of entries that are older than the one before.
        last: The last number.
        whole: Whether all could be read.
    """

    tree: Tree = field(default_factory=Tree)
    recorded: Tree = field(default_factory=Tree)
    origin: str = ""
    roots: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    altered: list[int] = field(default_factory=list)
    misfiled: list[tuple[int, str]] = field(default_factory=list)
    missing: list[tuple[int, int]] = field(default_factory=list)
    backwards: list[int] = field(default_factory=list)
    last: int = 0
    whole: bool = False
    _time: int = 0

    def go(self, entries: Iterable[StoredEntry], sizes: set[int]) -> None:
        """Take every entry, and keep the roots at some sizes."""
        if 0 in sizes:
            self.roots[0] = (self.tree.root(), self.recorded.root())
        for stored in entries:
            self._take(stored)
            if self.tree.size in sizes:
                self.roots[self.tree.size] = (self.tree.root(), self.recorded.root())
        self.whole = True

    def first_seen(self, beyond: int = 0) -> int | None:
        """The first entry of which the database itself shows that it is wrong, among those beyond some."""
        seen = [*(low for low, _ in self.missing), *self.altered]
        return min((number for number in seen if number > beyond), default=None)

    def _take(self, stored: StoredEntry) -> None:
        leaf = leaf_hash(stored.entry)
        self.origin = self.origin or origin_of(leaf)
        self.tree.add(leaf)
        self.recorded.add(stored.leaf)
        if stored.number != self.last + 1:
            self.missing.append((self.last + 1, stored.number - 1))
        self.last = stored.number
        wrong = "" if leaf == stored.leaf else "altered"
        if wrong:
            self.altered.append(stored.number)
        elif wrong := stored.misfiled:
            self.misfiled.append((stored.number, wrong))
        else:
            if stored.at < self._time:
                self.backwards.append(stored.number)
            self._time = stored.at


def _seen(walk: _Walk, proven: int) -> Iterator[Damaged]:
    """What the database itself shows to be wrong."""
    if walk.whole and not walk.tree.size:
        yield Damaged("the audit has no entries, and the first of every registry is its creation", next_step=_RESTORE)
    lines = [
        *((low, gap_told(low, high)) for low, high in walk.missing),
        *((number, _altered(number, proven)) for number in walk.altered),
        *((number, f"entry {number} is filed wrongly: {wrong}") for number, wrong in walk.misfiled),
    ]
    for line in _few(line for _, line in sorted(lines)):
        yield Damaged(line, next_step=_RESTORE)


def _altered(number: int, proven: int) -> str:
    if number <= proven:
        return f"the hash that is recorded beside entry {number} was altered; the entry is that of the checkpoint"
    return f"entry {number} was altered: its hash is not the recorded one"


# --- held against checkpoints


class _Against:
    """What checkpoints say of what was found."""

    def __init__(self, walk: _Walk, checkpoints: Sequence[tuple[str, Checkpoint]]) -> None:
        self._walk = walk
        self._checkpoints = checkpoints
        self.findings = tuple(
            CheckpointFinding(source, made.size, made.root.hex(), self._holds(made)) for source, made in checkpoints
        )
        self.proven = max((f.size for f in self.findings if f.ok), default=0)

    def problems(self) -> Iterator[Damaged]:
        """One problem for each checkpoint that does not hold."""
        for finding, (source, made) in zip(self.findings, self._checkpoints, strict=True):
            if not finding.ok:
                yield Damaged(self._told(made), file=source, next_step=_RESTORE)

    def first_wrong(self) -> int | None:
        """The first wrong entry: seen in the database, or all that a checkpoint leaves open."""
        walk = self._walk
        candidates = [number for number in (walk.first_seen(self.proven),) if number is not None]
        candidates += [number for number, _ in walk.misfiled[:1]]
        for finding, (_, made) in zip(self.findings, self._checkpoints, strict=True):
            if finding.ok or not walk.whole:
                continue
            if made.origin != walk.origin:
                candidates.append(1)
            elif made.size not in walk.roots:
                candidates.append(walk.tree.size + 1)
            elif made.size == self.proven + 1:
                candidates.append(made.size)
        return min(candidates, default=None)

    def _holds(self, made: Checkpoint) -> bool:
        roots = self._walk.roots.get(made.size)
        return roots is not None and roots[0] == made.root and made.origin == self._walk.origin

    def _told(self, made: Checkpoint) -> str:
        """What is wrong, seen from a checkpoint that does not hold, in one line."""
        walk = self._walk
        if not walk.whole and made.size not in walk.roots:
            read = entries_told(walk.tree.size)
            return f"the checkpoint of {entries_told(made.size)} cannot be checked: only {read} can be read"
        numbers = [number for number in walk.altered if number <= made.size]
        if numbers and made.size in walk.roots and walk.roots[made.size][1] == made.root:
            named = ", ".join(map(str, numbers[:NAMED])) + (" and more" if len(numbers) > NAMED else "")
            noun = "entry" if len(numbers) == 1 else "entries"
            others = f"the others of its {entries_told(made.size)} are as they were"
            return f"altered since the checkpoint: {noun} {named}; {others}"
        if made.origin != walk.origin:
            return (
                f"the checkpoint is of {printable(made.origin)}, and this audit begins as {walk.origin or 'nothing'}:"
                " either it is another registry's, or entry 1 was altered and with it all that follows"
            )
        if made.size not in walk.roots:
            return self._too_few(made.size)
        return f"the first {entries_told(made.size)} are not those of the checkpoint: {self._where(made.size)}"

    def _too_few(self, size: int) -> str:
        walk, there = self._walk, self._walk.tree.size
        told = f"{entries_told(size)} were there when the checkpoint was signed, and there are {there:,}: "
        if walk.missing:
            told += f"entry {walk.missing[0][0]} is the first that is missing"
            return told + (f", and after entry {walk.last} the end was cut off" if walk.last < size else "")
        told += f"after entry {there} the end was cut off, as when an older backup is put back"
        if self.proven < there:
            told += "; or entries before it were removed, and those after them renumbered"
        return told

    def _where(self, size: int) -> str:
        """As narrowly as it can be known where the first entries of an audit are not those of a checkpoint."""
        walk, low = self._walk, self.proven + 1
        first = walk.first_seen(self.proven)
        if first is not None and first <= size:
            return f"entry {first} is the first that is seen to be wrong"
        place = f"entry {size}" if low == size else f"one from {low} to {size}" if low > 1 else "one of them"
        told = f"{place} was edited, removed, put in or moved, and hashes and numbers were rewritten to match"
        if low == 1:
            told += ", or all of it was written anew"
        back = next((number for number in walk.backwards if low <= number <= size), None)
        if back is not None:
            told += f"; entry {back} is older than the one before it, so look there first"
        return told if low > 1 else f"{told}; an earlier checkpoint would narrow it down"


def _few(lines: Iterable[str]) -> Iterator[str]:
    """At most so many lines, and how many there are besides."""
    more = 0
    for i, line in enumerate(lines):
        if i < NAMED:
            yield line
        else:
            more += 1
    if more:
        yield f"and {more:,} more like these"
