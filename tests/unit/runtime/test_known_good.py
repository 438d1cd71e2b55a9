from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmartifacts.errors import InvalidManifest, LlmartifactsError, NewerFormat, NotAllowed
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.digest import digest_of
from llmartifacts.records.lock import Locked, Lockfile
from llmartifacts.records.reference import Reference
from llmartifacts.runtime.known_good import Asked, KnownGood, keep, recall, records

LOCK = Lockfile("default", 4, {"kb": Locked("kb:prod", "files", 1, digest_of(b"kb"), 10, 2)})


def asked(location: str = "/srv/registry", project: str = "default", **references: str) -> Asked:
    wanted = references or {"kb": "kb:prod"}
    return Asked(location, project, {n: Reference.parse(r) for n, r in wanted.items()})


def test_what_was_kept_is_recalled_for_the_same_question_only(tmp_path: Path):
    keep(tmp_path, asked(), LOCK)
    found = recall(tmp_path, asked())
    assert found is not None
    assert found.lock == LOCK
    assert found.age() < 60
    assert recall(tmp_path, asked(kb="default/kb:prod")) is not None, "a prefix that says the same asks the same"
    for other in (
        asked("/srv/other"),
        asked(project="acme"),
        asked(kb="kb:staging"),
        asked(index="kb:prod"),
        asked(kb="kb:prod", agent="agent:prod"),
    ):
        assert recall(tmp_path, other) is None


def test_the_newest_record_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path: Path):
    keep(tmp_path, asked(), LOCK)
    keep(tmp_path, asked(), Lockfile("default", 5, LOCK.components))
    found = recall(tmp_path, asked())
    assert found is not None
    assert found.lock.revision == 5
    assert len(list((tmp_path / "known-good").iterdir())) == 1


def test_every_record_is_read_and_held_against_its_name(tmp_path: Path):
    assert list(records(tmp_path)) == []
    keep(tmp_path, asked(), LOCK)
    keep(tmp_path, asked(project="acme"), LOCK)
    (tmp_path / "known-good" / ".half-written").write_text("{")
    assert [getattr(record, "lock", None) for _, record in records(tmp_path)] == [LOCK, LOCK]
    one, other = asked().path(tmp_path), asked(project="acme").path(tmp_path)
    one.replace(other)
    ((path, problem),) = records(tmp_path)
    assert path == other
    assert isinstance(problem, InvalidManifest), "it answers another question than its name says"
    other.write_text(other.read_text().replace("known-good/1", "known-good/2"))
    assert [type(record) for _, record in records(tmp_path)] == [NewerFormat]


@pytest.mark.parametrize(
    "alter",
    [
        lambda body: body["lock"]["components"]["kb"].update(digest=digest_of(b"other")),
        lambda body: body["asked"].update(project="acme"),
        lambda body: body.update(schema="llmartifacts/known-good/9"),
        lambda body: body.update(saved="yesterday"),
        lambda body: body.update(saved=None),
        lambda body: body.update(lock=None),
        lambda body: body.pop("lock"),
    ],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_an_altered_record_is_refused(tmp_path: Path, alter, sealed: bool):
    keep(tmp_path, asked(), LOCK)
    path = asked().path(tmp_path)
    body = json.loads(path.read_text())
    alter(body)
    if sealed:  # with a checksum that is right
        del body["check"]
        body["check"] = digest_of(canonical_bytes(body))
    path.write_text(json.dumps(body))
    with pytest.raises(InvalidManifest) as caught:
        recall(tmp_path, asked())
    assert str(path) in caught.value.origin


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": NaN}', b"9" * 100])
def test_a_record_that_is_no_record_is_refused(tmp_path: Path, content: bytes):
    path = asked().path(tmp_path)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InvalidManifest):
        recall(tmp_path, asked())


@pytest.mark.parametrize("make", [os.mkfifo, lambda p: os.symlink("/etc/hostname", p), lambda p: p.mkdir()])
def test_a_pipe_a_link_or_a_folder_in_its_place_is_refused_at_once(tmp_path: Path, make):
    path = asked().path(tmp_path)
    path.parent.mkdir()
    make(path)
    with pytest.raises(LlmartifactsError):
        recall(tmp_path, asked())


def test_a_place_that_cannot_be_written_is_a_typed_error(tmp_path: Path):
    (tmp_path / "known-good").write_text("a file where the folder belongs")
    with pytest.raises(LlmartifactsError):
        keep(tmp_path, asked(), LOCK)
    if os.geteuid() != 0:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o555)
        with pytest.raises(NotAllowed):
            keep(closed, asked(), LOCK)


def test_a_clock_that_was_set_back_makes_no_set_fresh():
    assert KnownGood(LOCK, datetime.now(UTC) + timedelta(days=1)).age() > 80_000
    assert KnownGood(LOCK, datetime.now(UTC) - timedelta(days=1)).age() > 80_000


@pytest.mark.parametrize(
    "alter",
    [
        lambda body: body["lock"].update(revision=3),
        lambda body: body["lock"]["components"]["kb"].update(version="v7"),
        lambda body: body["lock"]["components"]["kb"].update(move=1),
        lambda body: body.update(saved="2026-01-01T00:00:00Z"),
        lambda body: body.update(registry="another"),
        lambda body: body.pop("check"),
    ],
)
def test_one_digit_of_a_record_that_no_other_part_of_it_contradicts_is_noticed(tmp_path: Path, alter):
    keep(tmp_path, asked(), LOCK, "llmartifacts/0123456789abcdef")
    path = asked().path(tmp_path)
    body = json.loads(path.read_text())
    alter(body)
    path.write_text(json.dumps(body))
    with pytest.raises(InvalidManifest, match="was altered"):
        recall(tmp_path, asked())


def test_which_registry_it_was_is_kept_where_it_is_known(tmp_path: Path):
    keep(tmp_path, asked(), LOCK, "llmartifacts/0123456789abcdef")
    found = recall(tmp_path, asked())
    assert found is not None
    assert found.registry == "llmartifacts/0123456789abcdef"
    keep(tmp_path, asked(), LOCK)
    found = recall(tmp_path, asked())
    assert found is not None
    assert found.registry == ""
