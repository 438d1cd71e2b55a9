"""Alive and ready: what balancers and orchestrators ask, and the routes outside the API."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llmartifacts.errors import LlmartifactsError
from llmartifacts.metadata.schema import SCHEMA
from llmartifacts.server.answers import JSON, Receive, Scope, Send, send_bytes
from llmartifacts.server.state import State
from llmartifacts.versioning.team import is_filled, is_marked

KEEP_SECONDS = 2.0
"""How long one look at the parts is good for, so that probes cost nothing."""
PROBE_SECONDS = 5.0


class Health:
    """Answers `/healthz`, `/readyz` and `/metrics`."""

    def __init__(self, state: State, pool: ThreadPoolExecutor) -> None:
        self._state = state
        self._pool = pool
        self._looked = 0.0
        self._found: dict[str, str] = {}
        self._looking: asyncio.Future[dict[str, str]] | None = None

    async def alive(self, scope: Scope, _: Receive, send: Send) -> None:
        """Whether the process answers at all."""
        scope["llmartifacts.route"] = "/healthz"
        await _say(scope, send, 200, {"status": "ok", "checks": {}})

    async def ready(self, scope: Scope, _: Receive, send: Send) -> None:
        """Whether requests should come here."""
        scope["llmartifacts.route"] = "/readyz"
        checks = {"server": "ending" if self._state.ending else "ok", **await self._parts()}
        good = all(value == "ok" for value in checks.values())
        await _say(scope, send, 200 if good else 503, {"status": "ok" if good else "unready", "checks": checks})

    async def metrics(self, scope: Scope, _: Receive, send: Send) -> None:
        """The figures."""
        scope["llmartifacts.route"] = "/metrics"
        text = self._state.metrics.text().encode()
        kind = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
        await send_bytes(send, 200, text, (kind,), head=scope["method"] == "HEAD")

    async def _parts(self) -> dict[str, str]:
        if time.monotonic() - self._looked < KEEP_SECONDS:
            return self._found
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().run_in_executor(self._pool, self._look)
        try:
            self._found = await asyncio.wait_for(asyncio.shield(self._looking), PROBE_SECONDS)
        except TimeoutError:
            self._found = {"database": "slow", "blobs": "slow"}
        self._looked = time.monotonic()
        return self._found

    def _look(self) -> dict[str, str]:
        parts = self._state.backend.parts
        checks = {"database": "ok", "blobs": "ok"}
        try:
            with parts.metadata.reading() as s:
                row = s.row("select value from meta where name = 'schema'")
            if row is None or int(row[0]) != SCHEMA:
                checks["database"] = "another schema"
        except LlmartifactsError as error:
            checks["database"] = error.code
        except Exception as error:  # noqa: BLE001 - a probe answers whatever happens
            checks["database"] = type(error).__name__
        try:
            if not is_marked(parts) or not is_filled(parts):
                checks["blobs"] = "another place"
            with parts.blobs.stage() as staged:  # begun and thrown away: a place to write is there
                staged.add(b"ready?")
        except LlmartifactsError as error:
            checks["blobs"] = error.code
        except Exception as error:  # noqa: BLE001 - as above
            checks["blobs"] = type(error).__name__
        return checks


async def _say(scope: Scope, send: Send, status: int, body: dict[str, Any]) -> None:
    scope_head = scope["method"] == "HEAD"
    await send_bytes(send, status, json.dumps(body).encode(), (JSON,), head=scope_head)
