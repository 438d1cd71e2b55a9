"""Addresses of object stores: `s3://bucket/prefix?endpoint=…`, `gs://bucket/prefix`, `az://container/prefix`.

Credentials are no part of an address: addresses stand in settings, logs and messages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from llmartifacts.errors import InvalidInput

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "s3": ("endpoint", "region", "style", "public"),
    "gs": ("endpoint", "public"),
    "az": ("account", "endpoint", "public"),
}
"""Scheme -> what may follow the question mark."""
NOT_PUBLIC = "no"
"""As `public`: clients cannot reach the store."""
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]")
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_VALUE = re.compile(r"[A-Za-z0-9-]{1,63}")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_SECRET = re.compile(r"key|secret|token|password|sas|credential|sig", re.IGNORECASE)
_FROM_ENVIRONMENT = "Credentials come from the environment of the process: docs/object-store.md names the variables."


@dataclass(frozen=True, slots=True)
class Place:
    """Where objects are.

    Attributes:
        scheme: `s3`, `gs` or `az`.
        bucket: The bucket; of Azure, the container.
        prefix: What the names of all objects begin with, without the slash at its end; empty for none.
        endpoint: Address of the service, as `https://s3.example.org`; empty for the vendor's own.
        region: Region of the bucket; empty for what the environment says.
        style: `path` or `virtual`, how the bucket is named in a request; empty for what is usual.
        public: Address at which clients reach the service; empty for `endpoint`, `no` where they cannot.
        account: The Azure account; empty for what the environment says.
    """

    scheme: str
    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    style: str = ""
    public: str = ""
    account: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}{f'/{self.prefix}' if self.prefix else ''}"


def parse_place(url: str) -> Place:
    """Read the address of an object store.

    Args:
        url: Such as `s3://bucket/prefix?endpoint=https://s3.example.org&region=eu-central-1`.

    Raises:
        InvalidInput: It is none, or has credentials in it; no value of it is told, for that may be a secret.
    """
    scheme, found, _ = url.partition("://")
    if not found or scheme not in OPTIONS:
        raise _invalid("the address of the object store begins with none of s3://, gs:// and az://")
    try:
        parts = urlsplit(url)
        told = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=16)
        named_port = parts.port
    except ValueError:
        raise _invalid("the address of the object store is no URL") from None
    if "@" in parts.netloc:
        raise _invalid("the address of the object store has credentials in it", _FROM_ENVIRONMENT)
    if parts.fragment or named_port is not None or not url.isascii() or not url.isprintable():
        raise _invalid("the address of the object store has a port, a fragment or characters that none has")
    if not _BUCKET.fullmatch(parts.netloc):
        raise _invalid(f"the address of the object store names no bucket: {parts.netloc!r:.100}")
    prefix = unquote(parts.path).strip("/")
    if prefix and (len(prefix) > 400 or not all(_SEGMENT.fullmatch(one) for one in prefix.split("/"))):
        raise _invalid(
            f"what stands after the bucket is no prefix of names: {prefix!r:.100}",
            "Each part of it has 1 to 128 ASCII letters, digits, '.', '_' and '-', and begins with none of '.'.",
        )
    return Place(scheme, parts.netloc, prefix, **_options(scheme, told))


def _options(scheme: str, told: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in told:
        if name not in OPTIONS[scheme]:
            if _SECRET.search(name):
                raise _invalid(
                    f"the address of the object store has a credential in it ({name!r:.40})", _FROM_ENVIRONMENT
                )
            known = ", ".join(OPTIONS[scheme])
            raise _invalid(f"{name!r:.40} is no option of an address at {scheme}://", f"Options are: {known}.")
        if name in found:
            raise _invalid(f"{name} is given twice in the address of the object store")
        if name == "endpoint" or (name == "public" and value != NOT_PUBLIC):
            value = parse_endpoint(value, name)
        elif name == "style" and value not in ("path", "virtual"):
            raise _invalid("style is 'path' or 'virtual'")
        elif name in ("region", "account") and not _VALUE.fullmatch(value):
            raise _invalid(f"{name} has characters that none has")
        found[name] = value
    return found


def parse_endpoint(value: str, name: str) -> str:
    """Check the address of a service, as it stands in an address or in the environment.

    Args:
        value: Such as `https://s3.example.org:9000`.
        name: What it is called in messages.

    Raises:
        InvalidInput: It is none; it is not told, for it may have a password in it.
    """
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise _invalid(f"{name} is no address of a service") from None
    host = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    if "@" in value:
        raise _invalid(f"{name} has credentials in it", _FROM_ENVIRONMENT)
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host) or parts.query or parts.fragment:
        raise _invalid(f"{name} is no address of a service", "Write https://host or https://host:port.")
    if not re.fullmatch(r"[A-Za-z0-9._/-]*", parts.path):
        raise _invalid(f"{name} is no address of a service", "Write https://host or https://host:port.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _invalid(message: str, next_step: str = "") -> InvalidInput:
    usual = "Write s3://bucket/prefix?endpoint=https://host&region=…, gs://bucket/prefix or az://container/prefix."
    return InvalidInput(message, field="blobs", next_step=next_step or usual)
