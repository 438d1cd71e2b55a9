"""An application asked without a network: hundreds of requests a second, each through all of it but the sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def error(self) -> Any:
        """The first error; empty where it is none."""
        return self.json["errors"][0] if self.status >= 400 and self.body else {}


class Asked:
    """Asks an application; its own event loop runs in the caller's thread while it is asked."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.loop = asyncio.new_event_loop()
        self._to_app: asyncio.Queue[Any] = asyncio.Queue()
        self._from_app: asyncio.Queue[Any] = asyncio.Queue()
        self._life = self.loop.create_task(
            app({"type": "lifespan", "asgi": {"version": "3.0"}}, self._to_app.get, self._from_app.put)
        )
        self._turn("lifespan.startup")

    def _turn(self, kind: str) -> None:
        self._to_app.put_nowait({"type": kind})
        told = self.loop.run_until_complete(asyncio.wait_for(self._from_app.get(), 30))
        assert told["type"] == f"{kind}.complete", told

    def close(self) -> None:
        self._turn("lifespan.shutdown")
        self.loop.run_until_complete(self._life)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def __call__(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        return self.loop.run_until_complete(
            self.ask(method, path, token=token, body=body, query=query, headers=headers)
        )

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = {"host": HOST}
        if body is not None:
            sent["content-type"] = "application/octet-stream" if isinstance(body, bytes) else "application/json"
            sent["content-length"] = str(len(raw))
        if token:
            sent["authorization"] = f"Bearer {token}"
        sent.update(headers or {})
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": quote(path).encode(),
            "query_string": urlencode(query or {}, doseq=True).encode(),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in sent.items()],
            "client": (HOST, 50000),
            "server": (HOST, 8391),
            "state": {},
        }
        parts = [{"type": "http.request", "body": raw, "more_body": False}]
        gone = asyncio.Event()
        status = 0
        answered: dict[str, str] = {}
        told = bytearray()

        async def receive() -> Any:
            if parts:
                return parts.pop(0)
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered.update((k.decode(), v.decode()) for k, v in message["headers"])
            else:
                told.extend(message.get("body", b""))

        await self.app(scope, receive, send)
        return Reply(status, answered, bytes(told))
