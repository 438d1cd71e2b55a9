"""The same service with the standard library's HTTP server, for where FastAPI is not installed. For trying out only."""

from __future__ import annotations

import json
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rag import PythonHelp, answer

import llmartifacts as la


def serve(listening: socket.socket) -> None:
    """Resolve, then answer requests on a socket that is bound and listens."""
    with la.Resolver(PythonHelp) as resolver:
        resolver.watch(interval=float(os.environ.get("WATCH_SECONDS", "30")))

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # a client that says nothing does not hold its thread for ever

            def do_GET(self) -> None:
                status = resolver.status()
                told = {"state": status.state, "stamp": status.stamp}
                if self.path == "/healthz":
                    self._send(200, {"alive": True, **told})
                elif self.path == "/readyz":
                    self._send(200 if status.ready else 503, {"ready": status.ready, "reason": status.reason, **told})
                else:
                    self._send(404, {"detail": "no"})

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if self.path != "/ask":
                    self._send(404, {"detail": "there is only /ask"})
                elif not length.isdecimal() or int(length) > 10_000:
                    self._send(413, {"detail": "a question needs a Content-Length of at most 10000"})
                else:
                    self._ask(self.rfile.read(int(length)))

            def _ask(self, body: bytes) -> None:
                try:
                    question = json.loads(body)["question"]
                except (ValueError, KeyError, TypeError):
                    question = None
                if not isinstance(question, str) or not 1 <= len(question) <= 2000:
                    self._send(422, {"detail": 'send {"question": "…"}, of at most 2000 characters'})
                    return
                generation = resolver.current  # once per request: the whole answer comes from one set
                self._send(200, answer(generation.value, question), dict([generation.header()]))

            def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
                body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
                self.send_response(status)
                told = {"Content-Type": "application/json", "Content-Length": len(body), **(headers or {})}
                for name, text in told.items():
                    self.send_header(name, str(text))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        server = ThreadingHTTPServer(listening.getsockname(), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = listening
        server.serve_forever()
