"""verify: whether everything that the versions need is there, and right; with its data read, whether every bit is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace

from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import Damaged, LlmartifactsError
from llmartifacts.metadata import audit, chunks, versions
from llmartifacts.metadata.database import Session
from llmartifacts.records.backend import Verification
from llmartifacts.records.digest import Blob, digest_from_bytes
from llmartifacts.records.manifest import Manifest
from llmartifacts.versioning.invariants import broken
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.replay import disagreements

_RECORDS = (
    "Something else than llmartifacts changed the database, or it is damaged: restore it from a backup. Until then see"
    " what it permits (llmartifacts grant ls --everywhere), and what was really done (llmartifacts audit log)."
)


def verify(parts: Parts, *, read_data: bool = False) -> Verification:
    """Check the database, every manifest, and that every blob and chunk is there; with `read_data`, every stored bit.

    Records are checked as they were at one moment; bytes afterwards, one blob or pack at a time and with bounded
    memory, so that nobody waits for it, gc included.
    """
    problems: list[LlmartifactsError] = [
        Damaged(f"database: {line}", file=parts.location) for line in parts.metadata.database.check()
    ]
    try:
        with parts.metadata.reading() as s:
            problems += _records(s, parts)
            blobs = versions.all_blobs(s)
            count = (s.row("select count(*) from version") or (0,))[0]
        for blob in blobs:
            error = _blob(parts, blob, read_data)
            if error is not None:
                problems.append(replace(error, versions=_versions(parts, blob)))
        packs = dict(_packs(parts))
        problems += _damaged_packs(parts, blobs, packs, read_data)
    except Damaged as error:
        return Verification(0, 0, read_data, (*problems, error))
    return Verification(count, len(blobs), read_data, tuple(problems), len(packs))


def unlisted(s: Session, parts: Parts, *, kept_as_blobs: bool = False) -> Iterator[LlmartifactsError]:
    """Manifests that cannot be read, or whose files are not on the list of what is needed.

    Args:
        s: A transaction.
        parts: The stores.
        kept_as_blobs: Look at large manifests too; else those are left to whoever checks the blobs.
    """
    for raw, body, size in s.rows("select digest, body, size from manifest order by digest"):
        digest = digest_from_bytes(raw)
        if body is None and not kept_as_blobs:
            continue
        try:
            body = parts.blobs.read(Blob(digest, size)) if body is None else body
            manifest = Manifest.from_bytes(body, expect=digest, origin=parts.location)
            missing = versions.needed(manifest).keys() - versions.listed(s, digest)
            if missing:
                raise Damaged(f"{len(missing)} of its files are not on the list of what is needed")
        except LlmartifactsError as error:
            yield Damaged(f"manifest {digest}: {error.message}", digest=digest, versions=versions.needing(s, digest))


def _records(s: Session, parts: Parts) -> Iterator[LlmartifactsError]:
    yield from unlisted(s, parts)
    for line in (*audit.damaged(s), *disagreements(s), *broken(s)):
        yield Damaged(line, file=parts.location, next_step=_RECORDS)
    for line in chunks.problems(s):
        yield Damaged(line, file=parts.location)


def _blob(parts: Parts, blob: Blob, read_data: bool) -> Damaged | None:
    try:
        parts.blobs.check(blob, read_data=read_data)
    except Damaged as error:
        return error
    return None


def _packs(parts: Parts) -> Iterator[tuple[str, int]]:
    """Name and bytes of every stored pack."""
    for key, size in parts.blobs.driver.list("packs/"):
        from llmartifacts.blobs.chunks.pack import parse_key  # imports numpy, which a store without packs does without

        name = parse_key(key)
        if name is not None:
            yield name, size


def _damaged_packs(parts: Parts, blobs: Sequence[Blob], packs: Mapping[str, int], read_data: bool) -> Iterator[Damaged]:
    """Packs that are not what the index says; with `read_data`, those in which anything at all was altered.

    Each comes with the versions that need it.
    """
    driver, index = parts.blobs.driver, parts.blobs.index
    found: dict[str, str] = {}
    for name, size in index.packs().items():
        if packs.get(name) != size and index.packs().get(name) == size:  # else gc removed it meanwhile
            found[name] = f"is recorded with {size} bytes and has {packs[name]}" if name in packs else "is missing"
    if read_data and packs:
        found |= _altered(parts, packs)
    if not found:
        return
    from llmartifacts.blobs.chunks.pack import key_of

    needing = _needing(parts, blobs, found.keys())
    for name, what in found.items():
        where = driver.where(key_of(name))
        yield Damaged(f"the pack {where} {what}", file=where, versions=needing[name])


def _altered(parts: Parts, packs: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    from llmartifacts.blobs.chunks.check import check_pack
    from llmartifacts.blobs.chunks.pack import key_of

    driver = parts.blobs.driver
    for name, size in packs.items():
        try:
            check_pack(driver, name, size)
        except BadForm as error:
            yield name, f"is damaged: {error}"
        except Damaged as error:
            if driver.size(key_of(name)) is not None:  # else gc removed it meanwhile
                yield name, f"is damaged: {error.message}"


def _needing(parts: Parts, blobs: Sequence[Blob], packs: Set[str]) -> dict[str, tuple[str, ...]]:
    """For each pack, the versions that need something in it, as far as their recipes can be read."""
    from llmartifacts.blobs.chunks.entries import ids_of

    needing: dict[str, dict[str, None]] = {pack: {} for pack in packs}
    for blob in blobs:
        try:
            recipe = parts.blobs.recipe(blob)
            found = parts.blobs.chunks.index.find(ids_of(recipe.entries())) if recipe else {}
        except LlmartifactsError:
            continue
        for pack in {place.pack for place in found.values()} & packs:
            needing[pack] |= dict.fromkeys(_versions(parts, blob))
    return {pack: tuple(names)[:NAMED] for pack, names in needing.items()}


def _versions(parts: Parts, blob: Blob) -> tuple[str, ...]:
    with parts.metadata.reading() as s:
        return versions.needing(s, blob.digest)


NAMED = 20
"""Versions that an error names at most."""
