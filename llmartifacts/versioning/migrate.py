"""migrate: large content that an earlier release stored whole goes to packs, one blob at a time.

A blob is cut against the same file of the version before, so that a second version costs what changed. Its recipe is
published in one transaction, then the whole object is removed: killed at any moment, everything can be read, and the
next call goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from llmartifacts.blobs.base import PIECE
from llmartifacts.blobs.forms import FORMS, RECIPE, key_of, parse_key
from llmartifacts.errors import Conflict, Damaged, LlmartifactsError
from llmartifacts.metadata import audit, versions
from llmartifacts.records.backend import Migrated, Progress
from llmartifacts.records.digest import Blob, Digest, digest_from_bytes
from llmartifacts.versioning.commit import chunks_recorded_in
from llmartifacts.versioning.parts import Parts


@dataclass(frozen=True, slots=True)
class _Whole:
    """A large blob that is stored whole.

    Attributes:
        blob: The blob.
        stored: Key and bytes of each object that holds all of it.
        like: The same file of versions before, the nearest first.
    """

    blob: Blob
    stored: tuple[tuple[str, int], ...]
    like: list[Blob] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return sum(size for _, size in self.stored)


def migrate(parts: Parts, *, actor: str, dry_run: bool = False, progress: Progress | None = None) -> Migrated:
    """Cut every large blob that a version needs and that is stored whole into chunks.

    Args:
        parts: The stores.
        actor: Who asks.
        dry_run: Only say what there is to do.
        progress: Told of the bytes done and in all.

    Raises:
        NotAllowed: The store is full or read-only; what was done by then stays done.
    """
    todo = list(_in_order(parts, _whole(parts)))
    before = sum(whole.size for whole in todo)
    if dry_run:
        return Migrated(True, len(todo), before, None)
    done = added = files = moved = 0
    problems: list[LlmartifactsError] = []
    for whole in todo:
        try:
            added += _move(parts, whole, actor)
            files += 1
            moved += whole.size
        except (Damaged, Conflict) as error:
            problems.append(_named(parts, whole.blob, error))
        done += whole.size
        if progress is not None:
            progress(done, before)
    return Migrated(False, files, moved, added, tuple(problems))


def _whole(parts: Parts) -> dict[Digest, _Whole]:
    with parts.metadata.reading() as s:
        large = {blob.digest: blob for blob in versions.all_blobs(s) if blob.size > PIECE}
    found: dict[Digest, _Whole] = {}
    if large:
        for key, size in parts.blobs.driver.list("sha256/"):
            parsed = parse_key(key)
            if parsed is None or parsed[1] == RECIPE or parsed[0] not in large:
                continue
            before = found[parsed[0]].stored if parsed[0] in found else ()
            found[parsed[0]] = _Whole(large[parsed[0]], (*before, (key, size)))
    return found


def _in_order(parts: Parts, whole: dict[Digest, _Whole]) -> Iterator[_Whole]:
    """Each once, as the versions were logged, so that what a version can share is there before it."""
    if not whole:
        return
    done: set[Digest] = set()
    last: dict[tuple[int, str], Blob] = {}
    with parts.metadata.reading() as s:
        rows = s.rows(
            "select v.collection_id, v.digest from version v where exists"
            " (select 1 from content x where x.manifest = v.digest) order by v.id"
        )
    for collection, raw in rows:
        with parts.metadata.reading() as s:
            digest = digest_from_bytes(raw)
            try:
                files = parts.manifest(s, digest, None).files
            except LlmartifactsError:
                continue  # `verify` says more of it; what it alone needs comes at the end
        for file in files:
            if file.digest in whole and file.digest not in done and file.url is None:
                done.add(file.digest)
                like = last.get((collection, file.path))
                yield replace(whole[file.digest], like=[like] if like else [])
            last[collection, file.path] = file.blob
    yield from (one for digest, one in whole.items() if digest not in done)


def _move(parts: Parts, whole: _Whole, actor: str) -> int:
    """Move one blob; returns the bytes that its chunks and its recipe add."""
    blob, blobs = whole.blob, parts.blobs
    key = key_of(blob.digest, RECIPE)
    added = 0
    if blobs.driver.size(key) is None or not _is_good(parts, blob):
        with blobs.stage() as staging:
            staging.convert(blob, lambda: whole.like)
            with parts.metadata.writing() as s, chunks_recorded_in(parts, s):
                if not any(blobs.driver.size(key_of(blob.digest, form)) is not None for form in FORMS):
                    raise Conflict(f"{blob.digest} was removed meanwhile", next_step="Somebody cleaned up; try again.")
                staging.publish()
                audit.record(s, None, "", actor=actor, verb="migrate", subject=blob.digest, before=whole.size)
            added = staging.added[blob.digest]
    for old, _ in whole.stored:
        blobs.driver.delete(old)
    return added


def _is_good(parts: Parts, blob: Blob) -> bool:
    """Whether the recipe that an interrupted call published makes the blob; one that does not is removed."""
    key = key_of(blob.digest, RECIPE)
    good = key in parts.blobs.standing(blob)[0]
    if not good:
        parts.blobs.driver.delete(key)
    return good


def _named(parts: Parts, blob: Blob, error: Damaged | Conflict) -> LlmartifactsError:
    if not isinstance(error, Damaged):
        return error
    with parts.metadata.reading() as s:
        return replace(error, versions=error.versions or versions.needing(s, blob.digest))
