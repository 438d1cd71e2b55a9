"""An index of 400 MB through a server: up and down with the real client, beside as many bytes that are only carried.

What is carried alone is the same route without the work: pieces that are put into an upload and nothing made of them,
and a file that is stored as it is, fetched by one request and written to disk unlooked at. Both go through the same
server, over loopback. Bytes that travel are counted by the server itself.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import llmartifacts as la
from benchmarks.measure import Absent, Bench, Figure, Line, Subject, at_most
from benchmarks.server_setup import Server, postgres, serving, stores
from benchmarks.vectors import IVF_RANDOM, Corpus
from llmartifacts.registry import Registry

PIECE = 8 << 20
SHARE = 2.0
COUNTED = ("llmartifacts_request_bytes_total", "llmartifacts_response_bytes_total")


def measure(bench: Bench) -> Iterator[Line | Absent]:
    corpus = Corpus(bench.size(6_000, 260_000))
    files = IVF_RANDOM.files(corpus, bench.inputs or bench.folder / "transferred", bench.say)
    size = files[0].stat().st_size
    with postgres(bench) as database:
        if isinstance(database, Absent):
            yield database
        store = stores(bench, database, "transfer")[-1]
        with store.open() as registry:
            registry.log("plain", la.Files({"index.faiss": files[0]}))
        token = store.token()
        with ExitStack() as stack:
            (server,) = stack.enter_context(serving(store))
            taken = [_once(bench, server, token, files, n) for n in range(bench.runs)]
    note = (
        f"{IVF_RANDOM.label}, {size / 1e6:,.0f} MB, {store.kind}; v2 is v1 with 1 % appended, v3 that without 0.5 % and"
        " with 1 % more; a download into an empty cache, and of v2 beside a cached v1. Times in whole, with hashing"
    )

    def figure(name: str) -> Figure:
        return Figure(tuple(one[name] for one in taken))

    def share(name: str) -> Figure:
        return Figure(tuple(100 * one[name] / size for one in taken), "% new")

    yield Line("log v1", figure("up 1"), figure("raw up"), "pieces, carried", note=note)
    yield Line("log v2", figure("up 2"), figure("raw up"), "pieces, carried", note=note)
    yield Line("v2, bytes sent", share("sent 2"), share("sent 1"), "v1", at_most(SHARE), bench.full, note=note)
    yield Line("v3, bytes sent", share("sent 3"), share("sent 1"), "v1", at_most(SHARE), bench.full, note=note)
    yield Line("resolve v1, empty cache", figure("down 1"), figure("raw down"), "one GET to a file", note=note)
    yield Line("resolve v2, v1 cached", figure("down 2"), figure("raw down"), "one GET to a file", note=note)
    yield Line(
        "v2, bytes received", share("received 2"), share("received 1"), "v1", at_most(SHARE), bench.full, note=note
    )


def _once(bench: Bench, server: Server, token: str, files: list[Path], number: int) -> dict[str, float]:
    told: dict[str, float] = {}
    name = f"index-{number}"
    os.environ["LLMARTIFACTS_TOKEN"] = token
    # What the store has from an earlier round would be sent again, but not kept again; so each round has its own.
    own = [_own(file, bench.folder / "own", number) for file in files[:3]]
    with _cache(bench.folder / "cache-up"), la.connect(server.url) as registry:
        for version, file in enumerate(own, 1):
            before = _counted(server, token)
            told[f"up {version}"] = _seconds(lambda r=registry, f=file: r.log(name, la.Files({"index.faiss": f})))  # type: ignore[misc]
            told[f"sent {version}"] = _counted(server, token)[0] - before[0]
    told["raw up"] = _carried_up(server, token, own[0])
    with _cache(bench.folder / "cache-down"), la.connect(server.url) as registry:
        for version in (1, 2):
            before = _counted(server, token)
            told[f"down {version}"] = _seconds(lambda r=registry, v=version: _fetched(r, f"{name}:v{v}"))  # type: ignore[misc]
            told[f"received {version}"] = _counted(server, token)[1] - before[1]
        (found,) = registry.read("plain:v1").items
        digest = str(found.manifest.files[0].digest)
    told["raw down"] = _carried_down(server, token, digest, bench.folder / "carried")
    shutil.rmtree(bench.folder / "own")
    return told


def _own(file: Path, folder: Path, number: int) -> Path:
    """A copy whose vectors are other ones: each float's last bits changed alike in every version of a round."""
    import faiss
    import numpy as np

    folder.mkdir(exist_ok=True)
    made = folder / file.name
    shutil.copyfile(file, made)
    index = faiss.read_index(str(made))
    lists = faiss.extract_index_ivf(index).invlists
    for each in range(lists.nlist):
        size = lists.list_size(each)
        if size:
            codes = faiss.rev_swig_ptr(lists.get_codes(each), size * lists.code_size)
            words = codes.view(np.uint32)
            words ^= np.uint32(number + 1)
    faiss.write_index(index, str(made))
    return made


def _fetched(registry: Registry, reference: str) -> None:
    value = registry.resolve(reference, la.Files)
    value.path("index.faiss")


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """An empty cache for the block."""
    before = os.environ.get("LLMARTIFACTS_CACHE")
    shutil.rmtree(folder, ignore_errors=True)
    os.environ["LLMARTIFACTS_CACHE"] = str(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.pop("LLMARTIFACTS_CACHE")
        if before is not None:
            os.environ["LLMARTIFACTS_CACHE"] = before


def _seconds(work: Any) -> float:
    os.sync()
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _counted(server: Server, token: str) -> list[float]:
    """Bytes of bodies that the server took and gave so far."""
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    found = dict(line.rsplit(" ", 1) for line in lines if line and line[0] != "#")
    return [float(found.get(name, 0)) for name in COUNTED]


def _carried_up(server: Server, token: str, file: Path) -> float:
    """Put a file into an upload in pieces, and throw it away."""
    headers = {"Authorization": f"Bearer {token}"}
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    base = "/api/v1/projects/default/uploads"
    unknown = json.dumps({"blobs": [f"sha256:{os.urandom(32).hex()}"]})  # what is there already need not be sent
    connection.request("POST", base, unknown, {**headers, "Content-Type": "application/json"})
    begun = json.loads(_answer(connection, 201))

    def send() -> None:
        with file.open("rb") as source:
            while piece := source.read(PIECE):
                name = hashlib.sha256(piece).hexdigest()
                more = {**headers, "Content-Type": "application/octet-stream"}
                connection.request("PUT", f"{base}/{begun['id']}/pieces/{name}", piece, more)
                _answer(connection, 204)

    took = _seconds(send)
    connection.request("DELETE", f"{base}/{begun['id']}", headers=headers)
    _answer(connection, 204)
    connection.close()
    return took


def _carried_down(server: Server, token: str, digest: str, goal: Path) -> float:
    """Fetch a blob by one request into a file."""
    connection = http.client.HTTPConnection(*server.address, timeout=60)

    def fetch() -> None:
        connection.request("GET", f"/api/v1/blobs/{digest}", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"the blob cannot be had: {response.status} {response.read(300)!r}")
        with goal.open("wb") as file:
            shutil.copyfileobj(response, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())

    took = _seconds(fetch)
    connection.close()
    goal.unlink()
    return took


def _answer(connection: http.client.HTTPConnection, status: int) -> bytes:
    response = connection.getresponse()
    body = response.read()
    if response.status != status:
        raise RuntimeError(f"{response.status} in place of {status}: {body[:300]!r}")
    return body


SUBJECT = Subject(
    "server_transfer",
    "a 400 MB IVF index (small: 9 MB) through a server, up and down; the second version",
    "as many bytes carried by the same server, and nothing done with them",
    measure,
)
