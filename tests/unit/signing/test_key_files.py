"""Keys on this machine: for their owner only, and never overwritten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmartifacts.errors import Conflict, InvalidInput, InvalidValue, NotAllowed, NotFound
from llmartifacts.records.places import config_directory
from llmartifacts.signing import key_files
from llmartifacts.signing.keys import PrivateKey


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_key_is_for_its_owner_only_whatever_the_umask(keys: Path) -> None:
    before = os.umask(0)
    try:
        made = key_files.create("ada", "Ada Lovelace")
    finally:
        os.umask(before)
    assert made.path == keys / "ada.pem"
    assert (mode(made.path), mode(keys)) == (0o600, 0o700)
    assert b"BEGIN PRIVATE KEY" in made.path.read_bytes()
    assert (keys / "ada.pub").read_text() == f"{made.public.text} Ada Lovelace\n"


def test_what_was_made_is_found_again_and_signs(keys: Path) -> None:
    made = key_files.create("ada", "Ada Lovelace")
    assert key_files.find("ada") == made
    assert key_files.local() == [made]
    loaded = key_files.load("ada")
    assert (loaded.file, loaded.private.public) == (made, made.public)
    assert key_files.load(str(made.path)).private.public == made.public


def test_a_key_is_never_overwritten(keys: Path) -> None:
    made = key_files.create("ada", "Ada")
    before = made.path.read_bytes()
    with pytest.raises(Conflict, match="there is a key 'ada' already"):
        key_files.create("ada", "Eve")
    assert made.path.read_bytes() == before
    assert sorted(p.name for p in keys.iterdir()) == ["ada.pem", "ada.pub"]


@pytest.mark.parametrize("name", ["../ada", "a/b", "", ".ada", "a\0b", "sha256", "x" * 200])
def test_a_name_that_is_no_name_makes_nothing(keys: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        key_files.create(name, "Ada")
    assert not keys.exists()


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o610])
def test_a_file_that_others_may_use_is_refused_with_the_way_out(keys: Path, bits: int) -> None:
    made = key_files.create("ada", "Ada")
    made.path.chmod(bits)
    with pytest.raises(NotAllowed) as caught:
        key_files.load("ada")
    assert f"{bits:04o}" in caught.value.message
    assert f"chmod 600 {made.path}" in caught.value.hint()
    made.path.chmod(0o600)
    assert key_files.load("ada")


def test_a_passphrase_locks_the_file(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMARTIFACTS_KEY_PASSPHRASE", "correct horse")
    made = key_files.create("ada", "Ada")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in made.path.read_bytes()
    assert key_files.load("ada").private.public == made.public
    monkeypatch.setenv("LLMARTIFACTS_KEY_PASSPHRASE", "wrong")
    with pytest.raises(InvalidValue, match="passphrase is wrong"):
        key_files.load("ada")
    monkeypatch.delenv("LLMARTIFACTS_KEY_PASSPHRASE")
    with pytest.raises(InvalidValue) as caught:
        key_files.load("ada")
    assert "$LLMARTIFACTS_KEY_PASSPHRASE" in caught.value.hint()
    assert key_files.find("ada") == made, "its public half needs none"


def test_a_missing_key_offers_the_near_one_or_the_command(keys: Path) -> None:
    with pytest.raises(NotFound) as caught:
        key_files.load("ada")
    assert "key create ada" in caught.value.hint()
    key_files.create("ada", "Ada")
    with pytest.raises(NotFound) as caught:
        key_files.load("adda")
    assert caught.value.near == ("ada",)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\xff" * 70_000]
)
def test_a_file_that_is_no_key_is_refused(keys: Path, content: bytes) -> None:
    made = key_files.create("ada", "Ada")
    made.path.write_bytes(content)
    with pytest.raises(InvalidValue):
        key_files.load("ada")


def test_neither_a_folder_nor_a_pipe_is_a_key(keys: Path) -> None:
    keys.mkdir(parents=True)
    (keys / "folder.pem").mkdir(mode=0o700)
    os.mkfifo(keys / "pipe.pem", 0o600)
    for name in ("folder", "pipe"):
        with pytest.raises(InvalidValue):
            key_files.load(name)


def test_a_place_that_cannot_be_written_is_told(keys: Path) -> None:
    keys.parent.mkdir(parents=True)
    keys.write_text("a file where the directory should be")
    with pytest.raises(NotAllowed) as caught:
        key_files.create("ada", "Ada")
    assert "$LLMARTIFACTS_KEYS" in caught.value.hint()


def test_without_a_setting_keys_lie_in_the_users_config_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("LLMARTIFACTS_KEYS", raising=False)
    monkeypatch.delenv("LLMARTIFACTS_CONFIG", raising=False)
    assert key_files.directory() == platformdirs.user_config_path("llmartifacts", appauthor=False) / "keys"
    assert key_files.directory({"LLMARTIFACTS_KEYS": "~/k"}) == Path.home() / "k"


def test_keys_lie_beside_the_tokens_unless_a_place_of_their_own_is_named() -> None:
    both = {"LLMARTIFACTS_CONFIG": "~/c", "LLMARTIFACTS_KEYS": "~/k"}
    config = {"LLMARTIFACTS_CONFIG": "~/c"}
    assert key_files.directory(config) == config_directory(config) / "keys" == Path.home() / "c" / "keys"
    assert key_files.directory(both) == Path.home() / "k"


def test_the_new_key_takes_the_name_and_the_old_one_is_kept(keys: Path) -> None:
    made = key_files.create("ada", "Ada")
    old = key_files.load("ada")
    new = key_files.next_key(old)
    assert key_files.load("ada").private.public == made.public, "until it took the place, the old one is it"
    assert [k.name for k in key_files.local()] == ["ada"]
    file, kept = key_files.take_place(old, new)
    assert (file.public, file.person) == (new.private.public, "Ada")
    assert key_files.load("ada").private.public == new.private.public
    assert PrivateKey.from_pem(kept.read_bytes()).public == made.public
    assert (mode(kept), mode(file.path)) == (0o600, 0o600)
    assert [k.name for k in key_files.local()] == ["ada", f"ada.{made.public.id[:12]}"]


def test_an_interrupted_change_goes_on_with_the_key_it_left(keys: Path) -> None:
    key_files.create("ada", "Ada")
    old = key_files.load("ada")
    first = key_files.next_key(old)
    assert key_files.next_key(old).private.public == first.private.public


@pytest.mark.parametrize("lost", [(".pub",), (".pub", ".pem")])
def test_a_change_that_was_interrupted_anywhere_is_finished(keys: Path, lost: tuple[str, ...]) -> None:
    """Killed after it wrote the private half only; or after it moved the public half into its place."""
    key_files.create("ada", "Ada")
    old = key_files.load("ada")
    new = key_files.next_key(old)
    aside = new.file.path.with_suffix(".pub")
    if len(lost) == 1:
        aside.unlink()
    else:
        os.replace(aside, keys / "ada.pub")
    file, kept = key_files.take_place(old, key_files.next_key(old))
    assert (file.public, file.person) == (new.private.public, "Ada")
    assert key_files.find("ada") == file
    assert kept.exists()
    assert not [p for p in keys.iterdir() if p.name.startswith(".")]


def test_a_public_file_gives_the_key_and_whose_it_is(keys: Path, tmp_path: Path) -> None:
    made = key_files.create("ada", "Ada Lovelace")
    assert key_files.read_public_file(keys / "ada.pub") == (made.public, "Ada Lovelace")
    with pytest.raises(InvalidValue, match="private key"):
        key_files.read_public_file(keys / "ada.pem")
    with pytest.raises(NotFound):
        key_files.read_public_file(tmp_path / "none.pub")


@pytest.mark.parametrize("suffix", [".pub", ".pem"])
def test_a_pipe_in_the_place_of_a_key_holds_nobody_up(keys: Path, suffix: str) -> None:
    key_files.create("ada", "Ada")
    place = keys / f"ada{suffix}"
    place.unlink()
    os.mkfifo(place, 0o600)
    with pytest.raises((InvalidValue, NotFound)):
        key_files.load("ada") if suffix == ".pem" else key_files.read_public_file(place)
    assert key_files.find("ada") is None or suffix == ".pem"
    assert len(key_files.local()) == (suffix == ".pem")


def test_a_directory_in_which_anybody_may_exchange_keys_is_refused_and_a_sticky_one_is_not(keys: Path) -> None:
    key_files.create("ada", "Ada")
    keys.chmod(0o777)
    with pytest.raises(NotAllowed, match="anybody may exchange the keys in"):
        key_files.load("ada")
    keys.chmod(0o1777)
    key_files.load("ada")


@pytest.mark.parametrize("secret", ["x" * 1024, "\u00e9" * 512])
def test_a_passphrase_that_is_too_long_makes_no_key(keys: Path, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(key_files.PASSPHRASE, secret)
    with pytest.raises(InvalidValue, match="the passphrase has 1,024 bytes"):
        key_files.create("ada", "Ada")
    assert not keys.exists()


@pytest.mark.parametrize("secret", ["x" * 1023, "p\u00e4ss w\u00f6rd", "\udcff\udc80 no UTF-8"])
def test_whatever_passphrase_a_key_was_locked_with_opens_it(
    keys: Path, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(key_files.PASSPHRASE, secret)
    made = key_files.create("ada", "Ada")
    assert key_files.load("ada").private.public == made.public
    monkeypatch.setenv(key_files.PASSPHRASE, secret[:-1])
    with pytest.raises(InvalidValue, match="the passphrase is wrong"):
        key_files.load("ada")
