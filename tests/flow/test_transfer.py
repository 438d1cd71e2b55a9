"""Files up to a server and down again: the same bytes, only what is new travels, and nothing without a right."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import requests

import llmartifacts as la
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.forms import RECIPE
from llmartifacts.blobs.local import LocalDriver
from llmartifacts.blobs.store import BlobStore
from llmartifacts.client.backend import RemoteBackend
from llmartifacts.client.blobs import RemoteBlobs
from llmartifacts.client.session import HttpSession
from llmartifacts.errors import DigestMismatch, InvalidValue, NotFound
from llmartifacts.records.backend import Draft
from llmartifacts.records.digest import Blob
from llmartifacts.registry import Registry
from llmartifacts.testing.server import RunningServer, running_server
from llmartifacts.versioning.chunk_index import RecordedIndex
from llmartifacts.versioning.embedded import EmbeddedBackend
from llmartifacts.versioning.parts import Parts
from llmartifacts.wire.transfer import STORED

MB = 1_000_000
Client = Callable[..., Registry]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("served") / "registry") as running:
        yield running


def connected(url: str, token: str | None, cache: Path, project: str = "default") -> Registry:
    backend = RemoteBackend(HttpSession(url, token))
    backend.__dict__["blobs"] = RemoteBlobs(backend.session, cache=BlobCache(cache, limit="none"))
    return Registry(backend, project=project, actor="admin")


@pytest.fixture
def client(server: RunningServer, tmp_path: Path) -> Iterator[Client]:
    made = []

    def connect(cache: str = "cache", token: str = server.token) -> Registry:
        made.append(connected(server.url, token, tmp_path / cache))
        return made[-1]

    yield connect
    for one in made:
        one.close()


class Moved:
    """Requests and bytes that a server logs from now on."""

    def __init__(self, server: RunningServer) -> None:
        time.sleep(0.1)
        self._server, self._mark = server, len(server.log_text())

    @property
    def requests(self) -> list[dict[str, Any]]:
        time.sleep(0.2)  # a line is written after its answer
        lines = self._server.log_text()[self._mark :].splitlines()
        return [told for told in map(json.loads, lines) if told.get("event") == "request"]

    def total(self, name: str) -> int:
        return sum(one[name] for one in self.requests)


def blob(registry: Registry, reference: str, number: int = 0) -> Blob:
    return registry.find(reference).manifest.files[number].blob


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def index(path: Path, rows: int, *, removed: int = 0, added: int = 0, seed: int = 5) -> Path:
    """An index of the same vectors, some removed, some added."""
    import faiss

    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, 128), dtype=np.float32)
    made = faiss.IndexIVFFlat(faiss.IndexFlatL2(128), 128, 64)
    made.cp.niter = 2
    made.train(vectors[:4000])
    made.add_with_ids(vectors, np.arange(rows, dtype=np.int64))
    if removed:
        made.remove_ids(rng.choice(rows, removed, replace=False).astype(np.int64))
    if added:
        more = np.random.default_rng(seed + 1).standard_normal((added, 128), dtype=np.float32)
        made.add_with_ids(more, np.arange(rows, rows + added, dtype=np.int64))
    path.mkdir(parents=True, exist_ok=True)
    faiss.write_index(made, str(path / "index.faiss"))
    return path


def test_what_goes_up_comes_down_the_same(client: Client) -> None:
    files = {
        "empty": b"",
        "small": b"x",
        "text": b"some text\n" * 5000,
        "exact": noise(1 << 20),
        "large": noise(5 * MB),
    }
    client().log("same", la.Files(files))
    manifest = client("other").find("same:latest").manifest
    blobs = client("other").backend.blobs
    for file in manifest.files:
        assert blobs.read(file.blob) == files[file.path]
        assert blobs.path(file.blob).read_bytes() == files[file.path]
        with blobs.open(file.blob) as stream:
            assert stream.read() == files[file.path]
        blobs.check(file.blob)


@pytest.mark.matrix
def test_many_small_files_are_few_requests(server: RunningServer, client: Client) -> None:
    moved = Moved(server)
    client().log("many", la.Files({f"f{n}": f"file {n}".encode() for n in range(3000)}))
    assert len(moved.requests) < 12


def test_the_same_again_is_not_sent_again(server: RunningServer, client: Client) -> None:
    files = la.Files({"large": noise(3 * MB, 7), "small": b"small 7"})
    client().log("again", files)
    moved = Moved(server)
    client("other").log("again-elsewhere", files)
    assert moved.total("received") < 20_000


@pytest.mark.parametrize(("removed", "added"), [(0, 300), (150, 300)], ids=["added", "removed and added"])
def test_the_next_version_of_an_index_moves_what_changed(
    server: RunningServer, client: Client, tmp_path: Path, removed: int, added: int
) -> None:
    first = index(tmp_path / "1", 30_000)
    second = index(tmp_path / "2", 30_000, removed=removed, added=added)
    name = f"index-{removed}"
    client("sender").log(name, la.Files.from_path(first))
    size = (second / "index.faiss").stat().st_size
    moved = Moved(server)
    client("another sender").log(name, la.Files.from_path(second))  # which has not the first in its cache
    assert moved.total("received") < 0.02 * size
    assert moved.total("sent") < 0.02 * size
    reader = client("reader")
    old = reader.backend.blobs.path(blob(reader, f"{name}:v1"))
    assert old.read_bytes() == (first / "index.faiss").read_bytes()
    moved = Moved(server)
    new = client("reader").backend.blobs.path(blob(reader, f"{name}:v2"))
    assert new.read_bytes() == (second / "index.faiss").read_bytes()
    assert moved.total("sent") < 0.02 * size


def test_rows_that_changed_under_their_id_are_found(client: Client, tmp_path: Path) -> None:
    first = index(tmp_path / "1", 8000)
    data = bytearray((first / "index.faiss").read_bytes())
    at = len(data) // 2
    for step in range(0, 40_000, 4000):
        data[at + step] ^= 1  # somewhere in a row
    changed = tmp_path / "2"
    changed.mkdir()
    (changed / "index.faiss").write_bytes(data)
    client().log("changed", la.Files.from_path(first))
    client("other").log("changed", la.Files.from_path(changed))
    reader = client("reader")
    assert reader.backend.blobs.read(blob(reader, "changed:v2")) == bytes(data)


def test_lines_that_are_added_to_a_dataset_are_all_that_moves(server: RunningServer, client: Client) -> None:
    lines = [json.dumps({"n": n, "text": noise(40, n).hex()}).encode() + b"\n" for n in range(30_000)]
    whole = b"".join(lines)
    client().log("lines", la.Files({"data.jsonl": whole}))
    moved = Moved(server)
    client("other").log("lines", la.Files({"data.jsonl": whole + lines[0] * 10}))
    assert moved.total("received") < len(whole) // 10
    reader = client("reader")
    assert reader.backend.blobs.read(blob(reader, "lines:latest")) == whole + lines[0] * 10


def test_a_damaged_record_of_an_earlier_version_is_found(client: Client, tmp_path: Path) -> None:
    first, second = index(tmp_path / "1", 8000), index(tmp_path / "2", 8000, added=100)
    client().log("sides", la.Files.from_path(first))
    client().log("sides", la.Files.from_path(second))
    reader = client("reader")
    reader.backend.blobs.path(blob(reader, "sides:v1"))
    for side in (tmp_path / "reader" / "recipes").iterdir():
        data = bytearray(side.read_bytes())
        data[len(data) // 2] ^= 1
        side.unlink()
        side.write_bytes(data)
    again = client("reader")
    new = again.backend.blobs.path(blob(again, "sides:v2"))
    assert new.read_bytes() == (second / "index.faiss").read_bytes()


def test_a_blob_is_served_whole_and_in_ranges(server: RunningServer, client: Client) -> None:
    data = noise(3 * MB, 9)
    registry = client()
    registry.log("ranges", la.Files({"large": data, "small": b"0123456789"}))
    large, small = (blob(registry, "ranges:latest", n) for n in (0, 1))

    def get(which: Blob, **headers: str) -> requests.Response:
        url = f"{server.url}/api/v1/blobs/{which.digest}"
        return requests.get(url, headers={**server.headers, **headers}, timeout=30)

    assert get(large).content == data
    assert get(large, Range="bytes=5-9").content == data[5:10]
    assert get(large, Range=f"bytes={len(data) - 3}-").content == data[-3:]
    assert get(large, Range="bytes=-3").headers["content-range"] == f"bytes {len(data) - 3}-{len(data) - 1}/{len(data)}"
    assert get(small, Range="bytes=2-3").content == b"23"
    several = get(small, Range="bytes=0-1,4-5")
    assert several.status_code == 206
    assert b"01" in several.content
    assert b"45" in several.content
    assert get(small, Range="bytes=10-11").status_code == 416
    assert get(small, Range="bytes=3-1").status_code == 400
    assert get(small, Range="bytes=" + "0-0," * 299 + "0-0").status_code == 400
    assert get(small, Range="bytes=" + "0-0," * 9999 + "0-0").status_code in (400, 431)
    assert get(small, **{"If-None-Match": f'"{small.digest}"'}).status_code == 304
    assert requests.head(f"{server.url}/api/v1/blobs/{large.digest}", headers=server.headers, timeout=30).headers[
        "content-length"
    ] == str(len(data))


def test_who_may_not_read_a_project_is_told_of_nothing_in_it(server: RunningServer, client: Client) -> None:
    admin = client()
    admin.log("secret", la.Files({"large": noise(2 * MB, 11)}))
    secret = blob(admin, "secret:latest")
    admin.backend.create_project("elsewhere", actor="admin")
    admin.backend.accounts.create_account("mallory")
    admin.backend.accounts.grant("mallory", "writer", project="elsewhere")
    token = admin.backend.accounts.create_token("t", account="mallory").text
    mallory = {"Authorization": f"Bearer {token}"}
    absent = "sha256:" + "0" * 64
    for path in ("", "/recipe", "/chunks"):
        told = []
        for digest in (secret.digest, absent):
            for accept in ("*/*", STORED):
                answer = requests.get(
                    f"{server.url}/api/v1/blobs/{digest}{path}", headers={**mallory, "Accept": accept}, timeout=30
                )
                assert answer.status_code == 404
                told.append(answer.text.replace(digest, "…"))
        assert len(set(told)) == 1
    other = connected(server.url, token, Path(server.log.parent) / "mallory", project="elsewhere")
    with pytest.raises(NotFound):
        other.backend.blobs.http.sums(secret.digest, [b"0" * 32], 4)
    moved = Moved(server)
    other.log("mine", la.Files({"large": noise(2 * MB, 11)}))  # the same bytes: they have to be sent all the same
    assert moved.total("received") > 2 * MB
    assert other.backend.blobs.read(blob(other, "mine:latest")) == noise(2 * MB, 11)
    other.close()


# --- a store that signs addresses


class SigningDriver(LocalDriver):
    """Files that a second server hands out, to who has an address that was signed."""

    def __init__(self, root: Path, port: int) -> None:
        super().__init__(root)
        self.port = port
        self.signed_for: list[tuple[str, int, int]] = []

    def signed(self, key: str, start: int, length: int, seconds: int) -> str | None:
        self.signed_for.append((key, start, length))
        return f"http://127.0.0.1:{self.port}/{key}?signature=good&until={int(time.time()) + seconds}"


class Store(ThreadingHTTPServer):
    """The second server."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _StoreHandler)
        self.root = root
        self.asked: list[dict[str, str]] = []


class _StoreHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.asked.append({k.lower(): v for k, v in self.headers.items()})
        if parse_qs(parts.query)["signature"] != ["good"] or int(parse_qs(parts.query)["until"][0]) < time.time():
            self.send_error(403)
            return
        data = (self.server.root / parts.path[1:]).read_bytes()
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self.send_response(206)
        self.send_header("content-range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("content-length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(data[first : last + 1])


@pytest.fixture
def signing(tmp_path: Path) -> Iterator[tuple[str, Store, SigningDriver]]:
    """A registry's server over a store that signs, in this process: its address, the store, the driver."""
    import uvicorn

    from llmartifacts.server.app import create_app
    from llmartifacts.server.config import Settings

    place = tmp_path / "registry"
    EmbeddedBackend.create(place, actor="tests").close()
    plain = EmbeddedBackend.open(place)
    metadata = plain.parts.metadata
    store = Store(place / "blobs")
    driver = SigningDriver(place / "blobs", store.server_port)
    blobs = BlobStore(
        driver,
        cache=BlobCache(tmp_path / "server cache"),
        scratch=place / "tmp",
        index=lambda d: RecordedIndex(metadata, d),
    )
    backend = EmbeddedBackend(Parts(metadata, blobs, str(place)))
    app = create_app(Settings(registry=str(place), authenticate=False), backend)
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    threads = [threading.Thread(target=running.run), threading.Thread(target=store.serve_forever)]
    for thread in threads:
        thread.start()
    while not running.started:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", store, driver
    running.should_exit = True
    store.shutdown()
    for thread in threads:
        thread.join()
    store.server_close()
    plain.close()


def test_a_store_that_signs_addresses_serves_the_bytes_itself(
    signing: tuple[str, Store, SigningDriver], tmp_path: Path
) -> None:
    url, store, driver = signing
    data = noise(6 * MB, 13)
    with connected(url, "lla_0123456789_" + "s" * 32 + "_abcdef", tmp_path / "cache") as registry:
        registry.log("signed", la.Files({"large": data}))
        assert registry.backend.blobs.path(blob(registry, "signed:latest")).read_bytes() == data
    assert driver.signed_for
    assert len(store.asked) == len(driver.signed_for)
    assert not any("authorization" in asked or "cookie" in asked for asked in store.asked)


def test_what_a_store_sends_is_checked_like_everything_else(
    signing: tuple[str, Store, SigningDriver], tmp_path: Path
) -> None:
    url, store, _ = signing
    data = noise(6 * MB, 14)
    with connected(url, None, tmp_path / "cache") as registry:
        registry.log("lied", la.Files({"large": data}))
        wanted = blob(registry, "lied:latest")
        elsewhere = tmp_path / "lies"
        for pack in (store.root / "packs").rglob("*.pack"):
            lie = bytearray(pack.read_bytes())
            lie[3 * MB] ^= 1
            target = elsewhere / pack.relative_to(store.root)
            target.parent.mkdir(parents=True)
            target.write_bytes(lie)
        store.root = elsewhere
        with pytest.raises(DigestMismatch):
            registry.backend.blobs.path(wanted)
        assert registry.backend.blobs.cache.find(wanted.digest) is None


def test_whoever_watches_is_told_of_every_byte_that_travels(client: Client) -> None:
    sent: list[tuple[int, int]] = []
    received: list[int] = []
    writing, reading = client("writer"), client("reader")
    content = noise(20 * MB, seed=77)
    with writing.backend.blobs.watched(lambda done, total: sent.append((done, total)), received.append):  # type: ignore[attr-defined]
        version = writing.log("watched", la.Files({"x": content}))
    assert sent[-1][0] == sent[-1][1] >= len(content)
    assert [done for done, _ in sent] == sorted(done for done, _ in sent)
    with reading.backend.blobs.watched(lambda done, total: sent.append((done, total)), received.append):  # type: ignore[attr-defined]
        reading.resolve(version.reference).path("x")
    assert sum(received) >= len(content)


# --- bytes that a server lost


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    file.write_bytes(data)


def _lose(root: Path, how: str) -> None:
    """Harm everything large, or everything small, that a folder of blobs holds."""
    packs = list((root / "packs").rglob("*.pack"))
    objects = [file for file in (root / "sha256").rglob("*") if file.is_file()]
    recipes = [file for file in objects if file.name.endswith(RECIPE)]
    small = [file for file in objects if file not in recipes]
    assert packs
    assert recipes
    assert small
    if how == "packs deleted":
        for file in packs:
            file.unlink()
    elif how == "recipes deleted":
        for file in recipes:
            file.unlink()
    elif how == "small deleted":
        for file in small:
            file.unlink()
    elif how == "everything deleted":
        for file in [*packs, *objects]:
            file.unlink()
    else:
        for file in packs if how == "pack flipped" else small:
            _flip(file)


@pytest.mark.parametrize(
    "how",
    [
        *("everything deleted", "pack flipped", "small flipped"),
        *(pytest.param(how, marks=pytest.mark.matrix) for how in ("packs deleted", "recipes deleted", "small deleted")),
    ],
)
@pytest.mark.parametrize("by", ["bytes", pytest.param("path", marks=pytest.mark.matrix)])
def test_the_same_content_logged_again_heals_a_server_that_lost_it(tmp_path: Path, how: str, by: str) -> None:
    content = {"large": noise(3 * MB, 21), "small": b"small 21"}
    (tmp_path / "files").mkdir()
    for name, data in content.items():
        (tmp_path / "files" / name).write_bytes(data)
    files = la.Files(content) if by == "bytes" else la.Files.from_path(tmp_path / "files")
    with running_server(tmp_path / "registry") as server:
        with connected(server.url, server.token, tmp_path / "writer") as registry:
            registry.log("mfile", files)
            _lose(tmp_path / "registry" / "blobs", how)
            assert not registry.verify(read_data=True).ok
            again = registry.log("mfile", files)
            assert again.number == 1
            found = registry.verify(read_data=True)
            assert found.ok, found.problems
        for cache in ("writer", "reader"):
            with connected(server.url, server.token, tmp_path / cache) as reader:
                value = reader.resolve("mfile:v1", la.Files)
                assert {name: value.read(name) for name in content} == content


@pytest.mark.parametrize("how", ["packs deleted", "recipes deleted"])
def test_a_version_on_top_of_one_that_is_lost_is_sent_whole(tmp_path: Path, how: str) -> None:
    first = noise(3 * MB, 22)
    second = first[:MB] + b"changed" + first[MB:]
    with running_server(tmp_path / "registry") as server:
        with connected(server.url, server.token, tmp_path / "writer") as registry:
            registry.log("mfile", la.Files({"large": first, "small": b"x"}))
            _lose(tmp_path / "registry" / "blobs", how)
            registry.log("mfile", la.Files({"large": second, "small": b"x"}))
        with connected(server.url, server.token, tmp_path / "reader") as reader:
            assert reader.resolve("mfile:v2", la.Files).read("large") == second


@pytest.mark.parametrize("how", ["packs deleted", "recipes deleted", "small deleted"])
def test_a_version_of_lost_bytes_that_are_not_sent_is_refused(tmp_path: Path, how: str) -> None:
    files = la.Files({"large": noise(3 * MB, 23), "small": b"small 23"})
    with (
        running_server(tmp_path / "registry") as server,
        connected(server.url, server.token, tmp_path / "cache") as registry,
    ):
        registry.log("mfile", files)
        manifest = registry.find("mfile:v1").manifest
        _lose(tmp_path / "registry" / "blobs", how)
        with pytest.raises(InvalidValue, match="lost or damaged"):
            registry.backend.commit("default", [Draft("other", manifest)], actor="admin")
