"""Start the service on a free port of this machine: `python serve.py`. Prints its address, then serves until stopped.

Without FastAPI and uvicorn the standard library's HTTP server answers the same requests.
With `--with-parent` it also ends when its standard input closes, so that it cannot outlive the program that started it.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from importlib.util import find_spec

from llmartifacts.errors import LlmartifactsError


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options.add_argument("--plain", action="store_true", help="without FastAPI")
    options.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    given = options.parse_args()
    if given.with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    plain = given.plain or any(find_spec(name) is None for name in ("fastapi", "prometheus_client", "uvicorn"))
    with socket.create_server(("127.0.0.1", given.port)) as listening:
        # Requests wait in the queue of this socket until the components are loaded.
        port = listening.getsockname()[1]
        print(f"http://127.0.0.1:{port} {'http.server' if plain else 'FastAPI'}", flush=True)
        return _serve_plain(listening) if plain else _serve_fastapi(listening)


def _serve_fastapi(listening: socket.socket) -> int:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config("app:app", log_level="warning"))
    server.run(sockets=[listening])
    return 0 if server.started else 1


def _serve_plain(listening: socket.socket) -> int:
    from plain import serve

    try:
        serve(listening)
    except LlmartifactsError as error:
        print(f"error: {error}\nhint: {error.hint()}", file=sys.stderr)
        return 1
    return 0


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)  # at once: the service only reads, so there is nothing to put in order


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
