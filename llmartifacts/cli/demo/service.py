"""The example service in a process of its own, on a free port of this machine, for as long as a `with` block lasts."""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from llmartifacts.errors import DeadlineExceeded, LlmartifactsError, Unreachable

START_SECONDS = 60.0
ANSWER_SECONDS = 15.0
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it came over HTTP.

    Attributes:
        question: What was asked.
        body: The bytes of the response.
        stamp: Its header: the exact versions that made it.
    """

    question: str
    body: bytes
    stamp: str

    @property
    def data(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


class Service:
    """A process that serves `examples/03_service_fastapi` and never outlives this one.

    Its standard input is a pipe that this process holds: when that closes, however it comes to be closed, the service
    ends. On leaving the block it is told to end, and killed if it does not.

    Args:
        script: The example's `serve.py`.
        environment: Variables of its own, such as `LLMARTIFACTS_REGISTRY`; the caller's with that prefix stay here.
        log: File that takes its standard error.
        plain: Whether to serve without FastAPI although it is there.

    Raises:
        Unreachable: It ended instead of serving; what it said last is in the message.
        DeadlineExceeded: It did not come up in time.
    """

    def __init__(self, script: Path, environment: Mapping[str, str], log: Path, *, plain: bool = False) -> None:
        self._command = [sys.executable, str(script), "--with-parent", *(["--plain"] if plain else [])]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMARTIFACTS_")}
        self._environment = {**kept, **environment, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self.address = ""
        self.server = ""
        self.pid = 0
        self.stamp = ""

    def __enter__(self) -> Service:
        deadline = time.monotonic() + START_SECONDS
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter and our own script
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment,
                cwd=self._log.parent,
            )
        self.pid = self._process.pid
        try:
            said = self._first_line(self._process, deadline)
            self.address, _, self.server = said.partition(" ")
            self._port = int(self.address.rpartition(":")[2])
            _, body, _ = self._request("GET", "/healthz", None, deadline - time.monotonic())
            self.stamp = json.loads(body)["stamp"]
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def ask(self, question: str) -> Answer:
        """Ask over HTTP.

        Raises:
            Unreachable: The service is gone, or it answered with an error.
            DeadlineExceeded: It did not answer in time.
        """
        status, body, stamp = self._request("POST", "/ask", {"question": question}, ANSWER_SECONDS)
        if status != 200:
            raise Unreachable(f"the service answered {status} to {question!r}: {body[:200]!r}")
        return Answer(question, body, stamp)

    def stop(self) -> None:
        """End the process; does nothing if it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        pipes = [pipe for pipe in (process.stdin, process.stdout) if pipe is not None]
        try:
            pipes[0].close()
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()  # nothing happens if it has ended
            process.wait()
            for pipe in pipes:
                pipe.close()

    def _first_line(self, process: subprocess.Popen[bytes], deadline: float) -> str:
        if process.stdout is None:
            raise self._ended()
        out = process.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([out], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise DeadlineExceeded(f"the service did not come up in {START_SECONDS:.0f} s")
            part = os.read(out, 4096)
            if not part:
                raise self._ended()
            line += part
        return line.decode().strip()

    def _request(self, method: str, path: str, value: dict[str, Any] | None, seconds: float) -> tuple[int, bytes, str]:
        # No proxy, no redirect, no cookie: a connection to our own child.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=max(seconds, 0.1))
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, None if value is None else json.dumps(value), headers)
            response = connection.getresponse()
            return response.status, response.read(), response.headers.get("X-LLM-Artifacts", "")
        except TimeoutError:
            raise DeadlineExceeded(f"the service did not answer {path} in {seconds:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise self._ended(error) from None
        finally:
            connection.close()

    def _ended(self, error: Exception | None = None) -> LlmartifactsError:
        """What to raise where the process does not serve: with the last lines that it wrote."""
        if self._process is not None:
            try:
                self._process.wait(2)  # it is about to end, and writes why
            except subprocess.TimeoutExpired:
                return Unreachable(f"the service cannot be reached: {error}")
        said = self._log.read_text(errors="replace").strip().splitlines()[-6:]
        return Unreachable("the service ended instead of serving: " + ("\n".join(said) or "it said nothing"))
