"""Stamps: one ASCII line that names the exact versions a process serves, for a trace or a response header.

    la1;default@r42;set=9f86d081884c;registry;agent=support-agent:v3@0123456789ab;kb=support-kb:v5@ba9876543210

Grammar (RFC 5234); visible ASCII without spaces, commas and quotes, at most 2,048 characters, so that it passes through
HTTP headers, logs and baggage as it is:

    stamp     = "la1" ";" project "@r" revision ";set=" short ";" source *( ";" component ) [ ";+" left-out ]
                *( ";!" warning )
    component = text "=" name ":v" number "@" short    ; text: the field or role
    warning   = code [ "." text ]                      ; text: the field it is about; never ends in a full stop
    source    = "registry" / "lockfile" / "last-known-good" / "fallback"
    code      = 1*( %x61-7A / DIGIT / "-" )
    short     = 12( DIGIT / %x61-66 )                  ; the first digits of a SHA-256
    text      = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "%" 2HEXDIG )    ; UTF-8, percent-encoded (RFC 3986)
    revision, number, left-out = 1*DIGIT

`set` covers every component, also those left out where the line would grow too long. The same versions give the same
stamp in every process, whatever its generation's number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args
from urllib.parse import quote, unquote

from llmartifacts.errors import InvalidInput
from llmartifacts.records.names import NAME

Source = Literal["registry", "lockfile", "last-known-good", "fallback"]

MAX_LENGTH = 2048
_MAX_WARNINGS = 512  # characters of the line that warnings may take
_TEXT = r"(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})+"
_HEAD = re.compile(
    rf"la1;(?P<project>{NAME})@r(?P<revision>0|[1-9][0-9]{{0,18}});set=(?P<set>[0-9a-f]{{12}});(?P<source>[a-z-]+)"
)
_COMPONENT = re.compile(
    rf"(?P<field>{_TEXT})=(?P<name>{NAME}):v(?P<number>[1-9][0-9]{{0,8}})@(?P<short>[0-9a-f]{{12}})"
)
_WARNING = re.compile(rf"!(?P<code>[a-z0-9-]+)(?:\.(?P<field>{_TEXT}))?")
_LEFT_OUT = re.compile(r"\+(?P<count>[1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class Stamped:
    """One component in a stamp.

    Attributes:
        name: Name of its collection.
        number: N of `vN`.
        short: First 12 hex digits of its manifest digest.
    """

    name: str
    number: int
    short: str

    def __str__(self) -> str:
        return f"{self.name}:v{self.number}@{self.short}"


@dataclass(frozen=True)
class Stamp:
    """What a stamp says.

    Attributes:
        project: Name of the project.
        revision: The project's revision that all of it was read at.
        set_short: First 12 hex digits of the digest of the whole set.
        source: Where the digests came from: the registry, a lockfile, the last-known-good set, or the packaged lockfile
            that stands in where neither can be had.
        components: Field or role -> version.
        left_out: How many components the line had no room for.
        warnings: (code, field) of each warning; the field is empty where it is about the whole set.
    """

    project: str
    revision: int
    set_short: str
    source: Source
    components: Mapping[str, Stamped] = field(default_factory=dict)
    left_out: int = 0
    warnings: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        line = f"la1;{self.project}@r{self.revision};set={self.set_short};{self.source}"
        warned = _fitting([f";!{code}{'.' + _last(_encoded(about)) if about else ''}" for code, about in self.warnings])
        room = MAX_LENGTH - len(warned) - len(";+999999999")
        left_out = self.left_out
        for name, stamped in self.components.items():
            token = f";{_encoded(name)}={stamped}"
            if left_out == self.left_out and len(line) + len(token) <= room:
                line += token
            else:
                left_out += 1
        return line + (f";+{left_out}" if left_out else "") + warned


def parse_stamp(text: str) -> Stamp:
    """Read a stamp.

    Raises:
        InvalidInput: It is no stamp.

    Example:
        >>> stamp = parse_stamp("la1;default@r42;set=9f86d081884c;registry;kb=support-kb:v5@ba9876543210;!yanked.kb")
        >>> str(stamp.components["kb"]), stamp.warnings
        ('support-kb:v5@ba9876543210', (('yanked', 'kb'),))
    """
    if not isinstance(text, str) or len(text) > MAX_LENGTH or not text.isascii():
        raise InvalidInput(f"{text!r:.80} is not a stamp", field="stamp", next_step=_HINT)
    head = _HEAD.match(text)
    if head is None or head["source"] not in get_args(Source):
        raise InvalidInput(f"{text!r:.80} does not begin as a stamp", field="stamp", next_step=_HINT)
    components: dict[str, Stamped] = {}
    warnings: list[tuple[str, str]] = []
    left_out = 0
    rest = text[head.end() :]
    if rest and not rest.startswith(";"):
        raise InvalidInput(f"{rest!r:.80} follows the source", field="stamp", next_step=_HINT)
    for token in rest.split(";")[1:]:
        if found := _COMPONENT.fullmatch(token):
            name = _decoded(found["field"])
            if name in components:
                raise InvalidInput(f"{name!r:.80} is named twice", field="stamp")
            components[name] = Stamped(found["name"], int(found["number"]), found["short"])
        elif found := _WARNING.fullmatch(token):
            warnings.append((found["code"], _decoded(found["field"] or "")))
        elif found := _LEFT_OUT.fullmatch(token):
            left_out = int(found["count"])
        else:
            raise InvalidInput(f"{token!r:.80} is no part of a stamp", field="stamp", next_step=_HINT)
    return Stamp(
        head["project"],
        int(head["revision"]),
        head["set"],
        head["source"],  # type: ignore[arg-type] # checked above
        MappingProxyType(components),
        left_out,
        tuple(warnings),
    )


def find_stamp(text: str) -> Stamp:
    """Read the stamp in a line of a log, a header, or any other text that holds one.

    Args:
        text: The text; a stamp in it may be percent-encoded as a whole, as baggage has it.

    Raises:
        InvalidInput: There is none, or it is damaged, or there are several that say different things.

    Example:
        >>> line = 'GET /answer 200 "x-llm-artifacts: la1;default@r42;set=9f86d081884c;registry;kb=kb:v5@ba9876543210"'
        >>> find_stamp(line).revision
        42
    """
    if not isinstance(text, str):
        raise InvalidInput(f"{text!r:.80} is not a stamp", field="stamp", next_step=_HINT)
    found = {_WRAPPED.sub(_unwrapped, one) for one in _ANYWHERE.findall(text)}
    if not found:
        raise InvalidInput(f"there is no stamp in {text!r:.80}", field="stamp", next_step=_HINT)
    read = {str(stamp): stamp for stamp in map(_without_punctuation, sorted(found))}
    if len(read) > 1:
        raise InvalidInput(
            f"there are {len(read)} different stamps in that text", field="stamp", next_step="Give one of them."
        )
    return next(iter(read.values()))


_ANYWHERE = re.compile(r"(?<![A-Za-z0-9._~%-])la1(?:;|%3[Bb])[A-Za-z0-9._~%=:@;+!-]*")
"""From the beginning of a stamp on, all that one may be made of."""
_WRAPPED = re.compile(r"la1%3[Bb].*")


def _unwrapped(match: re.Match[str]) -> str:
    return unquote(match.group(), errors="replace")


def _without_punctuation(text: str) -> Stamp:
    """Read a stamp that the end of a sentence may stick to; none ends in a full stop by itself."""
    return parse_stamp(text.rstrip(".:;!"))


_HINT = "A stamp is the line that generation.stamp() gives: la1;PROJECT@rN;set=…;SOURCE;FIELD=NAME:vN@…"


def _fitting(tokens: list[str]) -> str:
    line = ""
    for token in tokens:
        if len(line) + len(token) > _MAX_WARNINGS:
            break
        line += token
    return line


def _encoded(text: str) -> str:
    return quote(text, safe="")


def _last(text: str) -> str:
    """Text that may end the line: without a full stop, which would be taken for the end of a sentence."""
    return text[:-1] + "%2E" if text.endswith(".") else text


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidInput(f"{text!r:.80} is not percent-encoded UTF-8", field="stamp", next_step=_HINT) from None
