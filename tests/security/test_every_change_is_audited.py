"""No change without its audit entry: each transaction that writes a record writes one, or it does not happen."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

import llmartifacts as la
from llmartifacts.errors import LlmartifactsError
from llmartifacts.kinds.report import Metric
from llmartifacts.metadata import sqlite_pages
from llmartifacts.metadata.schema import MIGRATIONS
from llmartifacts.records.digest import digest_of
from llmartifacts.records.rights import Protection, Role, operator
from llmartifacts.versioning import admission
from llmartifacts.versioning.accounts import EmbeddedAccounts

STORAGE = {"meta", "pack", "chunk", "condemned", "upload", "upload_blob"}
"""The number of the schema, and where bytes lie, which says nothing of what they are: `gc` moves them in steps."""
BESIDE = {"idempotency", "identity_link", "alias_holder"}
"""What a server writes only ever with something else: the answer of a change, a login's account; and the aliases once
more (without row ids, so that the watch sees nothing of it)."""


@dataclass
class Watch:
    """Which tables each transaction wrote to."""

    open: set[str] = field(default_factory=set)
    done: list[frozenset[str]] = field(default_factory=list)

    def row(self, kind: int, database: str, table: str, row: int) -> None:
        self.open.add(table)

    def committed(self) -> bool:
        self.done.append(frozenset(self.open))
        self.open.clear()
        return False

    def connected(self, connection: apsw.Connection) -> None:
        connection.set_update_hook(self.row)
        connection.set_commit_hook(self.committed)
        connection.set_rollback_hook(self.open.clear)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    made = Watch()
    monkeypatch.setattr(apsw, "connection_hooks", [*apsw.connection_hooks, made.connected])
    return made


def test_each_transaction_of_each_call_that_writes_a_record_writes_an_audit_entry(
    watch: Watch, exercise: Callable[[la.Registry], None], tmp_path: Path
) -> None:
    with la.init(tmp_path / "registry", actor="ann") as registry:
        exercise(registry)
        for _, change in account_changes(registry):
            change()
    changes = [tables for tables in watch.done if tables - STORAGE]
    assert [sorted(tables) for tables in changes if "audit" not in tables] == []
    assert len(changes) > 20
    every = set().union(*changes)
    known = {found[1] for found in re.finditer(r"create table (\w+)", "".join(MIGRATIONS))}
    assert known - every - STORAGE - BESIDE == set(), "a table that nothing here wrote to"


def everything(place: Path) -> dict[str, list[Any]]:
    with apsw.Connection(str(place / "registry.db"), flags=apsw.SQLITE_OPEN_READONLY) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        return {name: sorted(map(repr, database.execute(f'select * from "{name}"'))) for name in tables}


def changes(registry: la.Registry) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each sort of change, so prepared that it would work."""
    prompt = la.Prompt("new {{ x }}", template_format="jinja2")
    policy = {"name": "p", "aliases": {"other": {"kinds": {"*": ["ticket"]}, "break_glass": True}}}
    yield "log", lambda: registry.log("new", prompt, aliases="dev", tags={"k": "v"})
    yield "log again", lambda: registry.log("a", la.Prompt("Hi {{ x }}", template_format="jinja2"))
    yield "promote", lambda: registry.promote("a:v2", to="prod", reason="r")
    yield "rollback", lambda: registry.rollback("a:prod", reason="r")
    yield "remove", lambda: registry.remove_alias("set:prod", reason="r")
    yield "yank", lambda: registry.yank("f:v1", reason="r")
    yield "tag", lambda: registry.tag("a:v1", set={"x": "y"})
    yield "project", lambda: registry.create_project("acme")
    yield "policy", lambda: registry.set_policy(policy)
    yield "run", lambda: registry.run("job").__enter__()
    yield "trust", lambda: registry.trust_key("ada", roles="lead")
    yield "approve", lambda: registry.approve("a:v2", "prod", key="ada")
    yield "withdraw", lambda: registry.withdraw("default@a1", reason="r")
    yield "rotate", lambda: _rotate(registry)
    yield "revoke", lambda: registry.revoke_key(registry.keys()[-1].id, reason="r")
    yield "glass", lambda: registry.promote("a:v2", to="other", reason="fire", break_glass=True)
    yield (
        "review",
        lambda: la.connect(registry.backend.location, actor="zoe").review(registry.promotions()[0].id, reason="r"),
    )
    yield "lease", lambda: registry.lease("a:v1", holder="web", length=timedelta(days=1))
    yield "retention", lambda: registry.gc(keep_last=1, history=timedelta(0))
    report = la.Report("s", {"a:v1": digest_of(b"a")}, digest_of(b"q"), [Metric("m", 1.0, 0.9, 1.0, 9)])
    yield "report", lambda: registry.log("r", report)
    yield "erase", lambda: registry.erase("r", "q1", reason="asked")
    yield "project rm", lambda: registry.remove_project("acme", reason="over")
    yield from account_changes(registry)


def account_changes(registry: la.Registry) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each sort of change of accounts, as whoever has the registry's files makes it."""
    parts = registry.backend.parts  # type: ignore[attr-defined]
    by = operator("ann")
    accounts = EmbeddedAccounts(parts, by)
    yield "first account", lambda: admission.bootstrap(parts)
    yield "recovery", lambda: admission.recover(parts)
    yield "account", lambda: accounts.create_account("pat")
    yield "team", lambda: accounts.create_account("crew", "team")
    yield "member", lambda: accounts.add_member("crew", "pat")
    yield "grant", lambda: accounts.grant("crew", "promoter", project="default", aliases=["*", "!prod"])
    yield "protect", lambda: accounts.protect("default", [Protection("prod*", Role.ADMIN)])
    yield "token", lambda: accounts.create_token("laptop", account="pat")
    yield "revoke token", lambda: accounts.revoke_token(accounts.tokens("pat")[0].id)
    yield "no member", lambda: accounts.remove_member("crew", "pat")
    yield "no grant", lambda: accounts.revoke_grant(accounts.grants(subject="crew")[0].id)
    yield "disable", lambda: accounts.disable_account("pat")
    yield "enable", lambda: accounts.enable_account("pat")


def _rotate(registry: la.Registry) -> None:
    from llmartifacts.signing import approving

    approving.rotate(registry.backend, "ada", actor="ann")


@pytest.mark.parametrize("number", range(35))
def test_a_change_whose_entry_cannot_be_written_does_not_happen(
    number: int, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmartifacts.signing import key_files

    monkeypatch.setenv("LLMARTIFACTS_KEYS", str(tmp_path / "keys"))
    key_files.create("ada", "ada")
    with la.connect(place, actor="ann") as registry:
        prepared = changes(registry)
        for _, change in itertools.islice(prepared, number):
            change()
        name, change = next(prepared)
        refuse(place, "create trigger full before insert on audit begin select raise(abort, 'no room'); end")
        before = everything(place)
        with pytest.raises(LlmartifactsError):
            change()
        assert everything(place) == before, name
        refuse(place, "drop trigger full")
        change()
        assert everything(place) != before, f"{name} works where its entry can be written"
        assert registry.verify_audit().ok


def test_that_is_every_sort_of_change(place: Path) -> None:
    with la.connect(place) as registry:
        assert len(list(changes(registry))) == 35


def refuse(place: Path, sql: str) -> None:
    with apsw.Connection(str(place / "registry.db"), vfs=sqlite_pages.vfs()) as database:
        database.execute(sql)
