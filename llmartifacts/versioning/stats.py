"""stats: what the versions hold, what is stored for it, and how.

`stored` of a collection counts each distinct object and chunk once; what two collections share is in both. What the
whole registry stores is measured where it lies: objects, packs with their footers, manifests in the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmartifacts.blobs.forms import RAW, RECIPE, ZSTD, BadForm, parse_key
from llmartifacts.errors import LlmartifactsError
from llmartifacts.metadata import projects, versions
from llmartifacts.metadata.database import Session
from llmartifacts.records.backend import CollectionStats, Stats, Storage, VersionStats
from llmartifacts.records.digest import Blob, Digest, digest_from_bytes
from llmartifacts.versioning.parts import Parts

if TYPE_CHECKING:
    from llmartifacts.blobs.chunks.survey import Survey

_FORMS = {RAW: "raw", ZSTD: "zstd"}
MISSING, DAMAGED = "missing", "damaged"


def stats(parts: Parts, project: str | None = None, name: str | None = None) -> Stats:
    """Bytes by collection and in all; with a name, of that collection only, and by version.

    Args:
        parts: The stores.
        project: Only collections of this project; None for all.
        name: Only this collection.

    Raises:
        NotFound: There is no such collection.
    """
    with parts.metadata.reading() as s:
        if name is not None and project is not None:
            projects.find_collection(s, projects.find_project(s, project)[0], name)
        needed = versions.all_blobs(s)
        ledger = _Ledger(parts, needed)
        rows = s.rows(
            "select c.id, c.name, c.kind, p.name, count(v.id), coalesce(sum(v.size), 0), max(v.number)"
            " from collection c join project p on p.id = c.project_id"
            " left join version v on v.collection_id = c.id and v.removed_at is null"
            " where p.removed_at is null"
            " and (cast(:p as text) is null or p.name = :p) and (cast(:n as text) is null or c.name = :n)"
            " group by c.id, c.name, c.kind, p.name order by p.name, c.name",
            {"p": project, "n": name},
        )
        made = []
        for collection_id, bare, kind, owner, count, logical, newest in rows:
            shown = bare if owner == (project or "default") else f"{owner}/{bare}"
            one = CollectionStats(shown, kind, count, int(logical), 0)
            made.append(
                _by_version(s, parts, ledger, collection_id, one)
                if name is not None
                else _in_all(s, ledger, collection_id, one, newest)
            )
        return Stats(
            tuple(made),
            sum(c.logical for c in made),
            ledger.total + _inline(s),
            len(needed),
            parts.metadata.database.size(),
            ledger.unused,
        )


def storage(parts: Parts, blobs: Sequence[Blob]) -> list[Storage]:
    """How each blob is stored; one that is not there, or cannot be read, says so."""
    return [_storage(parts, blob) for blob in blobs]


def _storage(parts: Parts, blob: Blob) -> Storage:
    found = next(parts.blobs.forms(blob), None)
    if found is None:
        return Storage(blob.digest, blob.size, MISSING, 0)
    form, size = found
    if form != RECIPE:
        return Storage(blob.digest, blob.size, _FORMS[form], size)
    try:
        recipe = parts.blobs.recipe(blob)
        if recipe is None:  # another form came meanwhile
            return Storage(blob.digest, blob.size, MISSING, 0)
        places = parts.blobs.chunks.places(recipe)
    except (BadForm, LlmartifactsError):
        return Storage(blob.digest, blob.size, DAMAGED, size)
    stored = size + sum(place.stored for place in places.values())
    return Storage(blob.digest, blob.size, recipe.codec, stored, len(places), recipe.encoded.dead)


@dataclass(frozen=True, slots=True)
class _Held:
    """One blob as it is stored.

    Attributes:
        object: Bytes of its object.
        form: How it is stored.
        dead: Bytes of dead rows that its chunks carry.
        chunks: Numbers of the chunks that it needs; None where it has none.
    """

    object: int
    form: str
    dead: int = 0
    chunks: Any = None


class _Ledger:
    """What is stored for which blob; every recipe is read once."""

    def __init__(self, parts: Parts, needed: Sequence[Blob]) -> None:
        self._held: dict[Digest, _Held] = {}
        self.total = self.unused = 0
        wanted = {blob.digest: blob for blob in needed}
        recipes = []
        for key, size in parts.blobs.driver.list("sha256/"):
            parsed = parse_key(key)
            if parsed is None:
                continue
            digest, form = parsed
            self.total += size
            if digest not in wanted:
                self.unused += size
                continue
            if form == RECIPE:
                recipes.append(wanted[digest])
            before = self._held.get(digest)
            told = _FORMS.get(form, DAMAGED) if before is None else before.form
            self._held[digest] = _Held(size + (before.object if before else 0), told)
        if recipes or next(parts.blobs.driver.list("packs/"), None) is not None:
            self._read(parts, recipes)

    def of(self, digest: Digest) -> _Held:
        """What is stored for one blob."""
        return self._held.get(digest, _NONE)

    def _read(self, parts: Parts, recipes: Iterable[Blob]) -> None:
        import numpy as np

        from llmartifacts.blobs.chunks.survey import read_recipe, short_ids, survey, union

        look: Survey = survey(parts.blobs.driver)
        known, first = np.unique(look.ids, return_index=True)
        self.sizes = look.stored[first]
        live = []
        for blob in recipes:
            held = self._held[blob.digest]
            try:
                recipe, _ = read_recipe(parts.blobs.chunks, blob.digest)
            except (BadForm, LlmartifactsError):
                continue
            ids = union([short_ids(recipe.entries())])
            at = np.searchsorted(known, ids)
            at = at[at < len(known)]
            chunks = at[np.isin(known[at], ids)].astype(np.int32)
            form = held.form if held.form in _FORMS.values() else recipe.codec
            self._held[blob.digest] = replace(held, form=form, dead=recipe.encoded.dead, chunks=chunks)
            live.append(ids)
        self.total += look.size
        self.unused += look.unneeded(union(live))


_NONE = _Held(0, MISSING)


class _Tally:
    """Bytes of distinct objects and chunks, as blobs are added."""

    def __init__(self, ledger: _Ledger) -> None:
        self._ledger = ledger
        self._seen: set[Digest] = set()
        self._chunks: Any = None
        self.size = 0

    def add(self, digest: Digest) -> None:
        """Count what is new of a blob."""
        if digest in self._seen:
            return
        self._seen.add(digest)
        held = self._ledger.of(digest)
        self.size += held.object
        if held.chunks is None:
            return
        import numpy as np

        if self._chunks is None:
            self._chunks = np.zeros(len(self._ledger.sizes), np.bool_)
        new = held.chunks[~self._chunks[held.chunks]]
        self._chunks[new] = True
        self.size += int(self._ledger.sizes[new].sum())


def _in_all(
    s: Session, ledger: _Ledger, collection_id: int, made: CollectionStats, newest: int | None
) -> CollectionStats:
    tally = _Tally(ledger)
    for digest in _blobs(s, collection=collection_id):
        tally.add(digest)
    dead = sum(ledger.of(digest).dead for digest in _blobs(s, collection=collection_id, number=newest or 0))
    return replace(made, stored=tally.size + _inline(s, collection_id), dead=dead)


def _by_version(
    s: Session, parts: Parts, ledger: _Ledger, collection_id: int, made: CollectionStats
) -> CollectionStats:
    tally = _Tally(ledger)
    by_version = []
    for number, raw, logical, inline in s.rows(
        "select v.number, v.digest, v.size, coalesce(length(m.body), 0) from version v"
        " left join manifest m on m.digest = v.digest where v.collection_id = :c and v.removed_at is null"
        " order by v.number",
        {"c": collection_id},
    ):
        before, digest = tally.size, digest_from_bytes(raw)
        blobs = _blobs(s, manifest=raw)
        for blob in blobs:
            tally.add(blob)
        added = tally.size - before + inline
        dead = sum(ledger.of(blob).dead for blob in blobs)
        by_version.append(VersionStats(number, int(logical), added, dead, _codecs(s, parts, ledger, digest)))
    stored = sum(v.added for v in by_version)
    dead = by_version[-1].dead if by_version else 0
    return replace(made, stored=stored, dead=dead, by_version=tuple(by_version))


def _codecs(s: Session, parts: Parts, ledger: _Ledger, digest: Digest) -> Mapping[str, str]:
    try:
        files = parts.manifest(s, digest, None).files
    except LlmartifactsError:
        return {}
    return {file.path: ledger.of(file.digest).form for file in files if file.url is None}


def _blobs(
    s: Session, *, collection: int | None = None, number: int | None = None, manifest: bytes | None = None
) -> list[Digest]:
    """The blobs of a collection, of one version of it, or of one manifest."""
    selected = "select distinct x.blob from content x join version v on v.digest = x.manifest"
    selected += " where v.removed_at is null and"
    if manifest is not None:
        rows = s.rows("select blob from content where manifest = :m", {"m": manifest})
    elif number is None:
        rows = s.rows(f"{selected} v.collection_id = :c", {"c": collection})
    else:
        rows = s.rows(f"{selected} v.collection_id = :c and v.number = :n", {"c": collection, "n": number})
    return [digest_from_bytes(row[0]) for row in rows]


def _inline(s: Session, collection_id: int | None = None) -> int:
    """Bytes of the manifests that the database holds, each once."""
    total = "select coalesce(sum(length(m.body)), 0) from manifest m where m.digest in (select v.digest from version v"
    if collection_id is None:
        row = s.row(f"{total})")
    else:  # a statement of its own, or every manifest would be looked at for one collection
        row = s.row(f"{total} where v.collection_id = :c)", {"c": collection_id})
    return int(row[0]) if row else 0
