"""verify and stats: what is stored, whether it is whole, and how much it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from llmartifacts.errors import Damaged, LlmartifactsError
from llmartifacts.metadata import audit, versions
from llmartifacts.metadata.database import Session
from llmartifacts.records.backend import CollectionStats, Stats, Verification
from llmartifacts.records.digest import Blob, Digest, digest_from_bytes
from llmartifacts.records.manifest import Manifest
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.replay import disagreements


def verify(parts: Parts, *, read_data: bool = False) -> Verification:
    """Check the database, every manifest, and that every blob is there; with `read_data`, hash every stored byte."""
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
                    problems.append(replace(error, versions=versions.needing(s, blob.digest)))
    except Damaged as error:
        return Verification(0, 0, read_data, (*problems, error))
    return Verification(count, len(blobs), read_data, tuple(problems))


def _records(s: Session, parts: Parts) -> Iterator[LlmartifactsError]:
    for raw, body in s.rows("select digest, body from manifest order by digest"):
        digest = digest_from_bytes(raw)
        if body is None:
            continue  # kept as a blob, and checked with the blobs
        try:
            manifest = Manifest.from_bytes(body, expect=digest, origin=parts.location)
            missing = versions.needed(manifest).keys() - versions.listed(s, digest)
            if missing:
                raise Damaged(f"{len(missing)} of its files are not on the list of what is needed")
        except LlmartifactsError as error:
            yield Damaged(f"manifest {digest}: {error.message}", digest=digest, versions=versions.needing(s, digest))
    for line in (*audit.damaged(s), *disagreements(s)):
        yield Damaged(line, file=parts.location)
    for sql, told in _INVARIANTS:
        for row in s.rows(sql):
            yield Damaged(told.format(*row), file=parts.location)


_INVARIANTS = (
    (
        "select c.name, a.name, a.number, m.new from alias a join collection c on c.id = a.collection_id"
        " left join move m on m.collection_id = a.collection_id and m.alias = a.name and m.number = a.move"
        " where m.number is null or coalesce(m.new, 0) <> coalesce(a.number, 0)",
        "{0}:{1} points at v{2}, but its last move went to v{3}",
    ),
    (
        "select c.name, c.head from collection c where c.head <>"
        " (select count(*) from version v where v.collection_id = c.id)",
        "{0} should have {1} versions and has not",
    ),
    (
        "select c.name, c.latest, m.new from collection c left join move m on m.collection_id = c.id"
        " and m.alias = 'latest' and m.number = c.latest_move where c.head > 0 and"
        " (m.new is null or c.latest is null or m.new <> c.latest)",
        "{0}:latest is v{1}, but its last move went to v{2}",
    ),
    (
        "select p.name, p.revision from project p where p.revision <>"
        " (select count(*) from promotion x where x.project_id = p.id)",
        "the project {0} is at revision {1}, and has not as many promotions",
    ),
    (
        "select c.name, m.alias, m.number from move m join collection c on c.id = m.collection_id"
        " left join promotion x on x.project_id = m.project_id and x.revision = m.revision"
        " left join promotion u on u.project_id = m.project_id and u.revision = m.undone_by and u.verb = 'rollback'"
        " where m.alias <> 'latest' and (x.revision is null or x.at <> m.at or x.actor <> m.actor"
        " or m.project_id <> c.project_id or (m.undone_by is not null and u.revision is null))",
        "move {2} of {0}:{1} does not belong to its promotion",
    ),
    (
        "select count(*) from manifest m where m.body is null and not exists"
        " (select 1 from content x where x.manifest = m.digest and x.blob = m.digest) having count(*) > 0",
        "{0} manifests are kept as files, and not on the list of what is needed",
    ),
)
"""What holds among the records, each as a query for what breaks it and how to say so."""


def _blob(parts: Parts, blob: Blob, read_data: bool) -> Damaged | None:
    try:
        parts.blobs.check(blob, read_data=read_data)
    except Damaged as error:
        return error
    return None


def stats(parts: Parts, project: str | None = None) -> Stats:
    """Bytes by collection and in all."""
    with parts.metadata.reading() as s:
        stored = {blob.digest: parts.blobs.stored_size(blob) or 0 for blob in versions.all_blobs(s)}
        made = []
        for collection_id, name, kind, owner, count, logical in s.rows(
            "select c.id, c.name, c.kind, p.name, count(v.id), coalesce(sum(v.size), 0) from collection c"
            " join project p on p.id = c.project_id left join version v on v.collection_id = c.id"
            " where cast(:p as text) is null or p.name = :p group by c.id, c.name, c.kind, p.name"
            " order by p.name, c.name",
            {"p": project},
        ):
            shown = name if owner == (project or "default") else f"{owner}/{name}"
            held = _held(s, collection_id, stored)
            made.append(CollectionStats(shown, kind, count, int(logical), held))
        return Stats(
            tuple(made),
            sum(c.logical for c in made),
            sum(stored.values()) + _inline(s),
            len(stored),
            parts.metadata.database.size(),
        )


def _held(s: Session, collection_id: int, stored: Mapping[Digest, int]) -> int:
    blobs = s.rows(
        "select distinct x.blob from content x join version v on v.digest = x.manifest where v.collection_id = :c",
        {"c": collection_id},
    )
    return sum(stored.get(digest_from_bytes(r[0]), 0) for r in blobs) + _inline(s, collection_id)


def _inline(s: Session, collection_id: int | None = None) -> int:
    """Bytes of the manifests that the database holds, each once."""
    row = s.row(
        "select coalesce(sum(length(m.body)), 0) from manifest m where exists"
        " (select 1 from version v where v.digest = m.digest"
        " and (cast(:c as bigint) is null or v.collection_id = :c))",
        {"c": collection_id},
    )
    return int(row[0]) if row else 0
