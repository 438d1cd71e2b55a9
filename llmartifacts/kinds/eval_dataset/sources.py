"""Files that hold items: opened without surprises, decompressed and decoded under caps, written whole or not at all."""

from __future__ import annotations

import gzip
import io
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from llmartifacts.errors import InvalidValue, NotAllowed, NotFound, TooLarge
from llmartifacts.kinds.disk import AnyPath, find_regular, open_regular

MIB = 1024 * 1024
_RATIO_FROM = 16 * MIB  # a small text may well compress a thousandfold; a bomb is large by nature
_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a source is read; lower them for input from strangers. They cannot be raised.

    Attributes:
        item_bytes: Longest item, as canonical JSON.
        total_bytes: All items together, and the decompressed size of a source.
        items: Number of items.
        columns: Number of different columns.
        ratio: Decompressed by compressed size, once 16 MiB came out.

    Raises:
        InvalidValue: A limit is below 1 or above its default.
    """

    item_bytes: int = 16 * MIB
    total_bytes: int = 2048 * MIB
    items: int = 10_000_000
    columns: int = 1_000
    ratio: int = 200

    def __post_init__(self) -> None:
        for f in fields(self):
            value, most = getattr(self, f.name), cast(int, f.default)
            if type(value) is not int or not 1 <= value <= most:
                raise InvalidValue(f"the limit is {value!r}, not between 1 and {most}", field=f"limits.{f.name}")


LIMITS = Limits()


class Origin(NamedTuple):
    """Where one row came from.

    Attributes:
        file: Name of the source; empty for values handed over in Python.
        what: Such as `line`, or a place inside a document.
        number: Counted from 1; 0 if `what` says it all.
    """

    file: str
    what: str
    number: int = 0

    def __str__(self) -> str:
        place = f"{self.what} {self.number}" if self.number else self.what
        return f"{self.file}, {place}" if self.file and place else self.file or place


class Row(NamedTuple):
    """One row as its format gives it.

    Attributes:
        origin: Where it came from.
        values: Column -> value, not checked yet.
    """

    origin: Origin
    values: Any


@contextmanager
def reading(path: AnyPath, limits: Limits) -> Iterator[BinaryIO]:
    """Open a source for reading, decompressed if it is gzip (told by its first bytes).

    Raises:
        NotFound: There is no such file.
        TooLarge: It decompresses beyond `total_bytes` or `ratio`.
        InvalidValue: It is not whole gzip.
    """
    with open_regular(find_regular(path, field="path")) as raw:
        packed = cast(io.BufferedReader, raw).peek(2)[:2] == b"\x1f\x8b"
        if packed:
            with gzip.GzipFile(fileobj=raw) as inner:
                yield io.BufferedReader(_Capped(inner, raw, str(path), limits))
        else:
            yield io.BufferedReader(_Capped(raw, None, str(path), limits))


class _Capped(io.RawIOBase):
    """A stream that stops at the caps."""

    def __init__(self, inner: Any, compressed: BinaryIO | None, name: str, limits: Limits) -> None:
        self._inner, self._compressed, self._name, self._limits = inner, compressed, name, limits
        self._out = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(min(len(buffer), MIB))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InvalidValue(
                f"not whole gzip: {error}", field="path", origin=self._name, next_step="Fetch or compress it again."
            ) from None
        except OSError as error:
            raise NotAllowed(f"cannot be read: {error.strerror or error}", field="path", origin=self._name) from None
        self._out += len(data)
        if self._out > self._limits.total_bytes:
            raise TooLarge(
                f"more than {self._limits.total_bytes} bytes",
                field="path",
                origin=self._name,
                next_step="Split it into several datasets, or keep it as Files.",
            )
        if self._compressed is not None and self._out > _RATIO_FROM:
            ratio = self._out / max(1, self._compressed.tell())
            if ratio > self._limits.ratio:
                raise TooLarge(
                    f"decompresses to more than {self._limits.ratio} times its size",
                    field="path",
                    origin=self._name,
                    next_step="If you trust it, decompress it first.",
                )
        buffer[: len(data)] = data
        return len(data)


def text_lines(stream: Any, name: str, limits: Limits) -> Iterator[tuple[int, str]]:
    r"""Lines of UTF-8 text, ends kept, counted from 1. Only `\n` ends a line; a byte order mark is dropped.

    Args:
        stream: Anything with `readline(size)`, or an iterable of str or bytes lines.
        name: Name of the source, for messages.
        limits: Caps; `item_bytes` holds for a line.

    Raises:
        InvalidValue: Not UTF-8; the line is named.
        TooLarge: A line is too long.
    """
    for number, line in enumerate(_raw_lines(stream, limits), 1):
        if len(line) > limits.item_bytes:
            raise TooLarge(
                f"the line is longer than {limits.item_bytes} bytes", field="line", origin=f"{name}, line {number}"
            )
        if isinstance(line, str):
            yield number, line.removeprefix("\ufeff") if number == 1 else line
            continue
        if not isinstance(line, bytes):
            raise InvalidValue(f"a {type(line).__name__} is no line", field="lines", origin=f"line {number}")
        yield number, decode(line, f"{name}, line {number}" if name else f"line {number}", first=number == 1)


def decode(data: bytes, origin: str, *, first: bool = True) -> str:
    """Decode UTF-8.

    Args:
        data: The bytes.
        origin: Where they came from.
        first: They begin the source, so there may be a byte order mark.

    Raises:
        InvalidValue: Not UTF-8.
    """
    if first:
        data = data.removeprefix(_UTF8_BOM)
        other = _BOMS.get(data[:2])
        if other:
            raise InvalidValue(f"this is {other}, not UTF-8", origin=origin, next_step="Save it as UTF-8.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValue(
            f"not UTF-8: byte 0x{data[error.start]:02x} at {error.start + 1}",
            origin=origin,
            next_step="Save it as UTF-8.",
        ) from None


def _raw_lines(stream: Any, limits: Limits) -> Iterator[Any]:
    if hasattr(stream, "readline"):
        while line := stream.readline(limits.item_bytes + 1):
            yield line
    else:
        yield from stream


@contextmanager
def replacing(path: AnyPath) -> Iterator[BinaryIO]:
    """Write a file whole or not at all: beside its place first, then renamed. Compressed if it ends in `.gz`.

    Raises:
        NotFound: The folder does not exist.
        NotAllowed: It cannot be written there.
    """
    place = Path(path)
    beside = place.parent / f".{place.name}.{secrets.token_hex(6)}"
    try:
        raw = beside.open("xb")
    except FileNotFoundError:
        raise NotFound(f"no folder {str(place.parent)!r}", what="folder", name=str(place.parent)) from None
    except OSError as error:
        raise NotAllowed(f"{str(place)!r} cannot be written: {error.strerror}", field="path") from None
    try:
        with raw:
            if place.suffix == ".gz":
                with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
                    yield cast(BinaryIO, packed)
            else:
                yield raw
        beside.replace(place)
    except OSError as error:
        raise NotAllowed(f"{str(place)!r} cannot be written: {error.strerror}", field="path") from None
    finally:
        beside.unlink(missing_ok=True)


def suffix_of(path: AnyPath) -> str:
    """The suffix that tells the format, in lower case and without `.gz`."""
    name = Path(path).name.lower().removesuffix(".gz")
    return Path(name).suffix


def name_of(path: object) -> str:
    """A source's name in messages: the path, or nothing for a value handed over in Python."""
    if isinstance(path, str | os.PathLike):
        return os.fsdecode(os.fspath(path))
    return str(getattr(path, "name", ""))
