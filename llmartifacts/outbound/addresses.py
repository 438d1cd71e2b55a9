"""Which addresses a URL of others may lead to: those of the open internet, and hosts that the operator has named.

A name that somebody else chose may lead to this machine, to its neighbours or to the place where a cloud hands out
credentials; and what a name means may change between two look-ups. So what counts is the address of the connection.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from llmartifacts.errors import InvalidInput, NotAllowed

VARIABLE = "LLMARTIFACTS_ALLOW_HOSTS"
REDIRECTS = "LLMARTIFACTS_FOLLOW_REDIRECTS"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_IP = ipaddress.IPv4Address | ipaddress.IPv6Address

_INSIDE = tuple(
    ipaddress.ip_network(n)
    for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128")
)
"""This machine and networks of one's own: closed to strangers' URLs, open to a host that is named."""
_NEVER = tuple(
    ipaddress.ip_network(n)
    for n in (
        "0.0.0.0/8",
        "169.254.0.0/16",  # link-local: where clouds hand out credentials
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's own services, in a range that looks public
        "::/128",
        "64:ff9b:1::/48",
        "100::/64",
        "100:0:0:1::/64",
        "2001::/23",  # Teredo and other assignments of the protocol
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
        "5f00::/16",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
"""Special ranges, those of transitions between the two protocols among them: open only where they are named as such."""
_METADATA = frozenset({ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("fd20:ce::254")})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NAME = re.compile(r"(\*\.)?[a-z0-9_][a-z0-9_-]{0,62}(\.[a-z0-9_][a-z0-9_-]{0,62})*")


@dataclass(frozen=True, slots=True)
class Allowed:
    """Hosts and networks that the operator has opened.

    Attributes:
        names: Host names in lower case; one that begins with `*.` stands for all below it.
        networks: Networks, whatever lies in them.
        redirects: Names of hosts that may send elsewhere, which is then looked at as they were.
    """

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    redirects: frozenset[str] = frozenset()

    @classmethod
    def of(cls, entries: Iterable[str], redirects: Iterable[str] = (), *, field: str = "allow_hosts") -> Self:
        """What the operator has opened.

        Args:
            entries: Hosts by name, `*.` before a domain, IP addresses and networks.
            redirects: Hosts by name, `*.` before a domain.
            field: What to call `entries` in an error.

        Raises:
            InvalidInput: One is none of these.
        """
        names: set[str] = set()
        networks: list[Network] = []
        for entry in entries:
            text = entry.strip().lower().rstrip(".")
            try:
                networks.append(ipaddress.ip_network(text.strip("[]")))
                continue
            except ValueError:
                pass
            names.add(_name(entry, "neither a host nor a network", field))
        trusted = frozenset(_name(entry, "no name of a host", f"${REDIRECTS}") for entry in redirects)
        return cls(frozenset(names), tuple(networks), trusted)

    @classmethod
    def from_environment(cls) -> Self:
        """What `$LLMARTIFACTS_ALLOW_HOSTS` and `$LLMARTIFACTS_FOLLOW_REDIRECTS` open. Raises `InvalidInput`."""
        hosts, redirects = (
            [entry for entry in os.environ.get(name, "").split(",") if entry.strip()] for name in (VARIABLE, REDIRECTS)
        )
        return cls.of(hosts, redirects, field=f"${VARIABLE}")

    def redirecting(self, host: str) -> bool:
        """Whether a host may send elsewhere."""
        return _among(host.strip("[]").lower().rstrip("."), self.redirects)

    def check(self, host: str, address: str) -> None:
        """Refuse an address that a stranger's URL must not lead to.

        Args:
            host: The host as the URL names it.
            address: The IP address that it leads to.

        Raises:
            NotAllowed: It is one; the address itself is not told.
        """
        if self._open(host.strip("[]").lower().rstrip("."), address):
            return
        raise NotAllowed(
            f"{host} leads to an address of a private or special network, where content of others is not looked for",
            next_step=f"If it is a host of your own, name it in ${VARIABLE}.",
        )

    def _open(self, host: str, address: str) -> bool:
        try:
            found = _real(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        if any(found in network for network in self.networks):
            return True
        if found in _METADATA or any(found in network for network in _NEVER):
            return False
        if any(found in network for network in _INSIDE):
            return _among(host, self.names)
        return True


def _name(entry: str, problem: str, field: str) -> str:
    text = entry.strip().lower().rstrip(".")
    if not _NAME.fullmatch(text) or text.rpartition(".")[2].isdigit():
        raise InvalidInput(
            f"{entry[:80]!r} is {problem}",
            field=field,
            next_step="Write files.example.org, *.example.org, 10.1.2.3 or 10.1.0.0/16, separated by commas."
            if "network" in problem
            else "Write files.example.org or *.example.org, separated by commas.",
        )
    return text


def _among(host: str, names: frozenset[str]) -> bool:
    return host in names or any(name.startswith("*.") and host.endswith(name[1:]) for name in names)


def is_loopback(host: str) -> bool:
    """Whether a host is `localhost` or a loopback address; a name that merely looks like one is not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _real(address: _IP) -> _IP:
    """The IPv4 address that an IPv6 address stands for, where it stands for one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:  # how networks without IPv4 reach the open internet
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _COMPATIBLE and int(address) > 1:
        return ipaddress.IPv4Address(int(address))
    return address
