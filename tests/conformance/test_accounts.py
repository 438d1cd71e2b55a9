"""Accounts, grants and tokens are the same on a registry's own files and over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.client.backend import RemoteBackend
from llmartifacts.client.session import HttpSession
from llmartifacts.errors import Conflict, InvalidInput, LlmartifactsError, NotFound, Refused
from llmartifacts.records.accounts import Accounts
from llmartifacts.records.rights import Permission, Protection, Role, TokenScope, operator
from llmartifacts.testing.server import running_server
from llmartifacts.versioning.accounts import EmbeddedAccounts
from llmartifacts.versioning.embedded import EmbeddedBackend


@pytest.fixture(params=["embedded", "remote"])
def accounts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Accounts]:
    if request.param == "embedded":
        backend = EmbeddedBackend.create(tmp_path / "r", actor="tests")
        made = EmbeddedAccounts(backend.parts, operator("admin"))
        made.create_account("admin")
        made.grant("admin", "admin")
        yield made
        backend.close()
        return
    with running_server(tmp_path / "r") as server:
        remote = RemoteBackend(HttpSession(server.url, server.token))
        yield remote.accounts
        remote.close()


def test_a_team_works(accounts: Accounts) -> None:
    assert accounts.me().name == "admin"
    assert accounts.me().may(Permission.OPERATE)
    ann, ci = accounts.create_account("ann"), accounts.create_account("ci", "service")
    assert (ann.kind, ci.kind, ann.created_by) == ("user", "service", "admin")
    accounts.create_account("search", "team")
    assert accounts.add_member("search", "ann").members == ("ann",)
    assert accounts.account("ann").teams == ("search",)
    assert [a.name for a in accounts.accounts()] == ["admin", "ann", "ci", "search"]
    assert [a.name for a in accounts.accounts(limit=2, after="admin")] == ["ann", "ci"]
    assert [a.name for a in accounts.accounts(kind="service")] == ["ci"]

    grant = accounts.grant("search", "promoter", project="default", aliases=("*", "!prod"))
    assert (grant.subject, grant.role, grant.project, grant.aliases) == (
        "search",
        Role.PROMOTER,
        "default",
        ("*", "!prod"),
    )
    assert [g.id for g in accounts.grants("default")] == [grant.id]
    assert [g.id for g in accounts.grants(subject="search")] == [grant.id]
    assert len(accounts.grants()) == 2
    protected = (Protection("prod", Role.ADMIN), Protection("prod-*", Role.PROMOTER))
    assert accounts.protect("default", protected) == protected
    assert accounts.protections("default") == protected

    accounts.grant("ci", "reader", project="default")
    made = accounts.create_token("nightly", account="ci", scope=TokenScope(("default",), None, True), days=7)
    assert made.text.startswith(f"lla_{made.info.id}_")
    assert (made.info.label, made.info.scope, made.info.created_by) == (
        "nightly",
        TokenScope(("default",), None, True),
        "admin",
    )
    assert made.info.expires_at is not None
    assert abs(made.info.expires_at - made.info.created_at - timedelta(days=7)) < timedelta(minutes=1)
    assert [t.id for t in accounts.tokens("ci")] == [made.info.id]
    assert accounts.revoke_token(made.info.id).revoked_at is not None
    assert accounts.tokens("ci") == []
    assert [t.id for t in accounts.tokens("ci", all=True)] == [made.info.id]

    assert accounts.disable_account("ann").disabled_at is not None
    assert accounts.enable_account("ann").disabled_at is None
    accounts.remove_member("search", "ann")
    assert accounts.account("search").members == ()
    accounts.revoke_grant(grant.id, project="default")
    assert [g.subject for g in accounts.grants("default")] == ["ci"]


WRONG: list[tuple[Callable[[Accounts], Any], type[LlmartifactsError]]] = [
    (lambda a: a.create_account("Admin"), Conflict),
    (lambda a: a.create_account("x", "robot"), InvalidInput),
    (lambda a: a.create_account("../x"), InvalidInput),
    (lambda a: a.account("nobody"), NotFound),
    (lambda a: a.disable_account("admin"), Refused),
    (lambda a: a.revoke_grant(1), Refused),
    (lambda a: a.revoke_grant(99), NotFound),
    (lambda a: a.grant("nobody", "reader"), NotFound),
    (lambda a: a.grant("admin", "king"), InvalidInput),
    (lambda a: a.grant("admin", "reader", aliases=("prod",)), InvalidInput),
    (lambda a: a.grant("admin", "reader", project="nowhere"), NotFound),
    (lambda a: a.create_token(days=10_000), InvalidInput),
    (lambda a: a.create_token(account="nobody"), NotFound),
    (lambda a: a.revoke_token("0123456789"), NotFound),
    (lambda a: a.revoke_token("?"), InvalidInput),
    (lambda a: a.add_member("admin", "admin"), InvalidInput),
]


def test_what_cannot_be_is_the_same_error(accounts: Accounts) -> None:
    for number, (call, error) in enumerate(WRONG):
        with pytest.raises(error):
            call(accounts)
            print("not refused:", number)
