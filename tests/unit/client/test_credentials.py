"""Tokens are kept by server, in a file that nobody else may read, and never shown."""

from __future__ import annotations

import json
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llmartifacts import errors
from llmartifacts.client import credentials
from llmartifacts.client.address import Address
from llmartifacts.client.credentials import Credential

HERE = Address.parse("https://registry.example.com")
ENDS = datetime(2027, 1, 1, tzinfo=UTC)
ONE = Credential(HERE.origin, "lla_one", "ann", "0123456789", ENDS)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMARTIFACTS_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config" / "credentials.json"


def test_what_is_kept_is_found_again_for_its_server_only(place: Path) -> None:
    assert credentials.find(HERE) is None
    assert credentials.token_for(HERE) is None
    assert credentials.store(ONE) == place
    assert credentials.find(Address.parse("https://Registry.example.com:443/")) == ONE
    assert credentials.token_for(HERE) == "lla_one"
    for other in ("https://registry.example.com:8443", "https://example.com", "https://x.registry.example.com"):
        assert credentials.token_for(Address.parse(other)) is None
    assert credentials.token_for(Address.parse("http://localhost:443")) is None


def test_the_file_and_its_folder_are_for_their_owner_alone(place: Path) -> None:
    old = os.umask(0)
    try:
        credentials.store(ONE)
    finally:
        os.umask(old)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    credentials.store(Credential("https://b.example:443", "lla_two"))
    assert sorted(credentials.load()) == ["https://b.example:443", HERE.origin]
    assert [p.name for p in place.parent.iterdir() if not p.name.endswith(".lock")] == [place.name]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o610])
def test_a_file_that_others_may_use_is_refused(mode: int, place: Path) -> None:
    credentials.store(ONE)
    place.chmod(mode)
    with pytest.raises(errors.NotAllowed, match="others may use") as raised:
        credentials.token_for(HERE)
    assert "chmod 600" in raised.value.hint()
    with pytest.raises(errors.NotAllowed):
        credentials.store(ONE)
    with pytest.raises(errors.NotAllowed):
        credentials.forget(HERE)


def test_a_folder_that_everybody_may_write_is_refused(place: Path) -> None:
    credentials.store(ONE)
    place.parent.chmod(0o777)
    with pytest.raises(errors.NotAllowed, match="exchange"):
        credentials.token_for(HERE)


def test_a_link_is_refused_and_not_written_through(place: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text("kept")
    elsewhere.chmod(0o600)
    place.parent.mkdir()
    place.symlink_to(elsewhere)
    with pytest.raises(errors.NotAllowed, match="link"):
        credentials.load()
    with pytest.raises(errors.NotAllowed, match="link"):
        credentials.store(ONE)
    assert elsewhere.read_text() == "kept"


def test_a_pipe_or_a_folder_in_its_place_holds_nobody_up(place: Path) -> None:
    place.parent.mkdir()
    os.mkfifo(place, 0o600)
    with pytest.raises(errors.NotAllowed, match="regular"):
        credentials.load()
    place.unlink()
    place.mkdir()
    with pytest.raises(errors.NotAllowed):
        credentials.load()


GOOD = {"schema": credentials.SCHEMA, "servers": {HERE.origin: {"token": "lla_one"}}}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": "other", "servers": {}}',
        '{"schema": "llmartifacts/credentials/1"}',
        '{"schema": "llmartifacts/credentials/1", "servers": []}',
        json.dumps(GOOD).replace('"lla_one"', "7"),
        json.dumps(GOOD).replace('"lla_one"', '"a b"'),
        json.dumps(GOOD).replace('"lla_one"', '""'),
        json.dumps(GOOD).replace('{"token": "lla_one"}', "null"),
        json.dumps(GOOD).replace('"lla_one"', '"lla_one", "expires_at": "soon"'),
        json.dumps(GOOD).replace('"lla_one"', '"lla_one", "account": []'),
        json.dumps(GOOD).replace(HERE.origin, "nowhere"),
        json.dumps(GOOD).replace('{"token": "lla_one"}', '{"token": "lla_one"}, "x": {"token": "y"}'),
        '{"a": 1, "a": 2}',
        "[" * 100_000,
        " " * 2_000_000,
    ],
)
def test_a_damaged_file_is_told_and_stays_as_it_is(content: str, place: Path) -> None:
    place.parent.mkdir()
    place.write_text(content)
    place.chmod(0o600)
    for change in (credentials.load, lambda: credentials.store(ONE), lambda: credentials.forget(HERE)):
        with pytest.raises(errors.InvalidValue, match="damaged") as raised:
            change()
        assert raised.value.origin == str(place)
        assert "login" in raised.value.hint()
    assert place.read_text() == content


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.store(ONE)
    monkeypatch.setenv("LLMARTIFACTS_TOKEN", " lla_env\n")
    assert credentials.token_for(HERE) == "lla_env"
    monkeypatch.setenv("LLMARTIFACTS_TOKEN", "a b")
    with pytest.raises(errors.InvalidInput, match="LLMARTIFACTS_TOKEN"):
        credentials.token_for(HERE)
    monkeypatch.setenv("LLMARTIFACTS_TOKEN", "")
    assert credentials.token_for(HERE) == "lla_one"


def test_what_is_forgotten_is_gone() -> None:
    assert credentials.forget(HERE) is None
    credentials.store(ONE)
    assert credentials.forget(HERE) == ONE
    assert credentials.forget(HERE) is None
    assert credentials.token_for(HERE) is None


def test_writers_do_not_undo_each_other() -> None:
    def keep(n: int) -> None:
        credentials.store(Credential(f"https://h{n}.example:443", f"lla_{n}"))

    threads = [threading.Thread(target=keep, args=(n,)) for n in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(credentials.load()) == 12


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMARTIFACTS_CONFIG", str(tmp_path / "file" / "below"))
    assert credentials.load() == {}
    with pytest.raises(errors.NotAllowed, match="kept"):
        credentials.store(ONE)


def test_a_credential_shows_no_token() -> None:
    assert "lla_one" not in repr(ONE)
    assert "lla_one" not in f"{[ONE]}"
