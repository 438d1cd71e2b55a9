"""What holds among the records themselves, whatever the audit says: each as a query for what breaks it."""

from __future__ import annotations

from collections.abc import Iterator

from llmartifacts.metadata.database import Session

_INVARIANTS = (
    (
        "select p.name, p.name_key from project p where lower(p.name) <> p.name_key",
        "the project {0} is found as {1}, which is another name",
    ),
    (
        "select c.name, c.name_key from collection c where lower(c.name) <> c.name_key",
        "the collection {0} is found as {1}, which is another name",
    ),
    (
        "select count(*) from edge e where e.relation not in ('derived_from', 'contains', 'evaluated_with',"
        " 'produced_by') having count(*) > 0",
        "{0} edges of lineage are of no kind that there is",
    ),
    (
        "select c.name, a.name, coalesce(cast(a.number as text), '-'), coalesce(cast(m.new as text), '-')"
        " from alias a join collection c on c.id = a.collection_id"
        " left join move m on m.collection_id = a.collection_id and m.alias = a.name and m.number = a.move"
        " where m.number is null or coalesce(m.new, 0) <> coalesce(a.number, 0)",
        "{0}:{1} points at v{2}, but its last move went to v{3}",
    ),
    (
        "select c.name, a.name, a.move from alias a join collection c on c.id = a.collection_id where a.move <>"
        " (select count(*) from move m where m.collection_id = a.collection_id and m.alias = a.name)",
        "{0}:{1} says that its last move was {2}, and it has not as many",
    ),
    (
        "select distinct c.name, m.alias from move m join collection c on c.id = m.collection_id"
        " left join alias a on a.collection_id = m.collection_id and a.name = m.alias"
        " where m.alias <> 'latest' and a.name is null",
        "{0}:{1} is gone, and it moved once",
    ),
    (
        "select c.name, c.head from collection c where c.head <>"
        " (select count(*) from version v where v.collection_id = c.id)",
        "{0} should have {1} versions and has not",
    ),
    (
        "select c.name, coalesce(cast(c.latest as text), '-'), coalesce(cast(m.new as text), '-')"
        " from collection c left join move m on m.collection_id = c.id"
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
        "select p.name, p.collections from project p where p.collections <>"
        " (select count(*) from collection c where c.project_id = p.id)",
        "the project {0} should have {1} collections and has not",
    ),
    (
        "select c.name, a.name from alias a join collection c on c.id = a.collection_id"
        " left join alias_holder h on h.project_id = c.project_id and h.alias = a.name and h.collection = c.name"
        " and h.collection_id = c.id where h.collection_id is null",
        "{0}:{1} is missing in the list of those who have the alias",
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
        "select count(*) from manifest m where m.body is null and m.erased_at is null and not exists"
        " (select 1 from content x where x.manifest = m.digest and x.blob = m.digest) having count(*) > 0",
        "{0} manifests are kept as files, and not on the list of what is needed",
    ),
)


def broken(s: Session) -> Iterator[str]:
    """What does not hold among the records, one readable line each."""
    for sql, told in _INVARIANTS:
        for row in s.rows(sql):
            yield told.format(*row)
