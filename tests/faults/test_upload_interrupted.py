"""Uploads that break off: whoever is killed, what was sent need not be sent again, and nothing half is ever read."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llmartifacts as la
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.client.backend import RemoteBackend
from llmartifacts.client.blobs import RemoteBlobs
from llmartifacts.client.session import HttpSession
from llmartifacts.errors import InvalidValue, LlmartifactsError, NotAllowed, NotFound, Unreachable
from llmartifacts.metadata import uploads as rows
from llmartifacts.records.digest import digest_of
from llmartifacts.registry import Registry
from llmartifacts.testing.server import RunningServer, running_server
from llmartifacts.versioning import uploads
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.versioning.gc import gc

MB = 1_000_000
PIECE = 8 * 1024 * 1024
SIZE = 6 * PIECE


def content() -> bytes:
    return np.random.default_rng(3).bytes(SIZE)


def connected(server: RunningServer, cache: Path, **more: Any) -> Registry:
    backend = RemoteBackend(HttpSession(server.url, server.token, attempts=2))
    backend.__dict__["blobs"] = RemoteBlobs(backend.session, cache=BlobCache(cache, limit="none"), **more)
    return Registry(backend, project="default", actor="admin")


def pieces_taken(server: RunningServer) -> int:
    time.sleep(0.2)
    return sum('"method": "PUT"' in line and '"status": 204' in line for line in server.log_text().splitlines())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path / "registry") as running:
        yield running


CLIENT = """
import sys
from pathlib import Path
import numpy as np
import llmartifacts as la
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.client.backend import RemoteBackend
from llmartifacts.client.blobs import RemoteBlobs
from llmartifacts.client.session import HttpSession
from llmartifacts.registry import Registry

url, token, cache, size = sys.argv[1:]
def told(done, total):
    print(done, flush=True)
    sys.stdin.readline()
backend = RemoteBackend(HttpSession(url, token))
backend.__dict__["blobs"] = RemoteBlobs(backend.session, cache=BlobCache(cache, limit="none"), progress=told)
data = np.random.default_rng(3).bytes(int(size))
Registry(backend, project="default", actor="admin").log("killed", la.Files({"large": data}))
"""


def test_a_client_that_was_killed_goes_on_where_it_was(server: RunningServer, tmp_path: Path) -> None:
    arguments = [server.url, server.token, str(tmp_path / "cache"), str(SIZE)]
    child = subprocess.Popen([sys.executable, "-c", CLIENT, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    for _ in range(3):
        assert child.stdout.readline()
        child.stdin.write(b"\n")
        child.stdin.flush()
    child.kill()
    child.communicate()
    with connected(server, tmp_path / "cache") as registry:
        registry.log("killed", la.Files({"large": content()}))
        found = registry.find("killed:latest").manifest.files[0].blob
        assert registry.backend.blobs.read(found) == content()
    most = SIZE // PIECE + 2  # packs end in pieces of their own, and there is a recipe
    assert pieces_taken(server) <= most + 4  # those that were under way when it was killed


def test_a_server_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    place = tmp_path / "registry"
    with running_server(place) as first:
        killed: list[int] = []

        def kill(done: int, total: int) -> None:
            if done > total // 2 and not killed:
                killed.append(done)
                first.kill()

        with connected(first, tmp_path / "cache", progress=kill) as registry, pytest.raises(Unreachable):
            registry.log("killed", la.Files({"large": content()}))
        assert killed
        with running_server(place, port=first.port) as second:
            second.token = first.token
            with connected(second, tmp_path / "cache") as registry:
                registry.log("killed", la.Files({"large": content()}))
                found = registry.find("killed:latest").manifest.files[0].blob
                assert registry.backend.blobs.read(found) == content()
            assert pieces_taken(second) < SIZE // PIECE


def test_a_client_that_dies_between_finish_and_commit_sends_nothing_again(
    server: RunningServer, tmp_path: Path
) -> None:
    with connected(server, tmp_path / "cache") as registry, registry.backend.blobs.stage() as staging:
        staging.add(content())
        registry.backend.blobs.send("default", staging)
    before = pieces_taken(server)
    with connected(server, tmp_path / "cache") as registry:
        registry.log("finished", la.Files({"large": content()}))
        assert pieces_taken(server) == before


def test_two_clients_that_send_the_same_at_once_both_have_it(server: RunningServer, tmp_path: Path) -> None:
    with connected(server, tmp_path / "1") as one, connected(server, tmp_path / "2") as two:
        with one.backend.blobs.stage() as first, two.backend.blobs.stage() as second:
            for staging in (first, second):
                staging.add(content())
            sent = [one.backend.blobs.send("default", first), two.backend.blobs.send("default", second)]
            assert len(set(sent)) == 2
        one.log("one", la.Files({"large": content()}))
        two.log("two", la.Files({"large": content()}))
        assert one.backend.verify(read_data=True).ok


# --- at the server, by hand


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[EmbeddedBackend]:
    made = EmbeddedBackend.create(tmp_path / "registry", actor="tests")
    yield made
    made.close()


def sent_small(backend: EmbeddedBackend, data: bytes = b"some bytes") -> tuple[str, uploads.Sent]:
    import hashlib

    from llmartifacts.records.digest import Blob

    upload = uploads.start(backend.parts, "default", [digest_of(data)], account="ann").id
    name = hashlib.sha256(data).hexdigest()
    uploads.put_piece(backend.parts, "default", upload, name, data, account="ann")
    blob = Blob(digest_of(data), len(data))
    return upload, uploads.Sent((name,), (), (uploads.SentBlob(blob, "", 0, len(data)),))


def kept(backend: EmbeddedBackend) -> list[str]:
    return [key for key, _ in backend.parts.blobs.driver.list("")]


def expire(backend: EmbeddedBackend) -> None:
    with backend.parts.metadata.writing() as s:
        s.run("update upload set expires_at = 1")


def test_what_an_upload_holds_is_not_collected(backend: EmbeddedBackend) -> None:
    upload, sent = sent_small(backend)
    before = kept(backend)
    gc(backend.parts, actor="tests")
    assert kept(backend) == before
    uploads.finish(backend.parts, "default", upload, sent, account="ann")
    gc(backend.parts, actor="tests", compact=True)
    assert kept(backend) == [f"sha256/{digest_of(b'some bytes')[7:9]}/{digest_of(b'some bytes')[7:]}"]


@pytest.mark.parametrize("finished", [False, True])
def test_what_an_upload_brought_that_expired_is_collected(backend: EmbeddedBackend, finished: bool) -> None:
    upload, sent = sent_small(backend)
    if finished:
        uploads.finish(backend.parts, "default", upload, sent, account="ann")
    expire(backend)
    dry = gc(backend.parts, actor="tests", dry_run=True)
    done = gc(backend.parts, actor="tests")
    assert (dry.objects, dry.freed) == (done.objects, done.freed) == (1, 10)
    assert kept(backend) == []
    with backend.parts.metadata.reading() as s:
        assert rows.held(s, upload) == {}
        assert s.rows("select id from upload") == []
    with pytest.raises(NotFound):
        uploads.finish(backend.parts, "default", upload, sent, account="ann")


def test_pieces_that_a_crash_left_are_collected(backend: EmbeddedBackend) -> None:
    upload, _ = sent_small(backend)
    with backend.parts.metadata.writing() as s:
        rows.remove(s, upload)  # and then the power went
    assert [key for key in kept(backend) if key.startswith("uploads/")]
    gc(backend.parts, actor="tests")
    assert kept(backend) == []


def test_a_collection_between_storing_and_recording_takes_nothing_away(
    backend: EmbeddedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmartifacts.versioning.received import Received

    upload, sent = sent_small(backend)
    plain = Received.place

    def place(self: Received) -> None:
        plain(self)
        gc(backend.parts, actor="tests")

    monkeypatch.setattr(Received, "place", place)
    uploads.finish(backend.parts, "default", upload, sent, account="ann")
    with backend.parts.metadata.reading() as s:
        (blob,) = rows.all_held(s)
    assert backend.blobs.read(blob) == b"some bytes"


def test_an_upload_that_is_thrown_away_while_it_is_finished_holds_nothing(
    backend: EmbeddedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmartifacts.versioning.received import Received

    upload, sent = sent_small(backend)
    monkeypatch.setattr(Received, "settle", lambda _: uploads.abort(backend.parts, "default", upload, account="ann"))
    with pytest.raises(NotFound):
        uploads.finish(backend.parts, "default", upload, sent, account="ann")
    gc(backend.parts, actor="tests")
    assert kept(backend) == []


@pytest.mark.parametrize("call", ["write", "link", "fdatasync"])
def test_a_disk_that_is_full_is_said_so_and_nothing_half_is_kept(
    backend: EmbeddedBackend, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    upload, sent = sent_small(backend)
    before = kept(backend)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(os, call, full)
        with pytest.raises(NotAllowed):
            uploads.finish(backend.parts, "default", upload, sent, account="ann")
        if call != "fdatasync":
            with pytest.raises(NotAllowed):
                sent_small(backend, b"other bytes")
    assert [key for key in kept(backend) if not key.startswith("uploads/")] == []
    assert set(before) <= set(kept(backend))
    assert list((Path(backend.location) / "tmp").iterdir()) == []
    assert uploads.finish(backend.parts, "default", upload, sent, account="ann") == (digest_of(b"some bytes"),)


def test_a_write_that_fails_in_the_last_moment_leaves_the_upload_as_it_was(
    backend: EmbeddedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, sent = sent_small(backend)

    def broken(*_: Any) -> None:
        raise Unreachable("the disk went away")

    with monkeypatch.context() as patched:
        patched.setattr(rows, "extend", broken)
        with pytest.raises(LlmartifactsError):
            uploads.finish(backend.parts, "default", upload, sent, account="ann")
    with backend.parts.metadata.reading() as s:
        assert rows.held(s, upload) == {}
    assert uploads.finish(backend.parts, "default", upload, sent, account="ann") == (digest_of(b"some bytes"),)


def test_pieces_that_vanished_are_asked_for_again(server: RunningServer, tmp_path: Path) -> None:
    registry_folder = Path(server.settings["registry"])
    lost: list[Path] = []

    def lose(done: int, total: int) -> None:
        if done == total and not lost:
            lost.extend(sorted((registry_folder / "blobs" / "uploads").rglob("*"))[-2:])
            lost[-1].unlink()

    with connected(server, tmp_path / "cache", progress=lose) as registry:
        registry.log("lost", la.Files({"large": content()}))
        found = registry.find("lost:latest").manifest.files[0].blob
        assert lost
        assert registry.backend.blobs.read(found) == content()


def test_what_the_server_refuses_leaves_nothing_there(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmartifacts.client import upload as sending

    plain = sending._row

    def lies(*given: Any) -> Any:
        made = plain(*given)
        made.blobs[0] = made.blobs[0].model_copy(update={"size": made.blobs[0].size + 1})
        return made

    monkeypatch.setattr(sending, "_row", lies)
    with connected(server, tmp_path / "cache") as registry, pytest.raises(InvalidValue):
        registry.log("lied", la.Files({"large": content()}))
    blobs = Path(server.settings["registry"]) / "blobs"
    assert [path for path in blobs.rglob("*") if path.is_file()] == []
    assert list((tmp_path / "cache" / "uploads").iterdir()) == []
