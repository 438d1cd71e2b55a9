"""A process with limits, for code and patterns that others wrote: what loops, eats memory or crashes ends as an error.

`run_limited` calls one function once; a `Worker` keeps its process for many calls, and starts another when one had to
be killed; `Workers` are as many as threads ask at a time.

The child is a new interpreter, never a fork. It gets JSON and gives JSON (never pickle), over pipes that printing does
not reach. It has limits on address space, CPU time, open files, file size and processes, and no core dumps; the
parent's clock ends it, with every process of its group. Its environment is a short list without secrets; it imports
from where the parent does, and from the working directory.

It is **not a sandbox**: the code runs as the same user, can read that user's files and use the network, and a child
that it puts into another session outlives the call. Limits on memory and CPU time are those of each process, not of
all its children together. A limit that the system does not have is not there: macOS has none on address space, and the
superuser is not held to the one on processes, so a fork bomb ends by the clock alone.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import re
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from llmartifacts.errors import InvalidManifest, InvalidValue, TooLarge
from llmartifacts.records.canonical import parse_json, plain_json
from llmartifacts.records.wording import printable, size

SECONDS = 10.0
"""Wall-clock time of one call, unless told otherwise."""
MEMORY = 2 * 1024**3
"""Bytes of address space of the process, unless told otherwise."""
MAX_OUTPUT = 1024 * 1024
"""Bytes of an answer as JSON, unless told otherwise."""
MAX_SECONDS = 86_400
"""Seconds that a call may be given."""
LOAD_SECONDS = 60.0
"""Time to start the interpreter, and to import a module."""
MAX_FILES = 256
MAX_FILE = 64 * 1024 * 1024
"""Bytes of one file that the process may write."""
MORE_PROCESSES = 128
"""Processes and threads that the user may have beyond those of now."""
MAX_MESSAGE = 500

_KEPT = re.compile(
    "PATH|HOME|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|TEMP|TMP|VIRTUAL_ENV|PYTHON[A-Z]*|LD_LIBRARY_PATH|DYLD_.*|SSL_CERT_.*|"
    "XDG_.*_HOME|HF_HOME|HF_HUB_OFFLINE|TRANSFORMERS_.*|NLTK_DATA|CUDA_.*|OMP_.*|OPENBLAS_.*|MKL_.*|TOKENIZERS_PARALLELISM"
)
_SECRET = re.compile("KEY|TOKEN(?!IZERS)|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)

Failure = Literal["timeout", "memory", "crash", "exception"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one call.

    Attributes:
        value: What the function returned, plain JSON; None if it failed.
        error: `timeout`; `memory`: more than it may have; `crash`: the process ended; `exception`: the function
            raised, could not be imported, or gave what is no JSON or too much of it; None if all went well.
        message: What happened, one printable line of at most 500 characters; empty if all went well.
    """

    value: Any = None
    error: Failure | None = None
    message: str = ""


def run_limited(
    function: str,
    payload: Any,
    *,
    seconds: float = SECONDS,
    memory_bytes: int = MEMORY,
    max_output: int = MAX_OUTPUT,
) -> Outcome:
    """Call a function once in a process with limits. It never raises for what the function does.

    Args:
        function: `package.module:name`; it gets the payload as its one argument, and returns JSON.
        payload: Plain JSON.
        seconds: How long the call may take; starting and importing have 60 seconds of their own.
        memory_bytes: Address space of the process, what the interpreter and its libraries take included.
        max_output: Bytes of the answer.

    Raises:
        InvalidValue: The payload is no JSON, or the function's name is malformed.

    Example:
        >>> run_limited("math:sqrt", 16)
        Outcome(value=4.0, error=None, message='')
        >>> run_limited("time:sleep", 60, seconds=0.1).error
        'timeout'
    """
    with Worker(seconds=seconds, memory_bytes=memory_bytes, max_output=max_output) as worker:
        return worker.call(function, payload)


class Worker:
    """One process with limits that serves many calls, one at a time. It starts at the first, and again after a kill.

    Args:
        seconds: How long each call may take.
        memory_bytes: Address space of the process.
        max_output: Bytes of each answer.

    Example:
        >>> with Worker() as worker:
        ...     [worker.call("math:sqrt", n).value for n in (1, 4, 9)]
        [1.0, 2.0, 3.0]
    """

    def __init__(self, *, seconds: float = SECONDS, memory_bytes: int = MEMORY, max_output: int = MAX_OUTPUT) -> None:
        if not 0 < seconds <= MAX_SECONDS:
            raise InvalidValue(f"{seconds} s is no time from 0 to {MAX_SECONDS:,} s", field="seconds")
        for name, value in (("memory_bytes", memory_bytes), ("max_output", max_output)):
            if value < 1:
                raise InvalidValue(f"{value} is no number of bytes", field=name)
        self._seconds, self._memory, self._max_output = float(seconds), int(memory_bytes), int(max_output)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ending: weakref.finalize[Any, Any] | None = None
        self._loaded: set[str] = set()
        self._broken: dict[str, Outcome] = {}

    def call(self, function: str, *arguments: Any, keywords: Mapping[str, Any] | None = None) -> Outcome:
        """Call a function; see `run_limited`.

        Args:
            function: `package.module:name`. One that cannot be imported is tried once and then fails at once.
            *arguments: Plain JSON.
            keywords: Keyword arguments.
        """
        check_function(function)
        try:
            body = {"arguments": plain_json(list(arguments)), "keywords": plain_json(dict(keywords or {}))}
        except InvalidManifest as error:
            raise InvalidValue.of(error) from None
        with self._lock:
            if function in self._broken:
                return self._broken[function]
            try:
                if self._process is None:
                    self._start()
                if function not in self._loaded:
                    found = self._ask({"load": function}, LOAD_SECONDS)
                    if found.error:
                        self._broken[function] = found
                        return found
                    self._loaded.add(function)
                return self._ask({"call": function, **body}, self._seconds)
            except BaseException:  # interrupted: nobody knows what the process is at
                self._kill()
                raise

    def close(self) -> None:
        """End the process, if there is one. Calls may follow: they start another."""
        with self._lock:
            self._kill()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside the lock

    def _start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "llmartifacts.limits"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            bufsize=0,
            start_new_session=True,  # so that its children can be ended with it
        )
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
        for pipe in (process.stdin, process.stdout):
            os.set_blocking(pipe.fileno(), False)
        self._process, self._loaded = process, set()
        self._ending = weakref.finalize(self, _end, process, os.getpid())

    def _ask(self, request: Mapping[str, Any], seconds: float) -> Outcome:
        """Send a request and wait for its answer; whatever goes wrong ends the process."""
        nonce = secrets.token_hex(8)
        body = {
            **request,
            "id": nonce,
            "seconds": seconds,
            "memory": self._memory,
            "max_output": self._max_output,
            "path": _places() if "load" in request else None,
        }
        until = time.monotonic() + seconds
        try:
            self._write(_framed(json.dumps(body).encode()), until)
            answer = parse_json(self._read(until), max_bytes=self._max_output + 4096)
        except TimeoutError:
            self._kill()
            return Outcome(None, "timeout", f"it took longer than {seconds:g} s")
        except OverflowError:
            self._kill()
            return Outcome(None, "exception", f"the answer has more than {size(self._max_output)}")
        except (InvalidManifest, TooLarge) as error:
            self._kill()
            return Outcome(None, "exception", _line(f"the answer is no JSON: {error}"))
        except (EOFError, OSError):
            return self._crashed(seconds)
        if not isinstance(answer, dict) or answer.get("id") != nonce:
            self._kill()
            return Outcome(None, "crash", "the process wrote what is no answer")
        failure = answer.get("error")
        if failure is None:
            return Outcome(answer.get("value"))
        if failure == "memory":  # what it could not have, it may have half of: begin anew
            self._kill()
            return Outcome(None, "memory", f"it wanted more than {size(self._memory)} of memory")
        return Outcome(None, "exception", _line(str(answer.get("message"))))

    def _crashed(self, seconds: float) -> Outcome:
        process = self._process
        assert process is not None  # noqa: S101 - it has just been asked
        try:
            code = process.wait(timeout=2)
        except subprocess.TimeoutExpired:  # it closed its pipe and goes on
            code = 0
        self._kill()
        if code in (-signal.SIGXCPU, -signal.SIGALRM):
            return Outcome(None, "timeout", f"it took longer than {seconds:g} s")
        if code >= 0:
            return Outcome(None, "crash", f"the process ended with code {code}")
        with contextlib.suppress(ValueError):
            return Outcome(None, "crash", f"the process was ended by {signal.Signals(-code).name}")
        return Outcome(None, "crash", f"the process was ended by signal {-code}")

    def _write(self, data: bytes, until: float) -> None:
        assert self._process is not None and self._process.stdin is not None  # noqa: S101, PT018 - started
        pipe, rest = self._process.stdin.fileno(), memoryview(data)
        while rest:
            _wait(pipe, until, write=True)
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(pipe, rest) :]

    def _read(self, until: float) -> bytes:
        head = self._read_exactly(8, until)
        length = int.from_bytes(head, "big")
        if length > self._max_output + 4096:
            raise OverflowError
        return self._read_exactly(length, until)

    def _read_exactly(self, count: int, until: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018 - started
        pipe, got = self._process.stdout.fileno(), bytearray()
        while len(got) < count:
            _wait(pipe, until)
            with contextlib.suppress(BlockingIOError):
                piece = os.read(pipe, count - len(got))
                if not piece:
                    raise EOFError
                got += piece
        return bytes(got)

    def _kill(self) -> None:
        if self._ending is not None:
            self._ending()  # once; also called at exit, and when nobody holds the worker any more
        self._process = self._ending = None


class Workers:
    """Workers for threads: a call takes an idle one, or makes another. Arguments as `Worker`.

    Example:
        >>> with Workers(seconds=5) as workers:
        ...     workers.call("math:sqrt", 4).value
        2.0
    """

    def __init__(self, *, seconds: float = SECONDS, memory_bytes: int = MEMORY, max_output: int = MAX_OUTPUT) -> None:
        self._limits: dict[str, Any] = {"seconds": seconds, "memory_bytes": memory_bytes, "max_output": max_output}
        self._idle: list[Worker] = [Worker(**self._limits)]
        self._lock = threading.Lock()

    def call(self, function: str, *arguments: Any, keywords: Mapping[str, Any] | None = None) -> Outcome:
        """Call a function; see `Worker.call`."""
        with self._lock:
            worker = self._idle.pop() if self._idle else Worker(**self._limits)
        try:
            return worker.call(function, *arguments, keywords=keywords)
        finally:
            with self._lock:
                self._idle.append(worker)

    def close(self) -> None:
        """End the processes that are idle."""
        with self._lock:
            for worker in self._idle:
                worker.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_function(function: str, *, field: str = "function") -> str:
    """Check that a text has the form `package.module:name`; nothing is imported.

    Raises:
        InvalidValue: It has not.
    """
    if not isinstance(function, str) or not _FUNCTION.fullmatch(function):
        raise InvalidValue(
            f"{function!r:.120} is not package.module:name", field=field, next_step="Write my_app.scoring:polite."
        )
    return function


_FUNCTION = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def _places() -> list[str]:
    """Where modules are looked for: where the parent looks, and in the working directory, as `python -m` does."""
    try:
        here = os.getcwd()
    except OSError:  # it was deleted
        here = ""
    return [place or here for place in sys.path] if here in sys.path or "" in sys.path else [here, *sys.path]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name) and not _SECRET.search(name)}
    kept["PYTHONPATH"] = os.pathsep.join(place for place in sys.path if place and os.pathsep not in place)
    kept.setdefault("OPENBLAS_NUM_THREADS", "1")  # each thread's buffers count as address space
    kept.setdefault("OMP_NUM_THREADS", "1")
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    return kept


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:  # a fork of the parent has a copy of the worker, and no right to its process
        return
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    # The leader is not reaped yet, so its group's number is still its own.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(pipe: int, until: float, *, write: bool = False) -> None:
    poll = select.poll()
    poll.register(pipe, select.POLLOUT if write else select.POLLIN)
    left = until - time.monotonic()
    if left <= 0 or not poll.poll(math.ceil(left * 1000)):
        raise TimeoutError


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(8, "big") + data


def _line(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"


# --- in the child


def _serve() -> NoReturn:
    """Read requests and answer them until the parent closes the pipe."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # what is printed goes nowhere, and input is empty
        os.dup2(nothing, standard)
    functions: dict[str, Any] = {}
    limited = False
    while head := requests.read(8):
        request = json.loads(requests.read(int.from_bytes(head, "big")))
        if request["path"] is not None:
            sys.path[:] = request["path"]
            importlib.invalidate_caches()
        if not limited:
            _limit(request["memory"])
            limited = True
        _set_clock(request["seconds"])
        answer = _answered(request, functions)
        signal.alarm(0)
        data = _framed(answer)
        while data:
            data = data[os.write(answers, data) :]
    os._exit(0)


def _answered(request: Mapping[str, Any], functions: dict[str, Any]) -> bytes:
    try:
        if "load" in request:
            functions[request["load"]] = _imported(request["load"])
            value = None
        else:
            value = functions[request["call"]](*request["arguments"], **request["keywords"])
        data = json.dumps({"id": request["id"], "value": value}, allow_nan=False, default=_scalar).encode()
        if len(data) <= request["max_output"]:
            return data
        failure, message = "exception", f"the answer has {len(data):,} bytes, and {request['max_output']:,} are allowed"
    except MemoryError:
        failure, message = "memory", ""
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are answers too
        failure, message = "exception", f"{type(error).__name__}: {error}"[: 4 * MAX_MESSAGE]
    return json.dumps(
        {"id": request["id"], "error": failure, "message": message.encode(errors="replace").decode()}
    ).encode()


def _scalar(value: Any) -> Any:
    """A number of numpy as a number of Python."""
    if callable(getattr(value, "item", None)) and getattr(value, "ndim", None) == 0:
        return value.item()
    raise TypeError(f"the answer holds a {type(value).__name__}, which is no JSON")


def _imported(function: str) -> Any:
    module, _, path = function.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{function} is a {type(found).__name__}, not a function")
    return found


def _limit(memory: int) -> None:
    import resource

    wanted = {
        "RLIMIT_CORE": 0,
        "RLIMIT_AS": memory,
        "RLIMIT_NOFILE": MAX_FILES,
        "RLIMIT_FSIZE": MAX_FILE,
        "RLIMIT_NPROC": _processes() + MORE_PROCESSES,
    }
    for name, limit in wanted.items():
        kind = getattr(resource, name, None)
        if kind is not None:
            hard = resource.getrlimit(kind)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            with contextlib.suppress(OSError, ValueError):  # not on this system
                resource.setrlimit(kind, (limit, limit))


def _processes() -> int:
    """Processes and threads of this user, where the system tells; the limit counts those of all its programs."""
    count, mine = 0, os.getuid()
    with contextlib.suppress(OSError):
        for entry in os.scandir("/proc"):
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and entry.stat().st_uid == mine:
                    count += len(os.listdir(f"/proc/{entry.name}/task"))
    return count or 4096


def _set_clock(seconds: float) -> None:
    """End by itself, should the parent be gone and nobody else do it."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = math.ceil(used.ru_utime + used.ru_stime + (seconds + 2) * (os.cpu_count() or 1))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.alarm(math.ceil(seconds) + 5)


if __name__ == "__main__":
    _serve()
