"""A service of four components in a new process: its cache cold or warm, its registry there, gone or silent.

Embedded first; then through a server, which is then killed, hangs, or sends one byte a second. A start without its
registry serves the last-known-good set, every byte hashed, inside the time that it was given.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import llmartifacts as la
from benchmarks import service_mlflow
from benchmarks.inputs import questions, service_set
from benchmarks.measure import Absent, Bench, Figure, Line, Subject, python, python_tells, within
from benchmarks.server_setup import Server, Store, ended
from benchmarks.server_setup import start as start_server
from llmartifacts.runtime.stamp import parse_stamp

SPEC = """
import json, os, sys
if sys.argv[2]:
    os.environ["LLMARTIFACTS_TOKEN"] = sys.argv[2]
from dataclasses import dataclass
from typing import Annotated
import llmartifacts as la

@dataclass(frozen=True)
class Support:
    agent: Annotated[la.Prompt, "agent:prod"]
    kb: Annotated[la.VectorIndex, "kb:prod"]
    items: Annotated[la.EvalDataset, "items:prod"]
    stack: Annotated[la.Bundle, "stack:prod"]

"""
START = "started = la.Resolver(Support, registry={registry}, startup_timeout=float(sys.argv[3])).start()\n"
TELL = 'print(json.dumps({"stamp": started.stamp(), "modules": list(sys.modules)}))\n'
THERE = SPEC + START.format(registry="sys.argv[1]") + TELL
SILENT = (
    SPEC
    + """
import time
from llmartifacts.registry import Registry

class Silent:
    def __init__(self, backend):
        self.location, self.blobs = backend.location, backend.blobs

    def read(self, project, references):
        time.sleep(600)

silent = Registry(Silent(la.connect(sys.argv[1]).backend), project="default", actor="benchmark")
"""
    + START.format(registry="silent")
    + TELL
)
READ = """
import sys
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        while file.read(1 << 20):
            pass
"""
IMPORTS = """
import importlib, sys
for name in open(sys.argv[1]).read().split():
    try:
        importlib.import_module(name)
    except ImportError:
        pass
"""
NAMES = ("agent", "kb", "items", "stack")
READS = "Python reads files"
IMPORTED = "imports alone"
BY_MLFLOW = "mlflow server"


@dataclass(frozen=True)
class _Service:
    """Starts a service in new processes.

    Attributes:
        location: Of its registry.
        token: Empty where none is needed.
        cache: Its cache.
        within: Seconds that a start may take.
    """

    location: str
    token: str
    cache: Path
    within: float = 300

    def start(self, code: str = THERE, *, cold: bool = False) -> float:
        """Seconds of a whole process."""
        cache = self.cache
        if cold:
            cache = cache.with_name(f"{cache.name}-cold")
            shutil.rmtree(cache, ignore_errors=True)
        return python(code, self.location, self.token, str(self.within), cache=cache)

    def modules(self, wanted: str, code: str = THERE) -> list[str]:
        """What it has imported once it has started; makes sure that its set came from where the line says."""
        told = python_tells(code, self.location, self.token, str(self.within), cache=self.cache)
        stamp = parse_stamp(told["stamp"])
        if stamp.source != wanted or set(stamp.components) != set(NAMES):
            raise RuntimeError(f"four components should have come from the {wanted}, and it served {told['stamp']}")
        return [name for name in told["modules"] if name.partition(".")[0] not in ("__main__", "llmartifacts")]


def measure(bench: Bench) -> Iterator[Line | Absent]:
    made, rows = service_set(bench), bench.size(1000, 50_000)
    with made.open() as registry:
        registry.log("items", questions(rows))
        models = {"llm": la.ModelSpec(provider="openai", name="gpt-4-turbo", parameters={"temperature": 0.1})}
        registry.log("stack", la.Bundle(components={"prompt": "agent:v1"}, models=models))
        registry.promote(["items:v1", "stack:v1"], to="prod", reason="measured")
    yield from _embedded(bench, _Service(str(made.location), "", bench.folder / "service-cache"), made.location)
    store = Store("SQLite", made.location)
    token, server = store.token(), start_server(store)
    remote = _Service(server.url, token, bench.folder / "remote-cache")
    with ExitStack() as stack:
        stack.callback(ended, server.process)
        yield from _remote(bench, remote)
        theirs: service_mlflow.Service | None = None
        if bench.peers:
            python_of = service_mlflow.found(bench)
            if isinstance(python_of, Absent):
                yield python_of
            else:
                bench.say("filling mlflow server with the same files")
                registry = stack.enter_context(made.open())
                of = service_mlflow.serving(python_of, bench.folder / "mlflow", registry, NAMES, made.count, rows)
                theirs = stack.enter_context(of)
                yield from _beside_mlflow(bench, remote, theirs)
        yield from _without_server(bench, remote, server, theirs)


def _embedded(bench: Bench, service: _Service, location: Path) -> Iterator[Line]:
    service.start()
    modules = bench.folder / "modules"
    modules.write_text("\n".join(service.modules("registry")))
    files, note = _files(service)
    reads = _reading(files)
    ours, imports, floor = bench.beside(service.start, lambda: python(IMPORTS, str(modules)), reads)
    yield Line("start, cache warm", ours, imports, IMPORTED, note=f"{note}. The floor imports the same modules")
    yield Line("start, cache warm", ours, floor, READS, note=note)
    yield Line("start, cache cold", *bench.beside(lambda: service.start(cold=True), reads), READS, note=note)

    service = _hurried(bench, service)
    ours, floor = bench.beside(lambda: service.start(SILENT), reads)
    service.modules("last-known-good", SILENT)
    waited = f"{note}; a silent registry is given up after 3 s"
    yield Line("start, registry silent", ours, floor, READS, within(service.within), note=waited)
    away = location.with_name("away")
    location.rename(away)
    try:
        ours, floor = bench.beside(service.start, reads)
        service.modules("last-known-good")
    finally:
        away.rename(location)
    yield Line("start, registry gone", ours, floor, READS, within(service.within), note="every byte is hashed")


def _remote(bench: Bench, service: _Service) -> Iterator[Line]:
    service.start()
    modules = bench.folder / "modules-remote"
    modules.write_text("\n".join(service.modules("registry")))
    files, note = _files(service)
    ours, imports = bench.beside(service.start, lambda: python(IMPORTS, str(modules)))
    yield Line("server: cache warm", ours, imports, IMPORTED, note=f"{note}. The floor imports the same modules")
    yield Line("server: cache cold", *bench.beside(lambda: service.start(cold=True), _reading(files)), READS, note=note)


def _beside_mlflow(bench: Bench, service: _Service, theirs: service_mlflow.Service) -> Iterator[Line]:
    note = (
        "whole processes, imports included, each from a server over loopback. mlflow downloads the same files, FAISS"
        " reads the index and json the dataset; it keeps nothing for the next start, and checks no digest"
    )
    warm, cold, floor = bench.beside(service.start, lambda: service.start(cold=True), theirs.start)
    yield Line("server: cache warm", warm, floor, BY_MLFLOW, note=note)
    yield Line("server: cache cold", cold, floor, BY_MLFLOW, note=note)


def _without_server(
    bench: Bench, service: _Service, server: Server, theirs: service_mlflow.Service | None
) -> Iterator[Line]:
    """Starts from the last-known-good set while the server cannot be had."""
    service = _hurried(bench, service)
    files, note = _files(service)
    reads, budget = _reading(files), within(service.within)
    server.kill()
    note = f"{note}; the last-known-good set is served, every byte hashed; the start may take {service.within:g} s"
    bench.say("starts with the port refused")
    ours, floor = bench.beside(service.start, reads)
    service.modules("last-known-good")
    yield Line("server: port refused", ours, floor, READS, budget, note=note)
    if theirs is not None and bench.full:  # it tries for minutes
        bench.say("mlflow with the port refused: once")
        gone = Figure((theirs.refused(server.url),))
        yield Line("server: port refused", ours, gone, "mlflow gives up", budget, note="mlflow has no set of its own")
    for name, answer in (("server: hangs", _never), ("server: a byte a second", _slowly)):
        bench.say(f"starts from a {name}")
        with _listening(server.port, answer):
            ours, floor = bench.beside(service.start, reads)
            service.modules("last-known-good")
        yield Line(name, ours, floor, READS, budget, note=note)


def _hurried(bench: Bench, service: _Service) -> _Service:
    """The same service, with the time that a start may take when its registry cannot be had."""
    return replace(service, within=bench.size(6, 20))


def _files(service: _Service) -> tuple[list[str], str]:
    """Every file that a start reads, as it lies in the cache, and a word of them."""
    files = [file for file in (service.cache / "sha256").rglob("*") if file.is_file() and file.suffix != ".ok"]
    size = sum(file.stat().st_size for file in files) / 1e6
    return [str(file) for file in files], f"a whole process, imports included; {size:,.0f} MB in {len(files)} files"


def _reading(files: list[str]) -> Callable[[], float]:
    return lambda: python(READ, *files)


# --- servers that do not serve


@contextmanager
def _listening(port: int, answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[None]:
    """Something on a port that takes connections, each in a thread, until the block ends."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", port), backlog=64) as listening:
        listening.settimeout(0.2)

        def accept() -> None:
            while not over.is_set():
                with suppress(OSError):
                    client, _ = listening.accept()
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        def serve(client: socket.socket) -> None:
            with client, suppress(OSError):
                answer(client, over)

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield
        finally:
            over.set()
            accepting.join()


def _never(client: socket.socket, over: threading.Event) -> None:
    over.wait()


def _slowly(client: socket.socket, over: threading.Event) -> None:
    client.recv(1 << 16)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    while not over.is_set():
        client.sendall(b"{")
        time.sleep(1)


SUBJECT = Subject(
    "service_start",
    "a new process with prompt, index, dataset, bundle; its registry there, gone, silent, refusing, or too slow",
    "the same imports alone, reading the same files; with --peers, mlflow doing the same work",
    measure,
)
