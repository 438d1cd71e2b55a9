"""Roles, grants, scopes, aliases and the text of tokens."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidInput, NotAllowed, NotFound, TooLarge
from llmartifacts.records.patterns import alias_matches, check_patterns
from llmartifacts.records.rights import (
    PERMISSIONS,
    TOKEN_PATTERN,
    UNLIMITED,
    Grant,
    Identity,
    NewToken,
    Permission,
    Protection,
    Role,
    TokenInfo,
    TokenScope,
    check_grant,
    check_protection,
    check_role,
    check_scope,
    check_token_id,
    make_token,
    operator,
    require,
    require_grantable,
    token_digest,
    token_id,
    unseen_project,
)

PROJECTS = ["acme", "beta", "gamma"]
ALIASES = ["prod", "staging", "prod-eu", "dev", "latest"]
ASKED = [p for p in Permission if p not in (Permission.PUBLIC, Permission.SIGNED_IN)]

patterns = st.lists(
    st.sampled_from(["*", "prod", "prod*", "staging", "?ev", "!prod", "!prod*", "!*"]), min_size=1, max_size=4
).filter(lambda found: any(not p.startswith("!") for p in found))


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    role = draw(st.sampled_from(Role))
    aliases = tuple(draw(patterns)) if role is Role.PROMOTER else ("*",)
    return Grant(draw(st.integers(1, 99)), "ann", role, draw(st.sampled_from([None, *PROJECTS])), aliases)


scopes = st.builds(
    TokenScope,
    st.none() | st.lists(st.sampled_from(PROJECTS), min_size=1, unique=True).map(tuple),
    st.none() | st.lists(st.sampled_from(Role), min_size=1, unique=True).map(tuple),
    st.booleans(),
)
questions = st.tuples(
    st.sampled_from(ASKED), st.sampled_from([None, *PROJECTS, "absent"]), st.sampled_from([None, *ALIASES])
)


def ann(*given: Grant, scope: TokenScope = UNLIMITED) -> Identity:
    return Identity("ann", "user", grants=given, scope=scope)


# --- what a role permits


@pytest.mark.parametrize(
    ("role", "permitted"),
    [
        (Role.READER, "read"),
        (Role.WRITER, "read log commit"),
        (Role.EVALUATOR, "read evaluate commit"),
        (Role.PROMOTER, "read promote approve"),
        (Role.ADMIN, "read log commit evaluate promote approve admin"),
    ],
)
def test_a_role_permits_exactly_this_in_its_project_and_nothing_elsewhere(role: Role, permitted: str) -> None:
    identity = ann(Grant(1, "ann", role, "acme"))
    assert {p for p in ASKED if identity.may(p, "acme")} == set(permitted.split())
    assert not any(identity.may(p, "beta") or identity.may(p) for p in ASKED)


def test_only_admin_of_every_project_operates() -> None:
    for role in Role:
        assert ann(Grant(1, "ann", role)).may(Permission.OPERATE) == (role is Role.ADMIN)
        assert not ann(*(Grant(i, "ann", role, p) for i, p in enumerate(PROJECTS))).may(Permission.OPERATE)
    assert operator("root").may(Permission.OPERATE)
    assert operator("root").may(Permission.PROMOTE, "anything", "prod")


def test_without_a_grant_nothing_is_permitted_but_to_be_signed_in() -> None:
    nobody = ann()
    assert nobody.may(Permission.SIGNED_IN)
    assert nobody.may(Permission.PUBLIC)
    assert not any(nobody.may(p, project) for p in ASKED for project in [None, *PROJECTS])
    assert nobody.visible() == frozenset()


@given(st.lists(grants(), max_size=4), grants(), scopes, questions)
def test_one_grant_more_never_takes_anything_away(
    held: list[Grant], more: Grant, scope: TokenScope, question: tuple[Permission, str | None, str | None]
) -> None:
    if ann(*held, scope=scope).may(*question):
        assert ann(*held, more, scope=scope).may(*question)


@given(st.lists(grants(), max_size=4), scopes, questions)
def test_a_scope_never_widens(
    held: list[Grant], scope: TokenScope, question: tuple[Permission, str | None, str | None]
) -> None:
    if ann(*held, scope=scope).may(*question):
        assert ann(*held).may(*question)


@given(st.lists(grants(), max_size=4), scopes, scopes, questions)
def test_a_scope_within_another_leaves_no_more_than_that_one(
    held: list[Grant], inner: TokenScope, outer: TokenScope, question: tuple[Permission, str | None, str | None]
) -> None:
    assert inner.within(inner)
    if inner.within(outer) and ann(*held, scope=inner).may(*question):
        assert ann(*held, scope=outer).may(*question)


@given(scopes, scopes)
def test_a_scope_not_within_another_leaves_something_that_the_other_does_not(
    inner: TokenScope, outer: TokenScope
) -> None:
    root = Grant(1, "ann", Role.ADMIN)
    one, other = ann(root, scope=inner), ann(root, scope=outer)
    wider = any(one.may(p, w) and not other.may(p, w) for p in ASKED for w in [None, *PROJECTS, "later"])
    assert wider == (not inner.within(outer))


@given(st.lists(grants(), max_size=4), scopes, st.sampled_from([*PROJECTS, "absent"]))
def test_the_projects_named_as_visible_are_those_that_are_seen(
    held: list[Grant], scope: TokenScope, project: str
) -> None:
    identity = ann(*held, scope=scope)
    visible = identity.visible()
    assert identity.sees(project) == (visible is None or project in visible)


def test_a_token_of_one_project_does_not_operate_and_a_reading_one_only_reads() -> None:
    root = Grant(1, "ann", Role.ADMIN)
    one = ann(root, scope=TokenScope(projects=("acme",)))
    assert one.may(Permission.ADMIN, "acme")
    assert not one.may(Permission.OPERATE)
    assert not one.sees("beta")
    assert not one.sees_all
    reading = ann(root, scope=TokenScope(read_only=True))
    assert [p for p in ASKED if reading.may(p, "acme")] == [Permission.READ]
    assert not reading.may(Permission.OPERATE)


@given(st.lists(grants(), max_size=4), scopes, st.sampled_from(Role), st.sampled_from([None, *PROJECTS]))
def test_whoever_holds_a_role_may_do_all_that_it_permits(
    held: list[Grant], scope: TokenScope, role: Role, project: str | None
) -> None:
    identity = ann(*held, scope=scope)
    if identity.holds(role, project):
        assert all(identity.may(permission, project) for permission in PERMISSIONS[role])
        assert role is not Role.ADMIN or project is not None or identity.may(Permission.OPERATE)


# --- what is refused, and as what


def test_what_one_may_not_see_is_not_there_and_what_one_may_not_do_is_not_allowed() -> None:
    reader = ann(Grant(1, "ann", Role.READER, "acme"))
    require(reader, Permission.READ, "acme")
    with pytest.raises(NotAllowed, match="ann may not write in acme"):
        require(reader, Permission.LOG, "acme")
    with pytest.raises(NotFound, match="there is no project 'beta'"):
        require(reader, Permission.LOG, "beta")
    with pytest.raises(NotAllowed):
        require(reader, Permission.OPERATE)


def test_a_project_that_is_not_there_and_one_that_is_not_seen_are_told_alike_and_name_only_what_is_seen() -> None:
    reader = ann(Grant(1, "ann", Role.READER, "beta"))
    error = unseen_project(reader, "bet")
    assert error.near == ("beta",)
    assert unseen_project(ann(), "bet").near == ()
    assert unseen_project(reader, "acme").message.replace("acme", "x") == unseen_project(reader, "y").message.replace(
        "'y'", "'x'"
    )


def test_every_alias_asked_for_is_checked() -> None:
    promoter = ann(Grant(1, "ann", Role.PROMOTER, "acme", ("*", "!prod")))
    require(promoter, Permission.PROMOTE, "acme", ["staging", "dev"])
    with pytest.raises(NotAllowed, match="'prod'"):
        require(promoter, Permission.PROMOTE, "acme", ["staging", "prod"])
    with pytest.raises(NotAllowed, match="approve for the alias 'prod'"):
        require(promoter, Permission.APPROVE, "acme", ["prod"])


def test_a_protected_alias_wants_its_role_beside_the_patterns() -> None:
    guarded = [Protection("prod*", Role.ADMIN)]
    promoter = ann(Grant(1, "ann", Role.PROMOTER, "acme"))
    require(promoter, Permission.PROMOTE, "acme", ["staging"], guarded)
    require(promoter, Permission.APPROVE, "acme", ["prod"], guarded)
    with pytest.raises(NotAllowed, match="only the role admin may move it"):
        require(promoter, Permission.PROMOTE, "acme", ["prod-eu"], guarded)
    require(ann(Grant(1, "ann", Role.ADMIN, "acme")), Permission.PROMOTE, "acme", ["prod-eu"], guarded)
    scoped = ann(Grant(1, "ann", Role.ADMIN, "acme"), scope=TokenScope(roles=(Role.PROMOTER,)))
    with pytest.raises(NotAllowed):
        require(scoped, Permission.PROMOTE, "acme", ["prod"], guarded)


def test_nobody_grants_more_than_they_hold() -> None:
    of_acme, root = ann(Grant(1, "ann", Role.ADMIN, "acme")), ann(Grant(1, "ann", Role.ADMIN))
    for role in Role:
        require_grantable(of_acme, role, "acme")
        require_grantable(root, role, "acme")
        require_grantable(root, role, None)
        with pytest.raises(NotAllowed):
            require_grantable(of_acme, role, None)
        with pytest.raises(NotFound):
            require_grantable(of_acme, role, "beta")
        for less in (Role.READER, Role.WRITER, Role.EVALUATOR, Role.PROMOTER):
            with pytest.raises(NotAllowed):
                require_grantable(ann(Grant(1, "ann", less)), role, "acme")
            narrowed = ann(Grant(1, "ann", Role.ADMIN), scope=TokenScope(roles=(less,)))
            with pytest.raises(NotAllowed):
                require_grantable(narrowed, role, "acme")


# --- patterns


@pytest.mark.parametrize(
    ("given_patterns", "matched"),
    [
        ("*", "prod staging prod-eu dev latest"),
        ("* !prod", "staging prod-eu dev latest"),
        ("!prod *", "staging prod-eu dev latest"),
        ("* !prod*", "staging dev latest"),
        ("prod", "prod"),
        ("?ev", "dev"),
        ("prod* !prod", "prod-eu"),
    ],
)
def test_patterns_name_aliases_and_leave_some_out(given_patterns: str, matched: str) -> None:
    assert [a for a in ALIASES if alias_matches(given_patterns.split(), a)] == matched.split()


@given(patterns, st.sampled_from(ALIASES))
def test_a_pattern_that_leaves_out_never_adds(found: list[str], alias: str) -> None:
    assert not alias_matches([*found, f"!{alias}"], alias)
    if alias_matches([*found, "!dev"], alias):
        assert alias_matches(found, alias)


@pytest.mark.parametrize(
    "bad", [[], ["!prod"], ["Prod"], ["a/b"], ["[ab]"], [""], ["!"], ["!!a"], [1], None, 7, ["a\n"]]
)
def test_malformed_patterns_are_refused(bad: object) -> None:
    with pytest.raises(InvalidInput):
        check_patterns(bad)


def test_patterns_are_kept_once_and_limited_in_number() -> None:
    assert check_patterns(["*", "!prod", "*"]) == ("*", "!prod")
    assert check_patterns("staging") == ("staging",)
    with pytest.raises(TooLarge):
        check_patterns([f"a{i}" for i in range(65)])


def test_only_a_promoters_grant_is_limited_by_aliases() -> None:
    assert check_grant("promoter", ["*", "!prod"]) == (Role.PROMOTER, ("*", "!prod"))
    assert check_grant("admin", ["*"]) == (Role.ADMIN, ("*",))
    with pytest.raises(InvalidInput, match="limit what a promoter moves"):
        check_grant("writer", ["staging"])
    with pytest.raises(InvalidInput, match="no role") as refused:
        check_role("promotor")
    assert "promoter" in refused.value.hint()
    with pytest.raises(InvalidInput):
        check_protection("!prod", "admin")
    assert check_protection("prod*", "admin") == Protection("prod*", Role.ADMIN)


def test_whoever_may_not_move_an_alias_is_told_the_smallest_grant_that_lets_them() -> None:
    rob = Identity("rob", "user", grants=(Grant(1, "rob", Role.READER, "acme"),))
    with pytest.raises(NotAllowed) as refused:
        require(rob, Permission.PROMOTE, "acme", ["canary", "staging"])
    assert "promoter --project acme --alias canary --alias staging." in refused.value.hint()
    with pytest.raises(NotAllowed) as refused:
        require(rob, Permission.PROMOTE, "acme")  # before the body was read, which names it
    assert "promoter --project acme --alias ALIAS." in refused.value.hint()
    with pytest.raises(NotAllowed) as refused:
        require(rob, Permission.LOG, "acme")
    assert refused.value.hint().endswith("writer --project acme.")


# --- tokens


def test_a_token_has_its_form_and_its_checksum() -> None:
    made_id, text = make_token()
    assert re.fullmatch(TOKEN_PATTERN, text)
    assert token_id(text) == made_id
    assert len({make_token()[1] for _ in range(200)}) == 200
    assert len(token_digest(text)) == 32


@given(st.integers(0, 10**6), st.sampled_from("0aZ9_-é"))
def test_a_token_with_one_character_changed_is_none(position: int, other: str) -> None:
    _, text = make_token()
    at = position % len(text)
    changed = text[:at] + other + text[at + 1 :]
    assert changed == text or token_id(changed) is None


@given(st.text(max_size=80) | st.none() | st.integers())
def test_other_text_is_no_token(text: object) -> None:
    assert token_id(text) is None


def test_the_id_is_taken_from_a_token_and_a_secret_is_not_repeated() -> None:
    made_id, text = make_token()
    assert check_token_id(text) == check_token_id(made_id) == check_token_id(f"lla_{made_id}") == made_id
    with pytest.raises(InvalidInput) as refused:
        check_token_id(text[5:])
    assert text[20:40] not in str(refused.value)
    info = TokenInfo(made_id, "ann", "", TokenScope(), datetime.now(UTC), "ann", None)
    assert text not in repr(NewToken(text, info))
    assert text not in f"{NewToken(text, info)}"


def test_a_scope_is_checked() -> None:
    assert check_scope(["b", "a", "a"], ["writer", "reader"], True) == TokenScope(
        ("a", "b"), (Role.READER, Role.WRITER), True
    )
    assert check_scope() == TokenScope()
    for projects, roles, read_only in [
        ([], None, False),
        (None, [], False),
        ("acme", None, False),
        (["a b"], None, False),
        (None, ["boss"], False),
        (None, None, 1),
    ]:
        with pytest.raises(InvalidInput):
            check_scope(projects, roles, read_only)
    with pytest.raises(TooLarge):
        check_scope([f"p{i}" for i in range(300)])
