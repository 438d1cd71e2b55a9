"""repair: makes damaged and missing bytes right again, from what is here and from another place that has them.

    index    made anew from the packs, where it says what they do not
    packs    header, footer and end, which their name and the index prove; chunks, from other packs that hold them
    blobs    from the cache of this user, else from the other place: fetched by digest, verified, and stored as if the
             content had been logged again, so that what is right stays and what is wrong is replaced
    rest     a damaged pack in which nothing is left that any version needs goes

Each blob is one transaction with its audit entry, and each file is replaced as a whole: it may be stopped at any
moment and called again. Nothing that is needed is ever deleted. Records of the database are not mended here, but for
manifests, which their digest proves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmartifacts.blobs.failures import storage_errors
from llmartifacts.blobs.forms import BadForm
from llmartifacts.blobs.scratch import Scratch
from llmartifacts.errors import BlobMissing, Damaged, InvalidInput, LlmartifactsError, NewerFormat, Unreachable
from llmartifacts.metadata import audit, chunks, needed, versions
from llmartifacts.records.backend import BlobSource, Progress, Repaired
from llmartifacts.records.digest import Blob, Digest, digest_bytes, digest_of
from llmartifacts.records.manifest import INLINE_BYTES, Manifest
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.commit import chunks_recorded_in
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.verify import LISTED, NAMED, unlisted, verify
from llmartifacts.versioning.verify_bytes import Bytes, check_blob, key_of_pack, stored_packs, versions_of_packs


@dataclass(frozen=True, slots=True)
class Other:
    """A place that may have what is damaged here.

    Attributes:
        name: What it is called in messages and in the audit.
        blobs: Its bytes.
        manifests: Its manifests by digest; None where it is bytes only.
    """

    name: str
    blobs: BlobSource
    manifests: Callable[[Sequence[Digest]], Mapping[Digest, Manifest]] | None = None


def other(source: object | None) -> Other | None:
    """Another place from what a caller gave: a registry, a backend, or a source of verified blobs.

    Raises:
        InvalidInput: It is none of these.
    """
    if source is None:
        return None
    backend: Any = getattr(source, "backend", source)
    blobs = getattr(backend, "blobs", backend)
    if not callable(getattr(blobs, "path", None)):
        raise InvalidInput(
            f"a {type(source).__name__} is no place of bytes",
            field="source",
            next_step="Give a Registry (llmartifacts.connect), or a BlobStore.",
        )
    named = getattr(backend, "location", "") or getattr(getattr(blobs, "driver", None), "where", lambda key: "")("")
    return Other(str(named) or type(source).__name__, blobs, getattr(backend, "manifests", None))


def repair(
    parts: Parts,
    *,
    actor: str,
    other: Other | None = None,
    dry_run: bool = False,
    read_data: bool = True,
    progress: Progress | None = None,
) -> Repaired:
    """Mend what can be mended.

    Args:
        parts: The stores.
        actor: Who asks.
        other: Where else the bytes may be; None mends with what is here only.
        dry_run: Change nothing; what could be had is fetched and verified all the same.
        read_data: Read every stored byte to find what is damaged; else only what is missing or cut short is found.
        progress: Told of the bytes looked at and in all.

    Raises:
        NotAllowed: The store is full or read-only; what was done by then stays done.
    """
    return _Repair(parts, actor, other, dry_run, read_data, progress).run()


@dataclass
class _Repair:
    parts: Parts
    actor: str
    other: Other | None
    dry_run: bool
    read_data: bool
    progress: Progress | None
    blobs: int = 0
    size: int = 0
    packs: int = 0
    removed: int = 0
    manifests: int = 0
    index: bool = False
    left: list[LlmartifactsError] = field(default_factory=list)
    more: int = 0

    def run(self) -> Repaired:
        """All steps, in order."""
        self._manifests()
        with self._work() as new_file:
            self._footers(new_file)
            self._index()
            self._blobs()
            self._rest(new_file)
        told = {_key(error) for error in self.left}
        found = verify(self.parts)
        problems = [*self.left, *(error for error in found.problems if _key(error) not in told)]
        if self.dry_run:
            problems = self.left
        return Repaired(
            self.dry_run,
            self.other.name if self.other else "",
            self.blobs,
            self.size,
            self.packs,
            self.removed,
            self.index,
            self.manifests,
            tuple(problems[:LISTED]),
            self.more + max(0, len(problems) - LISTED),
        )

    # --- manifests

    def _manifests(self) -> None:
        with self.parts.metadata.reading() as s:
            wrong = [error for error in unlisted(s, self.parts) if isinstance(error, Damaged) and error.digest]
        for error in wrong[:LISTED]:
            digest = Digest(error.digest)
            try:
                found = self.other.manifests([digest]).get(digest) if self.other and self.other.manifests else None
            except (LlmartifactsError, OSError) as failed:
                self._leave(_not_had(error, failed))
                continue
            if found is None or digest_of(found.to_bytes()) != digest:
                self._leave(error)
                continue
            self.manifests += 1
            if not self.dry_run:
                self._put_manifest(found)

    def _put_manifest(self, manifest: Manifest) -> None:
        data = manifest.to_bytes()
        key = {"d": digest_bytes(manifest.digest)}
        with self.parts.metadata.writing() as s:
            body = data if len(data) <= INLINE_BYTES else None
            s.run("update manifest set body = :b, size = :n where digest = :d", {**key, "b": body, "n": len(data)})
            s.run("delete from content where manifest = :d", key)
            s.run_many(
                "insert into content(manifest, blob, size) values (:d, :b, :n)",
                [{**key, "b": digest_bytes(one), "n": n} for one, n in versions.needed(manifest).items()],
            )
            self._record(s, manifest.digest, part="manifest", bytes=len(data))

    # --- index and packs

    def _footers(self, new_file: Callable[[], Path]) -> None:
        """Packs whose footer cannot be read, made whole from what the index says of them."""
        index = self.parts.blobs.index
        if self.dry_run or not isinstance(index, RecordedIndex):
            return  # whether it works shows only by doing it; what needs the pack is looked at below
        recorded = index.packs()
        for name, size in stored_packs(self.parts):
            if name in recorded and not self._readable(name, size):
                self._mend_footer(name, recorded[name], new_file)

    def _mend_footer(self, name: str, size: int, new_file: Callable[[], Path]) -> None:
        from llmartifacts.blobs.chunks.mend import mend_footer

        with self.parts.metadata.writing() as s:  # gc must not rewrite it meanwhile
            if mend_footer(self.parts.blobs.driver, name, size, chunks.rows_of(s, name), new_file):
                self.packs += 1
                self._record(s, f"pack:{name}", part="footer")

    def _readable(self, name: str, size: int) -> bool:
        from llmartifacts.blobs.chunks.survey import read_footer

        try:
            read_footer(self.parts.blobs.driver, name, size)
        except (BadForm, Damaged):
            return False
        return True

    def _index(self) -> None:
        """The index, where it says what the packs do not; not while a pack is known by the index alone."""
        index = self.parts.blobs.index
        if not isinstance(index, RecordedIndex):
            return
        with self.parts.metadata.reading() as s:
            wrong = any(True for _ in chunks.problems(s))
        stored = dict(stored_packs(self.parts))
        look = Bytes(self.parts, False, None, 0, None)
        if not wrong and not any(look.misplaced(name, size) for name, size in stored.items()):
            return
        if not all(self._readable(name, stored[name]) for name in index.packs() if name in stored):
            return
        self.index = True
        if not self.dry_run:
            with self.parts.metadata.writing() as s, index.within(s):
                index.rebuild()
                self._record(s, "index", part="index")

    def _rest(self, new_file: Callable[[], Path]) -> None:
        """Packs that are still damaged or missing: chunks from other packs; what nobody needs of the rest goes."""
        stored = dict(stored_packs(self.parts))
        damaged = [name for name, size in stored.items() if self._wrong(name, size)]
        if self.dry_run:
            self.packs += len(damaged)
            return
        index = self.parts.blobs.index
        still: dict[str, Damaged] = {
            name: BlobMissing(self._told(name, "is missing")) for name in index.packs() if name not in stored
        }
        for name in damaged:
            wrong = self._mended(name, new_file)
            if wrong:
                still[name] = Damaged(self._told(name, f"is damaged: {wrong}"))
        for name, error in versions_of_packs(self.parts, still):
            if error.versions:
                self._leave(replace(error, file=self._where(name)))
            else:
                self._remove(name)

    def _mended(self, name: str, new_file: Callable[[], Path]) -> str:
        """What is still wrong with a pack once it has got what other packs have of it; empty if nothing is."""
        with self.parts.metadata.writing() as s, chunks_recorded_in(self.parts, s):
            self.parts.blobs.chunks.mend(name, new_file)
            wrong = self._wrong(name, self.parts.blobs.driver.size(key_of_pack(name)) or 0)
            if not wrong:
                self.packs += 1
                self._record(s, f"pack:{name}", part="chunks")
        return wrong

    def _remove(self, name: str) -> None:
        """A pack that no version needs: out of the index first, then, once that is committed, its file."""
        with self.parts.metadata.writing() as s, chunks_recorded_in(self.parts, s):
            self.parts.blobs.index.remove([name])
            self._record(s, f"pack:{name}", part="removed")
        with self.parts.metadata.writing() as s, chunks_recorded_in(self.parts, s):
            if name not in self.parts.blobs.index.packs():  # else somebody relies on it again
                self.parts.blobs.driver.delete(key_of_pack(name))
        self.removed += 1

    def _where(self, name: str) -> str:
        return self.parts.blobs.driver.where(key_of_pack(name))

    def _told(self, name: str, what: str) -> str:
        return f"the pack {self._where(name)} {what}"

    def _wrong(self, name: str, size: int) -> str:
        """What is wrong with a pack; empty if nothing is."""
        from llmartifacts.blobs.chunks.check import check_pack
        from llmartifacts.blobs.chunks.survey import read_footer

        try:
            if self.read_data:
                check_pack(self.parts.blobs.driver, name, size)
            else:
                read_footer(self.parts.blobs.driver, name, size)
        except BadForm as error:
            return str(error)
        except Damaged as error:
            return error.message
        return ""

    # --- blobs

    def _blobs(self) -> None:
        with self.parts.metadata.reading() as s:
            total = needed.total(s)[1]
        done = 0
        for blob in Bytes(self.parts, False, None, 0, None).needed():
            if isinstance(blob, LlmartifactsError):
                self._leave(blob)
                continue
            error = check_blob(self.parts, blob, self.read_data)
            if isinstance(error, NewerFormat | Unreachable):
                self._leave(error)
            elif error is not None:
                self._heal(blob, error)
            done += blob.size
            if self.progress is not None:
                self.progress(min(done, total), total)

    def _heal(self, blob: Blob, error: LlmartifactsError) -> None:
        """One blob, from the first place that has it."""
        failed: Exception | None = None
        for name, get in self._places(blob):
            try:
                path = get()
                if path is None:
                    continue
                if not self.dry_run:
                    self._put(blob, path, name)
                    again = check_blob(self.parts, blob, self.read_data)
                    if again is not None:
                        failed = again
                        continue
            except (Damaged, NewerFormat, Unreachable) as problem:
                failed = problem
                continue
            self.blobs += 1
            self.size += blob.size
            return
        with self.parts.metadata.reading() as s:
            names, count = needed.needing(s, blob.digest, NAMED)
        if isinstance(error, Damaged):
            error = replace(error, versions=names, needed_by=count)
        self._leave(_not_had(error, failed) if failed is not None else error)

    def _places(self, blob: Blob) -> Iterator[tuple[str, Callable[[], Path | None]]]:
        yield "cache", lambda: self.parts.blobs.cache.get(blob)
        if self.other is not None:
            there = self.other.blobs
            yield self.other.name, lambda: there.path(blob)

    def _put(self, blob: Blob, path: Path, name: str) -> None:
        """Store content again: whatever of it is right stays, and what is wrong is replaced."""
        with self.parts.blobs.stage() as staging:
            made = staging.add(path, lambda: (blob,))  # against itself, so that its chunks come out as they were
            if made != blob:
                raise Damaged(f"{name} gave other bytes for {blob.digest}", digest=blob.digest, file=str(path))
            with self.parts.metadata.writing() as s, chunks_recorded_in(self.parts, s):
                staging.publish()
                self._record(s, blob.digest, part="blob", bytes=blob.size, place=name)

    # --- besides

    def _record(self, s: Any, subject: str, **body: Any) -> None:
        audit.record(s, None, "", actor=self.actor, verb="repair", subject=subject, **body)

    def _leave(self, error: LlmartifactsError) -> None:
        if len(self.left) < LISTED:
            self.left.append(error)
        else:
            self.more += 1

    @contextmanager
    def _work(self) -> Iterator[Callable[[], Path]]:
        """A place for new files, gone at the end; it is made with the first."""
        made: list[Scratch] = []

        def new_file() -> Path:
            if not made:
                with storage_errors("write", self.parts.blobs.scratch):
                    made.append(Scratch(self.parts.blobs.scratch))
            return made[0].new_file()

        try:
            yield new_file
        finally:
            for scratch in made:
                scratch.close()


def _key(error: LlmartifactsError) -> tuple[str, str]:
    return getattr(error, "digest", "") or error.message, getattr(error, "file", "")


def _not_had(error: LlmartifactsError, failed: Exception) -> LlmartifactsError:
    """What is damaged, and why it could not be had elsewhere."""
    told = failed.message if isinstance(failed, LlmartifactsError) else str(failed)
    return replace(error, message=f"{error.message}; and it could not be had elsewhere: {told}")
