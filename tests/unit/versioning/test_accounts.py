"""Accounts, teams, grants, protected aliases and tokens, over a real database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llmartifacts.errors import Conflict, InvalidInput, InvalidReference, NotAllowed, NotFound, Refused, TooLarge
from llmartifacts.metadata import accounts as rows
from llmartifacts.records.rights import (
    Identity,
    NewToken,
    Permission,
    Protection,
    Role,
    TokenScope,
    make_token,
    operator,
    token_digest,
    token_id,
)
from llmartifacts.versioning import admission
from llmartifacts.versioning.access import access_ends, identify
from llmartifacts.versioning.accounts import EmbeddedAccounts
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.versioning.parts import Parts
from llmartifacts.versioning.team import open_team

ISSUER = "https://login.example.org"


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], EmbeddedBackend]:
    """Opens one registry, as often as it is called: as several servers do."""
    if request.param == "sqlite":
        EmbeddedBackend.create(tmp_path / "registry", actor="ann").close()
        return lambda: EmbeddedBackend.open(tmp_path / "registry")
    url = request.getfixturevalue("postgres_url")
    return lambda: open_team(url, str(tmp_path / "registry"), actor="ann")


@pytest.fixture
def backend(opened: Callable[[], EmbeddedBackend]) -> Iterator[EmbeddedBackend]:
    made = opened()
    for project in ("acme", "beta"):
        made.create_project(project, actor="ann")
    yield made
    made.close()


@pytest.fixture
def parts(backend: EmbeddedBackend) -> Parts:
    return backend.parts


@pytest.fixture
def root(parts: Parts) -> EmbeddedAccounts:
    """As whoever holds the registry's files."""
    return EmbeddedAccounts(parts, operator("root"))


def who(parts: Parts, token: str) -> Identity | None:
    found = token_id(token)
    with parts.metadata.reading() as s:
        return None if found is None else identify(s, found, token_digest(token))


def as_(parts: Parts, token: NewToken | str) -> EmbeddedAccounts:
    identity = who(parts, token if isinstance(token, str) else token.text)
    assert identity is not None
    return EmbeddedAccounts(parts, identity)


def person(root: EmbeddedAccounts, parts: Parts, name: str, role: str = "", project: str | None = None) -> Any:
    root.create_account(name)
    if role:
        root.grant(name, role, project=project)
    return as_(parts, root.create_token("first", account=name))


def verbs(backend: EmbeddedBackend) -> list[tuple[str, str, str]]:
    return [(str(e["actor"]), str(e["verb"]), str(e["subject"])) for e in backend.audit()]


# --- accounts


def test_an_account_is_made_once_whatever_the_case_and_whatever_its_kind(root: EmbeddedAccounts) -> None:
    made = root.create_account("Ann")
    assert (made.name, made.kind, made.created_by, made.disabled_at) == ("Ann", "user", "root", None)
    for name in ("Ann", "ann", "ANN"):
        for kind in ("user", "service", "team"):
            with pytest.raises(Conflict, match="'Ann' already"):
                root.create_account(name, kind)
    with pytest.raises(NotFound, match="'ann'") as missing:
        root.account("ann")
    assert missing.value.near == ("Ann",)
    for bad in ("", "a b", "a/b", "ä", "sha256", "a" * 129, "-a"):
        with pytest.raises(InvalidReference):
            root.create_account(bad)
    with pytest.raises(InvalidInput):
        root.create_account("x", "robot")


def test_accounts_are_listed_by_name_in_pages(root: EmbeddedAccounts) -> None:
    for name in ("bob", "Ann", "cid"):
        root.create_account(name, "service" if name == "cid" else "user")
    assert [a.name for a in root.accounts()] == ["Ann", "bob", "cid"]
    assert [a.name for a in root.accounts(limit=2)] == ["Ann", "bob"]
    assert [a.name for a in root.accounts(limit=2, after="Bob")] == ["cid"]
    assert [a.name for a in root.accounts(kind="service")] == ["cid"]


def test_who_does_not_operate_sees_and_changes_no_accounts(root: EmbeddedAccounts, parts: Parts) -> None:
    ann = person(root, parts, "ann", "admin", "acme")
    root.create_account("crew", "team")
    calls: list[Callable[[], object]] = [
        lambda: ann.accounts(),
        lambda: ann.account("ann"),
        lambda: ann.create_account("eve"),
        lambda: ann.disable_account("crew"),
        lambda: ann.enable_account("crew"),
        lambda: ann.add_member("crew", "ann"),
        lambda: ann.remove_member("crew", "ann"),
        lambda: ann.grants(),
        lambda: ann.grant("ann", "reader"),
        lambda: ann.revoke_grant(1),
        lambda: ann.tokens("crew"),
        lambda: ann.create_token(account="crew"),
    ]
    for call in calls:
        with pytest.raises(NotAllowed):
            call()


# --- teams


def test_a_member_has_what_its_team_has_until_one_of_them_goes(root: EmbeddedAccounts, parts: Parts) -> None:
    ann = person(root, parts, "ann")
    root.create_account("crew", "team")
    root.grant("crew", "writer", project="acme")
    assert not ann.me().sees("acme")
    token = root.create_token(account="ann").text

    def sees() -> bool:
        found = who(parts, token)
        return found is not None and found.may(Permission.LOG, "acme")

    assert root.add_member("crew", "ann").members == ("ann",)
    assert root.account("ann").teams == ("crew",)
    assert sees()
    root.disable_account("crew")
    assert not sees()
    root.enable_account("crew")
    assert sees()
    root.remove_member("crew", "ann")
    assert not sees()
    with pytest.raises(NotFound):
        root.remove_member("crew", "ann")


def test_a_team_is_in_no_team_has_no_token_and_is_nobody(root: EmbeddedAccounts, parts: Parts) -> None:
    root.create_account("crew", "team")
    root.create_account("gang", "team")
    root.create_account("ann")
    with pytest.raises(InvalidInput, match="is a team"):
        root.add_member("crew", "gang")
    with pytest.raises(InvalidInput, match="no team"):
        root.add_member("ann", "crew")
    with pytest.raises(InvalidInput, match="teams have no tokens"):
        root.create_token(account="crew")


# --- grants


def test_a_grant_is_given_once_and_taken_back(root: EmbeddedAccounts, parts: Parts) -> None:
    root.create_account("ann")
    made = root.grant("ann", "promoter", project="acme", aliases=["*", "!prod"])
    assert root.grant("ann", "promoter", project="acme", aliases=["*", "!prod"]) == made
    assert root.grants("acme") == [made]
    assert root.grants(subject="ann") == [made]
    ann = as_(parts, root.create_token(account="ann"))
    assert ann.me().may(Permission.PROMOTE, "acme", "staging")
    assert not ann.me().may(Permission.PROMOTE, "acme", "prod")
    with pytest.raises(NotFound):
        root.revoke_grant(made.id, project="beta")
    root.revoke_grant(made.id, project="acme")
    assert root.grants() == []
    for number in (made.id, 99, 2**53 - 1):
        with pytest.raises(NotFound):
            root.revoke_grant(number)
    for wrong in (0, -1, 2**70, True, "1"):
        with pytest.raises(InvalidInput):
            root.revoke_grant(wrong)  # type: ignore[arg-type]


def test_nobody_grants_more_than_they_hold(root: EmbeddedAccounts, parts: Parts) -> None:
    ann = person(root, parts, "ann", "admin", "acme")
    root.create_account("eve")
    everywhere = root.grant("eve", "reader")
    assert ann.grant("eve", "admin", project="acme").granted_by == "ann"
    with pytest.raises(NotAllowed):
        ann.grant("ann", "admin")
    with pytest.raises(NotFound, match="no project 'beta'"):
        ann.grant("eve", "reader", project="beta")
    with pytest.raises(NotFound, match="no grant"):
        ann.revoke_grant(everywhere.id, project="acme")
    for role in ("reader", "writer", "evaluator", "promoter"):
        less = person(root, parts, f"a-{role}", role, "acme")
        with pytest.raises(NotAllowed):
            less.grant("eve", "reader", project="acme")
        with pytest.raises(NotAllowed):
            less.protect("acme", [])


def test_a_token_that_leaves_less_grants_less(root: EmbeddedAccounts, parts: Parts) -> None:
    root.create_account("ann")
    root.create_account("eve")
    root.grant("ann", "admin")
    for scope in (
        TokenScope(projects=("acme",)),
        TokenScope(roles=(Role.PROMOTER, Role.WRITER)),
        TokenScope(read_only=True),
    ):
        narrow = as_(parts, root.create_token(account="ann", scope=scope))
        with pytest.raises(NotAllowed):
            narrow.grant("eve", "reader")
        with pytest.raises((NotAllowed, NotFound)):
            narrow.grant("eve", "reader", project="beta")


def test_through_a_team_nobody_gets_more_than_they_hold(root: EmbeddedAccounts, parts: Parts) -> None:
    root.create_account("crew", "team")
    ann = person(root, parts, "ann", "admin", "acme")
    root.add_member("crew", "ann")
    with pytest.raises(NotAllowed):
        ann.grant("crew", "admin")
    with pytest.raises(NotFound):
        ann.grant("crew", "reader", project="beta")
    with pytest.raises(NotAllowed):
        ann.add_member("crew", "ann")


# --- somebody stays in charge


def test_the_last_account_that_operates_stays(root: EmbeddedAccounts, parts: Parts) -> None:
    admin = person(root, parts, "ada", "admin")
    grant = root.grants(subject="ada")[0]
    for last in (lambda: admin.disable_account("ada"), lambda: admin.revoke_grant(grant.id)):
        with pytest.raises(Refused, match="nobody who administers"):
            last()
    assert root.account("ada").disabled_at is None
    assert root.grants(subject="ada") == [grant]
    person(root, parts, "bob", "admin")
    admin.revoke_grant(grant.id)
    with pytest.raises(Refused):
        root.disable_account("bob")


def test_the_last_that_operates_by_a_team_stays_in_it(root: EmbeddedAccounts, parts: Parts) -> None:
    root.create_account("admins", "team")
    root.grant("admins", "admin")
    ada = person(root, parts, "ada")
    root.add_member("admins", "ada")
    grant = root.grants(subject="admins")[0]
    for last in (
        lambda: root.remove_member("admins", "ada"),
        lambda: root.disable_account("admins"),
        lambda: root.disable_account("ada"),
        lambda: root.revoke_grant(grant.id),
    ):
        with pytest.raises(Refused):
            last()
    assert root.account("admins").members == ("ada",)
    assert as_(parts, root.create_token(account="ada")).me().may(Permission.OPERATE)
    assert ada.me().name == "ada"


def test_the_last_token_that_operates_stays_unless_there_is_another_way_in(
    root: EmbeddedAccounts, parts: Parts
) -> None:
    root.create_account("ada")
    root.grant("ada", "admin")
    root.create_account("bob")
    root.grant("bob", "admin")
    root.create_token(account="ada", scope=TokenScope(read_only=True))
    only = root.create_token(account="ada")
    assert "nobody can administer" in only.warning
    with pytest.raises(Refused, match="no token with which"):
        as_(parts, only).revoke_token(only.info.id)
    with pytest.raises(Refused, match="no token with which"):
        root.disable_account("ada")
    second = root.create_token(account="bob", days=1)
    assert second.warning == ""
    with parts.metadata.reading() as s:
        assert access_ends(s) == only.info.expires_at
    as_(parts, only).revoke_token(only.info.id)
    with parts.metadata.writing() as s:
        ada = rows.find(s, "ada")
        assert ada is not None
        rows.insert_link(s, ISSUER, "1", ada.id, at=s.now())
    root.revoke_token(second.info.id)
    with parts.metadata.reading() as s:
        assert access_ends(s) is None


# --- protected aliases


def test_the_protected_aliases_of_a_project_are_set_as_a_whole(
    root: EmbeddedAccounts, parts: Parts, backend: EmbeddedBackend
) -> None:
    wanted = [Protection("prod*", Role.ADMIN), Protection("eu", Role.PROMOTER)]
    assert root.protect("acme", wanted) == (wanted[1], wanted[0])
    before = len(verbs(backend))
    assert root.protect("acme", wanted) == (wanted[1], wanted[0])
    assert len(verbs(backend)) == before, "nothing changed, so nothing is told"
    assert root.protections("acme") == (wanted[1], wanted[0])
    assert root.protections("beta") == ()
    with pytest.raises(InvalidInput, match="twice"):
        root.protect("acme", [Protection("a", Role.ADMIN), Protection("a", Role.WRITER)])
    with pytest.raises(TooLarge):
        root.protect("acme", [Protection(f"a{i}", Role.ADMIN) for i in range(65)])
    with pytest.raises(InvalidInput):
        root.protect("acme", [Protection("Bad Alias", Role.ADMIN)])
    reader = person(root, parts, "ann", "reader", "acme")
    with pytest.raises(NotAllowed):
        reader.protections("acme")
    assert root.protect("acme", []) == ()


# --- tokens


def test_a_token_is_its_account_until_it_is_revoked_or_the_account_is_disabled(
    root: EmbeddedAccounts, parts: Parts
) -> None:
    root.create_account("ann")
    made = root.create_token("laptop", account="ann")
    identity = who(parts, made.text)
    assert identity is not None
    assert (identity.name, identity.kind, identity.token_id) == ("ann", "user", made.info.id)
    root.disable_account("ann")
    assert who(parts, made.text) is None
    with pytest.raises(NotAllowed, match="disabled"):
        root.create_token(account="ann")
    root.enable_account("ann")
    assert who(parts, made.text) == identity
    assert root.revoke_token(made.info.id).revoked_at is not None
    assert who(parts, made.text) is None
    root.enable_account("ann")
    assert who(parts, made.text) is None
    assert root.tokens("ann") == []
    assert [t.id for t in root.tokens("ann", all=True)] == [made.info.id]


def test_another_secret_under_a_known_id_is_nobody(root: EmbeddedAccounts, parts: Parts) -> None:
    root.create_account("ann")
    made = root.create_token(account="ann")
    _, other = make_token()
    with parts.metadata.reading() as s:
        assert identify(s, made.info.id, token_digest(other)) is None
        assert identify(s, made.info.id, b"") is None
        assert identify(s, "0" * 10, bytes(32)) is None
    assert made.text not in str(parts.metadata.database.__dict__)


def test_the_registry_keeps_no_token(root: EmbeddedAccounts, parts: Parts, tmp_path: Path) -> None:
    root.create_account("ann")
    made = root.create_token(account="ann")
    secret = made.text.split("_")[2]
    with parts.metadata.reading() as s:
        kept = str([s.rows(f"select * from {table}") for table in ("access_token", "account", "audit", "idempotency")])
    assert made.info.id in kept
    assert secret not in kept
    files = [f.read_bytes() for f in (tmp_path / "registry").rglob("*") if f.is_file()]
    assert not any(secret.encode() in file for file in files)


def test_an_expired_token_is_nobody(root: EmbeddedAccounts, parts: Parts) -> None:
    root.create_account("ann")
    made = root.create_token(account="ann", days=1)
    assert who(parts, made.text) is not None
    with parts.metadata.writing() as s:
        s.run("update access_token set expires_at = :at", {"at": s.now()})
    assert who(parts, made.text) is None
    assert root.tokens("ann") == []


def test_a_token_makes_none_that_is_wider_or_lives_longer(root: EmbeddedAccounts, parts: Parts) -> None:
    root.create_account("ann")
    root.grant("ann", "writer", project="acme")
    root.grant("ann", "reader", project="beta")
    scope = TokenScope(projects=("acme",), roles=(Role.READER, Role.WRITER))
    ann = as_(parts, root.create_token(account="ann", days=7, scope=scope))
    assert ann.create_token(scope=scope).info.expires_at == ann.me().expires_at
    assert ann.create_token(scope=scope, days=6).info.scope == scope
    assert ann.create_token(scope=TokenScope(("acme",), (Role.READER,), True)).info.scope.read_only
    for wider in (
        TokenScope(),
        TokenScope(projects=("acme",)),
        TokenScope(roles=scope.roles),
        TokenScope(("acme", "beta"), scope.roles),
        TokenScope(("acme",), (Role.PROMOTER,)),
        TokenScope(("acme",), (Role.ADMIN,)),
    ):
        with pytest.raises(NotAllowed, match="more rights"):
            ann.create_token(scope=wider)
    with pytest.raises(NotAllowed, match="outlive"):
        ann.create_token(scope=scope, days=8)
    for days in (0, -1, 367, True, 1.5):
        with pytest.raises(InvalidInput):
            root.create_token(account="ann", days=days)  # type: ignore[arg-type]


def test_a_scope_names_only_what_the_account_holds(root: EmbeddedAccounts, parts: Parts) -> None:
    root.create_account("ann")
    root.grant("ann", "writer", project="acme")
    ann = as_(parts, root.create_token(account="ann"))
    with pytest.raises(NotFound, match="no project 'beta'"):
        ann.create_token(scope=TokenScope(projects=("beta",)))
    with pytest.raises(NotAllowed, match="does not hold the role promoter"):
        ann.create_token(scope=TokenScope(roles=(Role.PROMOTER,)))
    with pytest.raises(NotAllowed, match="no rights in beta"):
        root.create_token(account="ann", scope=TokenScope(projects=("beta",)))
    assert root.create_token(account="ann", scope=TokenScope(("acme",), (Role.READER,))).info.scope.roles == (
        Role.READER,
    )


def test_an_operators_token_outlives_itself_in_no_operators_token(root: EmbeddedAccounts, parts: Parts) -> None:
    for name in ("ada", "bob"):
        root.create_account(name)
        root.grant(name, "admin")
    root.create_account("robot", "service")
    ada = as_(parts, root.create_token(account="ada", days=2))
    for name in ("ada", "bob"):
        with pytest.raises(NotAllowed, match="outlive"):
            ada.create_token(account=name, days=3)
        assert ada.create_token(account=name).info.expires_at == ada.me().expires_at
    life = ada.create_token(account="robot", days=90).info
    assert life.expires_at is not None
    assert timedelta(days=89) < life.expires_at - life.created_at <= timedelta(days=90)


def test_who_revokes_which_token(root: EmbeddedAccounts, parts: Parts) -> None:
    ann, bob = person(root, parts, "ann", "reader", "acme"), person(root, parts, "bob", "reader", "acme")
    narrow = as_(parts, ann.create_token(scope=TokenScope(read_only=True, projects=("acme",))))
    with pytest.raises(NotFound, match="no token"):
        bob.revoke_token(ann.me().token_id)
    with pytest.raises(NotAllowed, match="wider"):
        narrow.revoke_token(ann.me().token_id)
    assert narrow.revoke_token(narrow.me().token_id).revoked_at is not None
    assert ann.revoke_token(ann.me().token_id).revoked_at is not None
    assert root.revoke_token(bob.me().token_id).revoked_at is not None
    assert [t.id for t in root.tokens("bob")] == []
    with pytest.raises(NotFound):
        root.revoke_token("0" * 10)
    with pytest.raises(InvalidInput):
        root.revoke_token("what")


def test_the_number_of_good_tokens_is_limited(root: EmbeddedAccounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmartifacts.versioning.tokens.MAX_GOOD", 3)
    root.create_account("ann")
    made = [root.create_token(account="ann") for _ in range(3)]
    with pytest.raises(InvalidInput, match="that is the limit"):
        root.create_token(account="ann")
    root.revoke_token(made[0].info.id)
    root.create_token(account="ann")


@pytest.mark.parametrize("label", ["a\nb", "\x1b[2J", "a" * 300])
def test_a_label_is_one_printable_line(root: EmbeddedAccounts, label: str) -> None:
    root.create_account("ann")
    with pytest.raises(InvalidInput):
        root.create_token(label, account="ann")


# --- the first account, and logins


def test_of_many_that_start_at_once_one_gets_the_first_token(opened: Callable[[], EmbeddedBackend]) -> None:
    found: list[NewToken | None] = []
    barrier = threading.Barrier(6)

    def start() -> None:
        own = opened()
        barrier.wait()
        found.append(admission.bootstrap(own.parts))
        own.close()

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tokens = [one for one in found if one is not None]
    assert len(found) == 6
    assert len(tokens) == 1
    backend = opened()
    identity = who(backend.parts, tokens[0].text)
    assert identity is not None
    assert identity.may(Permission.OPERATE)
    assert "nobody can administer" in tokens[0].warning
    assert admission.bootstrap(backend.parts) is None
    assert [v for _, v, _ in verbs(backend)].count("account-create") == 1
    backend.close()


def test_a_registry_with_accounts_and_nobody_in_charge_gets_somebody(root: EmbeddedAccounts, parts: Parts) -> None:
    root.create_account("ann")
    assert admission.bootstrap(parts) is not None
    assert admission.bootstrap(parts) is None


def test_who_holds_the_database_gets_a_new_token_of_an_administrator_only(root: EmbeddedAccounts, parts: Parts) -> None:
    first = admission.bootstrap(parts)
    assert first is not None
    assert as_(parts, admission.recover(parts)).me().may(Permission.OPERATE)
    root.create_account("ann")
    with pytest.raises(NotAllowed):
        admission.recover(parts, "ann")
    with pytest.raises(NotFound):
        admission.recover(parts, "nobody")


# --- the audit


def test_each_change_tells_who_did_what_to_whom_and_no_secret(
    root: EmbeddedAccounts, parts: Parts, backend: EmbeddedBackend
) -> None:
    start = len(verbs(backend))
    root.create_account("ann")
    root.create_account("crew", "team")
    root.add_member("crew", "ann")
    root.remove_member("crew", "ann")
    grant = root.grant("ann", "admin", project="acme")
    token = root.create_token("ci", account="ann")
    ann = as_(parts, token)
    ann.protect("acme", [Protection("prod", Role.ADMIN)])
    root.revoke_grant(grant.id)
    ann.revoke_token(token.info.id)
    root.disable_account("ann")
    root.enable_account("ann")
    assert verbs(backend)[start:] == [
        ("root", "account-create", "ann"),
        ("root", "account-create", "crew"),
        ("root", "team-add", "crew"),
        ("root", "team-remove", "crew"),
        ("root", "grant", "ann"),
        ("root", "token-create", "ann"),
        ("ann", "protect", "acme"),
        ("root", "grant-revoke", "ann"),
        ("ann", "token-revoke", "ann"),
        ("root", "account-disable", "ann"),
        ("root", "account-enable", "ann"),
    ]
    told = b"".join(backend.export_audit())
    assert token.text.split("_")[2].encode() not in told
    assert token_digest(token.text).hex().encode() not in told
    assert backend.verify_audit().ok
    assert backend.verify().ok


FORGED = {
    "account": "insert into account(name, name_key, kind, created_at, created_by) values ('x', 'x', 'user', 1, 'x')",
    "enabled": "update account set disabled_at = null",
    "member": "insert into membership(team_id, member_id, at, added_by)"
    " select t.id, a.id, 1, 'x' from account t, account a where t.name = 'crew' and a.name = 'eve'",
    "no member": "delete from membership",
    "grant": "insert into access_grant(account_id, role, aliases, at, granted_by)"
    """ select id, 'admin', '["*"]', 1, 'x' from account where name = 'eve'""",
    "role": "update access_grant set role = 'admin'",
    "everywhere": "update access_grant set project_id = null",
    "aliases": "update access_grant set aliases = '[\"*\"]'",
    "protection": "delete from protected_alias",
    "secret": "update access_token set secret = :bytes where account_id = (select id from account where name = 'ann')",
    "owner": "update access_token set account_id = (select id from account where name = 'eve')",
    "scope": 'update access_token set scope = \'{"projects": null, "roles": null, "read_only": false}\'',
    "end": "update access_token set expires_at = expires_at + 1",
    "revived": "update access_token set revoked_at = null",
}


@pytest.mark.parametrize("forged", FORGED)
def test_rights_written_into_the_database_by_hand_are_found_out(
    root: EmbeddedAccounts, parts: Parts, backend: EmbeddedBackend, forged: str
) -> None:
    for name, kind in (("ann", "user"), ("eve", "user"), ("crew", "team"), ("old", "user")):
        root.create_account(name, kind)
    root.add_member("crew", "ann")
    root.grant("crew", "promoter", project="acme", aliases=["*", "!prod"])
    root.protect("acme", [Protection("prod", Role.ADMIN)])
    root.create_token(account="ann", scope=TokenScope(read_only=True))
    root.revoke_token(root.create_token(account="old").info.id)
    root.disable_account("old")
    assert backend.verify_audit().ok
    with parts.metadata.writing() as s:
        s.run(FORGED[forged], {"bytes": b"x" * 32} if ":bytes" in FORGED[forged] else {})
    assert not backend.verify_audit().ok
    (problem,) = {problem.hint() for problem in backend.verify().problems}
    assert "restore it from a backup" in problem
    assert "llmartifacts grant ls --everywhere" in problem


def test_what_changes_nothing_is_not_told(root: EmbeddedAccounts, backend: EmbeddedBackend) -> None:
    root.create_account("ann")
    root.create_account("crew", "team")
    root.add_member("crew", "ann")
    root.grant("ann", "reader")
    root.disable_account("ann")
    before = verbs(backend)
    root.add_member("crew", "ann")
    root.grant("ann", "reader")
    root.disable_account("ann")
    assert verbs(backend) == before


def test_stored_nonsense_gives_nothing(root: EmbeddedAccounts, parts: Parts) -> None:
    root.create_account("ann")
    root.grant("ann", "admin")
    token = root.create_token(account="ann")
    with parts.metadata.writing() as s:
        s.run("update access_token set scope = '{}'")
    identity = who(parts, token.text)
    assert identity is not None
    assert not any(identity.may(p) or identity.may(p, "acme") for p in (Permission.READ, Permission.OPERATE))
    with parts.metadata.writing() as s:
        s.run("""update access_token set scope = '{"projects": null, "roles": null, "read_only": false}'""")
        s.run("update access_grant set role = 'emperor'")
    identity = who(parts, token.text)
    assert identity is not None
    assert identity.grants == ()
    with parts.metadata.writing() as s:
        s.run("update access_grant set role = 'reader', aliases = 'x'")
    assert who(parts, token.text) == Identity("ann", "user", token.info.id, (), TokenScope(), token.info.expires_at)
