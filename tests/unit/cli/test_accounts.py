"""People, teams, grants and tokens from the command line, on a registry's own files."""

from __future__ import annotations

from typing import Any

import pytest

from llmartifacts.records.rights import token_digest


@pytest.fixture
def made(cli: Any) -> Any:
    cli("init")
    cli("user", "add", "ann")
    cli("user", "add", "ci", "--service")
    cli("team", "add", "leads")
    cli("project", "create", "acme")
    return cli


def test_accounts_are_made_shown_disabled_and_enabled(made: Any) -> None:
    assert "ann" in made("user", "ls").out
    both = made("user", "ls", "--json").json["accounts"]
    assert [(one["name"], one["kind"]) for one in both] == [("ann", "user"), ("ci", "service")]
    assert [one["name"] for one in made("user", "ls", "--service", "--json").json["accounts"]] == ["ci"]
    assert made("user", "disable", "ann", "--json").json["account"]["disabled_at"]
    assert "disabled" in made("user", "ls").out
    assert made("user", "enable", "ann", "--json").json["account"]["disabled_at"] is None
    assert made("user", "add", "ANN", "--json", expect=4).error["code"] == "conflict"
    assert made("user", "show", "Ann", "--json", expect=3).error["detail"]["near"] == ["ann"]
    assert made("user", "add", "a/b", expect=2).out == ""


def test_teams_have_members(made: Any) -> None:
    assert made("team", "add-member", "leads", "ann", "--json").json["account"]["members"] == ["ann"]
    assert "ann" in made("team", "ls").out
    made("grant", "add", "leads", "promoter", "--project", "acme")
    shown = made("user", "show", "ann")
    assert "promoter of acme" in shown.out
    assert "by the team leads" in shown.out
    assert made("team", "remove-member", "leads", "ann", "--json").json == {"team": "leads", "removed": "ann"}
    made("team", "remove-member", "leads", "ann", expect=3)
    made("team", "add-member", "ann", "ci", expect=2)


def test_a_team_is_shown_with_who_is_in_it_and_what_they_may(made: Any) -> None:
    assert "nobody is in it yet" in made("team", "show", "leads").out
    made("team", "add-member", "leads", "ann")
    made("grant", "add", "leads", "promoter", "--project", "acme", "--alias", "prod")
    shown = made("team", "show", "leads")
    assert ["members", "ann"] in [line.split() for line in shown.out.splitlines()]
    assert "promoter of acme" in shown.out
    told = made("team", "show", "leads", "--json").json
    assert told["account"]["members"] == ["ann"]
    assert [(one["subject"], one["role"]) for one in told["grants"]] == [("leads", "promoter")]
    assert "user show ann" in made("team", "show", "ann", expect=2).err
    made("team", "show", "nobody", expect=3)


def test_roles_are_granted_and_taken_back(made: Any) -> None:
    one = made("grant", "add", "ann", "promoter", "--project", "acme", "--alias", "!prod", "--json").json["grant"]
    assert (one["role"], one["project"], one["aliases"]) == ("promoter", "acme", ["*", "!prod"])
    made("grant", "add", "ci", "admin", "--everywhere")
    assert "(every project)" in made("grant", "ls", "--everywhere").out
    assert [g["subject"] for g in made("grant", "ls", "--project", "acme", "--json").json["grants"]] == ["ann"]
    assert len(made("grant", "ls", "--everywhere", "--of", "ci", "--json").json["grants"]) == 1
    other = made("grant", "add", "ann", "reader", "--project", "acme", "--json").json["grant"]
    made("grant", "revoke", str(one["id"]), "--project", "default", expect=3)  # of another project
    gone = made("grant", "revoke", str(one["id"]), "--project", "acme", "--json").json
    assert (gone["revoked"], gone["grant"]["subject"]) == (one["id"], "ann")
    told = made("grant", "revoke", str(other["id"])).out  # its number says which it is, whatever project one works in
    assert f"grant {other['id']} of ann, reader of acme, revoked" in told
    assert "there is no grant 9999" in made("grant", "revoke", "9999", expect=3).err
    assert made("grant", "add", "ann", "king", "--json", expect=2).error["detail"]["field"] == "role"
    made("grant", "add", "ann", "reader", "--alias", "prod", expect=2)
    made("grant", "add", "nobody", "reader", expect=3)


def test_a_token_is_alone_on_standard_output(made: Any) -> None:
    ended = made("token", "create", "--account", "ann", "--label", "laptop", "--days", "7")
    text = ended.out.removesuffix("\n")
    assert token_digest(text)
    assert text.startswith("lla_")
    assert "\n" not in text
    assert text not in ended.err
    assert text.split("_")[1] in ended.err


def test_tokens_are_limited_listed_and_revoked(made: Any) -> None:
    made("grant", "add", "ci", "writer", "--project", "acme")
    made_one = made("token", "create", "--account", "ci", "--only", "acme", "--role", "writer", "--json").json
    info = made_one["info"]
    assert (info["account"], info["scope"]["projects"], info["scope"]["roles"]) == ("ci", ["acme"], ["writer"])
    listed = made("token", "ls", "--account", "ci")
    assert info["id"] in listed.out
    assert made_one["token"] not in listed.out
    assert "in acme, as writer" in listed.out
    assert made("token", "revoke", info["id"], "--json").json["token"]["revoked_at"]
    assert made("token", "ls", "--account", "ci", "--json").json["tokens"] == []
    assert "revoked" in made("token", "ls", "--account", "ci", "--all").out
    made("token", "revoke", "0000000000", expect=3)
    bad = made("token", "revoke", made_one["token"][:-1] + "!", "--json", expect=None)
    assert made_one["token"][:30] not in bad.out + bad.err
    made("token", "create", "--account", "leads", expect=2)
    made("token", "create", "--account", "ci", "--days", "0", expect=2)
    made("token", "create", "--account", "ci", "--role", "admin", expect=9)


def test_who_one_is_on_files_is_whoever_holds_them(made: Any) -> None:
    shown = made("user", "whoami", "--json").json
    assert (shown["name"], shown["token_id"]) == ("tester", "")
    assert "admin of every project" in made("user", "whoami").out


def test_aliases_are_protected(made: Any) -> None:
    made("alias", "protect", "prod", "--role", "admin", "--project", "acme")
    made("alias", "protect", "rc-*", "--role", "promoter", "--project", "acme")
    found = made("alias", "protect", "--project", "acme", "--json").json
    assert found["protected"] == [{"pattern": "prod", "role": "admin"}, {"pattern": "rc-*", "role": "promoter"}]
    assert "admin only" in made("alias", "protect", "--project", "acme").out
    assert len(made("alias", "protect", "prod", "--remove", "--project", "acme", "--json").json["protected"]) == 1
    made("alias", "protect", "prod", "--remove", "--project", "acme", expect=3)
    made("alias", "protect", "!prod", "--project", "acme", expect=2)


def test_empty_lists_say_what_to_do(cli: Any) -> None:
    cli("init")
    assert "user add" in cli("user", "ls").out
    assert "team add" in cli("team", "ls").out
    assert "no grants" in cli("grant", "ls").out
    assert "token create" in cli("token", "ls").out
