"""Versions, manifests, tags."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from llmartifacts.errors import Conflict, Damaged, InvalidReference, NotFound, Removed
from llmartifacts.metadata.database import Row, Session
from llmartifacts.metadata.projects import CollectionRow, find_project, missing_collection, missing_project
from llmartifacts.records.digest import Blob, Digest, digest_bytes, digest_from_bytes
from llmartifacts.records.manifest import INLINE_BYTES, Manifest
from llmartifacts.records.names import LATEST, MAX_VERSIONS, near_names, refuse_too_many_tags
from llmartifacts.records.reference import Reference
from llmartifacts.records.times import from_micros, to_text
from llmartifacts.records.version import Version

TOGETHER = 200
"""Rows that one statement asks for."""
_COLUMNS = (
    "v.id, c.id, c.name, c.kind, v.number, v.digest, v.created_at, v.author, v.message, v.size, v.git_commit, v.run_id,"
    " v.yanked_at, v.yank_reason, c.latest, v.removed_at, v.removed_by, v.remove_reason, v.remove_rule"
)
_WIDTH = 19
"""How many those are."""
KEPT = "exists (select 1 from version v where v.digest = x.manifest and v.removed_at is null)"
"""Whether a row `x` of `content` is one that a version needs which was not removed."""
_NEEDED = f"({KEPT} or (x.blob = x.manifest and exists (select 1 from version v where v.digest = x.manifest)))"
"""As `KEPT`; and of removed versions, the manifest itself, which says what they were."""


T = TypeVar("T")


def batched(many: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The same in order, so many at a time."""
    for start in range(0, len(many), size):
        yield many[start : start + size]


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version with its ids.

    Attributes:
        id: Id of the version.
        collection_id: Id of its collection.
        version: The version, without tags and aliases.
        body: Bytes of the manifest; None if they are kept as a blob, or were not asked for.
        move: Move number of the alias it was found by.
        latest: Number of the collection's latest version.
    """

    id: int
    collection_id: int
    version: Version
    body: bytes | None = None
    move: int | None = None
    latest: int | None = None


def _made(row: Row, project: str, body: bytes | None = None, move: int | None = None) -> VersionRow:
    version = Version(
        project,
        row[2],
        row[3],
        row[4],
        digest_from_bytes(row[5]),
        from_micros(row[6]),
        row[7],
        row[8],
        row[9],
        row[10],
        row[11],
        {},
        (),
        None if row[12] is None else from_micros(row[12]),
        row[13],
        removed_at=None if row[15] is None else from_micros(row[15]),
        removed_by=row[16],
        remove_reason=row[17],
        remove_rule=row[18],
    )
    return VersionRow(row[0], row[1], version, body, move, row[14])


_SEE = "See what is wrong with `llmartifacts verify`. Restore the database from a backup."
_FIND = (
    f"select {_COLUMNS}, m.body, l.move from collection c"
    " left join alias l on l.collection_id = c.id and l.name = :alias"
    " join version v on v.collection_id = c.id and v.number ="
    " coalesce(:number, case when :alias = 'latest' then c.latest else l.number end)"
    " join manifest m on m.digest = v.digest where c.project_id = :p and c.name_key = :k and c.name = :n"
)
_FIND_DIGEST = (
    f"select {_COLUMNS}, m.body, null from collection c join version v on v.collection_id = c.id and v.digest = :d"
    " join manifest m on m.digest = v.digest where c.project_id = :p and c.name_key = :k and c.name = :n"
)


def find(s: Session, project_id: int, project: str, reference: Reference, *, removed: bool = False) -> VersionRow:
    """The version that a reference with a selector names; with `removed`, also one that was removed.

    Raises:
        Removed: It was removed.
        NotFound: No such collection, alias, version or digest, with near names; or digest and selector disagree.
        InvalidReference: It names another project.
        Damaged: The database speaks of the version, and has not all of it.
    """
    if reference.project is not None and reference.project != project:
        raise InvalidReference(f"{reference} lies outside the project {project!r}", field="reference")
    named = {"p": project_id, "k": reference.name.casefold(), "n": reference.name}  # the key is what is indexed
    if reference.alias is None and reference.number is None and reference.digest is not None:
        row = s.row(_FIND_DIGEST, {**named, "d": digest_bytes(reference.digest)})
    else:
        row = s.row(
            _FIND,
            {**named, "alias": reference.alias, "number": reference.number},
        )
    if row is None:
        raise _missing(s, project_id, reference)
    found = _made(row[:_WIDTH], project, row[_WIDTH], row[_WIDTH + 1])
    if reference.digest is not None and found.version.digest != reference.digest:
        raise NotFound(
            f"{replace(reference, digest=None)} is {found.version.digest}, not {reference.digest}",
            what="version",
            name=str(reference),
            next_step=f"The digest belongs to another version; write {reference.name}@{reference.digest}.",
        )
    if not removed:
        require_kept(found)
    return found


def require_kept(row: VersionRow) -> None:
    """Refuse a version that was removed. Raises `Removed`."""
    v = row.version
    if v.removed_at is not None:
        raise Removed(
            f"{v} was removed on {v.removed_at:%Y-%m-%d} by {v.removed_by}: {v.remove_reason or v.remove_rule}",
            what="version",
            name=str(v),
            number=v.number,
            at=to_text(v.removed_at),
            by=v.removed_by,
            reason=v.remove_reason,
            rule=v.remove_rule,
        )


def find_anywhere(
    s: Session, project_id: int, project: str, reference: Reference, visible: Callable[[str], bool] | None = None
) -> VersionRow:
    """As `find`, but the reference may name another project: lineage crosses them.

    One that is not `visible` is told of as one that is not there.
    """
    if reference.project is None or reference.project == project:
        return find(s, project_id, project, reference)
    other = reference.project
    if visible is not None and not visible(other):
        raise missing_project(s, other, visible)
    return find(s, find_project(s, other, visible)[0], other, reference)


_PROMISED = (
    "select 1 from alias a where a.collection_id = :c and a.name = :alias and a.number is not null"
    " union all select 1 from collection c where c.id = :c and :alias = 'latest' and c.latest is not null"
    " union all select 1 from collection c where c.id = :c and :number between 1 and c.head"
    " union all select 1 from version v where v.collection_id = :c and v.digest = :digest"
)
"""Whether an alias, a number or a digest names what must be there."""


def _missing(s: Session, project_id: int, reference: Reference) -> NotFound | Damaged:
    row = s.row(
        "select id, head from collection where project_id = :p and name = :n", {"p": project_id, "n": reference.name}
    )
    if row is None:
        return missing_collection(s, project_id, reference.name)
    collection_id, head = row
    bare = reference.alias is None and reference.number is None
    selecting = {
        "c": collection_id,
        "alias": reference.alias or "",
        "number": reference.number or 0,
        "digest": digest_bytes(reference.digest) if bare and reference.digest else b"",
    }
    if s.row(_PROMISED, selecting) is not None:
        return Damaged(f"{reference}: the version, or its manifest, is missing in the database", next_step=_SEE)
    if reference.alias is not None:
        known = [
            r[0]
            for r in s.rows(
                "select name from alias where collection_id = :c and number is not null",
                {"c": collection_id},
            )
        ]
        near = near_names(reference.alias, known)
        told = f"Its aliases: {', '.join([*known, LATEST])}." if not near else ""
        return NotFound(
            f"{reference.name} has no alias {reference.alias!r}",
            what="alias",
            name=f"{reference.name}:{reference.alias}",
            near=tuple(f"{reference.name}:{n}" for n in near),
            next_step=told,
        )
    if reference.number is not None:
        return NotFound(
            f"{reference.name} has no version v{reference.number}",
            what="version",
            name=str(reference),
            next_step=f"The newest is v{head}.",
        )
    return NotFound(
        f"{reference.name} has no version with digest {reference.digest}",
        what="version",
        name=str(reference),
        next_step=f"The newest is v{head}.",
    )


def by_id(s: Session, project: str, version_ids: Sequence[int]) -> list[VersionRow]:
    """Versions by id, in the order given."""
    found: dict[int, VersionRow] = {}
    for some in batched(version_ids, TOGETHER):
        values, asked = _values([(i,) for i in some], "i")
        rows = s.rows(
            f"with asked(i) as (values {values}) select {_COLUMNS} from asked a join version v on v.id = a.i"
            " join collection c on c.id = v.collection_id",
            asked,
        )
        found |= {row[0]: _made(row, project) for row in rows}
    return [found[i] for i in version_ids]


def by_number(s: Session, project: str, collection_id: int, number: int) -> VersionRow:
    """One version of a collection that is known to have it."""
    row = s.row(
        f"select {_COLUMNS} from version v join collection c on c.id = v.collection_id"
        " where v.collection_id = :c and v.number = :n",
        {"c": collection_id, "n": number},
    )
    if row is None:
        raise Damaged(f"the version v{number} is missing in the database", next_step=_SEE)
    return _made(row, project)


def by_digest(s: Session, project: str, collection_id: int, digest: Digest) -> VersionRow | None:
    """The version of a collection with this content, if there is one."""
    row = s.row(
        f"select {_COLUMNS} from version v join collection c on c.id = v.collection_id"
        " where v.collection_id = :c and v.digest = :d",
        {"c": collection_id, "d": digest_bytes(digest)},
    )
    return None if row is None else _made(row, project)


def page(
    s: Session,
    project: str,
    collection: CollectionRow,
    tags: Mapping[str, str],
    limit: int | None,
    before: int | None,
) -> list[VersionRow]:
    """Versions of a collection, newest first.

    With tags, the index of the first one is walked from the newest version on: ids grow with the numbers, so a page
    costs the same whether every version carries the tag or one in a million.
    """
    parameters: dict[str, object] = {"c": collection.id, "limit": 1 << 40 if limit is None else limit}
    parameters["before"] = 1 << 40 if before is None else before
    for i, (key, value) in enumerate(tags.items()):
        parameters |= {f"k{i}": key, f"v{i}": value}
    source, order = "version v", "v.number"
    wanted = "".join(
        f" and exists (select 1 from tag x where x.version_id = v.id and x.name = :k{i} and x.value = :v{i})"
        for i in range(1, len(tags))
    )
    if tags:
        source, order = "tag t cross join version v", "t.version_id"
        wanted += (
            " and t.name = :k0 and t.value = :v0 and v.id = t.version_id and t.version_id < coalesce((select b.id"
            " from version b where b.collection_id = :c and b.number = :before), :far)"
        )
        parameters["far"] = 1 << 62
    rows = s.rows(
        f"select {_COLUMNS} from {source} join collection c on c.id = v.collection_id"
        f" where v.collection_id = :c and v.number < :before{wanted} order by {order} desc limit :limit",
        parameters,
    )
    return [_made(row, project) for row in rows]


def by_numbers(s: Session, project: str, wanted: Sequence[tuple[int, int]]) -> list[VersionRow]:
    """Versions by id of the collection and number, in the order given; they are known to be there."""
    found: dict[tuple[int, int], VersionRow] = {}
    for some in batched(wanted, TOGETHER):
        values, asked = _values(some, "cn")
        rows = s.rows(
            f"with asked(c, n) as (values {values}) select {_COLUMNS} from asked a"
            " join version v on v.collection_id = a.c and v.number = a.n join collection c on c.id = v.collection_id",
            asked,
        )
        found |= {(row[1], row[4]): _made(row, project) for row in rows}
    if len(found) < len(set(wanted)):
        raise Damaged("a version that an alias names is missing in the database", next_step=_SEE)
    return [found[one] for one in wanted]


def complete(s: Session, found: Sequence[VersionRow]) -> list[Version]:
    """The versions with their tags and aliases."""
    if len(found) == 1:
        return [_completed(s, found[0])]
    labels: dict[int, list[tuple[str, str | None]]] = {row.id: [] for row in found}
    for some in batched(found, TOGETHER):
        values, asked = _values([(row.id, row.collection_id, row.version.number) for row in some], "vcn")
        for version_id, name, value in s.rows(
            f"with asked(v, c, n) as (values {values})"
            " select a.v, t.name, t.value from asked a join tag t on t.version_id = a.v"
            " union all select a.v, l.name, null from asked a join alias l on l.collection_id = a.c and l.number = a.n",
            asked,
        ):
            labels[version_id].append((name, value))
    return [_labelled(row, labels[row.id]) for row in found]


def _values(rows: Sequence[Sequence[int]], columns: str) -> tuple[str, dict[str, int]]:
    """The text of some rows of numbers as parameters, and the parameters."""
    text = ", ".join("(" + ", ".join(f":{c}{i}" for c in columns) + ")" for i in range(len(rows)))
    return text, {f"{c}{i}": row[k] for i, row in enumerate(rows) for k, c in enumerate(columns)}


def _completed(s: Session, row: VersionRow) -> Version:
    return _labelled(
        row,
        s.rows(
            "select name, value from tag where version_id = :v"
            " union all select name, null from alias where collection_id = :c and number = :n",
            {"v": row.id, "c": row.collection_id, "n": row.version.number},
        ),
    )


def _labelled(row: VersionRow, labels: Iterable[Row | tuple[str, str | None]]) -> Version:
    """A version with its tags, and with its aliases, which have no value."""
    tags: dict[str, str] = {}
    names = [LATEST] if row.latest == row.version.number else []
    for name, value in labels:
        if value is None:
            names.append(name)
        else:
            tags[name] = value
    return replace(row.version, tags=dict(sorted(tags.items())), aliases=tuple(sorted(names)))


def first_of(s: Session, project_id: int, project: str, digest: Digest) -> VersionRow | None:
    """The version of a project that was the first with some content; None if none has it."""
    row = s.row(
        f"select {_COLUMNS} from version v join collection c on c.id = v.collection_id"
        " where v.digest = :d and c.project_id = :p and v.removed_at is null order by v.id limit 1",
        {"d": digest_bytes(digest), "p": project_id},
    )
    return None if row is None else _made(row, project)


def sizes(s: Session, project_id: int, blobs: Sequence[Digest]) -> dict[Digest, int]:
    """The blobs, of those asked for, that versions of a project need: digest -> bytes."""
    found: dict[Digest, int] = {}
    for some in batched(blobs, TOGETHER):
        rows = s.rows(
            f"with asked(blob) as (values {', '.join(f'(:b{i})' for i in range(len(some)))})"
            " select a.blob, (select x.size from content x where x.blob = a.blob and exists (select 1 from version v"
            " join collection c on c.id = v.collection_id where v.digest = x.manifest and c.project_id = :p"
            " and v.removed_at is null) limit 1)"
            " from asked a",
            {"p": project_id, **{f"b{i}": digest_bytes(d) for i, d in enumerate(some)}},
        )
        found |= {digest_from_bytes(bytes(blob)): size for blob, size in rows if size is not None}
    return found


def insert_manifest(s: Session, manifest: Manifest) -> None:
    """Keep a manifest and the list of blobs that it needs."""
    body = manifest.to_bytes()
    digest = digest_bytes(manifest.digest)
    inline = len(body) <= INLINE_BYTES
    s.run(  # one that was erased elsewhere is here again, since somebody logs it here
        "insert into manifest(digest, body, size) values (:d, :b, :n) on conflict(digest) do update"
        " set body = excluded.body, erased_at = null where manifest.erased_at is not null",
        {"d": digest, "b": body if inline else None, "n": len(body)},
    )
    blobs = needed(manifest)
    if blobs:
        s.run_many(
            "insert into content(manifest, blob, size) values (:m, :b, :n) on conflict do nothing",
            [{"m": digest, "b": digest_bytes(d), "n": n} for d, n in blobs.items()],
        )


def needed(manifest: Manifest) -> dict[Digest, int]:
    """The blobs that a manifest needs, itself included where it is kept as one: digest -> bytes."""
    blobs = {f.digest: f.size for f in manifest.files if f.url is None}
    if len(manifest.to_bytes()) > INLINE_BYTES:
        blobs[manifest.digest] = len(manifest.to_bytes())
    return blobs


def listed(s: Session, manifest: Digest) -> set[Digest]:
    """The blobs that the database lists for a manifest."""
    rows = s.rows("select blob from content where manifest = :m", {"m": digest_bytes(manifest)})
    return {digest_from_bytes(r[0]) for r in rows}


def manifest_body(s: Session, digest: Digest) -> tuple[bytes | None, int] | None:
    """Bytes of a manifest (None if kept as a blob) and their number; None if it is not here."""
    row = s.row("select body, size from manifest where digest = :d and erased_at is null", {"d": digest_bytes(digest)})
    return None if row is None else (row[0], row[1])


def insert(
    s: Session,
    collection: CollectionRow,
    manifest: Manifest,
    *,
    author: str,
    message: str,
    git_commit: str,
    run: str,
    now: int,
    vouched: bool = True,
) -> int:
    """Number a new version; returns its id. Raises `Conflict` where there is no number left."""
    if collection.head >= MAX_VERSIONS:
        raise Conflict(
            f"{collection.name} has {collection.head} versions, and there is no number left",
            field="name",
            next_step="Log it under another name.",
        )
    collection.head += 1
    row = s.row(
        "insert into version(collection_id, number, digest, size, author, message, git_commit, run_id, created_at,"
        " vouched) values (:c, :n, :d, :size, :a, :m, :g, :r, :at, :vouched) returning id",
        {
            "c": collection.id,
            "n": collection.head,
            "d": digest_bytes(manifest.digest),
            "size": manifest.size,
            "a": author,
            "m": message,
            "g": git_commit,
            "r": run,
            "at": now,
            "vouched": int(vouched),
        },
    )
    return int(row[0]) if row else 0


def vouch(s: Session, version_id: int) -> bool:
    """Let a version count as evidence from now on; whether it did not before."""
    row = s.row("update version set vouched = 1 where id = :v and vouched = 0 returning id", {"v": version_id})
    return row is not None


def set_tags(s: Session, version_id: int, tags: Mapping[str, str], remove: Sequence[str] = ()) -> None:
    """Set and remove labels."""
    for name in remove:
        s.run("delete from tag where version_id = :v and name = :n", {"v": version_id, "n": name})
    s.run_many(
        "insert into tag(version_id, name, value) values (:v, :n, :x)"
        " on conflict (version_id, name) do update set value = excluded.value",
        [{"v": version_id, "n": name, "x": value} for name, value in tags.items()],
    )
    if tags:
        kept = s.row("select count(*) from tag where version_id = :v", {"v": version_id})
        refuse_too_many_tags(kept[0] if kept else 0)


def yank(s: Session, version_id: int, reason: str) -> None:
    """Mark a version as withdrawn."""
    s.run(
        "update version set yanked_at = :at, yank_reason = :why where id = :v",
        {"at": s.now(), "why": reason, "v": version_id},
    )


def needing(s: Session, blob: Digest, limit: int = 20) -> tuple[str, ...]:
    """Versions that need a blob, or whose manifest it is, as references."""
    rows = s.rows(
        "select distinct p.name, c.name, v.number from version v join collection c on c.id = v.collection_id"
        " join project p on p.id = c.project_id"
        " where v.digest = :d or (v.removed_at is null and v.digest in (select manifest from content where blob = :d))"
        " order by p.name, c.name, v.number limit :limit",
        {"d": digest_bytes(blob), "limit": limit},
    )
    return tuple(str(Version(r[0], r[1], "", r[2], blob, from_micros(0)).reference) for r in rows)


def all_blobs(s: Session, without: Collection[int] = ()) -> list[Blob]:
    """Every blob that some version needs; as it would be `without` versions of some ids, were they removed."""
    if without:
        going = _only_of(s, without)
        found = {
            bytes(blob): size
            for blob, size, manifest in s.rows(f"select x.blob, x.size, x.manifest from content x where {_NEEDED}")
            if bytes(manifest) not in going or blob == manifest
        }
        rows: list[Row] = sorted(found.items())
    else:
        rows = s.rows(f"select distinct x.blob, x.size from content x where {_NEEDED} order by x.blob")
    if any(type(r[1]) is not int or r[1] < 0 for r in rows):
        raise ValueError("a file is listed with a size that is none")
    return [Blob(digest_from_bytes(r[0]), r[1]) for r in rows]


def _only_of(s: Session, without: Collection[int]) -> set[bytes]:
    """Digests of the manifests that nothing would need if versions of some ids were removed."""
    digests: set[bytes] = set()
    for some in batched(sorted(without), TOGETHER):
        values, asked = _values([(i,) for i in some], "i")
        digests |= {
            bytes(r[0])
            for r in s.rows(
                f"with asked(i) as (values {values}) select v.digest from asked a join version v on v.id = a.i", asked
            )
        }
    gone = set(without)
    for digest in list(digests):
        rows = s.rows("select id from version where digest = :d and removed_at is null", {"d": digest})
        if any(r[0] not in gone for r in rows):
            digests.discard(digest)
    return digests


def any_blob(s: Session) -> Blob | None:
    """Some blob that is needed; None where nothing is."""
    row = s.row(f"select x.blob, x.size from content x where {_NEEDED} limit 1")
    return None if row is None else Blob(digest_from_bytes(row[0]), int(row[1]))


def first_needed(s: Session) -> dict[Digest, int]:
    """Every blob that some version needs -> a number that grows in the order in which versions came to need them."""
    rows = s.rows(
        "select x.blob, min(v.id) from content x join version v on v.digest = x.manifest"
        " where v.removed_at is null or x.blob = x.manifest group by x.blob"
    )
    return {digest_from_bytes(r[0]): r[1] for r in rows}
