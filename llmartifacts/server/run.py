"""Starts a server: opens the registry, prints the first token, listens, begins workers, and ends them in order.

    parent   binds the port, opens the registry once (tables, first account), starts N workers, and anew one that died
    worker   its own registry, its own event loop, the same port

Told to end (SIGTERM, SIGINT), each worker says at `/readyz` that it is ending, goes on to answer for `drain_seconds`,
stops to accept, and gives requests under way `grace_seconds`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TextIO

from llmartifacts.errors import Conflict, InvalidInput, LlmartifactsError, MissingExtra, NotAllowed
from llmartifacts.server.config import Settings, is_any, is_loopback
from llmartifacts.server.logs import Handler, Log
from llmartifacts.server.metrics import Metrics
from llmartifacts.versioning.embedded import EmbeddedBackend

BACKLOG = 2048
RESTART_SECONDS = 1.0
"""Between two starts of a worker that died."""
SOON = timedelta(days=30)
"""Before the last token ends with which somebody administers the registry, the log says so."""
IN_THE_OPEN = "Without TLS, tokens would travel in the open; clients on other machines refuse to send them."
CLOSE_IT = "Give --tls-cert and --tls-key, or put a proxy that ends TLS in front and name its address: --public-url."
KEEP_ALIVE = 65
"""Seconds that an idle connection is kept; longer than balancers wait, so that it is they who close it."""


def open_backend(settings: Settings) -> EmbeddedBackend:
    """The registry that a server is over. Raises as `EmbeddedBackend.open` and `open_team`."""
    if not settings.database:
        return EmbeddedBackend.open(Path(settings.registry))
    from llmartifacts.versioning.team import open_team

    return open_team(settings.database, settings.blobs)


def serve(settings: Settings, *, out: TextIO | None = None) -> int:
    """Run a server until it is told to end.

    Args:
        settings: What to do.
        out: Where the address and the first token are printed; standard output by default.

    Returns:
        The exit code.

    Raises:
        NotAllowed: The settings would let everybody in, or the port is not this user's to take.
        Conflict: Something listens on the port already.
        InvalidInput: A setting is wrong, or the host is no address of this machine.
        LlmartifactsError: The registry cannot be opened.
    """
    settings = settings.checked()
    log = Log(settings.log_format)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(contextlib.closing(_listen(settings)))
        settings = replace(settings, port=listening.getsockname()[1])
        _prepare(settings, out or sys.stdout, log)
        own = replace(settings, public_url="").origin
        log.event("listening", address=own, public=settings.public_url, workers=settings.workers, pid=os.getpid())
        if _is_open(settings):
            log.event("tokens_in_the_open", "warning", address=own, message=IN_THE_OPEN, next_step=CLOSE_IT)
        if settings.workers == 1:
            return _work(settings, listening, None)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmartifacts-serve-")))
        return _supervise(settings, listening, folder, log)


def _prepare(settings: Settings, out: TextIO, log: Log) -> None:
    """Bring the tables up to date, and make the first account where there is none, or the token that was asked for."""
    from llmartifacts.versioning.access import access_ends
    from llmartifacts.versioning.admission import bootstrap, recover

    backend = open_backend(settings)
    try:
        if not settings.authenticate:
            return
        made = bootstrap(backend.parts)
        first = made is not None
        if made is None and settings.new_admin_token:
            made = recover(backend.parts, settings.new_admin_token)
        with backend.parts.metadata.reading() as s:
            ends = access_ends(s)
    finally:
        backend.close()
    if ends is not None and ends - datetime.now(UTC) < SOON:
        log.event("access_ends", "warning", at=ends.isoformat(), next_step="llmartifacts token create")
    if made is None:
        return
    if settings.log_format == "json":
        event = "first_token" if first else "new_admin_token"
        told = {"event": event, "account": made.info.account, "token": made.text, "origin": _login_address(settings)}
        print(json.dumps(told), file=out, flush=True)
        return
    whose = f"The first account is {made.info.account!r}. Its" if first else f"{made.info.account!r} has a new"
    print(
        f"{whose} token, which is shown this once:\n\n"
        f"    {made.text}\n\nKeep it, then: llmartifacts login {_login_address(settings)}",
        file=out,
        flush=True,
    )


def _is_open(settings: Settings) -> bool:
    """Whether a token that comes from another machine could be read on its way, as far as the settings tell."""
    ends_tls = settings.tls_cert or settings.public_url.startswith("https://")
    return settings.authenticate and not ends_tls and not is_loopback(settings.host)


def _login_address(settings: Settings) -> str:
    """An address that a client can log in at: of one that means every address of the machine, one that it has."""
    if settings.public_url or not is_any(settings.host):
        return settings.origin
    named = [host for host in settings.trusted_hosts if settings.tls_cert and not host.startswith("*")]
    here = "::1" if ":" in settings.host else "127.0.0.1"
    return replace(settings, host=named[0].strip("[]") if named else here).origin


def _listen(settings: Settings) -> socket.socket:
    """The socket that all workers accept from."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((settings.host.strip("[]"), settings.port))
        made.listen(BACKLOG)
        made.set_inheritable(True)
    except (OSError, UnicodeError) as error:
        made.close()
        what = f"cannot listen on {settings.host}:{settings.port}: {getattr(error, 'strerror', None) or error}"
        if isinstance(error, UnicodeError | socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise InvalidInput(what, field="host", next_step="Name an address of this machine.") from error
        if error.errno == errno.EADDRINUSE:
            step = "Name another --port, or end what listens there."
            raise Conflict(what, field="port", next_step=step) from error
        raise NotAllowed(what, field="port", next_step="Name another --port; one above 1023 is anybody's.") from error
    return made


# --- several processes


def _supervise(settings: Settings, listening: socket.socket, folder: Path, log: Log) -> int:
    """Keep the workers going until told to end."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    start = multiprocessing.get_context("spawn").Process
    workers: list[BaseProcess] = []

    def begin() -> BaseProcess:
        made = start(target=_worker, args=(settings, listening, str(folder)), daemon=False)
        made.start()
        return made

    workers = [begin() for _ in range(settings.workers)]
    try:
        while not ending.wait(0.2):
            for place, one in enumerate(workers):
                if not one.is_alive():
                    log.event("worker_died", "error", pid=one.pid, exit=one.exitcode)
                    (folder / f"{one.pid}.json").unlink(missing_ok=True)
                    if ending.wait(RESTART_SECONDS):
                        break
                    workers[place] = begin()
    finally:
        _end(workers, settings)
    return 0


def _end(workers: list[BaseProcess], settings: Settings) -> None:
    for one in workers:
        if one.is_alive():
            one.terminate()
    until = time.monotonic() + settings.drain_seconds + settings.grace_seconds + 5
    for one in workers:
        one.join(max(0.1, until - time.monotonic()))
        if one.is_alive():
            one.kill()
            one.join()


def _worker(settings: Settings, listening: socket.socket, folder: str) -> None:
    """The body of a worker process."""
    _end_with_parent()
    try:
        sys.exit(_work(settings, listening, Path(folder)))
    except LlmartifactsError as error:
        Log(settings.log_format).event("failed", "error", message=error.message, code=error.code)
        sys.exit(1)


def _end_with_parent() -> None:
    """End when the parent does, however it ended: nobody would start or stop this process any more."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="parent").start()


# --- one process


def _work(settings: Settings, listening: socket.socket, folder: Path | None) -> int:
    try:
        import uvicorn

        from llmartifacts.server.app import create_app
        from llmartifacts.server.protocol import bounded
    except ImportError as error:
        raise MissingExtra(f"a server needs {error.name}", extra="server") from error
    log = Log(settings.log_format)
    logging.getLogger().addHandler(Handler(log))
    backend = open_backend(settings)
    try:
        metrics = Metrics(folder)
        app = create_app(settings, backend, log=log, metrics=metrics)
        config = uvicorn.Config(
            app,
            http=bounded(settings.head_seconds, settings.body_seconds),
            loop="auto",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, round(settings.grace_seconds)),
            backlog=BACKLOG,
            ssl_certfile=settings.tls_cert or None,
            ssl_keyfile=settings.tls_key or None,
        )
        server = _server(uvicorn, config, app.state.server)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(server, listening, metrics))
        return 0 if server.started else 1
    finally:
        backend.close()
        log.event("ended", pid=os.getpid())


async def _run(server: Any, listening: socket.socket, metrics: Metrics) -> None:
    async def publish() -> None:
        while True:
            metrics.publish()
            await asyncio.sleep(1.0)

    publishing = asyncio.get_running_loop().create_task(publish())
    try:
        await server.serve(sockets=[listening])
    finally:
        publishing.cancel()


def _server(uvicorn: Any, config: Any, state: Any) -> Any:
    """A server that says first that it ends, and drops clients that send no request in time."""

    class Server(uvicorn.Server):  # type: ignore[misc]
        def handle_exit(self, sig: int, frame: Any) -> None:
            """Begin to end; asked again, end at once."""
            if state.ending:
                self.should_exit = self.force_exit = True
                return
            state.ending = True
            if state.settings.drain_seconds:
                threading.Timer(state.settings.drain_seconds, self._stop).start()
            else:
                self._stop()

        def _stop(self) -> None:
            self.should_exit = True

    return Server(config)
