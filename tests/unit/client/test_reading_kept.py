"""Answers outlive a process: what was kept is offered by its own tag, believed on the server's word, and verified."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.blobs.cache import BlobCache
from llmartifacts.client import kept as keeping
from llmartifacts.client.backend import RemoteBackend
from llmartifacts.client.kept import Kept
from llmartifacts.client.session import HttpSession
from llmartifacts.errors import DigestMismatch, Unreachable
from llmartifacts.records.backend import Reading
from llmartifacts.records.digest import Blob
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found, Version
from llmartifacts.wire.bodies import reading as bodies

AT = datetime(2026, 3, 3, tzinfo=UTC)
MANIFEST = Manifest.build("prompt", {"template": "Hi"})
OTHER = Manifest.build("prompt", {"template": "Bye"})
VERSION = Version("default", "agent", "prompt", 1, MANIFEST.digest, AT, aliases=("prod",))
FOUND = Found(VERSION, MANIFEST, 1)
PROD = Reference.parse("agent:prod")
BODY = bodies.encode_reading(Reading("default", 7, (FOUND,)))
TAG = bodies.etag(BODY, 7)

Http = Any
Process = Callable[..., RemoteBackend]


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache")


@pytest.fixture
def server(http: Http) -> Any:
    """One that knows the state of now, and answers 304 to whoever has it."""

    def answer(sock: Any, request: Any) -> None:
        number = {"Llmartifacts_Request": request.header("Llmartifacts-Request")}
        if request.header("If-None-Match") == TAG:
            sock.sendall(http.answer(304, b"", ETag=TAG, **number))
        else:
            sock.sendall(http.answer(200, BODY, ETag=TAG, **number))

    return http.serve(answer)


@pytest.fixture
def process(server: Any, cache: BlobCache) -> Process:
    """A backend as a new process makes one, over the same cache."""

    def make() -> RemoteBackend:
        made = RemoteBackend(HttpSession(server.url, None, attempts=1))
        made.keep_answers(cache)
        return made

    return make


def kept_file(cache: BlobCache) -> Path:
    (file,) = (cache.root / "answers").iterdir()
    return file


def statuses(server: Any) -> list[str | None]:
    return [request.header("If-None-Match") for request in server.requests]


def test_a_new_process_offers_what_another_kept_and_takes_it_when_nothing_changed(
    server: Any, process: Process
) -> None:
    assert process().read("default", [PROD]).items == (FOUND,)
    again = process().read("default", [PROD])
    assert again == Reading("default", 7, (FOUND,))
    assert statuses(server) == [None, TAG]


def test_it_is_kept_only_where_a_folder_was_handed_over(server: Any, cache: BlobCache) -> None:
    RemoteBackend(HttpSession(server.url, None, attempts=1)).read("default", [PROD])
    assert not cache.root.exists()


def test_file_and_folder_are_the_owners_alone(process: Process, cache: BlobCache) -> None:
    process().read("default", [PROD])
    assert stat.S_IMODE(kept_file(cache).stat().st_mode) == 0o600
    assert stat.S_IMODE(kept_file(cache).parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "alter",
    [
        lambda data: data.replace(b'"number":1', b'"number":2'),
        lambda data: data.replace(b'"revision":7', b'"revision":9'),
        lambda data: data.replace(MANIFEST.digest.encode(), OTHER.digest.encode()),
        lambda data: data[:-1],
        lambda data: data + b" ",
        lambda data: b"",
        lambda data: b"\x00" * len(data),
        lambda data: b"[" * 100_000,
        lambda data: b" " * (keeping.MAX_ANSWER + 1),
        lambda data: b'{"project":"default","revision":7,"items":[]}',
    ],
)
def test_an_altered_file_is_worth_nothing(
    alter: Callable[[bytes], bytes], server: Any, process: Process, cache: BlobCache
) -> None:
    process().read("default", [PROD])
    file = kept_file(cache)
    file.write_bytes(alter(file.read_bytes()))
    assert process().read("default", [PROD]).items == (FOUND,)
    assert statuses(server)[-1] != TAG, "the tag that is sent is that of the altered bytes"
    assert file.read_bytes() == BODY, "and what is right takes its place"


@given(st.data())
def test_no_single_byte_can_be_changed_without_changing_the_tag(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(BODY) - 1))
    altered = bytearray(BODY)
    altered[place] ^= data.draw(st.integers(1, 255))
    assert bodies.etag(bytes(altered), 7) != TAG


def test_even_a_server_that_says_yes_to_everything_makes_no_forged_manifest_good(
    http: Http, process: Process, cache: BlobCache
) -> None:
    process().read("default", [PROD])
    server = http.serve(http.answer(304, b""))
    lying = RemoteBackend(HttpSession(server.url, None, attempts=1))
    lying.keep_answers(cache)
    forged = Found(replace(VERSION, digest=OTHER.digest), MANIFEST, 1)
    Kept(cache, server.url).keep("default", ["agent:prod"], bodies.encode_reading(Reading("default", 7, (forged,))))
    (item,) = lying.read("default", [PROD]).items
    assert isinstance(item, DigestMismatch)


def test_a_kept_answer_to_another_question_is_refused(http: Http, cache: BlobCache) -> None:
    server = http.serve(http.answer(304, b""))
    lying = RemoteBackend(HttpSession(server.url, None, attempts=1))
    lying.keep_answers(cache)
    Kept(cache, server.url).keep("default", ["agent:prod"], bodies.encode_reading(Reading("acme", 7, (FOUND,))))
    with pytest.raises(Unreachable, match="something else"):
        lying.read("default", [PROD])


def test_another_server_project_or_question_has_a_file_of_its_own(cache: BlobCache) -> None:
    Kept(cache, "https://a.example").keep("p", ["x:prod", "y:prod"], b"1")
    assert Kept(cache, "https://a.example").recall("p", ["x:prod", "y:prod"]) == b"1"
    for server, project, references in [
        ("https://b.example", "p", ["x:prod", "y:prod"]),
        ("https://a.example", "q", ["x:prod", "y:prod"]),
        ("https://a.example", "p", ["y:prod", "x:prod"]),
        ("https://a.example", "p", ["x:prod"]),
    ]:
        assert Kept(cache, server).recall(project, references) is None


@pytest.mark.parametrize("plant", ["link", "pipe", "folder", "others may write", "linked folder", "open folder"])
def test_what_was_planted_in_its_place_is_not_read_and_not_written_through(
    plant: str, server: Any, process: Process, cache: BlobCache, tmp_path: Path
) -> None:
    process().read("default", [PROD])
    file, outside = kept_file(cache), tmp_path / "outside"
    outside.write_bytes(BODY)
    if plant == "others may write":
        file.chmod(0o666)
    elif plant == "open folder":
        file.parent.chmod(0o777)
    elif plant == "linked folder":
        (tmp_path / "elsewhere").mkdir()
        file.rename(tmp_path / "elsewhere" / file.name)
        file.parent.rmdir()
        file.parent.symlink_to(tmp_path / "elsewhere")
    else:
        file.unlink()
        {"link": lambda: file.symlink_to(outside), "pipe": lambda: os.mkfifo(file), "folder": file.mkdir}[plant]()
    assert process().read("default", [PROD]).items == (FOUND,)
    assert statuses(server) == [None, None]
    assert outside.read_bytes() == BODY
    assert not outside.is_symlink()
    if plant in ("link", "pipe", "others may write"):
        assert stat.S_ISREG(file.lstat().st_mode), "replaced, not written through"
        assert stat.S_IMODE(file.lstat().st_mode) == 0o600


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
@pytest.mark.parametrize("plant", ["pipe", "folder", "nothing"])
def test_no_file_is_left_open_whatever_lies_there(plant: str, cache: BlobCache) -> None:
    kept = Kept(cache, "https://a.example")
    kept.keep("p", ["x:prod"], b"1")
    file = kept_file(cache)
    file.unlink()
    {"pipe": lambda: os.mkfifo(file), "folder": file.mkdir, "nothing": lambda: None}[plant]()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert kept.recall("p", ["x:prod"]) is None
        kept.keep("p", ["x:prod"], b"1") if plant == "folder" else None
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_folder_is_bounded_and_what_was_used_last_stays(cache: BlobCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "MAX_ANSWERS", 4)
    kept = Kept(cache, "https://a.example")
    for number in range(4):
        kept.keep("p", [f"x{number}:prod"], b"%d" % number)
        file = cache.root / "answers" / kept._name("p", [f"x{number}:prod"])
        os.utime(file, (number, number))
    assert kept.recall("p", ["x0:prod"]) == b"0"
    (cache.root / "answers" / ".left-by-a-killed-process").write_bytes(b"?")
    os.utime(cache.root / "answers" / ".left-by-a-killed-process", (0, 0))
    kept.keep("p", ["x4:prod"], b"4")
    assert len(list((cache.root / "answers").iterdir())) == 4
    there = [number for number in range(5) if kept.recall("p", [f"x{number}:prod"]) is not None]
    assert there == [0, 2, 3, 4]


def test_an_answer_that_is_too_long_is_not_kept(cache: BlobCache) -> None:
    kept = Kept(cache, "https://a.example")
    kept.keep("p", ["x:prod"], b"x" * (keeping.MAX_ANSWER + 1))
    assert kept.recall("p", ["x:prod"]) is None


@pytest.mark.parametrize("tag", ['"r7-0000000000000000"', '"something else"', ""])
def test_an_answer_whose_tag_is_not_made_of_its_bytes_is_not_kept(tag: str, http: Http, cache: BlobCache) -> None:
    made = RemoteBackend(HttpSession(http.serve(http.answer(200, BODY, ETag=tag)).url, None, attempts=1))
    made.keep_answers(cache)
    assert made.read("default", [PROD]).items == (FOUND,)
    assert not (cache.root / "answers").exists()


def test_a_weak_tag_as_proxies_that_compress_make_it_is_the_same_tag(http: Http, cache: BlobCache) -> None:
    server = http.serve(http.answer(200, BODY, ETag=f"W/{TAG}"), http.answer(304, b""))
    for _ in range(2):
        made = RemoteBackend(HttpSession(server.url, None, attempts=1))
        made.keep_answers(cache)
        assert made.read("default", [PROD]).items == (FOUND,)
    assert server.requests[1].header("If-None-Match") == TAG


def test_manifests_in_the_cache_are_not_asked_for_and_verified(http: Http, cache: BlobCache) -> None:
    data = MANIFEST.to_bytes()
    path = cache.put(Blob(MANIFEST.digest, len(data)), data)
    server = http.serve(http.answer(200, bodies.encode_manifests({MANIFEST.digest: data})))
    made = RemoteBackend(HttpSession(server.url, None, attempts=1))
    made.keep_answers(cache)
    assert made.manifests([MANIFEST.digest]) == {MANIFEST.digest: MANIFEST}
    assert server.requests == []
    path.chmod(0o644)
    path.write_bytes(data.replace(b"Hi", b"Ho"))
    fresh = RemoteBackend(HttpSession(server.url, None, attempts=1))
    fresh.keep_answers(cache)
    assert fresh.manifests([MANIFEST.digest]) == {MANIFEST.digest: MANIFEST}
    assert len(server.requests) == 1
