"""What PostgreSQL itself can tell of a damaged registry."""

from __future__ import annotations

from collections.abc import Iterator

from llmartifacts.metadata.database import Session

_HERE = "current_schema()::regnamespace"


def problems(s: Session) -> Iterator[str]:
    """The database's own problems, one readable line each.

    Args:
        s: A read transaction.
    """
    for row in s.rows(
        "select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid"
        f" where c.relnamespace = {_HERE} and not (i.indisvalid and i.indisready and i.indislive) order by 1"
    ):
        yield f"index {row[0]} is not valid; REINDEX makes it anew"
    for row in s.rows(
        f"select conname from pg_constraint where connamespace = {_HERE} and not convalidated order by 1"
    ):
        yield f"constraint {row[0]} was never validated"
    for row in s.rows(
        "select distinct c.relname from pg_trigger t join pg_class c on c.oid = t.tgrelid"
        f" where c.relnamespace = {_HERE} and t.tgisinternal and t.tgenabled = 'D' order by 1"
    ):
        yield f"foreign keys of table {row[0]} are switched off"
    yield from _orphans(s)
    failed = s.row("select checksum_failures from pg_stat_database where datname = current_database()")
    if failed and failed[0]:
        yield f"{failed[0]} pages failed their checksum"
    yield from _indexes(s)


def _orphans(s: Session) -> Iterator[str]:
    """Rows whose foreign key leads nowhere; they come of a restore, or of keys that were switched off."""
    keys = s.rows(
        "select k.conname, k.conrelid::regclass::text, k.confrelid::regclass::text,"
        " (select string_agg(format('p.%I = c.%I', b.attname, a.attname), ' and ')"
        "  from unnest(k.conkey, k.confkey) as x(mine, theirs)"
        "  join pg_attribute a on a.attrelid = k.conrelid and a.attnum = x.mine"
        "  join pg_attribute b on b.attrelid = k.confrelid and b.attnum = x.theirs),"
        " (select string_agg(format('c.%I is not null', a.attname), ' and ') from unnest(k.conkey) as x(mine)"
        "  join pg_attribute a on a.attrelid = k.conrelid and a.attnum = x.mine)"
        f" from pg_constraint k where k.contype = 'f' and k.connamespace = {_HERE} order by 1"
    )
    for name, child, parent, same, given in keys:
        row = s.row(
            f"select count(*) from {child} c where {given} and not exists (select 1 from {parent} p where {same})"
        )
        if row and row[0]:
            yield f"foreign key {name}: {row[0]} rows of {child} refer to none of {parent}"


def _indexes(s: Session) -> Iterator[str]:
    """Indexes that are out of order, where the extension `amcheck` is there to tell."""
    found = s.row(
        "select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'amcheck'"
    )
    if found is None:
        return
    may = s.row(
        "select has_function_privilege(p.oid, 'execute') from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
        " where p.proname = 'bt_index_check' and n.nspname = :n order by pronargs limit 1",
        {"n": found[0]},
    )
    if not may or not may[0]:
        return
    schema = '"' + str(found[0]).replace('"', '""') + '"'
    # The first that is out of order raises, and its name is in the error.
    s.rows(
        f"select {schema}.bt_index_check(i.indexrelid) from pg_index i join pg_class c on c.oid = i.indexrelid"
        f" join pg_am m on m.oid = c.relam where m.amname = 'btree' and c.relnamespace = {_HERE} and i.indisvalid"
    )
    yield from ()
