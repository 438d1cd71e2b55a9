"""A file that stays where it is, as a `Files` value names it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from llmartifacts.errors import InvalidReference, InvalidValue
from llmartifacts.records.arguments import shown
from llmartifacts.records.canonical import MAX_INTEGER
from llmartifacts.records.digest import Digest, parse_digest
from llmartifacts.records.external import parse_place

_NAMED = re.compile(r"(?:(?P<path>(?:(?!://).)*)=)?(?P<url>[A-Za-z0-9+.-]+://.*)", re.DOTALL)
_FRAGMENT = "#sha256="


@dataclass(frozen=True, slots=True)
class External:
    """A file that stays where it is, pinned by its checksum.

    Without digest or size it is read once when it is logged, and what lies there then is pinned: the version has
    both, and the version of the object where its store keeps versions.

    Args:
        url: `https://…`, `s3://bucket/key` (`?versionId=…` for one version of it), or `file:///…` (only where the
            registry is a directory, and below folders that the reader opened). It holds no password and no signature:
            it is kept for ever.
        digest: SHA-256 of the whole file: `sha256:` and 64 hex digits, or the digits alone, as `sha256sum` prints them.
        size: Bytes.

    Raises:
        InvalidValue: The URL, the digest or the size cannot be used.

    Example:
        >>> External("s3://models/llama/weights.bin").place
        's3://models/llama/weights.bin'
    """

    url: str
    digest: Digest | str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        parse_place(self.url)
        if self.size is not None and (type(self.size) is not int or not 0 <= self.size <= MAX_INTEGER):
            raise InvalidValue(f"{self.size!r:.40} is not a number of bytes", field="size")
        if self.digest is None:
            return
        try:
            digits = isinstance(self.digest, str) and re.fullmatch(r"[0-9a-fA-F]{64}", self.digest)
            digest = parse_digest(f"sha256:{self.digest.lower()}" if digits else self.digest)
        except InvalidReference as error:
            raise InvalidValue.of(error, field="digest") from None
        object.__setattr__(self, "digest", digest)

    @property
    def known(self) -> Digest | None:
        """The digest, checked; None if it is not known yet."""
        return None if self.digest is None else parse_digest(self.digest)

    @property
    def pinned(self) -> bool:
        """Whether digest and size are known, so that nothing is read when it is logged."""
        return self.digest is not None and self.size is not None

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        return str(parse_place(self.url))

    @property
    def name(self) -> str:
        """The last part of the URL's path; empty if it has none."""
        place = parse_place(self.url)
        last = PurePosixPath(place.key).name
        return unquote(last) if place.scheme == "https" else last

    @classmethod
    def parse(cls, text: str) -> tuple[str, External]:
        """Read `[path=]URL[#sha256=HEX]`, as the command line has it.

        Returns:
            The path in the artifact, by default the last part of the URL's path; and the file.

        Raises:
            InvalidValue: It is none, or no path is given and the URL has no last part.
        """
        found = _NAMED.fullmatch(text)
        if found is None:
            raise InvalidValue(f"{shown(text)} is no URL", field="url", next_step="Write [path=]https://… or s3://….")
        url, _, digits = found["url"].partition(_FRAGMENT)
        made = cls(url, digits) if digits or _FRAGMENT in found["url"] else cls(url)
        path = found["path"] if found["path"] is not None else made.name
        if not path:
            raise InvalidValue(f"{made.place} has no name", field="url", next_step=f"Give it one: name={made.place}.")
        return path, made


def externals(given: Any, *, field: str = "external") -> dict[str, External]:
    """Path -> file, of a mapping of paths to URLs or `External`; or of one or several of these, by their own names.

    Raises:
        InvalidValue: It is none of these; or two have one name.
    """
    if isinstance(given, Mapping):
        return {path: _external(one, f"{field}.{path}") for path, one in given.items()}
    many = [given] if isinstance(given, str | External) else given
    if not isinstance(many, Sequence) or isinstance(many, bytes):
        raise InvalidValue(
            f"a {type(given).__name__} names no files",
            field=field,
            next_step='Give {path: "https://…"}, or a list of URLs.',
        )
    made: dict[str, External] = {}
    for i, one in enumerate(many):
        found = _external(one, f"{field}[{i}]")
        name = found.name
        if not name or name in made:
            what = f"two files have the name {name!r}" if name else f"{found.place} has no name"
            raise InvalidValue(what, field=f"{field}[{i}]", next_step="Name each by its path: {path: URL}.")
        made[name] = found
    return made


def _external(one: Any, field: str) -> External:
    if isinstance(one, str):
        try:
            return External(one)
        except InvalidValue as error:
            raise InvalidValue.of(error, field=field) from None
    if isinstance(one, External):
        return one
    raise InvalidValue(
        f"a {type(one).__name__} is no External", field=field, next_step="Give a URL, or an la.External."
    )


def with_digest(file: External, digest: str) -> External:
    """The same file, pinned by a digest. Raises `InvalidValue`: it is none, or the file has another."""
    made = replace(file, digest=digest)
    if file.digest is not None and file.digest != made.digest:
        raise InvalidValue("two digests are given for it", field="sha256", next_step="Give the one that it has.")
    return made
