"""The kind `files`: how files are packed, compared and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import unified_diff
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, cast

from pydantic import Field, StrictInt

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.base import Config, FileSink, FileView, Kind, check_options
from llmartifacts.kinds.disk import add_file
from llmartifacts.kinds.files.external import External, with_digest
from llmartifacts.kinds.files.sources import OnDisk, Source
from llmartifacts.kinds.files.value import Files
from llmartifacts.records.canonical import MAX_INTEGER
from llmartifacts.records.diff import Diff, diff_files
from llmartifacts.records.external import Wanted
from llmartifacts.records.manifest import MAX_FILES, Manifest
from llmartifacts.records.wording import counted, printable, size

_SUFFIXES = 12
TEXT_BYTES = 128 * 1024
TEXT_LINES = 2000
TEXT_FILES = 50
"""Only files below these limits are compared line by line; of a larger change the digests are told."""


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
    external = True

    def pack(self, value: Files, files: FileSink) -> dict[str, Any]:
        """Store each file, and pin each that is kept outside."""
        outside = [Wanted(path, kept.url, kept.known, kept.size) for path, kept in sorted(value.external.items())]
        total = sum(file.size for file in files.add_externals(outside))
        for path in value.paths():
            if path not in value.external:
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

    def read_addresses(self, addresses: Sequence[str], paths: Sequence[Path], options: Mapping[str, str]) -> Files:
        """Refer to files that stay where they are, beside files and folders that are taken.

        Options: `sha256`, the digest of the one address that is given.
        """
        check_options(options, ("sha256",))
        external: dict[str, External] = {}
        for address in addresses:
            path, file = External.parse(address)
            if path in external:
                raise InvalidValue(f"two sources give {path!r}", field="SOURCE", next_step="Name each: path=URL.")
            external[path] = file
        if (digest := options.get("sha256")) is not None:
            if len(external) > 1:
                step = "Write each one's behind its URL: https://…#sha256=HEX."
                raise InvalidValue("one digest is given for several addresses", field="sha256", next_step=step)
            external = {path: with_digest(file, digest) for path, file in external.items()}
        return Files.from_path(list(paths), external=external) if paths else Files({}, external=external)


_OPS = ("added", "removed", "changed")


def _add(files: FileSink, path: str, source: Source) -> int:
    if isinstance(source, OnDisk):
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
