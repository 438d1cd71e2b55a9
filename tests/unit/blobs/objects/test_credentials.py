"""Credentials for S3 from the shared file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from llmartifacts.blobs.objects.credentials import from_shared_file, read
from llmartifacts.errors import NotAllowed

FILE = """
[default]
aws_access_key_id = AKID1
aws_secret_access_key = s%cret/+=

[work]
aws_access_key_id = AKID2
aws_secret_access_key = other
aws_session_token = token==

[half]
aws_access_key_id = AKID3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    path = tmp_path / ".aws" / "credentials"
    path.write_text(FILE)
    return path


def test_a_profile_is_read_with_its_token_and_looked_at_again_soon(file: Path) -> None:
    plain, work = read(file, "default"), read(file, "work")
    assert (plain["access_key_id"], plain["secret_access_key"]) == ("AKID1", "s%cret/+=")
    assert "token" not in plain
    assert work["token"] == "token=="
    assert 0 < (work["expires_at"] - datetime.now(UTC)).total_seconds() <= 60


def test_the_environment_comes_first_and_the_usual_file_is_found(file: Path) -> None:
    found = from_shared_file({})
    assert found is not None
    assert found()["access_key_id"] == "AKID1"
    profile = from_shared_file({"AWS_PROFILE": "work"})
    assert profile is not None
    assert profile()["access_key_id"] == "AKID2"
    assert from_shared_file({"AWS_ACCESS_KEY_ID": "x"}) is None
    assert from_shared_file({"AWS_WEB_IDENTITY_TOKEN_FILE": "x"}) is None
    named = from_shared_file({"AWS_SHARED_CREDENTIALS_FILE": str(file)})
    file.write_text(FILE.replace("AKID1", "AKID9"))
    assert named is not None
    assert named()["access_key_id"] == "AKID9"
    file.unlink()
    assert from_shared_file({}) is None


@pytest.mark.parametrize("text", ["", "[default]", "no ini at all", "[half", "\x00", FILE[: FILE.index("[work]") - 30]])
def test_a_file_that_has_none_is_told_without_its_content(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(NotAllowed) as caught:
        read(file, "default")
    assert "AKID" not in f"{caught.value}{caught.value.hint()}"
    assert caught.value.__suppress_context__


def test_a_profile_that_is_not_there_is_told_with_its_name(file: Path) -> None:
    for profile in ("half", "nobody"):
        with pytest.raises(NotAllowed, match=f"profile {profile}"):
            read(file, profile)
    with pytest.raises(NotAllowed, match="No such file"):
        read(file.with_name("other"), "default")
