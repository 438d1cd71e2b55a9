"""A million versions in ten thousand collections, over HTTP: resolving and each listed page beside a thousand.

They are real ones, committed in batches through the registry's own engine into SQLite. PostgreSQL gets the same rows,
table by table, by its COPY: committing them there takes an hour and says the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from urllib.parse import quote

import llmartifacts as la
from benchmarks.measure import Absent, Bench, Line, Subject, seconds, times_floor
from benchmarks.server_load import get, load
from benchmarks.server_setup import Server, Store, postgres, serving, stores
from llmartifacts.records.backend import Draft
from llmartifacts.records.manifest import Manifest

FEW = 1_000
PER_COLLECTION = 100
BATCH = 10_000
FLAT = 1.5
BASE = "/api/v1/projects/default"
SHORT = {"SQLite": "SQLite", "PostgreSQL": "PG"}
FOUR = "&".join(f"ref={quote(f'agent-{n}:prod')}" for n in range(4))
PAGES = (
    ("resolve four", f"{BASE}/read?{FOUR}"),
    ("collections", f"{BASE}/collections?limit=5"),
    ("collections, later", f"{BASE}/collections?limit=5&after=agent-4"),
    ("versions, newest", f"{BASE}/collections/agent-0/versions?limit=50"),
    ("versions, oldest", f"{BASE}/collections/agent-0/versions?limit=50&before=51"),
    ("history of prod", f"{BASE}/history?reference=agent-0:prod&limit=50"),
    ("history of latest", f"{BASE}/history?reference=agent-0:latest&limit=50"),
    ("state of prod", f"{BASE}/state?alias=prod&limit=5"),
    ("promotions", f"{BASE}/promotions?limit=50"),
    ("audit of a project", f"{BASE}/audit?limit=50"),
    ("audit, newest", "/api/v1/audit/log?limit=50"),
    ("projects", "/api/v1/projects?limit=50"),
)


def measure(bench: Bench) -> Iterator[Line | Absent]:
    many = bench.size(10_000, 1_000_000)
    bench.say(f"logging {many:,} versions")
    with postgres(bench) as database:
        if isinstance(database, Absent):
            yield database
        few, full = stores(bench, database, "few"), stores(bench, database, "many")
        _fill(few[0], FEW)
        rate = _fill(full[0], many)
        note = (
            f"{many:,} versions in {many // PER_COLLECTION:,} collections beside {FEW:,} in {FEW // PER_COLLECTION};"
            f" a kept connection asks {bench.size(0, 2) or 'half a'} second(s) long, one request at a time: the median."
            f" Logged at {rate:,.0f} a second"
        )
        for one, other in zip(few[1:], full[1:], strict=True):
            bench.say("copying them to PostgreSQL")
            _copy(few[0], one)
            _copy(full[0], other)
        for small, large in zip(few, full, strict=True):
            tokens = small.token(), large.token()
            with ExitStack() as stack:
                (beside,) = stack.enter_context(serving(small))
                (ours,) = stack.enter_context(serving(large))
                for name, path in PAGES:
                    bench.say(f"{large.kind}: {name}")
                    taken = bench.beside(
                        partial(_median, bench, ours, tokens[1], path),
                        partial(_median, bench, beside, tokens[0], path),
                    )
                    title = f"{SHORT[large.kind]}: {name}"
                    yield Line(title, *taken, f"with {FEW:,}", times_floor(FLAT), bench.full, note)


def _median(bench: Bench, server: Server, token: str, path: str) -> float:
    found = load([server.address], [get(path, server.host, token)], connections=1, lasting=bench.size(1, 4) / 2)
    if found.failures:
        raise RuntimeError(f"{path}: {found.failures[0]}")
    return found.within(0.5)


def _fill(store: Store, count: int) -> float:
    """Log so many versions, a hundred in each collection, and let `prod` name one of each of the first 200 of them."""
    config = la.Prompt("{{ question }}", template_format="jinja2").to_config()
    collections, taken = count // PER_COLLECTION, 0.0
    with store.open() as registry:
        for begin in range(0, count, BATCH):
            drafts = [
                Draft(
                    f"agent-{number % collections}",
                    Manifest.build("prompt", {**config, "template": f"{number}: {{{{ question }}}}"}),
                )
                for number in range(begin, min(count, begin + BATCH))
            ]
            taken += seconds(lambda: registry.backend.commit("default", drafts, actor="nightly"))  # noqa: B023 - at once
        named = [f"agent-{n}" for n in range(min(200, collections))]
        for number in (1, 2, 3):
            registry.promote([f"{name}:v{number}" for name in named], to="prod", reason="measured")
        for turn in range(100):
            registry.promote(f"agent-0:v{4 + turn % 2}", to="prod", reason="measured")
    return count / taken


def _copy(source: Store, goal: Store) -> None:
    """Every row of an embedded registry into a PostgreSQL database with its tables."""
    import apsw
    import psycopg
    from psycopg import sql

    goal.open().close()  # makes the tables
    rows = apsw.Connection(str(source.place / "registry.db"), flags=apsw.SQLITE_OPEN_READONLY)
    tables = [name for (name,) in rows.execute("select name from sqlite_schema where type = 'table'") if name[0] != "s"]
    with psycopg.connect(goal.database) as there:
        there.execute("set session_replication_role = replica")  # rows come before those that they refer to
        for table in tables:
            there.execute(sql.SQL("delete from {}").format(sql.Identifier(table)))
        for table in tables:
            columns = [name for _, name, *_ in rows.execute(f"pragma table_info({table})")]
            named = sql.SQL(", ").join(map(sql.Identifier, columns))
            into = sql.SQL("copy {} ({}) from stdin").format(sql.Identifier(table), named)
            with there.cursor() as cursor, cursor.copy(into) as copy:
                for row in rows.execute(f"select {', '.join(columns)} from {table}"):
                    copy.write_row(row)
            if columns[0] == "id" and _is_number(rows, table):
                last = (
                    "select setval(pg_get_serial_sequence({}, 'id'), (select coalesce(max(id), 0) + 1 from {}), false)"
                )
                there.execute(sql.SQL(last).format(sql.Literal(table), sql.Identifier(table)))
        there.commit()
        there.autocommit = True
        there.execute("analyze")
    rows.close()
    marker = goal.place / "registry"
    marker.unlink(missing_ok=True)  # the registry is the copied one now, whose mark the next to open it writes


def _is_number(rows: object, table: str) -> bool:
    found = {name: kind for _, name, kind, *_ in rows.execute(f"pragma table_info({table})")}  # type: ignore[attr-defined]
    return "int" in found["id"].lower()


SUBJECT = Subject(
    "server_scale",
    "a million versions in 10,000 collections (small: 10,000 in 100), over HTTP: resolving, each listed page",
    "the same with 1,000 versions",
    measure,
)
