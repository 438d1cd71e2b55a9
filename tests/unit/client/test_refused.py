"""A refused token, and a server that is not there: what to do about it, and where the token came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmartifacts.client import credentials
from llmartifacts.client.address import Address
from llmartifacts.client.credentials import Credential
from llmartifacts.client.refused import explained, nobody_there
from llmartifacts.errors import NotAllowed
from llmartifacts.records.rights import make_token

HERE = Address.parse("https://registry.example.com/team")
NO_GOOD = NotAllowed("the token is no good", next_step="Log in again: llmartifacts login URL.")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMARTIFACTS_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("LLMARTIFACTS_TOKEN", raising=False)
    return tmp_path / "config" / "credentials.json"


def test_without_a_token_the_hint_names_the_very_server() -> None:
    told = explained(NO_GOOD, 401, HERE, None)
    assert "llmartifacts login https://registry.example.com/team;" in told.hint()
    assert "$LLMARTIFACTS_TOKEN" in told.hint()


def test_a_token_of_the_environment_is_said_to_come_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = make_token()
    monkeypatch.setenv("LLMARTIFACTS_TOKEN", f"{token}\n")
    told = explained(NO_GOOD, 401, HERE, token)
    assert told.message == "the token is no good"
    assert "It came from $LLMARTIFACTS_TOKEN." in told.hint()
    assert "llmartifacts login https://registry.example.com/team" in told.hint()


def test_the_environment_goes_before_a_login_and_that_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (_, given), (_, kept) = make_token(), make_token()
    credentials.store(Credential(HERE.origin, kept, "ann"))
    monkeypatch.setenv("LLMARTIFACTS_TOKEN", given)
    hint = explained(NO_GOOD, 401, HERE, given).hint()
    assert f"$LLMARTIFACTS_TOKEN, which goes before the login in {place}" in hint
    assert "unset it to use that login (ann)" in hint
    assert given not in hint
    assert kept not in hint


def test_a_kept_token_is_said_to_come_from_its_file(place: Path) -> None:
    _, token = make_token()
    credentials.store(Credential(HERE.origin, token))
    assert f"It came from {place}. Log in again" in explained(NO_GOOD, 401, HERE, token).hint()


def test_a_token_of_a_login_provider_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMARTIFACTS_ID_TOKEN_FILE", "/run/token")
    assert "$LLMARTIFACTS_ID_TOKEN_FILE" in explained(NO_GOOD, 401, HERE, make_token()[1]).hint()


def test_a_mistyped_token_is_told_from_one_that_is_good_no_more() -> None:
    _, token = make_token()
    other = token[:-1] + ("0" if token[-1] != "0" else "1")
    for mistyped in (other, token[:-1], "lla_"):
        told = explained(NO_GOOD, 401, HERE, mistyped)
        assert "its checksum is wrong" in told.message
        assert "Copy it again" in told.hint()
    assert "checksum" not in explained(NO_GOOD, 401, HERE, token).message


def test_damaged_credentials_hide_no_refusal(place: Path) -> None:
    place.parent.mkdir()
    place.write_text("{")
    place.chmod(0o600)
    assert explained(NO_GOOD, 401, HERE, make_token()[1]).message == "the token is no good"


def test_other_errors_stay_as_they_are() -> None:
    assert explained(NO_GOOD, 403, HERE, "lla_x") is NO_GOOD


def test_where_nobody_answers_one_looks_at_the_server_and_the_address() -> None:
    assert "https://registry.example.com/team/healthz" in nobody_there(HERE)
    assert "$LLMARTIFACTS_REGISTRY" in nobody_there(HERE)
