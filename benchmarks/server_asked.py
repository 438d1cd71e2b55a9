"""What a server of ours was asked, by its own log: one line for each request, written when it was answered."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

from benchmarks.server_setup import Server, Store

_REQUEST = re.compile(r" request .*?method=(?P<method>\S+) route=/api/v1(?P<route>\S+) status=(?P<status>\d+)")
_QUIET = 0.2
"""Seconds without a new line after which all is written; a line comes within a few ms of its answer."""

READ = "GET /projects/{project}/read"
BLOB = "GET /blobs/{digest}"
UNCHANGED = f"{READ} 304"


class Asked:
    """Counts requests from one moment to another.

    Args:
        store: What the server serves; its log lies beside.
        server: The server.
    """

    def __init__(self, store: Store, server: Server) -> None:
        self._log: Path = store.place.parent / f"server-{server.port}.log"
        self._from = 0

    def mark(self) -> None:
        """Count from now on."""
        self._from = self._settled()

    def since(self) -> Counter[str]:
        """Requests since the mark: by method and route, and once more with their status after that; `all` of them."""
        end = self._settled()
        with self._log.open("rb") as file:
            file.seek(self._from)
            text = file.read(end - self._from).decode("utf-8", "replace")
        made: Counter[str] = Counter()
        for found in _REQUEST.finditer(text):
            asked = f"{found['method']} {found['route']}"
            made.update([asked, f"{asked} {found['status']}", "all"])
        return made

    def _settled(self) -> int:
        size = -1
        while size != (size := self._log.stat().st_size):
            time.sleep(_QUIET)
        return size
