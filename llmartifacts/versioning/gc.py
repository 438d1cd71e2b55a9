"""gc: frees what no version needs.

    mark     what every version needs, and every upload that has not expired: objects, and the chunks that their
             recipes name
    make     new packs and recipes, aside; this takes the time, and nobody waits for it
    switch   under the writers' lock: looked at again, then new packs, index and recipes in one transaction
    delete   the old packs, once that is committed

Bytes are published under the same lock, so whoever relies on something that goes is told so (`Conflict`). A crash
leaves packs that nobody needs, and the next gc removes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import RECIPE, BadForm, parse_key
from llmartifacts.blobs.scratch import Scratch
from llmartifacts.errors import BlobMissing, Conflict, Damaged, NewerFormat
from llmartifacts.metadata import audit, uploads, versions
from llmartifacts.records.backend import Collected
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.versioning.commit import chunks_recorded_in
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.uploads import orphans
from llmartifacts.versioning.verify import NAMED, unlisted

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.recipe import Recipe
    from llmartifacts.blobs.chunks.sweep import Sweep

_ATTEMPTS = 5


def gc(parts: Parts, *, actor: str, dry_run: bool = False, compact: bool = False) -> Collected:
    """Free what no version needs.

    Args:
        parts: The stores.
        actor: Who asks.
        dry_run: Do all of it but change anything; the report is the same.
        compact: Also encode blobs anew whose chunks carry rows that are not theirs any more, and rewrite every pack
            with a chunk that nobody needs: then what no version holds is stored nowhere.

    Raises:
        Damaged: Something that is needed cannot be read; nothing was deleted.
        NewerFormat: A newer release stored something; nothing was deleted.
        Conflict: Somebody else cleaned up at the same time, again and again.
    """
    for _ in range(_ATTEMPTS):
        with _work(parts) as new_file:
            done = _once(parts, new_file, actor, dry_run, compact)
            if done is not None:
                return done
    raise Conflict("others cleaned up at the same time, again and again", next_step="Try again.")


@dataclass(frozen=True, slots=True)
class _Stored:
    """What is needed and what is stored, at one moment.

    Attributes:
        needed: Every blob that a version needs, or an upload holds.
        recipes: Those that are stored as chunks, in the order in which versions came to need them.
        going: Key and bytes of every object that nothing needs, pieces of uploads that are none any more included.
        size: Bytes of all objects.
        packs: Whether there is anything of chunks at all.
    """

    needed: dict[Digest, Blob]
    recipes: list[Blob]
    going: list[tuple[str, int]]
    size: int
    packs: bool


def _look(parts: Parts, again: int = 3) -> _Stored:
    """Look at everything; refuse where something needed is not there."""
    driver = parts.blobs.driver
    with parts.metadata.reading() as s:
        needed = {blob.digest: blob for blob in (*uploads.all_held(s), *versions.all_blobs(s))}
        order = versions.first_needed(s)
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
            return _look(parts, again - 1)
        raise _named(parts, missing, BlobMissing(f"the bytes of {missing} are not in the store", digest=missing))
    recipes.sort(key=lambda blob: order.get(blob.digest, 1 << 62))  # those of uploads last
    return _Stored(needed, recipes, going, size, chunked or next(driver.list("packs/"), None) is not None)


def _once(parts: Parts, new_file: Callable[[], Path], actor: str, dry_run: bool, compact: bool) -> Collected | None:
    """Collect once; None if others removed packs meanwhile."""
    found = _look(parts)
    with _sweep(parts, found, new_file, compact) as sweep:
        if found.going or (sweep is not None and sweep.plan.gone):
            _require_sound(parts)
        if dry_run:
            return _report(found, sweep, dry_run=True)
        with parts.metadata.writing() as s, chunks_recorded_in(parts, s):
            uploads.remove_expired(s)
            found = _look(parts)
            if sweep is not None:
                digests = [blob.digest for blob in found.recipes]
                if not sweep.still_right(digests, lambda digest: _recipe(parts, found.needed[digest])):
                    return None
                done = _report(found, sweep, dry_run=False)
                sweep.apply()
            elif found.packs:
                return None  # the first large file came just now
            else:
                done = _report(found, None, dry_run=False)
            told = {"compact": compact, "objects": done.objects, "chunks": done.chunks, "packs": done.packs}
            told |= {"written": done.written, "recoded": done.recoded, "before": done.before, "after": done.after}
            audit.record(s, None, "", actor=actor, verb="gc", subject="registry", **told)
            for key, _ in found.going:
                parts.blobs.driver.delete(key)
        if sweep is not None and sweep.plan.gone:
            # Not before the commit: until then they are what the index names. Under the lock again, so that nobody
            # begins to rely on one of them at this moment.
            with parts.metadata.writing() as s, chunks_recorded_in(parts, s):
                sweep.delete()
        return done


@contextmanager
def _sweep(parts: Parts, found: _Stored, new_file: Callable[[], Path], compact: bool) -> Iterator[Sweep | None]:
    """The work on chunks, prepared; None where there is nothing of the kind."""
    if not found.packs:
        yield None
        return
    from llmartifacts.blobs.chunks.sweep import Sweep

    sweep = Sweep(parts.blobs.chunks, new_file, compact)
    try:
        with storage_errors("write", parts.blobs.scratch):
            _prepare(parts, found, new_file, compact, sweep)
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


def _report(found: _Stored, sweep: Sweep | None, *, dry_run: bool) -> Collected:
    going = sum(size for _, size in found.going)
    if sweep is None:
        return Collected(dry_run, len(found.going), 0, 0, 0, 0, 0, found.size, found.size - going, 0)
    plan = sweep.plan
    grown = sum(switch.size - switch.before for switch in sweep.switches.values())
    return Collected(
        dry_run,
        len(found.going),
        plan.chunks,
        len(plan.gone),
        len(plan.made),
        len(sweep.switches),
        sweep.dead,
        found.size + plan.before,
        found.size - going + grown + plan.after,
        plan.left,
    )


@contextmanager
def _work(parts: Parts) -> Iterator[Callable[[], Path]]:
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
