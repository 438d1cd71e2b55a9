"""Backups in an object store, over a line that fails, cuts and lies."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from backup_helpers import parts_of, rows_of

import llmartifacts as la
from llmartifacts.blobs.object_store import ObjectStoreDriver
from llmartifacts.errors import Damaged, NotAllowed, Unreachable
from llmartifacts.registry import Registry
from llmartifacts.versioning.backups import look
from llmartifacts.versioning.backups.place import BackupPlace
from llmartifacts.versioning.backups.restore import restore_folder, restore_team
from llmartifacts.versioning.backups.take import backup
from llmartifacts.versioning.team import open_team

pytestmark = [pytest.mark.usefixtures("s3_environment"), pytest.mark.xdist_group("moto"), pytest.mark.slow]
_PLACES = itertools.count()


@pytest.fixture(scope="module")
def bucket(moto_server: Any) -> str:
    return str(moto_server.new_bucket())


def test_a_registry_goes_to_an_object_store_and_comes_back(
    source: Registry, moto_server: Any, bucket: str, postgres_url: str, tmp_path: Path
) -> None:
    url = moto_server.url(bucket, f"b{next(_PLACES)}")
    before = rows_of(source.backend)  # type: ignore[arg-type]
    first = backup(parts_of(source), url)
    assert first.sent > 1_500_000
    assert backup(parts_of(source), url).sent == 0
    assert look.check(url)[1] == ()
    assert look.prune(url, 1).removed == (1,)
    restore_folder(url, tmp_path / "new", actor="eve", read_data=True)
    with la.connect(tmp_path / "new") as restored:
        rows = rows_of(restored.backend)  # type: ignore[arg-type]
        assert {**rows, "audit": rows["audit"][:-1]} == before
    blobs = moto_server.url(bucket, f"b{next(_PLACES)}")
    restore_team(url, postgres_url, blobs, actor="eve", read_data=True)
    with Registry(open_team(postgres_url, blobs, connections=2), project="default", actor="bob") as team:
        assert team.verify(read_data=True).ok
        again = backup(parts_of(team), url)
        assert again.number == 3
        assert again.sent < first.sent / 10


@pytest.fixture
def lined(moto_server: Any, bad_line: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A place over the line; a request that fails is given up after a few seconds."""
    prefix = f"b{next(_PLACES)}"
    url = moto_server.url(bucket, prefix, endpoint=bad_line.endpoint)
    monkeypatch.setattr(
        "llmartifacts.versioning.backups.place.driver_at", lambda p: (ObjectStoreDriver(p, seconds=20), None)
    )
    return url


@pytest.mark.matrix
def test_a_store_that_fails_three_calls_of_ten_gets_a_whole_backup_all_the_same(
    source: Registry, lined: str, bad_line: Any, tmp_path: Path
) -> None:
    chance = random.Random(7)

    def fail(passed: Any) -> None:
        if chance.random() < 0.3:
            passed.fail(503, "SlowDown")

    def lose(passed: Any) -> None:
        passed.lost = chance.random() < 0.1  # done, and nobody hears of it

    bad_line.before, bad_line.after = fail, lose
    record = backup(parts_of(source), lined)
    restore_folder(lined, tmp_path / "new", actor="eve")
    bad_line.quiet()
    assert BackupPlace.open(lined).numbers() == [1]
    assert look.check(lined) == (record, ())
    with la.connect(tmp_path / "new") as restored:
        assert restored.verify(read_data=True).ok


@pytest.mark.parametrize("calls", [2, 15])
def test_a_credential_that_expires_half_way_leaves_no_backup_and_the_next_one_is_whole(
    source: Registry, lined: str, bad_line: Any, calls: int
) -> None:
    left = [calls]

    def expire(passed: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            passed.fail(403, "ExpiredToken")

    bad_line.before = expire
    with pytest.raises((NotAllowed, Unreachable)):
        backup(parts_of(source), lined)
    bad_line.quiet()
    assert BackupPlace.open(lined).numbers() == []
    assert backup(parts_of(source), lined).number == 1
    assert look.check(lined)[1] == ()


def test_a_store_that_answers_with_other_bytes_is_found_out(
    source: Registry, lined: str, bad_line: Any, tmp_path: Path
) -> None:
    backup(parts_of(source), lined)
    seen = [0]

    def lie(passed: Any) -> None:
        if passed.method == "GET" and "/objects/" in passed.path and passed.answer:
            seen[0] += 1
            if seen[0] == 9:
                passed.answer = passed.answer[:-1] + bytes([passed.answer[-1] ^ 1])

    bad_line.after = lie
    with pytest.raises(Damaged):
        restore_folder(lined, tmp_path / "new", actor="eve")
    assert not (tmp_path / "new").exists()
    bad_line.quiet()
    restore_folder(lined, tmp_path / "new", actor="eve")
