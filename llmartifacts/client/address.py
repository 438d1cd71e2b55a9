"""The address of a server: what is taken as one, its origin, and whether it is this very machine."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

from llmartifacts.errors import InvalidInput
from llmartifacts.outbound.addresses import is_loopback

MAX_ADDRESS = 2_048
_PORTS = {"http": 80, "https": 443}
# A label of a name is letters, digits and hyphens; underscores are seen in the names of containers.
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*\.?")
_NETLOC = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(:(?P<port>[0-9]{1,5}))?")
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/-]*")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is.

    Attributes:
        scheme: `http` or `https`.
        host: Name in lower case, or IP address, without brackets.
        port: Port.
        path: What comes before `/api/v1`, without a slash at its end; mostly empty.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, text: str, *, field: str = "location") -> Self:
        """Read an address such as `https://registry.example.com`.

        Everything that two readers could read in two ways is refused: user names, backslashes, letters beyond ASCII,
        numbers for hosts. So the host that is judged is the host that is called.

        Args:
            text: The address.
            field: Name of the value in error messages.

        Raises:
            InvalidInput: It is no such address.

        Example:
            >>> Address.parse("https://Registry.example.com/").origin
            'https://registry.example.com:443'
        """
        if not isinstance(text, str) or len(text) > MAX_ADDRESS:
            raise _refused("the address is too long, or no text", field)
        if not text.isascii() or any(c <= " " or c in '\\"<>^`{|}%\x7f' for c in text):
            raise _refused("the address has characters that do not belong in one", field)
        scheme, found, rest = text.partition("://")
        if not found or scheme.lower() not in _PORTS:
            raise _refused("the address of a server begins with https:// (or http:// on this machine)", field)
        if "?" in rest or "#" in rest:
            raise _refused("the address of a server has no query and no fragment", field)
        if "@" in rest.partition("/")[0]:
            raise _refused(
                "the address of a server has no user name", field, "The token comes from llmartifacts login."
            )
        netloc, slash, path = rest.partition("/")
        found_host = _NETLOC.fullmatch(netloc)
        if not found_host:
            raise _refused("the host or the port of the address cannot be read", field)
        path = (slash + path).rstrip("/")
        if not _PATH.fullmatch(path) or "//" in path or {".", ".."} & set(path.split("/")):
            raise _refused("the path of the address is not plain", field)
        scheme = scheme.lower()
        port = int(found_host["port"] or _PORTS[scheme])
        if not 0 < port < 65_536:
            raise _refused("the port of the address cannot be read", field)
        return cls(scheme, _host(netloc[: found_host.end("host")].lower(), field), port, path)

    @property
    def origin(self) -> str:
        """`scheme://host:port`, by which credentials are kept."""
        return f"{self.scheme}://{self._bracketed}:{self.port}"

    @property
    def url(self) -> str:
        """The address as it is called, without a slash at its end."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self._bracketed}{port}{self.path}"

    @property
    def on_loopback(self) -> bool:
        """Whether the host is this machine: `localhost`, or a loopback address written as one."""
        return is_loopback(self.host)

    @property
    def private(self) -> bool:
        """Whether what is sent there is read by nobody else: over TLS, or without leaving this machine."""
        return self.scheme == "https" or self.on_loopback

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        return self.url


def _host(host: str, field: str) -> str:
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise _refused("the host of the address is no IPv6 address", field) from None
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        pass
    last = host.rstrip(".").rpartition(".")[2]
    # 2130706433, 0x7f.1 and 127.1 are addresses to some resolvers and names to others.
    if not _NAME.fullmatch(host) or len(host) > 253 or last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        raise _refused("the host of the address is neither a name nor an IP address", field)
    return host


def _refused(message: str, field: str, next_step: str = "") -> InvalidInput:
    return InvalidInput(message, field=field, next_step=next_step or "Write it as https://registry.example.com.")
