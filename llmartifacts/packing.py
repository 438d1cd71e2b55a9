"""Value <-> manifest and blobs, through a kind.

pack    value -> kind.pack -> config + staged files -> Manifest
unpack  Manifest -> verified files -> kind.unpack -> value
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from llmartifacts import plugins
from llmartifacts.errors import Damaged, InvalidManifest, InvalidValue, NotFound, WrongKind
from llmartifacts.kinds.base import FileView, Kind
from llmartifacts.kinds.disk import filling, write_new
from llmartifacts.records.backend import BlobSource, Content, Staging
from llmartifacts.records.canonical import plain_json
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.records.manifest import INLINE_BYTES, Component, Descriptor, Manifest
from llmartifacts.records.names import check_path, near_names

if TYPE_CHECKING:
    from llmartifacts.records.external import Wanted

V = TypeVar("V")
EarlierFiles = Callable[[str], Sequence[Blob]]
"""Path -> the file at that path in earlier versions, the likeliest first."""


class Outside(Protocol):
    """Reads content that is kept outside the registry, such as `external.ExternalFiles`."""

    def pin(self, files: Sequence[Wanted]) -> list[Descriptor]:
        """What lies at URLs, by digests and sizes; each read once where they are not known."""

    def prepare(self, files: Sequence[Descriptor]) -> None:
        """Have several files at hand that are wanted now."""

    def source(self, file: Descriptor) -> BlobSource:
        """The verified bytes of one file."""


class Later:
    """An `Outside` that is made when it is first wanted: few versions need one, and it speaks HTTP.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Outside]) -> None:
        self._make = make

    def pin(self, files: Sequence[Wanted]) -> list[Descriptor]:
        """As the one that is made."""
        return self._make().pin(files)

    def prepare(self, files: Sequence[Descriptor]) -> None:
        """As the one that is made."""
        if files:
            self._make().prepare(files)

    def source(self, file: Descriptor) -> BlobSource:
        """As the one that is made."""
        return self._make().source(file)


def kind_named(name: str) -> Kind[Any]:
    """The kind of a name.

    Raises:
        NotFound: No such kind is built in or installed.
    """
    kind: Kind[Any] = plugins.load("kinds", name)()
    return kind


def kind_of(value: Any) -> Kind[Any]:
    """The kind that takes a value.

    Raises:
        WrongKind: No kind takes values of this type.
    """
    declared = getattr(type(value), "kind", None)  # the built-in values say it, so that nothing else is imported
    known = isinstance(declared, str) and plugins.is_installed("kinds", declared)
    for name in [str(declared)] if known else plugins.names("kinds"):
        kind = kind_named(name)
        if isinstance(value, kind.value_type):
            return kind
    if isinstance(value, str | os.PathLike):
        step = "Make a value of it, such as la.Prompt.from_file(path) or la.Files.from_path(path)."
    else:
        types = ", ".join(kind_named(name).value_type.__name__ for name in plugins.names("kinds"))
        step = f"Log one of: {types}; or register a kind for this type."
    raise WrongKind(f"a {type(value).__name__} cannot be logged", field="value", next_step=step)


@dataclass
class StagedFiles:
    """The `FileSink` of a pack: files go to a staging place, descriptors are kept here."""

    staging: Staging
    earlier: EarlierFiles = field(default=lambda path: ())
    outside: Outside | None = None

    def __post_init__(self) -> None:
        self.descriptors: list[Descriptor] = []

    def add(self, path: str, source: Content) -> None:
        """Take one file."""
        check_path(path, field=f"files[{len(self.descriptors)}].path")
        blob = self.staging.add(source, lambda: self.earlier(path))
        self.descriptors.append(Descriptor(path, blob.digest, blob.size))

    def add_external(self, path: str, url: str, digest: Digest | None = None, size: int | None = None) -> Descriptor:
        """Name a file that stays where it is; pinned here where it is not pinned yet."""
        from llmartifacts.records.external import Wanted  # few versions need it

        return self.add_externals([Wanted(path, url, digest, size)])[0]

    def add_externals(self, files: Sequence[Wanted]) -> list[Descriptor]:
        """Name files that stay where they are; those that are not pinned yet are, several at a time."""
        for i, file in enumerate(files, len(self.descriptors)):
            check_path(file.path, field=f"files[{i}].path")
        loose = [file for file in files if file.digest is None or file.size is None]
        if loose and self.outside is None:
            raise InvalidValue(
                f"{loose[0].path!r} is kept outside, and its digest and size are not known", field="external"
            )
        pinned = {f.path: f for f in self.outside.pin(loose)} if loose and self.outside is not None else {}
        made = [
            Descriptor(f.path, f.digest, f.size, f.url)
            if f.digest is not None and f.size is not None
            else pinned[f.path]
            for f in files
        ]
        self.descriptors += made
        return made


class StoredFiles:
    """The `FileView` of an unpack: every byte is verified before it is handed over.

    What is kept outside is fetched when it is asked for; where nothing is `outside`, it is not.
    """

    def __init__(
        self,
        manifest: Manifest,
        blobs: BlobSource,
        components: Mapping[str, Any] | None = None,
        outside: Outside | None = None,
    ) -> None:
        self._files = {f.path: f for f in manifest.files}
        self._parts = manifest.components
        self._blobs = blobs
        self._components = components or {}
        self._outside = outside

    def paths(self) -> Sequence[str]:
        """Every path, sorted."""
        return list(self._files)

    def open(self, path: str) -> BinaryIO:
        """Open one file for reading."""
        return self._named(path, lambda source, blob: source.open(blob))

    def read(self, path: str) -> bytes:
        """All bytes of one file."""
        return self._named(path, lambda source, blob: source.read(blob))

    def as_path(self, path: str) -> Path:
        """A read-only file on disk."""
        return self._named(path, lambda source, blob: source.path(blob))

    def size(self, path: str) -> int:
        """Bytes of one file."""
        return self.descriptor(path).size

    def component(self, role: str) -> Any:
        """The loaded value of one part of a bundle."""
        if role not in self._components:
            raise NotFound(
                f"the bundle has no component {role!r}",
                what="component",
                name=role,
                near=near_names(role, self._components),
            )
        return self._components[role]

    def parts(self) -> Sequence[Component]:
        """The pinned parts of a bundle, by role."""
        return self._parts

    def descriptor(self, path: str) -> Descriptor:
        """Path, digest, size and, for content kept outside, URL of one file."""
        found = self._files.get(path)
        if found is None:
            raise NotFound(f"no file {path!r}", what="file", name=path, near=near_names(path, self._files))
        return found

    def _named(self, path: str, get: Callable[[BlobSource, Blob], V]) -> V:
        found = self.descriptor(path)
        if found.url is not None:
            if self._outside is None:
                raise NotFound(
                    f"{path!r} is kept outside the registry, at {found.url}",
                    what="file",
                    name=path,
                    next_step="Fetch it from there and compare its digest.",
                )
            return get(self._outside.source(found), found.blob)
        try:
            return get(self._blobs, found.blob)
        except Damaged as error:
            raise type(error)(
                f"{path}: {error.message}", digest=error.digest, file=error.file, versions=error.versions
            ) from error


def pack(
    kind: Kind[V],
    value: V,
    staging: Staging,
    components: Sequence[Component] = (),
    earlier: EarlierFiles = lambda path: (),
    outside: Outside | None = None,
) -> Manifest:
    """Turn a value into a manifest; its files go to the staging place.

    Args:
        kind: The kind of the value.
        value: The value.
        staging: Where its files go.
        components: Pinned parts, for a bundle.
        earlier: Finds files of earlier versions, so that a large one is stored as what changed.
        outside: Pins files that stay where they are.

    Raises:
        InvalidValue: The value cannot be logged.
    """
    sink = StagedFiles(staging, earlier, outside)
    config = plain_json(kind.pack(value, sink), field="config")
    problems = kind.check(config)
    if problems:
        field, _, what = problems[0].partition(": ")
        raise InvalidValue(what or problems[0], field=field if what else "")
    manifest = Manifest.build(kind.name, config, sink.descriptors, components)
    check_external(kind, manifest)
    if len(manifest.to_bytes()) > INLINE_BYTES:
        staging.add(manifest.to_bytes())
    return manifest


def may_be_external(name: str) -> bool:
    """Whether files of a kind may be kept outside; of a kind that is not installed nobody knows."""
    return not plugins.is_installed("kinds", name) or kind_named(name).external


def check_outside(manifest: Manifest) -> None:
    """As `check_external`, for a manifest whose kind may not be installed. Raises `InvalidManifest`."""
    if plugins.is_installed("kinds", manifest.kind):
        check_external(kind_named(manifest.kind), manifest)


def check_external(kind: Kind[Any], manifest: Manifest) -> None:
    """Refuse a file that is kept outside where its kind has none such.

    Raises:
        InvalidManifest: There is one.
    """
    if not kind.external:
        for i, file in enumerate(manifest.files):
            if file.url is not None:
                raise InvalidManifest(
                    f"{file.path!r} is kept outside, and the files of a {kind.name} are kept in the registry",
                    field=f"files[{i}].url",
                )


class EarlierVersions:
    """Versions that a new one may be like; looked up when the first large file is packed.

    Args:
        kind: The kind of the new version.
        read: Reads the manifests, that of the newest version of the same collection first.
    """

    def __init__(self, kind: str, read: Callable[[], Sequence[Manifest]]) -> None:
        self._kind = kind
        self._read = read
        self.manifests: Sequence[Manifest] = ()
        self._looked = False

    def files(self, path: str) -> Sequence[Blob]:
        """The file at a path in each of them."""
        if not self._looked:
            self._looked = True
            self.manifests = [m for m in self._read() if m.kind == self._kind]
        found = [m.file(path) for m in self.manifests]
        return [f.blob for f in found if f and f.url is None]

    def remarks(self, kind: Kind[Any], manifest: Manifest, added: Mapping[Digest, int]) -> list[str]:
        """What a kind says aloud of a new version, beside the newest before it; nothing where no file was large.

        Args:
            kind: The kind.
            manifest: The new version's.
            added: Digest of each large file that was new -> bytes that it added.
        """
        if not self.manifests:
            return []
        return kind.remarks(self.manifests[0], manifest, {f.path: added.get(f.digest, 0) for f in manifest.files})


def unpack(
    manifest: Manifest,
    blobs: BlobSource,
    manifests: Callable[[Sequence[Digest]], Mapping[Digest, Manifest]],
    outside: Outside | None = None,
) -> Any:
    """Load the value of a manifest, the parts of a bundle included.

    Args:
        manifest: A verified manifest.
        blobs: Verified bytes.
        manifests: Looks up verified manifests of parts.
        outside: Fetches what is kept outside, when it is asked for.

    Raises:
        NotFound: The kind is not installed, or a part is missing.
        Damaged: Bytes are not what they claim to be; nothing was parsed.
    """
    components: dict[str, Any] = {}
    if manifest.components:
        found = manifests([c.digest for c in manifest.components])
        for part in manifest.components:
            if part.digest not in found:
                raise NotFound(
                    f"the component {part.role!r} ({part.digest}) is not in this registry",
                    what="component",
                    name=part.role,
                )
            inner = found[part.digest]
            if inner.components or inner.kind == manifest.kind:
                raise InvalidValue("a bundle holds no bundle", field=f"components.{part.role}")
            if inner.kind != part.kind:
                raise InvalidValue(f"it is a {inner.kind}, not a {part.kind}", field=f"components.{part.role}")
            components[part.role] = unpack(inner, blobs, manifests, outside)
    kind = kind_named(manifest.kind)
    check_external(kind, manifest)
    return kind.unpack(manifest.config, StoredFiles(manifest, blobs, components, outside))


def view(manifest: Manifest, blobs: BlobSource) -> FileView:
    """The files of a manifest, for diffs."""
    return StoredFiles(manifest, blobs)


def export(manifest: Manifest, blobs: BlobSource, directory: Path, outside: Outside | None = None) -> list[Path]:
    """Write the verified files of a manifest into a directory, and the manifest beside them as `manifest.json`.

    Args:
        manifest: A verified manifest.
        blobs: Verified bytes.
        directory: Made if it does not exist; it must be empty.
        outside: Fetches what is kept outside; None leaves it where it is.

    Returns:
        The files written, sorted.

    Raises:
        Conflict: The directory holds something already.
        NotAllowed: The directory cannot be written.
        Damaged: Stored bytes are wrong; then the directory is as it was.
        Unreachable: Something that is kept outside cannot be had.
    """
    files = StoredFiles(manifest, blobs, outside=outside)
    if outside is not None:
        check_outside(manifest)
    with filling(directory) as made:
        if outside is not None:
            outside.prepare([f for f in manifest.files if f.url is not None])
        for descriptor in manifest.files:
            if descriptor.url is None or outside is not None:
                with files.open(descriptor.path) as stream:
                    write_new(made / descriptor.path, stream)
        name = "manifest.json" if manifest.file("manifest.json") is None else ".manifest.json"
        (made / name).write_bytes(manifest.to_bytes())
    return sorted(p for p in directory.rglob("*") if p.is_file())


def expect_type(value: Any, wanted: type[V], reference: str) -> V:
    """Check that a loaded value is what the caller asked for.

    Raises:
        WrongKind: It is not.
    """
    if not isinstance(value, wanted):
        raise WrongKind(
            f"{reference} is a {type(value).__name__}, not a {wanted.__name__}",
            field=reference,
            next_step=f"Resolve it as la.{type(value).__name__}, or name another collection.",
        )
    return value
