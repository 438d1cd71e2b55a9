"""The conformance suite for kinds: one call in a test says whether a kind keeps its contract.

Example:
    >>> from llmartifacts.kinds.files import Files, FilesKind
    >>> check_kind(FilesKind(), [Files({"a.txt": b"1"})], [Files({"a.txt": b"2"})])
"""

from __future__ import annotations

import atexit
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from llmartifacts.errors import LlmartifactsError, NotFound
from llmartifacts.kinds.base import FileView, Kind
from llmartifacts.records.canonical import canonical_bytes, parse_json, plain_json
from llmartifacts.records.digest import Digest, digest_of
from llmartifacts.records.external import Wanted
from llmartifacts.records.manifest import Component, Descriptor, Manifest
from llmartifacts.records.names import check_path, near_names

V = TypeVar("V")
HEAVY = ("faiss", "numpy", "langchain_core", "fastapi", "pyarrow", "scipy", "pandas", "datasets", "torch")
"""Libraries that importing a kind must not import."""
MAX_SUMMARY = 500
MAX_MUTATIONS = 400


class MemoryFiles:
    """Files in memory: a `FileSink` to pack into, and then the `FileView` to unpack from.

    Args:
        parts: Role -> loaded value of each part, for a bundle.

    Example:
        >>> files = MemoryFiles()
        >>> files.add("a.txt", b"hello")
        >>> files.read("a.txt")
        b'hello'
    """

    def __init__(self, parts: Mapping[str, Any] | None = None) -> None:
        self.content: dict[str, bytes] = {}
        self.descriptors: dict[str, Descriptor] = {}
        self._values = dict(parts or {})
        self._folder: Path | None = None

    # --- FileSink

    def add(self, path: str, source: bytes | memoryview | Path | BinaryIO) -> None:
        """Take one file."""
        check_path(path)
        if path in self.descriptors:
            raise AssertionError(f"{path!r} is packed twice")
        if isinstance(source, Path):
            source = source.read_bytes()
        data = bytes(source) if isinstance(source, bytes | bytearray | memoryview) else source.read()
        self.content[path] = data
        self.descriptors[path] = Descriptor(path, digest_of(data), len(data))

    def add_external(self, path: str, url: str, digest: Digest | None = None, size: int | None = None) -> Descriptor:
        """Name a file that stays where it is, by its digest and its size: nothing is fetched here."""
        if digest is None or size is None:
            raise AssertionError(f"{path!r} is not pinned, and a test fetches nothing")
        self.descriptors[check_path(path)] = made = Descriptor(path, digest, size, url)
        return made

    def add_externals(self, files: Sequence[Wanted]) -> list[Descriptor]:
        """Name several."""
        return [self.add_external(f.path, f.url, f.digest, f.size) for f in files]

    # --- FileView

    def paths(self) -> Sequence[str]:
        """Every path, sorted."""
        return sorted(self.descriptors)

    def open(self, path: str) -> BinaryIO:
        """Open one file for reading."""
        return io.BytesIO(self.read(path))

    def read(self, path: str) -> bytes:
        """All bytes of one file."""
        if self.descriptor(path).url is not None:
            raise NotFound(f"{path!r} is kept outside", what="file", name=path)
        return self.content[path]

    def as_path(self, path: str) -> Path:
        """A read-only file on disk; it lives as long as the process."""
        data = self.read(path)
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="llmartifacts-testing-"))
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        place = self._folder / digest_of(data)[7:]
        if not place.exists():
            place.write_bytes(data)
            place.chmod(0o444)
        return place

    def size(self, path: str) -> int:
        """Bytes of one file."""
        return self.descriptor(path).size

    def descriptor(self, path: str) -> Descriptor:
        """Path, digest, size and URL of one file."""
        if path not in self.descriptors:
            raise NotFound(f"no file {path!r}", what="file", name=path, near=near_names(path, self.descriptors))
        return self.descriptors[path]

    def component(self, role: str) -> Any:
        """The value of one part of a bundle."""
        if role not in self._values:
            raise NotFound(f"no component {role!r}", what="component", name=role)
        return self._values[role]

    def parts(self) -> Sequence[Component]:
        """The parts of a bundle; each is a `files` whose digest is made of its role."""
        return [Component(role, "files", digest_of(role.encode())) for role in sorted(self._values)]

    # --- for tests

    def manifest(self, kind: str, config: Mapping[str, Any]) -> Manifest:
        """The manifest of these files with a config."""
        return Manifest.build(kind, plain_json(config, field="config"), self.descriptors.values(), self.parts())

    def replaced(self, path: str, data: bytes | None) -> MemoryFiles:
        """A copy in which one file has other bytes, or is gone."""
        made = MemoryFiles(self._values)
        made.content, made.descriptors = dict(self.content), dict(self.descriptors)
        made.descriptors.pop(path, None)
        made.content.pop(path, None)
        if data is not None:
            made.add(path, data)
        return made


def pack(kind: Kind[V], value: V) -> tuple[Manifest, MemoryFiles]:
    """Pack a value into memory; parts that it refers to are there as text."""
    files = MemoryFiles({role: f"the part {role}" for role in kind.references(value)})
    return files.manifest(kind.name, kind.pack(value, files)), files


def check_kind(kind: Kind[V], values: Sequence[V], others: Sequence[V] = ()) -> None:
    """Check a kind against its contract.

    Args:
        kind: The kind.
        values: One component, built in one or more ways: each must pack to the same manifest.
        others: Components that behave otherwise: each must pack to a manifest of its own, and show a difference.

    Raises:
        AssertionError: A promise is broken; the message says which, and on what input.
    """
    manifest, files = pack(kind, values[0])
    _demand(isinstance(kind.name, str) and manifest.kind == kind.name, "the kind has no name")
    for i, value in enumerate(values):
        _demand(isinstance(value, kind.value_type), f"values[{i}] is no {kind.value_type.__name__}")
        _check_round_trip(kind, value)
        _demand(pack(kind, value)[0].digest == manifest.digest, f"values[{i}] packs to another manifest than values[0]")
    _check_identity(kind, [values[0], *others])
    _check_config(kind, manifest)
    _check_hostile_configs(kind, manifest, files)
    _check_hostile_files(kind, manifest, files)
    _check_imports(kind)


# --- promises


def _check_round_trip(kind: Kind[V], value: V) -> None:
    first, files = pack(kind, value)
    again, _ = pack(kind, value)
    _demand(first.to_bytes() == again.to_bytes(), "packing one value twice gives two manifests")
    _demand(Manifest.from_bytes(first.to_bytes()) == first, "the manifest cannot be read again")
    loaded = kind.unpack(first.config, files)
    _demand(isinstance(loaded, kind.value_type), f"unpack gives a {type(loaded).__name__}")
    sink = MemoryFiles(files._values)
    repacked = sink.manifest(kind.name, kind.pack(loaded, sink))
    _demand(repacked.to_bytes() == first.to_bytes(), f"pack, unpack, pack changes the manifest:\n{first}\n{repacked}")
    same = kind.diff(first, repacked, (files, sink))
    _demand(not same, f"a value differs from itself: {same}")


def _check_identity(kind: Kind[V], values: Sequence[V]) -> None:
    packed = [pack(kind, value) for value in values]
    for i, (a, a_files) in enumerate(packed):
        for j, (b, b_files) in enumerate(packed[:i]):
            which = f"others[{i - 1}] and {f'others[{j - 1}]' if j else 'values[0]'}"
            _demand(a.digest != b.digest, f"{which} behave otherwise and have one identity")
            told = kind.diff(b, a, (b_files, a_files))
            _demand(told, f"{which} have no difference to show")
            _demand(told.kind == kind.name, "the difference names another kind")
            _demand(str(told), "the difference is empty text")


def _check_config(kind: Kind[Any], manifest: Manifest) -> None:
    config = manifest.config
    _demand(parse_json(canonical_bytes(config)) == config, "the config is not plain JSON")
    _demand(kind.check(config) == [], f"check() refuses the kind's own config: {kind.check(config)}")
    line = kind.summary(config)
    _demand(line and "\n" not in line and len(line) <= MAX_SUMMARY, f"summary() is not one line: {line!r}")
    _demand(line.isprintable(), f"summary() has control characters: {line!r}")
    _demand(isinstance(kind.text(config), str), "text() gives no text")
    for junk in ({"no-such-field": 1}, {**config, "no-such-field": 1}):
        problems = kind.check(junk)
        _demand(problems, f"check() takes {junk}")
        _demand(all(isinstance(p, str) and "\n" not in p for p in problems), f"problems are not lines: {problems}")


def _check_hostile_configs(kind: Kind[Any], manifest: Manifest, files: FileView) -> None:
    for n, (what, config) in enumerate(_mutations(manifest.config)):
        if n == MAX_MUTATIONS:
            break
        with _OnlyTyped(f"config with {what}: check"):
            _demand(isinstance(kind.check(config), list), "check() gives no list")
        with _OnlyTyped(f"config with {what}: unpack"):
            kind.unpack(config, files)
        with _OnlyTyped(f"config with {what}: summary"):
            line = kind.summary(config)
            _demand(line.isprintable() and len(line) <= 10 * MAX_SUMMARY, f"summary of {what} is not one clean line")
        with _OnlyTyped(f"config with {what}: text"):
            _demand(isinstance(kind.text(config), str), f"text of {what} is no text")


def _check_hostile_files(kind: Kind[Any], manifest: Manifest, files: MemoryFiles) -> None:
    for path in list(files.content)[:8]:
        data = files.content[path]
        bad: list[tuple[str, bytes | None]] = [
            ("missing", None),
            ("empty", b""),
            ("cut", data[: len(data) // 2]),
            ("doubled", data + data),
            ("a pickle", b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."),
            ("not UTF-8", b"\xff\xfe" + data),
            ("deep", b"[" * 100_000),
        ]
        for what, changed in bad:
            with _OnlyTyped(f"{path} {what}"):
                kind.unpack(manifest.config, files.replaced(path, changed))
    with _OnlyTyped("a file too many"):
        kind.unpack(manifest.config, files.replaced("one/too/many.bin", b"x"))


def _check_imports(kind: Kind[Any]) -> None:
    modules = sorted({type(kind).__module__, kind.value_type.__module__})
    code = (
        f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
        f"print(*[h for h in {HEAVY!r} if h in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # the kind need not be installed
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)  # noqa: S603
    _demand(ran.returncode == 0, f"{modules} cannot be imported alone: {ran.stderr}")
    _demand(not ran.stdout.strip(), f"importing {modules} imports {ran.stdout.strip()}")


# --- helpers


def _demand(kept: object, told: str) -> None:
    """An assertion that `python -O` keeps."""
    if not kept:
        raise AssertionError(told)


_JUNK: tuple[Any, ...] = (None, True, -1, 0, 1e300, 2**53 - 1, "", "../../etc/passwd", "a\x00b\n\x1b[2J", [], {}, [[]])


def _mutations(config: Any) -> Iterator[tuple[str, Any]]:
    """The config with one value replaced, one key gone or one key too many; for every place in it, widest first."""
    whole: tuple[dict[str, Any], ...] = ({}, {"a": []}, dict.fromkeys(config))
    for junk in whole:
        yield f"{junk!r} in its place", junk
    places = sorted(_places(config, ()), key=len)
    for place in places:
        yield f"{place} gone", _changed(config, place, None, gone=True)
    for junk in _JUNK:
        for place in places:
            yield f"{junk!r} at {place}", _changed(config, place, junk)


def _places(value: Any, where: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*where, key)
        yield from _places(item, (*where, key))


def _changed(value: Any, place: tuple[Any, ...], junk: Any, *, gone: bool = False) -> Any:
    key, *rest = place
    made = dict(value) if isinstance(value, dict) else list(value)
    if rest:
        made[key] = _changed(value[key], tuple(rest), junk, gone=gone)
    elif gone:
        del made[key]
    else:
        made[key] = junk
    return made


class _OnlyTyped:
    """Typed errors end the block quietly; any other but a broken assertion is a broken promise."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, LlmartifactsError):
            return True
        if isinstance(error, Exception) and not isinstance(error, AssertionError):
            raise AssertionError(f"{self._what} raises {type(error).__name__}: {error}") from error
        return False
