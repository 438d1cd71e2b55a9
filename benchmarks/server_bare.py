"""The floor of an answer: FastAPI under uvicorn, with as many processes, giving back bytes that it has in memory.

`python -m benchmarks.server_bare PORT WORKERS BODY`
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def app() -> Any:
    """The application: one route, answered in a thread as the registry's routes are."""
    from fastapi import FastAPI, Response

    made, body = FastAPI(openapi_url=None), Path(os.environ["BODY"]).read_bytes()

    @made.get("/{path:path}")
    def answer(path: str) -> Response:
        return Response(body, media_type="application/json")

    return made


def main(port: int, workers: int, body: str) -> None:
    """Serve it."""
    import uvicorn

    os.environ["BODY"] = body
    uvicorn.run(
        "benchmarks.server_bare:app", factory=True, port=port, workers=workers, access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
