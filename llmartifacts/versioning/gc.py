"""gc: frees what no version needs.

    mark     what every version needs, and every upload that has not expired: objects, and the chunks that their
             recipes name
    make     new packs and recipes, aside; this takes the time, and nobody waits for it
    switch   under the writers' lock: looked at again, then new packs, index and recipes in one transaction
    condemn  what nothing needs, in the same transaction, with the database's time
    sweep    what was condemned a grace period ago and is still not needed; packs once that is committed

Bytes are published under the same lock, so whoever relies on something that goes is told so (`Conflict`), and what is
condemned and relied on again is so no longer. A crash leaves what nobody needs, and the next gc removes it.

Without a grace period, what nothing needs is swept at once. That is right where one machine has the files: its lock
keeps writers out, and its readers have them open. Where several servers share a store, downloads under way and signed
URLs read packs for a while that nothing names any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from llmartifacts.blobs.failures import is_full, storage_errors
from llmartifacts.blobs.forms import RECIPE, BadForm, parse_key
from llmartifacts.blobs.scratch import Scratch
from llmartifacts.errors import BlobMissing, Conflict, Damaged, NewerFormat, NotAllowed
from llmartifacts.metadata import audit, condemned, leases, uploads, versions
from llmartifacts.metadata.database import Session
from llmartifacts.records.backend import Collected
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.records.retention import SHARED_GRACE, Retention
from llmartifacts.versioning import retention
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.uploads import PREFIX, orphans
from llmartifacts.versioning.verify import NAMED, unlisted

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.recipe import Recipe
    from llmartifacts.blobs.chunks.sweep import Sweep

_ATTEMPTS = 5


def gc(
    parts: Parts,
    *,
    actor: str,
    dry_run: bool = False,
    compact: bool = False,
    grace: timedelta | None = None,
    rules: Retention | None = None,
) -> Collected:
    """Remove the versions that no rule keeps, where there are rules; then free what no version needs.

    Args:
        parts: The stores.
        actor: Who asks.
        dry_run: Do all of it but change anything; the report is the same.
        compact: Also encode blobs anew whose chunks carry rows that are not theirs any more, and rewrite every pack
            with a chunk that nobody needs: then what no version holds is stored nowhere.
        grace: How long what nothing needs stays after it was condemned; None for none where one machine has the files,
            and a day where servers share them.
        rules: Which versions of a project are kept; None removes none.

    Raises:
        NotFound: The rules name a project or a collection that is not there.
        Damaged: Something that is needed cannot be read; nothing was deleted.
        NewerFormat: A newer release stored something; nothing was deleted.
        Conflict: Somebody else cleaned up at the same time, again and again.
    """
    if grace is None:
        grace = SHARED_GRACE if parts.shared else timedelta(0)
    work = _Work(parts, actor, dry_run, compact, int(grace.total_seconds() * 1_000_000))
    removed: list[str] = []
    if rules is not None and dry_run:
        with parts.metadata.reading() as s:
            rows = retention.chosen(s, parts, rules)
        work = replace(work, without=frozenset(row.id for row in rows))
        removed = [str(row.version) for row in rows]
    elif rules is not None:
        _require_readable(parts)
        removed = retention.apply(parts, rules, actor=actor)
    for _ in range(_ATTEMPTS):
        done = _collect(work)
        if done is not None:
            return replace(done, removed=tuple(removed))
    raise Conflict("others cleaned up at the same time, again and again", next_step="Try again.")


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done.

    Attributes:
        parts: The stores.
        actor: Who asks.
        dry_run: As in `gc`.
        compact: As in `gc`.
        grace: Microseconds that what is condemned stays.
        without: Ids of versions that are looked upon as removed.
        lean: Only let go of whole packs and objects: there is no room for new packs.
    """

    parts: Parts
    actor: str
    dry_run: bool
    compact: bool
    grace: int
    without: frozenset[int] = frozenset()
    lean: bool = False


@dataclass(frozen=True, slots=True)
class _Stored:
    """What is needed and what is stored, at one moment.

    Attributes:
        needed: Every blob that a version needs, or an upload holds.
        recipes: Those that are stored as chunks, in the order in which versions came to need them.
        going: Key and bytes of every object that nothing needs, pieces of uploads that are none any more included.
        size: Bytes of all objects.
        packs: Whether there is anything of chunks at all.
        waiting: Of what nothing needs, key -> when it was condemned and its bytes, for what stays for now. Objects;
            packs are added once it is known which.
    """

    needed: dict[Digest, Blob]
    recipes: list[Blob]
    going: list[tuple[str, int]]
    size: int
    packs: bool
    waiting: dict[str, tuple[int, int]]


def _look(work: _Work, again: int = 3) -> _Stored:
    """Look at everything; refuse where something needed is not there."""
    parts = work.parts
    driver = parts.blobs.driver
    with parts.metadata.reading() as s:
        needed = {blob.digest: blob for blob in (*uploads.all_held(s), *versions.all_blobs(s, work.without))}
        order = versions.first_needed(s)
        fate = _Fate(s, work.grace)
    going, recipes, size, there, chunked = orphans(parts), [], 0, set(), False
    size += sum(stored for _, stored in going)
    for key, stored in driver.list("sha256/"):
        parsed = parse_key(key)
        if parsed is None:
            continue
        digest, form = parsed
        size += stored
        chunked |= form == RECIPE
        if digest not in needed:
            going.append((key, stored))
            continue
        there.add(digest)
        if form == RECIPE:
            recipes.append(needed[digest])
    missing = next((digest for digest in needed if digest not in there), None)
    if missing is not None:
        if again and parts.blobs.has(needed[missing]):  # its object was replaced while others were listed
            return _look(work, again - 1)
        raise _named(parts, missing, BlobMissing(f"the bytes of {missing} are not in the store", digest=missing))
    recipes.sort(key=lambda blob: order.get(blob.digest, 1 << 62))  # those of uploads last
    waiting = {key: fate.since(key, stored) for key, stored in going if not fate.due(key)}
    going = [(key, stored) for key, stored in going if key not in waiting]
    chunked = chunked or next(driver.list("packs/"), None) is not None
    return _Stored(needed, recipes, going, size, chunked, waiting)


class _Fate:
    """Which of the things that nothing needs go now.

    Args:
        s: The transaction in which it is decided.
        grace: Microseconds that what is condemned stays.
    """

    def __init__(self, s: Session, grace: int) -> None:
        self._before = condemned.all_of(s)
        self._now = s.now()
        self._grace = grace

    def due(self, key: str) -> bool:
        """Whether it goes now. Pieces of uploads waited for as long as the upload was good."""
        if self._grace == 0 or key.startswith(PREFIX):
            return True
        at = self._before.get(key)
        return at is not None and at + self._grace <= self._now

    def since(self, key: str, size: int) -> tuple[int, int]:
        """When it was condemned, now at the latest, and its bytes."""
        return min(self._before.get(key, self._now), self._now), size


def _collect(work: _Work) -> Collected | None:
    """Collect; on a disk without room for new packs first what can go without any, then the rest in the room made."""
    try:
        with _aside(work.parts) as new_file:
            return _once(work, new_file)
    except NotAllowed as error:
        if not is_full(error):
            raise
        with _aside(work.parts) as new_file:
            freed = _once(replace(work, lean=True), new_file)
        if freed is None:
            return None
        if work.dry_run or freed.before == freed.after:
            raise
    with _aside(work.parts) as new_file:
        try:
            done = _once(work, new_file)
        except NotAllowed as error:
            if work.compact or not is_full(error):
                raise  # what was asked for is not done
            return freed
    if done is None:
        return None
    both = {name: getattr(freed, name) + getattr(done, name) for name in ("objects", "chunks", "packs")}
    return replace(done, before=freed.before, **both)


class _Overtaken(Exception):
    """Others removed packs meanwhile."""


def _once(work: _Work, new_file: Callable[[], Path]) -> Collected | None:
    """Collect once; None if others removed packs meanwhile."""
    try:
        return _done(work, new_file)
    except _Overtaken:
        return None


def _done(work: _Work, new_file: Callable[[], Path]) -> Collected | None:
    parts, dry_run = work.parts, work.dry_run
    found = _look(work)
    with _sweep(work, found, new_file) as sweep:
        if found.going or found.waiting or (sweep is not None and sweep.plan.gone):
            _require_sound(parts)
        if dry_run:
            with parts.metadata.reading() as s:
                _spare_for_now(work, s, found, sweep)
            return _report(work, found, sweep)
        with parts.metadata.writing() as s, _recorded_in(parts, s):
            uploads.remove_expired(s)
            leases.remove_ended(s)
            found = _look(work)
            if sweep is not None:
                digests = [blob.digest for blob in found.recipes]
                if not sweep.still_right(digests, lambda digest: _recipe(parts, found.needed[digest])):
                    return None
                _spare_for_now(work, s, found, sweep)
                done = _report(work, found, sweep)
                sweep.apply()
            elif found.packs:
                return None  # the first large file came just now
            else:
                done = _report(work, found, None)
            condemned.replace(s, found.waiting)
            told = {"compact": work.compact, "objects": done.objects, "chunks": done.chunks, "packs": done.packs}
            told |= {"written": done.written, "recoded": done.recoded, "before": done.before, "after": done.after}
            told |= {"condemned": done.condemned, "waiting": done.waiting} if done.condemned else {}
            audit.record(s, None, "", actor=work.actor, verb="gc", subject="registry", **told)
            parts.blobs.driver.delete_many([key for key, _ in found.going])
        if sweep is not None and sweep.plan.gone:
            # Not before the commit: until then they are what the index names. Under the lock again, so that nobody
            # begins to rely on one of them at this moment.
            with parts.metadata.writing() as s, _recorded_in(parts, s):
                sweep.delete()
        return done


def _recorded_in(parts: Parts, s: Session) -> AbstractContextManager[None]:
    """As `commit.chunks_recorded_in`, but what is looked up is not relied on."""
    index = parts.blobs.index
    return index.within(s, relying=False) if isinstance(index, RecordedIndex) else nullcontext()


def _spare_for_now(work: _Work, s: Session, found: _Stored, sweep: Sweep | None) -> None:
    """Of the packs that would go, let those stay that were not condemned long enough ago."""
    if sweep is None:
        return
    from llmartifacts.blobs.chunks.pack import key_of

    fate = _Fate(s, work.grace)
    for name, size in sweep.plan.sizes().items():
        if not fate.due(key_of(name)):
            found.waiting[key_of(name)] = fate.since(key_of(name), size)
    sweep.plan.gone = [name for name in sweep.plan.gone if key_of(name) not in found.waiting]


@contextmanager
def _sweep(work: _Work, found: _Stored, new_file: Callable[[], Path]) -> Iterator[Sweep | None]:
    """The work on chunks, prepared; None where there is nothing of the kind."""
    if not found.packs:
        yield None
        return
    from llmartifacts.blobs.chunks.sweep import Sweep

    parts, compact = work.parts, work.compact and not work.lean
    sweep = Sweep(parts.blobs.chunks, new_file, compact, work.lean)
    known = parts.blobs.index.packs().keys()
    try:
        try:
            with storage_errors("write", parts.blobs.scratch):
                _prepare(parts, found, new_file, compact, sweep)
        except Damaged:
            if known <= parts.blobs.index.packs().keys():
                raise
            raise _Overtaken from None  # others removed packs while these were read
        yield sweep
    finally:
        sweep.close()


def _prepare(parts: Parts, found: _Stored, new_file: Callable[[], Path], compact: bool, sweep: Sweep) -> None:
    dead = []
    for blob in found.recipes:
        recipe, checksum = _recipe(parts, blob)
        if compact and recipe.encoded.dead:
            dead.append(blob)  # later: what others hold of its dead rows has to be known first
        else:
            sweep.mark(blob.digest, recipe, checksum)
    for blob in dead:
        recipe, checksum = _recipe(parts, blob)
        content = _content(parts, blob, new_file())
        sweep.recode(blob.digest, recipe, checksum, content)
        content.unlink()
    try:
        _ = sweep.plan
    except Damaged as error:
        raise replace(error, versions=_concerned(parts, found.recipes, sweep, error.file)) from error


def _recipe(parts: Parts, blob: Blob) -> tuple[Recipe, bytes]:
    from llmartifacts.blobs.chunks.survey import read_recipe

    try:
        return read_recipe(parts.blobs.chunks, blob.digest)
    except BadForm as error:
        found: Damaged = Damaged(f"{blob.digest} cannot be put together: {error}", digest=blob.digest)
        raise _named(parts, blob.digest, found) from error
    except Damaged as error:
        told = (
            error
            if error.digest
            else type(error)(
                f"{blob.digest} cannot be put together: {error.message}", digest=blob.digest, file=error.file
            )
        )
        raise _named(parts, blob.digest, told) from error
    except NewerFormat as error:
        raise replace(error, origin=error.origin or str(blob.digest)) from error


def _content(parts: Parts, blob: Blob, target: Path) -> Path:
    """The verified content of a blob in a file aside: it is large, and would push others out of the cache."""
    try:
        parts.blobs.copy(blob, target)
    except Damaged as error:
        raise _named(parts, blob.digest, error) from error
    return target


def _concerned(parts: Parts, recipes: Sequence[Blob], sweep: Sweep, file: str) -> tuple[str, ...]:
    """Versions that need what is missing, or else something in a pack."""
    from llmartifacts.blobs.chunks.pack import key_of
    from llmartifacts.blobs.chunks.survey import among, short_ids

    chunks, where = parts.blobs.chunks, parts.blobs.driver.where
    concerned: dict[str, None] = {}
    with parts.metadata.reading() as s:
        for blob in recipes:
            recipe, _ = _recipe(parts, blob)
            if len(sweep.missing):
                needs = bool(among(short_ids(recipe.entries()), sweep.missing).any())
            else:
                needs = file in {where(key_of(pack)) for pack in {p.pack for p in chunks.places(recipe).values()}}
            if needs:
                concerned |= dict.fromkeys(versions.needing(s, blob.digest))
    return tuple(concerned)[:NAMED]


def _named(parts: Parts, digest: Digest, error: Damaged) -> Damaged:
    with parts.metadata.reading() as s:
        return replace(error, versions=error.versions or versions.needing(s, digest))


def _require_sound(parts: Parts) -> None:
    """Refuse where the list of what is needed is not whole: what is not on it would be deleted."""
    with parts.metadata.reading() as s:
        for error in unlisted(s, parts, kept_as_blobs=True):
            raise error


def _require_readable(parts: Parts) -> None:
    """Refuse before versions are removed whatever would refuse the sweep after it: then nothing is done at all."""
    _look(_Work(parts, "", True, False, 0))
    _require_sound(parts)


def _report(work: _Work, found: _Stored, sweep: Sweep | None) -> Collected:
    going = sum(size for _, size in found.going)
    waiting = len(found.waiting), sum(size for _, size in found.waiting.values())
    if sweep is None:
        after = found.size - going
        return Collected(work.dry_run, len(found.going), 0, 0, 0, 0, 0, found.size, after, 0, *waiting)
    plan = sweep.plan
    grown = sum(switch.size - switch.before for switch in sweep.switches.values())
    return Collected(
        work.dry_run,
        len(found.going),
        plan.chunks,
        len(plan.gone),
        len(plan.made),
        len(sweep.switches),
        sweep.dead,
        found.size + plan.before,
        found.size - going + grown + plan.after,
        plan.left,
        *waiting,
    )


@contextmanager
def _aside(parts: Parts) -> Iterator[Callable[[], Path]]:
    """A place for new files, gone at the end; it is made with the first."""
    made: list[Scratch] = []

    def new_file() -> Path:
        if not made:
            with storage_errors("write", parts.blobs.scratch):
                made.append(Scratch(parts.blobs.scratch))
        return made[0].new_file()

    try:
        yield new_file
    finally:
        for scratch in made:
            scratch.close()
