"""`Files`: the value of the kind `files`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, ClassVar

from llmartifacts.errors import InvalidValue, NotFound
from llmartifacts.kinds.base import FileView
from llmartifacts.kinds.disk import AnyPath, filling, find_regular, is_folder, walk, write_new
from llmartifacts.kinds.files.external import External, externals
from llmartifacts.kinds.files.sources import Elsewhere, Inline, OnDisk, Source, Stored
from llmartifacts.records.arguments import check_place
from llmartifacts.records.names import check_paths, near_names


class Files:
    """Any files: fine-tuning data, weights, configs, plots.

    Resolved from a registry, each file is read when it is asked for, and verified before a byte of it is handed over;
    one that is kept outside is fetched then, and a second reading finds it in the cache.

    Args:
        files: Path inside the artifact -> its content (`bytes`), or a file on disk (`pathlib.Path`).
        external: Path inside the artifact -> a file that stays where it is: its URL, or an `External`.

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
        self, files: Mapping[str, bytes | os.PathLike[str]], *, external: Mapping[str, External | str] | None = None
    ) -> None:
        for field, given in (("files", files), ("external", external or {})):
            if not isinstance(given, Mapping):
                raise InvalidValue(
                    f"a {type(given).__name__} is no mapping of paths",
                    field=field,
                    next_step="Give {path: bytes or pathlib.Path}; or Files.from_path(…) for files as they are.",
                )
        check_paths([*files, *(external or {})])
        self._sources: dict[str, Source] = {}
        for path, source in files.items():
            if isinstance(source, bytes | bytearray | memoryview):
                self._sources[path] = Inline(path, bytes(source))
            elif isinstance(source, os.PathLike):
                self._sources[path] = OnDisk(find_regular(source, field=f"files.{path}"), source)
            else:
                raise InvalidValue(
                    f"{path!r} is a {type(source).__name__}",
                    field=f"files.{path}",
                    next_step="Give bytes for content, or a pathlib.Path for a file on disk.",
                )
        self._external = externals(external or {})
        self._sources |= {path: Elsewhere(path, file) for path, file in self._external.items()}
        self._handed: dict[str, Path] = {}
        if not self._sources:
            raise InvalidValue("there are no files", field="files", next_step="Give at least one file.")

    @classmethod
    def from_path(
        cls, paths: AnyPath | Sequence[AnyPath], *, external: Mapping[str, External | str] | None = None
    ) -> Files:
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
    def from_references(cls, urls: str | External | Sequence[str | External] | Mapping[str, str | External]) -> Files:
        """Refer to files that stay where they are.

        Args:
            urls: Path inside the artifact -> URL or `External`; or one or several of these, each under the last part
                of its URL's path.

        Raises:
            InvalidPath: A path is unsafe.
            InvalidValue: A URL cannot be used, or two have one name.

        Example:
            >>> Files.from_references(["s3://models/llama/weights.bin", "https://example.org/config.json"]).paths()
            ['config.json', 'weights.bin']
        """
        return cls({}, external=externals(urls, field="urls"))

    @classmethod
    def _stored(cls, view: FileView, external: Mapping[str, External]) -> Files:
        made = cls.__new__(cls)
        made._sources = {path: Stored(view, path) for path in view.paths()}
        made._external = dict(external)
        made._handed = {}
        return made

    def paths(self) -> list[str]:
        """Every path, sorted; external ones included."""
        return sorted(self._sources)

    @property
    def external(self) -> Mapping[str, External]:
        """Path -> where a file is that stays elsewhere."""
        return MappingProxyType(self._external)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Path -> bytes."""
        return {path: self._sources[path].size() for path in self.paths()}

    def open(self, path: str) -> BinaryIO:
        """Open one file for reading.

        Raises:
            NotFound: There is no such path; or the file is kept outside, and these files were not logged yet.
            Damaged: Its bytes are not what they claim to be.
            NotAllowed: It is kept outside, and may not be read, or is not looked for there.
            Unreachable: It is kept outside, and cannot be had.
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

    def export(self, directory: AnyPath, *, external: bool = True) -> list[Path]:
        """Write every file into a directory, under its path: all of them or nothing.

        Args:
            directory: Made if it does not exist; it must be empty.
            external: Whether files that are kept outside are fetched too; else they are left out.

        Returns:
            The files written, sorted.

        Raises:
            Conflict: The directory holds something already.
            NotAllowed: The directory cannot be written, or a file that is kept outside may not be read.
            Damaged: Bytes are wrong.
            Unreachable: A file that is kept outside cannot be had.
        """
        target = Path(directory)
        wanted = {path: source for path, source in self._sources.items() if external or path not in self._external}
        with filling(target) as made:
            for path, source in wanted.items():
                with source.open() as stream:
                    write_new(made / path, stream)
        return [target / path for path in sorted(wanted)]

    def _source(self, path: str) -> Source:
        if path in self._sources:
            return self._sources[path]
        raise NotFound(f"no file {path!r}", what="file", name=str(path), near=near_names(str(path), self.paths()))

    def __contains__(self, path: object) -> bool:
        return path in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths())

    def __len__(self) -> int:
        return len(self._sources)

    def __repr__(self) -> str:
        return f"<Files {len(self)}: {', '.join(self.paths()[:3])}{', …' if len(self) > 3 else ''}>"
