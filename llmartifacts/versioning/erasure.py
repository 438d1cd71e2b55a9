"""Erasure of given documents: every version of a collection that holds one of them goes, and nothing of it stays.

    search    each version's documents are read through its kind, verified, without opening an index
    mark      in one transaction: these versions, and bundles that contain one, are removed; manifests are emptied
    sweep     gc with `compact` and no grace: no chunk that held one of them stays in any pack
    scrub     the database leaves nothing of what was deleted in its files; the cache of this machine neither

The audit keeps digests, and says how many documents were asked for, never which. It may be called again after anything:
what is marked stays marked, and the sweep is done anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from llmartifacts import packing
from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.scratch import Scratch
from llmartifacts.errors import Conflict, LlmartifactsError, Refused, WrongKind
from llmartifacts.metadata import aliases, audit, projects, removals, retained, uploads, versions
from llmartifacts.metadata.database import Session
from llmartifacts.metadata.projects import CollectionRow
from llmartifacts.metadata.versions import VersionRow
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.names import LATEST
from llmartifacts.records.removal import Erased
from llmartifacts.records.version import Version
from llmartifacts.versioning.gc import gc
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.removal import ERASE, empty, remove

_ATTEMPTS = 5
WITH = "contains an erased version"
"""The rule by which a bundle goes."""


def erase(
    parts: Parts,
    project: str,
    name: str,
    documents: Collection[str],
    *,
    reason: str,
    actor: str,
    dry_run: bool = False,
) -> Erased:
    """Erase every version of a collection that holds one of some documents.

    Args:
        parts: The stores.
        project: Name of the project.
        name: Name of the collection.
        documents: Ids of the documents, or items.
        reason: Why.
        actor: Who asks.
        dry_run: Change nothing; the report is the same but for what is freed.

    Raises:
        NotFound: There is no such collection.
        WrongKind: Its kind has no documents.
        Refused: An alias names one of the versions, or a bundle that contains one; or it is the latest.
        Damaged: A version cannot be read; nothing was erased.
        Conflict: Others logged versions all the while.
    """
    wanted = frozenset(documents)
    search = _Search(parts, wanted)
    for _ in range(_ATTEMPTS):
        with parts.metadata.reading() as s:
            project_id, _ = projects.find_project(s, project)
            collection = projects.find_collection(s, project_id, name)
            rows = _live(s, project, collection)
        for row in rows:
            search.look(row)
        if dry_run:
            with parts.metadata.reading() as s:
                return _plan(s, parts, project_id, project, collection, search, dry_run=True).report
        with parts.metadata.writing() as s:
            project_id, _ = projects.lock_project(s, project)
            collection = projects.find_collection(s, project_id, name)
            if any(row.version.digest not in search.looked for row in _live(s, project, collection)):
                continue  # logged meanwhile
            plan = _plan(s, parts, project_id, project, collection, search, dry_run=False)
            _mark(s, project_id, project, collection, plan, actor=actor, reason=reason, count=len(wanted))
        done = gc(parts, actor=actor, compact=True, grace=timedelta(0))
        parts.metadata.database.scrub()
        parts.forget([row.version.digest for row in plan.going])
        for blob in plan.blobs:
            if blob.digest not in plan.report.remaining:
                parts.blobs.cache.remove(blob)
        return plan.told(freed=done.freed)
    raise Conflict("versions were logged all the while", next_step="Do it when nobody logs.")


class _Search:
    """Which contents hold one of some documents.

    Args:
        parts: The stores.
        wanted: Ids of the documents.

    Attributes:
        looked: Digest of each manifest that was searched -> which of the documents it holds.
    """

    def __init__(self, parts: Parts, wanted: frozenset[str]) -> None:
        self._parts = parts
        self._wanted = wanted
        self.looked: dict[Digest, frozenset[str]] = {}

    def look(self, row: VersionRow) -> None:
        """Search a version. Raises `WrongKind`, `Damaged`, and what its kind raises."""
        digest = row.version.digest
        if digest in self.looked:
            return
        with self._parts.metadata.reading() as s:
            manifest = self._parts.manifest(s, digest, None)
        self.looked[digest] = self._found(row.version, manifest)

    def _found(self, version: Version, manifest: Manifest) -> frozenset[str]:
        kind = packing.kind_named(manifest.kind)
        with _aside(self._parts) as blobs:
            ids = kind.documents(manifest.config, packing.view(manifest, blobs))
            if ids is None:
                raise WrongKind(
                    f"{version.name} holds {manifest.kind} versions, which have no documents to erase",
                    field="name",
                    next_step="Name a vector_index or an eval_dataset.",
                )
            return frozenset(one for one in ids if one in self._wanted)


class _Plan:
    """What goes, and what stays of it for others.

    Attributes:
        going: The versions that hold a document.
        bundles: The bundles that contain one of those.
        earlier: Versions removed before, whose manifests may say something of the documents and are emptied too.
        emptied: Digests of the manifests that no other version has.
        blobs: What the versions needed, and no version of the collection that holds none of the documents.
        report: What is told of it.
    """

    def __init__(
        self,
        going: list[VersionRow],
        bundles: list[VersionRow],
        earlier: list[VersionRow],
        emptied: frozenset[Digest],
        blobs: list[Blob],
        report: Erased,
    ) -> None:
        self.going, self.bundles, self.earlier = going, bundles, earlier
        self.emptied, self.blobs, self.report = emptied, blobs, report

    def told(self, *, freed: int) -> Erased:
        """The report, with what was freed."""
        r = self.report
        return Erased(
            r.dry_run, r.name, r.found, r.versions, r.bundles, r.searched, r.remaining, r.holders, max(freed, 0)
        )


def _live(s: Session, project: str, collection: CollectionRow) -> list[VersionRow]:
    rows = versions.page(s, project, collection, {}, None, None)
    return [row for row in rows if row.version.removed_at is None]


def _plan(
    s: Session,
    parts: Parts,
    project_id: int,
    project: str,
    collection: CollectionRow,
    search: _Search,
    *,
    dry_run: bool,
) -> _Plan:
    every = versions.page(s, project, collection, {}, None, None)
    live = [row for row in every if row.version.removed_at is None]
    going = [row for row in live if search.looked.get(row.version.digest)]
    bundles = _bundles(s, project_id, project, {row.id for row in going})
    _refuse_served(s, project_id, project, going, bundles)
    gone = {row.id for row in (*going, *bundles)}
    earlier = [row for row in every if row.version.removed_at is not None]
    emptied = frozenset(
        row.version.digest
        for row in (*going, *earlier)
        if not set(removals.holders(s, row.version.digest)) - gone
        and versions.manifest_body(s, row.version.digest) is not None
    )
    clean = {b.digest for row in live if row not in going for b in removals.blobs(s, row.version.digest)}
    every_blob = {b.digest: b for row in going for b in removals.blobs(s, row.version.digest)}
    blobs = [blob for digest, blob in every_blob.items() if digest not in clean]  # those hold none of the documents
    shared = [b.digest for b in blobs if removals.needed_by_others(s, b.digest, gone)]
    kept = {row.version.digest for row in going} - emptied
    remaining = tuple(sorted({*shared, *kept}))
    others = {
        name
        for digest in remaining
        for name in parts.needing(s, digest)
        if name not in {str(row.version) for row in (*going, *bundles)}
    }
    held = frozenset().union(*(search.looked[row.version.digest] for row in going)) if going else frozenset()
    report = Erased(
        dry_run,
        str(every[0].version.reference).rpartition(":")[0] if every else collection.name,
        len(held),
        tuple(str(row.version) for row in reversed(going)),
        tuple(str(row.version) for row in bundles),
        len(live),
        remaining,
        tuple(sorted(others)),
    )
    return _Plan(going, bundles, earlier, emptied, blobs, report)


def _bundles(s: Session, project_id: int, project: str, parts: set[int]) -> list[VersionRow]:
    """The bundles that contain one of some versions, or such a bundle."""
    inside: dict[int, list[int]] = {}
    for bundle, part in retained.contained(s, project_id):
        inside.setdefault(part, []).append(bundle)
    found: set[int] = set()
    left = list(parts)
    while left:
        for bundle in inside.get(left.pop(), ()):
            if bundle not in found:
                found.add(bundle)
                left.append(bundle)
    return versions.by_id(s, project, sorted(found - parts))


def _refuse_served(
    s: Session, project_id: int, project: str, going: list[VersionRow], bundles: list[VersionRow]
) -> None:
    """Refuse while somebody may be served one of them."""
    for row in (*going, *bundles):
        version = row.version
        named = aliases.naming(s, row.collection_id, version.number)
        if row.latest == version.number and row in going:
            named.append(LATEST)
        if not named:
            continue
        holds = "contains one of the versions" if row in bundles else "holds one of the documents"
        step = (
            f"Log a bundle without it and promote that, or remove the alias: llmartifacts alias rm {version.name}:"
            f"{named[0]}."
            if row in bundles
            else f"First log one without them (an index: registry.log({version.name!r}, index.updated(remove=ids))),"
            " and promote that wherever an alias names this one."
        )
        raise Refused(
            f"{version}, which {holds}, is {' and '.join(f'{version.name}:{one}' for one in named)}",
            field="name",
            next_step=step,
        )


def _mark(
    s: Session,
    project_id: int,
    project: str,
    collection: CollectionRow,
    plan: _Plan,
    *,
    actor: str,
    reason: str,
    count: int,
) -> None:
    at = s.now()
    rows = list(reversed(plan.going))
    emptied = {row.version.digest for row in rows} & plan.emptied
    remove(s, project_id, project, rows, actor=actor, reason=reason, rule=ERASE, at=at, emptied=emptied)
    remove(s, project_id, project, plan.bundles, actor=actor, reason=reason, rule=WITH, at=at)
    earlier = [row for row in plan.earlier if row.version.digest in plan.emptied - emptied]
    empty(s, project_id, project, earlier, actor=actor, reason=reason, at=at)
    uploads.remove_holding(s, project_id, [blob.digest for blob in plan.blobs])
    audit.record(
        s,
        project_id,
        project,
        actor=actor,
        verb="erase",
        subject=collection.name,
        at=at,
        reason=reason,
        documents=count,
        found=plan.report.found,
        versions=len(plan.going),
        bundles=len(plan.bundles),
        searched=plan.report.searched,
    )


@contextmanager
def _aside(parts: Parts) -> Iterator[_Files]:
    """Verified content in files that are gone at the end: nothing of it gets into the cache."""
    with storage_errors("write", parts.blobs.scratch):
        scratch = Scratch(parts.blobs.scratch)
    try:
        yield _Files(parts, scratch)
    finally:
        scratch.close()


class _Files:
    """The `BlobSource` of a search."""

    def __init__(self, parts: Parts, scratch: Scratch) -> None:
        self._parts = parts
        self._scratch = scratch

    def read(self, blob: Blob) -> bytes:
        """The bytes, in memory."""
        return self._parts.blobs.read(blob)

    def path(self, blob: Blob) -> Path:
        """A file with the bytes."""
        target = self._scratch.new_file()
        self._parts.blobs.copy(blob, target)
        return target

    def open(self, blob: Blob) -> BinaryIO:
        """A reader over the bytes."""
        try:
            return open(self.path(blob), "rb")
        except OSError as error:  # pragma: no cover - the file was made just now
            raise LlmartifactsError(f"a file was taken away: {error}") from error
