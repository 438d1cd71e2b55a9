"""A process that has imported everything, and forks a child for each piece of work, held until it is told to go on.

So a fault costs one fork and one `strace -p`, and what is traced is the work alone: no start of an interpreter, no
imports. One request a line on standard input, `{"work", "place", "twin", "environ"}`; the answer is `{"pid"}` once the
child waits to be traced. `go` lets it run; then comes `{"status", "told"}`, where `told` is what the child said, each
line over a socket, so that saying it is no write that a fault could hit.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

_PR_SET_PTRACER = 0x59616D61
_ANYBODY = ctypes.c_ulong(-1)
CRASHED = 70


def serve() -> None:
    """Answer requests until standard input ends."""
    from faulting import twins  # noqa: F401 - before there are children: what they import would be traced
    from faulting.verbs import EVERY, warm

    warm()
    libc = ctypes.CDLL(None)
    _say({"ready": True})
    for line in sys.stdin:
        wanted = json.loads(line)
        begin, go = os.pipe()
        told, tell = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            code = CRASHED
            try:
                told.close()
                os.close(go)
                libc.prctl(_PR_SET_PTRACER, _ANYBODY)  # where only a parent may trace, this lets others
                code = _child(EVERY[wanted["work"]], wanted, begin, tell)
            finally:
                os._exit(code)
        os.close(begin)
        tell.close()
        told.recv(1)  # it waits for `go`
        _say({"pid": pid})
        if sys.stdin.readline().strip() == "go":
            os.write(go, b"g")
        os.close(go)
        said = b"".join(iter(lambda: told.recv(65536), b"")).decode()  # noqa: B023 - called at once
        told.close()
        _, status = os.waitpid(pid, 0)
        _say({"status": os.waitstatus_to_exitcode(status), "told": said.splitlines()})


def _child(operation: Any, wanted: dict[str, Any], begin: int, tell: socket.socket) -> int:
    from faulting.twins import TWINS
    from llmartifacts.errors import LlmartifactsError
    from llmartifacts.wire.errors import exit_code

    def say(*words: object) -> None:
        tell.sendall((json.dumps(words) + "\n").encode())

    os.environ.update(wanted["environ"])
    if wanted["twin"]:
        TWINS[wanted["twin"]]()
    os.chdir("/")
    tell.sendall(b"r")
    if os.read(begin, 1) != b"g":
        return 0
    try:
        operation.work(Path(wanted["place"]), lambda *words: say("done", *words))
    except LlmartifactsError as error:
        with contextlib.suppress(OSError):
            say("refused", error.code, str(error), error.hint())
        return exit_code(error)
    except BaseException:
        say("crashed", traceback.format_exc())
        return CRASHED
    return 0


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    serve()
