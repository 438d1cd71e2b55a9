"""Addresses of content that is kept outside the registry: what is taken as one, and how it is told.

A URL in a manifest is kept for ever, read by everybody who may read the version, and acted on by their machines. So one
writing is good for one place: nothing that two readers could read in two ways, no password, no signature.

Example:
    >>> parse_place("s3://models/llama/weights.bin?versionId=3sL4k").key
    'llama/weights.bin'
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote

from llmartifacts.errors import BlobMissing, Damaged, InvalidValue, LlmartifactsError
from llmartifacts.records.digest import Digest

SCHEMES = ("https", "s3", "file")
REMOTE = ("https", "s3")
"""Schemes of places that everybody can fetch from; a file of one machine is nobody's business elsewhere."""
MAX_URL = 2048

_CHARACTERS = re.compile(r"[A-Za-z0-9._~:/?@!$&()*+,;=%\[\]-]+")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PLAIN_IN_PERCENT = re.compile(r"(?i)%(?:2[DEF]|3[0-9]|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])")
_CONTROL = re.compile(r"(?i)%(?:[01][0-9A-F]|7F)")
_URL = re.compile(r"(?P<scheme>[a-z0-9+.-]+)://(?P<authority>[^/?]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?")
_NETLOC = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"[a-z0-9_][a-z0-9_-]{0,62}(?:\.[a-z0-9_][a-z0-9_-]{0,62})*\.?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_VERSION = re.compile(r"[A-Za-z0-9._-]{1,1024}")
_ADDRESS = re.compile(r"(?:(?:(?!://).)*=)?[A-Za-z][A-Za-z0-9+.-]*://")
_SECRET = re.compile(
    r"(?i)x-(?:amz|goog)-(?:signature|credential|security-token)|sig|signature|(?:access_?|auth_?|id_?)?token|password"
    r"|passwd|secret|api_?key|access_?key|auth|authorization|awsaccesskeyid|googleaccessid"
)


@dataclass(frozen=True, slots=True)
class Place:
    """One place outside, taken apart.

    Attributes:
        url: As it is written.
        scheme: `https`, `s3` or `file`.
        host: Name in lower case or IP address, without brackets; the bucket of `s3`; empty for `file`.
        key: Path on the host as it is written; the decoded key in a bucket; the decoded absolute path of a file.
        version: The version of the object in its store that is meant; empty where the URL names none.
    """

    url: str
    scheme: str
    host: str
    key: str
    version: str = ""

    def __str__(self) -> str:
        """The place for messages: the query stays out, but for the version."""
        plain = self.url.partition("?")[0]
        return f"{plain} (version {self.version[:40]})" if self.version else plain


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file outside that a version is to name.

    Attributes:
        path: Its path in the artifact.
        url: Where it is.
        digest: SHA-256 that it must have; None takes what it has.
        size: Bytes that it must have; None takes what it has.
    """

    path: str
    url: str
    digest: Digest | None = None
    size: int | None = None


State = Literal["same", "changed", "gone", "unread"]
"""Of a file outside: it is what was logged; something else lies there; nothing does; it could not be read."""


@dataclass(frozen=True, slots=True)
class ExternalFile:
    """A file that is kept outside, and what was found of it.

    Attributes:
        path: Its path in the artifact.
        url: Where it is.
        digest: SHA-256 that was logged.
        size: Bytes that were logged.
        versions: The versions that name it, as references; of many, the first ones.
        error: What is wrong with it; None if it is what was logged.
    """

    path: str
    url: str
    digest: Digest
    size: int
    versions: tuple[str, ...]
    error: LlmartifactsError | None = None

    @property
    def state(self) -> State:
        """What was found, in one word."""
        if self.error is None:
            return "same"
        if isinstance(self.error, BlobMissing):
            return "gone"
        return "changed" if isinstance(self.error, Damaged) else "unread"


@dataclass(frozen=True, slots=True)
class ExternalCheck:
    """What was found of all files that are kept outside.

    Attributes:
        files: One for each place and content, by URL.
    """

    files: tuple[ExternalFile, ...]

    @property
    def ok(self) -> bool:
        """Whether each is what was logged."""
        return all(file.error is None for file in self.files)

    @property
    def counts(self) -> dict[State, int]:
        """State -> how many."""
        return dict(Counter(file.state for file in self.files))


def parse_place(url: object, *, field: str = "url") -> Place:
    """Read the URL of content that is kept outside.

    Args:
        url: `https://host/…`, `s3://bucket/key` (`?versionId=…` for one version of it), or `file:///absolute/path`.
        field: Name of the value in error messages.

    Raises:
        InvalidValue: It is none of these, could be read in two ways, or holds a password or a signature.
    """
    made = _read(url)
    if isinstance(made, str):
        raise InvalidValue(
            f"the URL {made}",
            field=field,
            next_step="Use https://host/path, s3://bucket/key or file:///absolute/path, in percent form.",
        )
    return made


def is_address(text: str) -> bool:
    """Whether an argument is a URL, or `path=URL`, rather than a file.

    Example:
        >>> is_address("w.bin=s3://models/w.bin"), is_address("data/w.bin")
        (True, False)
    """
    return _ADDRESS.match(text) is not None


def url_problem(url: object) -> str:
    """What is wrong with the URL of content that is kept outside; empty if nothing is."""
    made = _read(url)
    return made if isinstance(made, str) else ""


def _read(url: object) -> Place | str:
    if not isinstance(url, str) or not url:
        return "is empty"
    if len(url) > MAX_URL:
        return f"is longer than {MAX_URL} characters"
    if not _CHARACTERS.fullmatch(url) or _PERCENT.search(url):
        return "holds characters that a URL writes in percent form"
    parts = _URL.fullmatch(url)
    scheme = parts["scheme"] if parts else url.partition(":")[0]
    if scheme not in SCHEMES:
        return f"has the scheme {scheme[:20]!r}, which is none of {', '.join(SCHEMES)}"
    if parts is None:
        return "names no place"
    authority, path, query = parts["authority"], parts["path"] or "", parts["query"]
    if "@" in authority:
        return "holds a user name or a password, and would be kept for ever"
    if _CONTROL.search(url):
        return "holds control characters"
    if scheme == "https":
        return _web(url, authority, path, query)
    if "[" in path or "]" in path or _PLAIN_IN_PERCENT.search(path):
        return "writes in percent form what is written plainly, or the other way round"
    try:
        key = unquote(path, errors="strict")
    except UnicodeDecodeError:
        return "is no UTF-8 in percent form"
    if not all(segment not in ("", ".", "..") for segment in key[1:].split("/")):
        return "names no key in its bucket" if scheme == "s3" else "names no absolute local file"
    return _object(url, authority, key, query) if scheme == "s3" else _file(url, authority, key, query)


def _web(url: str, authority: str, path: str, query: str | None) -> Place | str:
    netloc = _NETLOC.fullmatch(authority)
    host = _host(netloc["host"].lower()) if netloc else ""
    if netloc is None or not host or not 0 < int(netloc["port"] or 443) < 65_536:
        return "names no host that can be read"
    try:
        pairs = parse_qsl(query or "", keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return "has a query that cannot be read"
    if any(_SECRET.fullmatch(name) for name, _ in pairs):
        return "holds a password or a signature, and would be kept for ever"
    version = next((value for name, value in pairs if name in ("versionId", "generation")), "")
    return Place(url, "https", host, path, version if _VERSION.fullmatch(version) else "")


def _object(url: str, bucket: str, key: str, query: str | None) -> Place | str:
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        return "names no bucket"
    name, _, version = (query or "").partition("=")
    if query is not None and (name != "versionId" or not _VERSION.fullmatch(version)):
        return "has a query, of which s3:// takes none but versionId"
    return Place(url, "s3", bucket, key[1:], version)


def _file(url: str, authority: str, path: str, query: str | None) -> Place | str:
    if authority or query is not None:
        return "names no absolute local file"
    return Place(url, "file", "", path)


def https_host(url: str) -> str:
    """The host of an `https://` URL that a host named, and that is called and not kept; empty if it is none such.

    Example:
        >>> https_host("https://cdn.example.org/w.bin?X-Amz-Signature=1"), https_host("http://cdn.example.org/w.bin")
        ('cdn.example.org', '')
    """
    if len(url) > 4 * MAX_URL or not url.isascii() or not url.isprintable() or any(c in url for c in ' \\"<>#'):
        return ""
    parts = _URL.fullmatch(url)
    netloc = _NETLOC.fullmatch(parts["authority"]) if parts and parts["scheme"] == "https" else None
    return _host(netloc["host"].lower()) if netloc and 0 < int(netloc["port"] or 443) < 65_536 else ""


def _host(host: str) -> str:
    """A host as it is called; empty if it could be read in two ways."""
    try:
        return str(ipaddress.ip_address(host.strip("[]") if host.startswith("[") else host))
    except ValueError:
        pass
    last = host.rstrip(".").rpartition(".")[2]
    # 2130706433, 0x7f.1 and 127.1 are addresses to some resolvers and names to others.
    if not _NAME.fullmatch(host) or len(host) > 253 or last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        return ""
    return host


def pinned_url(url: str, version: str) -> str:
    """The URL of one version of an object in its store; the URL itself where the version cannot be written into one.

    Example:
        >>> pinned_url("s3://models/w.bin", "3sL4k")
        's3://models/w.bin?versionId=3sL4k'
    """
    place = parse_place(url)
    if not version or version == "null" or place.version or not _VERSION.fullmatch(version):
        return url
    name = "versionId"
    if place.scheme == "https" and version.isdigit() and place.host.endswith("storage.googleapis.com"):
        name = "generation"
    made = f"{url}{'&' if '?' in url else '?'}{name}={version}"
    return url if place.scheme == "file" or url_problem(made) else made
