"""`running_server`: a real server in a process of its own, for tests.

    with running_server(tmp_path / "registry") as server:
        requests.get(server.url + "/api/v1/me", headers=server.headers)

It takes about a second to start; tests of one session can share one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_SECONDS = 60.0


@dataclass
class RunningServer:
    """A server that runs.

    Attributes:
        url: Its address, as `http://127.0.0.1:41235`.
        token: Token of the account `admin`; empty where the registry had accounts before, or no token is asked for.
        process: Its (first) process.
        log: File that its log goes to.
        settings: What it was started with.
    """

    url: str
    token: str
    process: subprocess.Popen[bytes]
    log: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a request of `admin`."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    def stop(self, seconds: float = 30.0) -> int:
        """Tell it to end, and wait until it has; returns its exit code. Killed where that takes too long."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def kill(self) -> None:
        """End it at once, and its workers, as a machine that fails does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def log_text(self) -> str:
        """What it has logged so far."""
        return self.log.read_text(errors="replace")


@contextmanager
def running_server(
    registry: str | os.PathLike[str] | None = None,
    *,
    database: str = "",
    blobs: str | os.PathLike[str] = "",
    token: str = "",
    folder: Path | None = None,
    **settings: Any,
) -> Iterator[RunningServer]:
    """A server on a free port of loopback, ended at the end of the block.

    Args:
        registry: Directory of an embedded registry; made if it is not there. None with `database`.
        database: `postgresql://…`.
        blobs: Folder or URL of the bytes, with `database`.
        token: Token to give to callers, where the registry has accounts already.
        folder: Where the log goes; by default a new temporary folder.
        **settings: Further fields of `Settings`.

    Raises:
        RuntimeError: It did not start; the message has its log.
    """
    with tempfile.TemporaryDirectory(prefix="llmartifacts-test-") as scratch:
        place = folder or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        given = {"host": "127.0.0.1", "port": 0, "log_format": "json", **settings}
        if database:
            given |= {"database": database, "blobs": str(blobs)}
        else:
            given["registry"] = str(_registry(registry if registry is not None else Path(scratch) / "registry"))
        server = _start(given, place, token)
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.stop(15)


def _registry(path: str | os.PathLike[str]) -> Path:
    from llmartifacts.versioning.embedded import DATABASE, EmbeddedBackend

    place = Path(path)
    if not (place / DATABASE).exists():
        EmbeddedBackend.create(place, actor="tests").close()
    return place


def _start(given: dict[str, Any], place: Path, token: str) -> RunningServer:
    number = len(list(place.glob("server-*.log")))
    log, out = place / f"server-{number}.log", place / f"server-{number}.out"
    program = (
        "import json, sys; from llmartifacts.server.config import Settings; from llmartifacts.server.run import serve\n"
        "if __name__ == '__main__':\n"
        "    given = json.loads(sys.argv[1])\n"
        "    lists = {k: tuple(v) for k, v in given.items() if isinstance(v, list)}\n"
        "    sys.exit(serve(Settings(**{**given, **lists})))\n"
    )
    file = place / f"server-{number}.py"  # a file: worker processes import it again
    file.write_text(program)
    with log.open("wb") as errors, out.open("wb") as told:
        process = subprocess.Popen(  # noqa: S603 - this very interpreter
            [sys.executable, str(file), json.dumps(given)], stdout=told, stderr=errors, start_new_session=True
        )
    server = RunningServer("", token, process, log, given)
    until = time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < until and process.poll() is None:
            server.url = server.url or _address(log)
            if server.url and _ready(server.url):
                server.token = _token(out) or token
                return server
            time.sleep(0.02)
    except BaseException:
        server.kill()
        raise
    server.kill()
    raise RuntimeError(f"the server did not start:\n{server.log_text()[-4000:]}\n{out.read_text()[-1000:]}")


def _address(log: Path) -> str:
    for line in log.read_bytes().splitlines():
        if b'"listening"' in line or b" listening " in line:
            try:
                return str(json.loads(line)["address"])
            except (ValueError, KeyError):
                continue
    return ""


def _ready(url: str) -> bool:
    import requests

    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{url}/readyz", timeout=5, verify=False).status_code == 200
    except requests.RequestException:
        return False


def _token(out: Path) -> str:
    for line in out.read_text().splitlines():
        try:
            return str(json.loads(line)["token"])
        except (ValueError, KeyError, TypeError):
            continue
    return ""
