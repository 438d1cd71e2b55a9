"""verify: whether everything that the versions need is there, and right; with its data read, whether every bit is.

Nothing is changed, moved or deleted: what is found is told, each with a code of its own, with the file, and with the
versions that need it. `repair` mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from llmartifacts.errors import Damaged, LlmartifactsError, NewerFormat
from llmartifacts.metadata import audit, chunks, needed, versions
from llmartifacts.metadata.database import Row, Session
from llmartifacts.records.backend import Progress, Verification
from llmartifacts.records.digest import Blob, Digest, digest_bytes, digest_from_bytes
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.subset import parse_subset
from llmartifacts.versioning.invariants import broken
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.replay import disagreements
from llmartifacts.versioning.verify_bytes import Bytes

NAMED = 20
"""Versions that an error names at most."""
LISTED = 1000
"""Findings that are listed; more are counted."""
_RECORDS = (
    "Something else than llmartifacts changed the database, or it is damaged: restore it from a backup. Until then see"
    " what it permits (llmartifacts grant ls --everywhere), and what was really done (llmartifacts audit log)."
)
_BACKUP = (
    "Restore the database from a backup; `llmartifacts repair` mends bytes, and no records. Where another program"
    " (sqlite3) had an embedded one open, `llmartifacts repair --database` tells whether only its checksums are wrong."
)


def verify(
    parts: Parts,
    *,
    read_data: bool = False,
    subset: str = "",
    project: str = "",
    name: str = "",
    progress: Progress | None = None,
) -> Verification:
    """Check the database, every manifest, and that every blob and chunk is there; with `read_data`, every stored bit.

    Records are checked as they were at one moment; bytes afterwards, one blob or pack at a time and with bounded
    memory, so that nobody waits for it, gc included. What is kept outside of the registry is not looked for.

    Args:
        parts: The stores.
        read_data: Read and hash stored bytes.
        subset: Of these, only a part: `3/20`, `5%` or `50G`; then `read_data` is meant.
        project: Project of the collection.
        name: Check the bytes of one collection only; records are checked all the same.
        progress: Told of the bytes done and in all.

    Raises:
        InvalidInput: `subset` is none.
        NotFound: There is no such collection.
    """
    found = Findings(parts)
    try:
        with parts.metadata.reading() as s:
            collection = needed.collection_of(s, project, name) if name else None
            count, size = needed.total(s, collection)
    except Damaged as error:  # so much that not even their number is known
        found.take(lambda: (_of_database(parts, line) for line in parts.metadata.database.check()))
        return Verification(0, 0, False, (error, *found.listed), more=found.more)
    part = parse_subset(subset, size) if subset else None
    with ThreadPoolExecutor(1, "llmartifacts-verify") as beside:  # SQLite works there while entries are parsed here
        checked = beside.submit(parts.metadata.database.check)
        found.take(lambda: records(parts))
        found.take(lambda: (_of_database(parts, line) for line in checked.result()))
    stored = Bytes(parts, read_data or part is not None, part, size, progress)
    found.take(lambda: stored.blobs(collection))
    if collection is None:
        found.take(stored.packs)
    stored.end()
    return Verification(
        count,
        stored.checked,
        stored.read_data,
        tuple(found.listed),
        stored.looked,
        more=found.more,
        part=str(part) if part else "",
    )


class Findings:
    """What was found so far; of very many the first are listed, with the versions that need it.

    Args:
        parts: The stores.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.listed: list[LlmartifactsError] = []
        self.more = 0

    def take(self, look: Callable[[], Iterable[LlmartifactsError]]) -> None:
        """Take what one check finds; where it cannot go on, that is the last that it found."""
        try:
            for error in look():
                self._add(error)
        except (Damaged, NewerFormat) as error:
            self._add(error)

    def _add(self, error: LlmartifactsError) -> None:
        if len(self.listed) >= LISTED:
            self.more += 1
            return
        if isinstance(error, Damaged) and error.digest and not error.versions:
            error = self._named(error)
        self.listed.append(error)

    def _named(self, error: Damaged) -> Damaged:
        with self._parts.metadata.reading() as s:
            names, count = needed.needing(s, Digest(error.digest), NAMED)
        return replace(error, versions=names, needed_by=count)


def unlisted(s: Session, parts: Parts, *, kept_as_blobs: bool = False) -> Iterator[LlmartifactsError]:
    """Manifests that cannot be read, or are not what the rows beside them say: files on the list, sizes, kinds.

    Args:
        s: A transaction.
        parts: The stores.
        kept_as_blobs: Look at large manifests too; else those are left to whoever checks the blobs.
    """
    for page in needed.manifests(s):
        first, last = page[0][0], page[-1][0]
        listed = needed.listed(s, first, last)
        held: dict[bytes, list[Row]] = {}
        for row in needed.held(s, first, last):
            held.setdefault(bytes(row[0]), []).append(row)
        for raw, body, size in page:
            if body is None and not kept_as_blobs:
                continue
            digest = digest_from_bytes(raw)
            try:
                data = parts.blobs.read(Blob(digest, size)) if body is None else body
                manifest = Manifest.from_bytes(data, expect=digest, origin=parts.location)
                wrong = _beside(manifest, size, listed.get(bytes(raw), {}), held.get(bytes(raw), []))
                if wrong:
                    raise Damaged(wrong)
            except NewerFormat as error:
                yield error
            except (LlmartifactsError, ValueError, TypeError) as error:
                told = error.message if isinstance(error, LlmartifactsError) else str(error)
                yield Damaged(f"manifest {digest}: {told}", digest=digest, versions=versions.needing(s, digest))


def _beside(manifest: Manifest, size: int, listed: dict[bytes, int], held: list[Row]) -> str:
    """What the rows beside a manifest say and it does not; empty where they agree."""
    wanted = {digest_bytes(digest): size for digest, size in versions.needed(manifest).items()}
    missing = wanted.keys() - listed.keys()
    if missing:
        return f"{len(missing)} of its files are not on the list of what is needed"
    if wanted != listed:
        return "what is listed as needed for it is more, or has other sizes, than it says"
    if len(manifest.to_bytes()) != size:
        return f"it is recorded with {size} bytes and has {len(manifest.to_bytes())}"
    for _, logical, kind in held:
        if logical != manifest.size:
            return f"a version of it is recorded with {logical} bytes, and it has {manifest.size}"
        if kind != manifest.kind:
            return f"a version of it is in a collection of the kind {kind}, and it is of {manifest.kind}"
    return ""


def records(parts: Parts) -> Iterator[LlmartifactsError]:
    """What is wrong among the records: with manifests, the audit, and what must hold between them."""
    with parts.metadata.reading() as s:
        yield from unlisted(s, parts)
        for line in audit.damaged(s):
            yield Damaged(line, file=parts.location, next_step=_RECORDS)
        for line in disagreements(s, filing=True):
            yield Damaged(line, file=parts.location, next_step=_RECORDS)
        for line in broken(s):
            yield Damaged(line, file=parts.location, next_step=_RECORDS)
        for line in chunks.problems(s):
            yield Damaged(line, file=parts.location, next_step="llmartifacts repair makes the index anew.")


def _of_database(parts: Parts, line: str) -> Damaged:
    return Damaged(f"database: {line}", file=parts.location, next_step=_BACKUP)
