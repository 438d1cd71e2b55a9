"""What a server is told to do: one frozen record, checked as a whole before anything is opened."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmartifacts.errors import InvalidInput, NotAllowed
from llmartifacts.limits import check_function

VARIABLES = "LLMARTIFACTS_SERVE_"
"""What names of environment variables begin with: `LLMARTIFACTS_SERVE_PORT`."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
LOG_FORMATS = ("text", "json")
MAX_WORKERS = 64
MAX_JSON = 1 << 30
"""What `Settings.max_json` may be at most."""
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")


@dataclass(frozen=True, slots=True)
class Settings:
    """How one server runs.

    Attributes:
        registry: Directory of the embedded registry; empty where `database` is given.
        database: `postgresql://…`; empty for the embedded one.
        blobs: Folder or URL of the bytes, where `database` is given.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        workers: Processes that share the port.
        public_url: The address that clients use, as `https://registry.example.org`; empty if it is the one listened on.
        trusted_hosts: Values of `Host` that are answered, beside those of loopback, of `host` and of `public_url`;
            `*.example.org` is any one below it.
        trusted_proxies: Addresses whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
        oidc: File that names the login providers; empty for none.
        allow_gates: Functions that gates of the kind `python` may run here, as `package.module:function`.
        new_admin_token: Account that administers the registry and gets a new token at this start; empty for none.
        authenticate: Whether a token is asked for; without, everybody on this machine is an administrator.
        tls_cert: File of the certificate; empty for plain HTTP.
        tls_key: File of its key.
        log_format: `text` or `json`.
        grace_seconds: How long requests under way may take to finish once the server is told to end.
        drain_seconds: How long `/readyz` says no before the server stops to accept, so that a balancer looks away.
        request_seconds: How long one request may take; transfers of bytes have `body_seconds`.
        head_seconds: How long the head of a request may take.
        body_seconds: How long a client may take to send a body.
        body_rate: Bytes a second that a body must come at, averaged, after the first five seconds.
        max_json: Bytes of one JSON body.
        max_concurrent: Requests worked on at once in one process; more are told to come again.
        max_waiting: Requests that wait for one of those places, at most for two seconds.
        rate: Requests a second of one account, averaged, in one process; 0 for no limit.
        rate_address: Requests a second of one address without a valid token, in one process; 0 for no limit.
        rate_failures: Failed authentications a minute of one address, in one process; 0 for no limit.
        metrics: Whether `/metrics` is answered.
        cache_bytes: Bytes of encoded answers that one process keeps.
    """

    registry: str = ""
    database: str = ""
    blobs: str = ""
    host: str = "127.0.0.1"
    port: int = 8391
    workers: int = 1
    public_url: str = ""
    trusted_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    oidc: str = ""
    allow_gates: tuple[str, ...] = ()
    new_admin_token: str = ""
    authenticate: bool = True
    tls_cert: str = ""
    tls_key: str = ""
    log_format: str = "text"
    grace_seconds: float = 20.0
    drain_seconds: float = 0.0
    request_seconds: float = 60.0
    head_seconds: float = 15.0
    body_seconds: float = 120.0
    body_rate: int = 1024
    max_json: int = 64 * 1024 * 1024
    max_concurrent: int = 64
    max_waiting: int = 512
    rate: float = 10_000.0
    rate_address: float = 50.0
    rate_failures: float = 30.0
    metrics: bool = True
    cache_bytes: int = 64 * 1024 * 1024

    def checked(self) -> Settings:
        """The same settings, found to fit together.

        Raises:
            InvalidInput: One is out of range or contradicts another; it is named.
            NotAllowed: They would open the registry to a network without authentication.
        """
        _in_range("port", self.port, 0, 65535)
        _in_range("workers", self.workers, 1, MAX_WORKERS)
        for name in ("grace_seconds", "drain_seconds", "rate", "rate_address", "rate_failures", "body_rate"):
            _in_range(name, getattr(self, name), 0, 1e9)
        for name in ("request_seconds", "head_seconds", "body_seconds"):
            _in_range(name, getattr(self, name), 0.1, 86_400)
        _in_range("max_json", self.max_json, 1024, MAX_JSON)
        _in_range("max_concurrent", self.max_concurrent, 1, 4096)
        _in_range("max_waiting", self.max_waiting, 0, 65536)
        _in_range("cache_bytes", self.cache_bytes, 0, 1 << 36)
        if self.log_format not in LOG_FORMATS:
            raise InvalidInput(f"{self.log_format!r} is no log format", field="log_format", next_step="text or json.")
        if bool(self.database) != bool(self.blobs):
            raise InvalidInput(
                "a database and a place for the bytes belong together",
                field="blobs" if self.database else "database",
                next_step="Give --database postgresql://… and --blobs URL-or-folder, or neither.",
            )
        if self.database and not self.database.startswith(("postgresql://", "postgres://")):
            raise InvalidInput(
                "the database is no PostgreSQL address", field="database", next_step="postgresql://user@host/name"
            )
        if not self.database and not self.registry:
            raise InvalidInput("no registry is named", field="registry", next_step="Give --registry PATH.")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InvalidInput(
                "a certificate and its key belong together", field="tls_key" if self.tls_cert else "tls_cert"
            )
        for name in ("tls_cert", "tls_key", "oidc"):
            path = getattr(self, name)
            if path and not Path(path).is_file():
                raise InvalidInput(f"there is no file {path}", field=name)
        for host in self.trusted_hosts:
            if not _HOST.fullmatch(host):
                raise InvalidInput(
                    f"{host!r} is no host name", field="trusted_hosts", next_step="A name without a port."
                )
        for function in self.allow_gates:
            check_function(function, field="allow_gates")
        self._check_public_url()
        if not self.authenticate and not is_loopback(self.host):
            raise NotAllowed(
                f"listening on {self.host} without authentication would let everybody in",
                field="host",
                next_step="Leave out --no-auth, or listen on 127.0.0.1.",
            )
        if not self.authenticate and (self.trusted_hosts or self.public_url):
            raise NotAllowed(
                "a server without authentication answers this machine only",
                field="trusted_hosts" if self.trusted_hosts else "public_url",
                next_step="Leave out --no-auth.",
            )
        return self

    def _check_public_url(self) -> None:
        if not self.public_url:
            return
        try:
            parts = urlsplit(self.public_url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.path not in ("", "/")
            or parts.query
            or parts.fragment
            or "@" in parts.netloc
            or port == 0
        ):
            raise InvalidInput(
                "the public address is no origin", field="public_url", next_step="As https://registry.example.org"
            )

    @property
    def scheme(self) -> str:
        """`https` where the server has a certificate."""
        return "https" if self.tls_cert else "http"

    @property
    def origin(self) -> str:
        """The address that clients use, without a slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def hosts(self) -> frozenset[str]:
        """Names that a `Host` header may have, in lower case and without a port."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        named = {own, *self.trusted_hosts}
        if is_loopback(self.host) or is_any(self.host):
            named.update(LOOPBACK_NAMES)
        if self.public_url:
            split = urlsplit(self.public_url).hostname or ""
            named.add(f"[{split}]" if ":" in split else split)
        if is_any(self.host):
            named.discard(own)
        return frozenset(name.lower() for name in named)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_any(host: str) -> bool:
    """Whether an address to listen on means every address of the machine."""
    return host in ("0.0.0.0", "::", "[::]", "")  # noqa: S104 - compared, not listened on


def from_environment(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The settings that `$LLMARTIFACTS_SERVE_*` name, by field; lists are separated by commas.

    Raises:
        InvalidInput: A value is of the wrong form; the variable is named.
    """
    given = os.environ if environment is None else environment
    made: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        name = VARIABLES + field.name.upper()
        text = given.get(name)
        if not text:
            continue
        try:
            made[field.name] = _value(str(field.type), text.strip())
        except ValueError:
            raise InvalidInput(f"{text!r} does not fit ${name}", field=field.name, origin=f"${name}") from None
    return made


def _value(kind: str, text: str) -> Any:
    if kind == "bool":
        if text.lower() not in ("1", "true", "yes", "0", "false", "no"):
            raise ValueError(text)
        return text.lower() in ("1", "true", "yes")
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text)
    if kind.startswith("tuple"):
        return tuple(one.strip() for one in text.split(",") if one.strip())
    return text


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN too
        raise InvalidInput(f"{value} is not between {low:g} and {high:g}", field=name)
