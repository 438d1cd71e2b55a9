"""The same service with the standard library's HTTP server, for where FastAPI is not installed. For trying out only."""

from __future__ import annotations

import json
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rag import PythonHelp, answer

import llmartifacts as la


def serve(listening: socket.socket) -> None:
    """Resolve, then answer requests on a socket that is bound and listens."""
    with la.Resolver(PythonHelp) as resolver:

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # a client that says nothing does not hold its thread for ever

            def do_GET(self) -> None:
                known = self.path == "/healthz"
                self._send(200, {"stamp": resolver.current.stamp()}) if known else self._send(404, {"detail": "no"})

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
                generation = resolver.current
                self._send(200, answer(generation.value, question), Stamp=generation.stamp())

            def _send(self, status: int, value: Any, **headers: str) -> None:
                body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
                self.send_response(status)
                for name, text in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
                    self.send_header(name, str(text))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        server = ThreadingHTTPServer(listening.getsockname(), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = listening
        server.serve_forever()
