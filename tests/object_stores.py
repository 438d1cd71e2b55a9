"""Real S3 servers for tests: Ceph's gateway where it is installed, and the `moto` server for what is to be quick."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

ACCESS_KEY = "AKIDTESTER"
SECRET_KEY = "se+cret/key=of-the-tester"
_CEPH = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_SECONDS = 90
_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") and sys.platform == "linux" else []
"""Begins a command that ends with the tests, also where those are killed."""
_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{port}
auth cluster required = none
auth service required = none
auth client required = none
ms bind ipv6 = false
ms bind msgr2 = false
mon allow pool size one = true
mon data avail crit = 1
mon data = {folder}/mon
osd class update on start = false
osd crush chooseleaf type = 0
osd crush update on start = false
osd data = {folder}/osd
osd objectstore = memstore
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default size = 1
memstore device bytes = 4294967296
mon max pg per osd = 1000
run dir = {folder}
admin socket = {folder}/$name.$pid.asok
log file = {folder}/$name.log
keyring = {folder}/keyring
rgw dns name = localhost
rgw frontends = beast endpoint=127.0.0.1:{gateway} tcp_nodelay=1
rgw gc max objs = 7
"""
# The two "on start" settings: a daemon that is quick sends its place before it knows the cluster, and is refused.


class S3:
    """A running S3 server.

    Attributes:
        name: Which one it is: `radosgw` or `moto`.
        endpoint: Its address.
    """

    name = ""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def new_bucket(self) -> str:
        """Name of a new, empty bucket."""
        bucket = f"b{secrets.token_hex(8)}"
        self.client().create_bucket(Bucket=bucket)
        return bucket

    def url(self, bucket: str, prefix: str = "registry", *, endpoint: str = "", **options: str) -> str:
        """The place of a registry's bytes in a bucket."""
        told = "".join(f"&{name}={quote(value, safe='')}" for name, value in options.items())
        return f"s3://{bucket}/{prefix}?endpoint={endpoint or self.endpoint}{told}"

    def client(self) -> Any:
        """Another program's view of it: a client of the vendor's own library."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 3}),
        )


class Moto(S3):
    """The `moto` server: S3 in the memory of one Python process."""

    name = "moto"

    def __init__(self) -> None:
        super().__init__(f"http://127.0.0.1:{_free_port()}")
        program = "import sys; from moto.server import main; main(sys.argv[1:])"
        self._process = subprocess.Popen(
            [
                *_WITH_US,
                sys.executable,
                "-W",
                "ignore",
                "-c",
                program,
                "-H",
                "127.0.0.1",
                "-p",
                self.endpoint.rpartition(":")[2],
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _until_it_answers(self.endpoint, [self._process])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        _end(self._process)


class Radosgw(S3):
    """Ceph's gateway over one monitor and one daemon that keeps objects in memory.

    Args:
        folder: Where it lives; on a short path, since its sockets do too.
    """

    name = "radosgw"

    def __init__(self, folder: Path) -> None:
        gateway = _free_port()
        super().__init__(f"http://127.0.0.1:{gateway}")
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._until = time.monotonic() + _SECONDS
        monitor, fsid = _free_port(), str(uuid.uuid4())
        (folder / "mon").mkdir()
        (folder / "osd").mkdir()
        (folder / "ceph.conf").write_text(
            _CONFIGURATION.format(folder=folder, port=monitor, gateway=gateway, fsid=fsid)
        )
        try:
            monmap = str(folder / "monmap")
            self._run("monmaptool", "--create", "--addv", "a", f"v1:127.0.0.1:{monitor}", "--fsid", fsid, monmap)
            self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
            self._start("ceph-mon", "-i", "a")
            self._run("ceph", "osd", "create")
            self._run("ceph-osd", "-i", "0", "--mkfs")
            self._run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost")
            self._start("ceph-osd", "-i", "0")
            self._start("radosgw", "-n", "client.rgw.a")
            _until_it_answers(self.endpoint, self._processes)
            self._run(
                *("radosgw-admin", "-n", "client.rgw.a", "user", "create", "--uid=tester", "--display-name=tester"),
                *(f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}", "--max-buckets=0"),
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for process in reversed(self._processes):
            _end(process, kill=True)  # nothing that it holds is kept

    def _run(self, program: str, *arguments: str) -> None:
        configured = ["--conf", str(self._folder / "ceph.conf")] if program != "monmaptool" else []
        with (self._folder / "run.log").open("ab") as log:
            subprocess.run(
                [program, *configured, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
                timeout=max(1, self._until - time.monotonic()),
            )

    def _start(self, program: str, *arguments: str) -> None:
        with (self._folder / f"{program}.out").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [*_WITH_US, program, "-f", "--conf", str(self._folder / "ceph.conf"), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder,
                )
            )


@dataclass
class Passed:
    """A request as it came, and what is answered: a fault changes it, or the request before it goes on.

    Attributes:
        body: What was sent.
        drops: Headers of the request that are not passed on.
        status: Of the answer; set before the server is asked, it is answered without asking.
        answer: Body of the answer.
        told: Bytes that the answer says it has; None for as many as it has.
        lost: Whether the connection ends without an answer.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    drops: set[str] = field(default_factory=set)
    status: int = 0
    answer: bytes = b""
    told: int | None = None
    lost: bool = False

    def fail(self, status: int, code: str) -> None:
        """Answer with a failure as S3 words it."""
        self.status = status
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{SECRET_KEY}</Message></Error>".encode()
        self.answer, self.told = (b"" if self.method == "HEAD" else body), None


class BadLine(ThreadingHTTPServer):
    """What lies between a program and its S3 server, and does to requests and answers what a test says.

    Attributes:
        asked: What passed, in order.
        before: Called with each request.
        after: Called with each answer that a server gave.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, server: S3) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind = urlsplit(server.endpoint)
        self.asked: list[Passed] = []
        self.before: Callable[[Passed], None] = lambda passed: None
        self.after: Callable[[Passed], None] = lambda passed: None
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def quiet(self) -> None:
        """Pass everything on from now on, and forget what was asked."""
        self.before = self.after = lambda passed: None
        self.asked = []

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is none of a test's business."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(10)


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: BadLine

    def log_message(self, *_: Any) -> None:
        pass

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        passed = Passed(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        self.server.asked.append(passed)
        self.server.before(passed)
        told: list[tuple[str, str]] = []
        if not passed.status and not passed.lost:
            behind = http.client.HTTPConnection(self.server.behind.hostname or "", self.server.behind.port, timeout=60)
            with closing(behind):
                sent = {k: v for k, v in self.headers.items() if k.lower() not in passed.drops | {"connection"}}
                behind.request(self.command, self.path, body=body or None, headers=sent)
                answer = behind.getresponse()
                passed.status, passed.answer = answer.status, answer.read()
                own = {"content-length", "transfer-encoding", "connection"}
                told = [(k, v) for k, v in answer.getheaders() if k.lower() not in own]
                if self.command == "HEAD":
                    passed.told = int(answer.headers.get("Content-Length") or 0)
            self.server.after(passed)
        if passed.lost:
            self.close_connection = True
            return
        self.send_response_only(passed.status)
        for name, value in told:
            self.send_header(name, value)
        length = len(passed.answer) if passed.told is None else passed.told
        if passed.status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(passed.answer)
        if length > len(passed.answer) and self.command != "HEAD":
            self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3]:
    """The quick S3 server of this session."""
    pytest.importorskip(
        "moto.server", reason="MOTO MISSING: no S3 server for quick tests (pip install the `dev` group)"
    )
    with closing(Moto()) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> Iterator[S3]:
    """The most real S3 server that can be had: `radosgw`, else `moto`; which one it was is told at the end."""
    missing = [program for program in _CEPH if shutil.which(program) is None]
    with ExitStack() as opened:
        server: S3 | None = None
        reason = f"{', '.join(missing)} not installed" if missing else ""
        if not missing and sys.platform == "linux":
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="rgw", dir="/tmp")))
            try:
                server = opened.enter_context(closing(Radosgw(folder)))
            except (subprocess.SubprocessError, OSError, TimeoutError) as error:
                reason = f"radosgw did not start: {error}"
        if server is None:
            server = request.getfixturevalue("moto_server")
        which = f"{server.name}{f' ({reason})' if reason else ''}"
        request.config.stash[WHICH] = which
        if hasattr(request.config, "workeroutput"):
            request.config.workeroutput["s3"] = which
        yield server


WHICH: pytest.StashKey[str] = pytest.StashKey()
"""Which S3 server `s3_server` was, and why not the better one."""


@pytest.fixture
def bad_line(moto_server: S3) -> Iterator[BadLine]:
    """What lies before the quick S3 server."""
    with closing(BadLine(moto_server)) as line:
        yield line


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The credentials of the S3 servers, and nobody else's."""
    for name in [n for n in os.environ if n.startswith(("AWS_", "GOOGLE_", "AZURE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


def _until_it_answers(endpoint: str, processes: list[subprocess.Popen[bytes]]) -> None:
    until = time.monotonic() + _SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < until:
        if any(process.poll() is not None for process in processes):
            raise OSError(f"{endpoint} ended while it started")
        with suppress(OSError):
            try:
                opener.open(endpoint, timeout=5).close()
            except urllib.error.HTTPError as answer:
                answer.close()
            return
        time.sleep(0.1)
    raise TimeoutError(f"{endpoint} does not answer")


def _end(process: subprocess.Popen[bytes], *, kill: bool = False) -> None:
    process.kill() if kill else process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
