"""The kind `files`: any files or folder, and references to files that stay elsewhere, pinned by checksum.

Example:
    >>> Files({"notes/a.txt": b"hello"}).read("notes/a.txt")
    b'hello'
"""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, BinaryIO, ClassVar, Protocol, cast
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, StrictInt

from llmartifacts.errors import InvalidReference, InvalidValue, NotFound
from llmartifacts.kinds.base import Config, FileSink, FileView, Kind, check_options
from llmartifacts.kinds.disk import AnyPath, add_file, filling, find_regular, is_folder, open_regular, walk, write_new
from llmartifacts.records.arguments import check_place
from llmartifacts.records.canonical import MAX_INTEGER
from llmartifacts.records.diff import Diff, diff_files
from llmartifacts.records.digest import Digest, parse_digest
from llmartifacts.records.manifest import MAX_FILES, Manifest
from llmartifacts.records.names import check_paths, near_names
from llmartifacts.records.wording import counted, printable, size

SCHEMES = ("https", "s3", "file")
MAX_URL = 2048
_SUFFIXES = 12
_SECRET_QUERY = re.compile(r"(?i)x-(amz|goog)-(signature|credential|security-token)|sig|signature|token|access_token")

TEXT_BYTES = 128 * 1024
TEXT_LINES = 2000
TEXT_FILES = 50
"""Only files below these limits are compared line by line; of a larger change the digests are told."""


@dataclass(frozen=True, slots=True)
class External:
    """A file that stays where it is, pinned by its checksum.

    Args:
        url: `https://…`, `s3://bucket/key`, or `file:///…` (read only where the registry is a directory, and below
            folders that the reader allowed). It holds no password and no signature: it is kept for ever.
        digest: `sha256:` and 64 hex digits of the whole file.
        size: Bytes.

    Raises:
        InvalidValue: The URL, the digest or the size cannot be used.
    """

    url: str
    digest: Digest | str
    size: int

    def __post_init__(self) -> None:
        problem = _url_problem(self.url)
        if problem:
            raise InvalidValue(f"the URL {problem}", field="url", next_step="Use https://, s3:// or file:///.")
        if type(self.size) is not int or not 0 <= self.size <= MAX_INTEGER:
            raise InvalidValue(f"{self.size!r:.40} is not a number of bytes", field="size")
        try:
            parse_digest(self.digest)
        except InvalidReference as error:
            raise InvalidValue.of(error, field="digest") from None


class _Source(Protocol):
    """Where one file's bytes are now."""

    def open(self) -> BinaryIO: ...

    def size(self) -> int: ...

    def on_disk(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class _Inline:
    path: str
    data: bytes

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)

    def size(self) -> int:
        return len(self.data)

    def on_disk(self) -> Path:
        raise InvalidValue(
            f"{self.path!r} is in memory, not on disk", field="path", next_step="Read it, or export() the files first."
        )


@dataclass(frozen=True, slots=True)
class _OnDisk:
    file: Path
    given: object
    """What the caller named it by: a path out of a cache holds its file as long as that very object lives."""

    def open(self) -> BinaryIO:
        return open_regular(self.file)

    def size(self) -> int:
        with open_regular(self.file) as stream:
            return os.fstat(stream.fileno()).st_size

    def on_disk(self) -> Path:
        return self.file


@dataclass(frozen=True, slots=True)
class _Stored:
    view: FileView
    path: str

    def open(self) -> BinaryIO:
        return self.view.open(self.path)

    def size(self) -> int:
        return self.view.size(self.path)

    def on_disk(self) -> Path:
        return self.view.as_path(self.path)


class Files:
    """Any files: fine-tuning data, weights, configs, plots.

    Resolved from a registry, each file is read when it is asked for, and verified before a byte of it is handed over.

    Args:
        files: Path inside the artifact -> its content (`bytes`), or a file on disk (`pathlib.Path`).
        external: Path inside the artifact -> a file that stays where it is.

    Raises:
        InvalidPath: A path is unsafe, or two differ in case only.
        InvalidValue: There is no file at all, or a value is neither bytes nor a path.
        NotFound: A file on disk is not there.

    Example:
        >>> files = Files({"train.jsonl": b"{}", "config.json": b"{}"})
        >>> files.paths()
        ['config.json', 'train.jsonl']
    """

    kind: ClassVar[str] = "files"

    def __init__(
        self, files: Mapping[str, bytes | os.PathLike[str]], *, external: Mapping[str, External] | None = None
    ) -> None:
        for field, given in (("files", files), ("external", external or {})):
            if not isinstance(given, Mapping):
                raise InvalidValue(
                    f"a {type(given).__name__} is no mapping of paths",
                    field=field,
                    next_step="Give {path: bytes or pathlib.Path}; or Files.from_path(…) for files as they are.",
                )
        check_paths([*files, *(external or {})])
        self._sources: dict[str, _Source] = {}
        for path, source in files.items():
            if isinstance(source, bytes | bytearray | memoryview):
                self._sources[path] = _Inline(path, bytes(source))
            elif isinstance(source, os.PathLike):
                self._sources[path] = _OnDisk(find_regular(source, field=f"files.{path}"), source)
            else:
                raise InvalidValue(
                    f"{path!r} is a {type(source).__name__}",
                    field=f"files.{path}",
                    next_step="Give bytes for content, or a pathlib.Path for a file on disk.",
                )
        for path, pinned in (external or {}).items():
            if not isinstance(pinned, External):
                raise InvalidValue(
                    f"a {type(pinned).__name__} is no External",
                    field=f"external.{path}",
                    next_step="Give an la.External.",
                )
        self._external = dict(external or {})
        self._handed: dict[str, Path] = {}
        if not self._sources and not self._external:
            raise InvalidValue("there are no files", field="files", next_step="Give at least one file.")

    @classmethod
    def from_path(cls, paths: AnyPath | Sequence[AnyPath], *, external: Mapping[str, External] | None = None) -> Files:
        """Take files and folders as they are, hidden files included.

        Args:
            paths: One file (its name is its path), one folder (paths are relative to it), or several of either
                (each below its own name). Symbolic links inside a folder are refused, empty folders are not kept.
            external: As in `Files`.

        Raises:
            InvalidPath: A name is unsafe; or there is a link, a device or a pipe in a folder.
            InvalidValue: A folder holds no file, or two sources have one name.
            NotFound: A source is not there.
        """
        given: Any = [paths] if isinstance(paths, str | os.PathLike) else paths
        if not isinstance(given, Sequence) or isinstance(given, bytes):
            raise InvalidValue(f"a {type(given).__name__} is no list of paths", field="paths", next_step="Give a path.")
        many = [Path(check_place(one, field="paths")) for one in given]
        found: dict[str, Path] = {}
        for place in many:
            if not is_folder(place):
                taken = {place.name: find_regular(place, field="paths")}
            elif len(many) == 1:
                taken = walk(place)
            else:
                name = place.name or place.resolve().name
                taken = {f"{name}/{path}": file for path, file in walk(place).items()}
            if clash := sorted(taken.keys() & found.keys()):
                raise InvalidValue(f"two sources give {clash[0]!r}", field="paths", origin=str(place))
            found |= taken
        return cls(found, external=external)

    @classmethod
    def _stored(cls, view: FileView, external: Mapping[str, External]) -> Files:
        made = cls.__new__(cls)
        made._sources = {path: _Stored(view, path) for path in view.paths() if path not in external}
        made._external = dict(external)
        made._handed = {}
        return made

    def paths(self) -> list[str]:
        """Every path, sorted; external ones included."""
        return sorted([*self._sources, *self._external])

    @property
    def external(self) -> Mapping[str, External]:
        """Path -> where a file is that stays elsewhere."""
        return MappingProxyType(self._external)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Path -> bytes."""
        return {p: self._external[p].size if p in self._external else self._sources[p].size() for p in self.paths()}

    def open(self, path: str) -> BinaryIO:
        """Open one file for reading.

        Raises:
            NotFound: There is no such path, or the file is kept elsewhere.
            Damaged: Its stored bytes are not what they claim to be.
        """
        return self._source(path).open()

    def read(self, path: str) -> bytes:
        """All bytes of one file. Raises as `open`."""
        with self.open(path) as stream:
            return stream.read()

    def path(self, path: str) -> Path:
        """A file on disk with one file's bytes, read-only; its own name there may be another. Raises as `open`.

        It stays there as long as these `Files` live: a cache evicts no file whose path it still keeps, up to 256.
        """
        self._handed[path] = self._source(path).on_disk()
        return self._handed[path]

    def export(self, directory: AnyPath) -> list[Path]:
        """Write every file that is not external into a directory, under its path: all of them or nothing.

        Args:
            directory: Made if it does not exist; it must be empty.

        Returns:
            The files written, sorted.

        Raises:
            Conflict: The directory holds something already.
            NotAllowed: The directory cannot be written.
            Damaged: Stored bytes are wrong.
        """
        target = Path(directory)
        with filling(target) as made:
            for path, source in self._sources.items():
                with source.open() as stream:
                    write_new(made / path, stream)
        return [target / path for path in sorted(self._sources)]

    def _source(self, path: str) -> _Source:
        if path in self._sources:
            return self._sources[path]
        if path in self._external:
            raise NotFound(
                f"{path!r} is kept outside the registry, at {self._external[path].url}; this release does not fetch it",
                what="file",
                name=path,
                next_step=f"Fetch it from there and compare it with {self._external[path].digest}.",
            )
        raise NotFound(f"no file {path!r}", what="file", name=str(path), near=near_names(str(path), self.paths()))

    def __contains__(self, path: object) -> bool:
        return path in self._sources or path in self._external

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths())

    def __len__(self) -> int:
        return len(self._sources) + len(self._external)

    def __repr__(self) -> str:
        return f"<Files {len(self)}: {', '.join(self.paths()[:3])}{', …' if len(self) > 3 else ''}>"


class FilesConfig(Config):
    """What is known of the files without reading them.

    Attributes:
        count: How many files, external ones included.
        bytes: Sum of their sizes.
        suffixes: Suffix -> how many files have it, the commonest ones; a name without one counts under its own name.
    """

    count: Annotated[StrictInt, Field(ge=1, le=MAX_FILES)]
    bytes: Annotated[StrictInt, Field(ge=0, le=MAX_INTEGER)]
    suffixes: dict[Annotated[str, Field(max_length=255)], Annotated[StrictInt, Field(ge=1)]] = Field(
        max_length=_SUFFIXES
    )


class FilesKind(Kind[Files]):
    """Packs files as they are."""

    name = "files"
    value_type = Files
    config_model = FilesConfig

    def pack(self, value: Files, files: FileSink) -> dict[str, Any]:
        """Store each file."""
        total = 0
        for path in value.paths():
            if path in value.external:
                kept = value.external[path]
                files.add_external(path, kept.url, parse_digest(kept.digest), kept.size)
                total += kept.size
            else:
                total += _add(files, path, value._sources[path])
        return {"count": len(value), "bytes": total, "suffixes": _suffixes(value.paths())}

    def unpack(self, config: Mapping[str, Any], files: FileView) -> Files:
        """The files, read when asked for."""
        known = cast(FilesConfig, self.parse(config))
        external: dict[str, External] = {}
        total = 0
        for path in files.paths():
            found = files.descriptor(path)
            total += found.size
            if found.url is not None:
                external[path] = External(found.url, found.digest, found.size)
        if (known.count, known.bytes) != (len(files.paths()), total):
            raise InvalidValue(
                f"config speaks of {known.count} files and {known.bytes} bytes, and there are "
                f"{len(files.paths())} and {total}",
                field="config.count" if known.count != len(files.paths()) else "config.bytes",
            )
        return Files._stored(files, external)

    def diff(self, before: Manifest, after: Manifest, files: tuple[FileView, FileView]) -> Diff:
        """Files added, removed and changed; small text files line by line."""
        changes = tuple(diff_files(before, after))
        paths = {op: [c.path.removeprefix("files/") for c in changes if c.op == op] for op in _OPS}
        lines = [_text_diff(path, before, after, files) for path in paths["changed"][:TEXT_FILES]]
        numbers = {op: float(len(found)) for op, found in paths.items()}
        numbers["bytes"] = float(sum(f.size for f in after.files) - sum(f.size for f in before.files))
        return Diff(self.name, "", "", changes, "".join(lines), numbers)

    def summary(self, config: Mapping[str, Any]) -> str:
        """Count, size and the commonest suffixes."""
        known = cast(FilesConfig, self.parse(config))
        suffixes = sorted(known.suffixes.items(), key=lambda s: (-s[1], s[0]))[:4]
        told = ", ".join(f"{n} {printable(suffix)}" for suffix, n in suffixes)
        return f"{counted(known.count, 'file')}, {size(known.bytes)}: {told}"

    def read_source(self, paths: Sequence[Path], options: Mapping[str, str]) -> Files:
        """Take files and folders as `Files.from_path` does."""
        check_options(options, ())
        return Files.from_path(list(paths))


_OPS = ("added", "removed", "changed")


def _add(files: FileSink, path: str, source: _Source) -> int:
    if isinstance(source, _OnDisk):
        return add_file(files, path, source.file)
    with source.open() as stream:
        files.add(path, stream)
    return source.size()


def _suffixes(paths: Sequence[str]) -> dict[str, int]:
    counts = Counter(PurePosixPath(p).suffix or PurePosixPath(p).name for p in paths)
    return dict(sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:_SUFFIXES])


def _text_diff(path: str, before: Manifest, after: Manifest, files: tuple[FileView, FileView]) -> str:
    pair = []
    for manifest, view in zip((before, after), files, strict=True):
        found = manifest.file(path)
        if found is None or found.url is not None or found.size > TEXT_BYTES:
            return ""
        try:
            text = view.read(path).decode()
        except UnicodeDecodeError:
            return ""
        # Control characters would act on the terminal that shows the difference.
        text = text.replace("\r\n", "\n")
        if not all(c.isprintable() or c in "\n\t" for c in text) or text.count("\n") > TEXT_LINES:
            return ""
        pair.append([line if line.endswith("\n") else f"{line}\n" for line in text.splitlines(keepends=True)])
    return "".join(unified_diff(pair[0], pair[1], f"a/{path}", f"b/{path}"))


def _url_problem(url: object) -> str:
    if not isinstance(url, str) or not url:
        return "is empty"
    if len(url) > MAX_URL:
        return f"is longer than {MAX_URL} characters"
    if not url.isascii() or not url.isprintable() or any(c in url for c in " \\\"'<>"):
        return "holds characters that a URL writes in percent form"
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
        query = [key for key, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError as error:
        return f"is malformed: {error}"
    if parts.scheme not in SCHEMES:
        return f"has the scheme {parts.scheme!r}, which is none of {', '.join(SCHEMES)}"
    if parts.username is not None or parts.password is not None or any(map(_SECRET_QUERY.fullmatch, query)):
        return "holds a password or a signature, and would be kept for ever"
    if parts.scheme == "file":
        climbs = ".." in PurePosixPath(parts.path).parts or "%" in parts.path
        return "" if not host and parts.path.startswith("/") and not climbs else "names no absolute local file"
    if not host:
        return "names no host or bucket"
    return "" if parts.path.strip("/") or parts.scheme == "https" else "names no key in its bucket"
