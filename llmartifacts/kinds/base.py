"""What a kind is, and what it reads from and writes to.

A kind turns a value into a config and files (`pack`) and back (`unpack`), and knows nothing of where either is kept.
To add one: a file here (or a package with an entry point in `llmartifacts.kinds`), a line in `plugins.py`, and a
test that calls `llmartifacts.testing.kinds.check_kind`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from llmartifacts.errors import InvalidInput, InvalidValue
from llmartifacts.records.diff import Change, Diff, diff_components, diff_files, diff_json
from llmartifacts.records.digest import Digest
from llmartifacts.records.lineage import Relation
from llmartifacts.records.manifest import Component, Descriptor, Manifest

if TYPE_CHECKING:
    from llmartifacts.records.external import Wanted

V = TypeVar("V")


class FileView(Protocol):
    """The files of one artifact, by their paths. What is read here was verified before.

    A view may be read from any thread. Components are there for bundles only.
    """

    def paths(self) -> Sequence[str]:
        """Every path, sorted."""

    def open(self, path: str) -> BinaryIO:
        """Open one file for reading. Raises `NotFound` if there is no such path, `Damaged` if its bytes are wrong."""

    def read(self, path: str) -> bytes:
        """All bytes of one file. Raises as `open`."""

    def as_path(self, path: str) -> Path:
        """A read-only file on disk with one file's bytes, for libraries that map files. Raises as `open`."""

    def size(self, path: str) -> int:
        """Bytes of one file."""

    def descriptor(self, path: str) -> Descriptor:
        """Path, digest, size and, for content kept outside, URL of one file. Raises `NotFound`."""

    def parts(self) -> Sequence[Component]:
        """The pinned parts of a bundle, by role."""

    def component(self, role: str) -> Any:
        """The loaded value of one part of a bundle. Raises `NotFound`."""


class FileSink(Protocol):
    """Where `pack` puts an artifact's files."""

    def add(self, path: str, source: bytes | memoryview | Path | BinaryIO) -> None:
        """Take one file: bytes, a view of a map, a file on disk (read as it is now), or a stream.

        Raises `InvalidPath`.
        """

    def add_external(self, path: str, url: str, digest: Digest | None = None, size: int | None = None) -> Descriptor:
        """Name a file that stays where it is; where digest or size are not known, it is read once and pinned.

        Raises `DigestMismatch` if it is something else, and what reading it raises.
        """

    def add_externals(self, files: Sequence[Wanted]) -> list[Descriptor]:
        """As `add_external`, of several at once; in their order."""


class Config(BaseModel):
    """Base of every kind's config model: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Kind(ABC, Generic[V]):
    """The contract of a kind.

    Attributes:
        name: Its name, as manifests and the command line say it.
        value_type: The class of its values.
        config_model: Model of its config.
        input_relation: How its versions are related to the inputs that they are logged with.
        external: Whether its files may stay outside the registry, named by URL.
    """

    name: ClassVar[str]
    value_type: type[V]
    config_model: ClassVar[type[Config]]
    input_relation: ClassVar[Relation] = "derived_from"
    external: ClassVar[bool] = False

    @abstractmethod
    def pack(self, value: V, files: FileSink) -> Mapping[str, Any]:
        """Turn a value into a config (JSON) and files.

        Everything that changes what the component does goes in: two values that behave differently pack differently,
        and packing the same value twice gives the same bytes.

        Raises:
            InvalidValue: The value cannot be logged; the field is named.
        """

    @abstractmethod
    def unpack(self, config: Mapping[str, Any], files: FileView) -> V:
        """Turn config and files back into a value. Runs no code from either.

        Raises:
            InvalidValue: They are not what `pack` writes.
            UnsafeContent: They would act on the host.
        """

    def references(self, value: V) -> Mapping[str, str]:
        """Role -> reference of the versions that the value is made of; only bundles have some."""
        return {}

    def check(self, config: Mapping[str, Any]) -> list[str]:
        """Problems of a config, one readable line each that begins with the field; empty if it is good."""
        try:
            self.config_model.model_validate(config)
        except ValidationError as error:
            return [f"{_where(e['loc'])}: {e['msg']}" for e in error.errors(include_url=False, include_input=False)]
        return []

    def parse(self, config: Mapping[str, Any]) -> Config:
        """The config as its model.

        Raises:
            InvalidValue: It does not fit the model; the first field is named.
        """
        try:
            return self.config_model.model_validate(config)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise InvalidValue(f"{self.name} config: {first['msg']}", field=f"config.{_where(first['loc'])}") from None

    def diff(self, before: Manifest, after: Manifest, files: tuple[FileView, FileView]) -> Diff:
        """Differences of two versions. This one compares configs by field, files by digest and parts by role.

        Kinds whose people think in other terms (lines of a template, items, documents) say it in those.
        `Diff.before` and `after` are filled in by the caller.
        """
        changes: list[Change] = [
            *diff_json(before.config, after.config),
            *diff_files(before, after),
            *diff_components(before, after),
        ]
        return Diff(self.name, "", "", tuple(changes))

    def remarks(self, before: Manifest, after: Manifest, added: Mapping[str, int]) -> list[str]:
        """What somebody who logs a version should know of it, one plain sentence each; this one has nothing to say.

        Args:
            before: The newest version of the collection before it.
            after: The version that was logged.
            added: Path of each of its files -> bytes that it added to what is stored.
        """
        return []

    def documents(self, config: Mapping[str, Any], files: FileView) -> Iterable[str] | None:
        """Ids of the documents, or items, that a version holds, by which they can be erased; None for a kind of none.

        Nothing heavy is needed for it, and nothing of the index is opened.

        Raises:
            InvalidValue: The files are not what `pack` writes.
        """
        return None

    @abstractmethod
    def summary(self, config: Mapping[str, Any]) -> str:
        """One line for people, from the config alone."""

    def text(self, config: Mapping[str, Any]) -> str:
        """What people read in full, such as a template, from the config alone; empty where the summary says it all."""
        return ""

    @abstractmethod
    def read_source(self, paths: Sequence[Path], options: Mapping[str, str]) -> V:
        """Read a value from files, as `llmartifacts log KIND NAME SOURCE…` does.

        Args:
            paths: At least one file or folder.
            options: `--option key=value` of the command line; an unknown one is an error that lists the known.

        Raises:
            InvalidInput: The files are not what this kind reads; `origin` names the file and line.
        """

    def read_addresses(self, addresses: Sequence[str], paths: Sequence[Path], options: Mapping[str, str]) -> V:
        """Read a value that refers to content outside, as `llmartifacts log` does where a source is a URL.

        Args:
            addresses: `[path=]URL`, at least one.
            paths: Files and folders beside them.
            options: As in `read_source`.

        Raises:
            InvalidInput: An address cannot be used, or this kind's content is always kept in the registry.
        """
        raise InvalidInput(
            f"a {self.name} is read from files, and {addresses[0][:100]!r} is an address",
            field="SOURCE",
            next_step="Fetch it first, and name the file.",
        )


def check_options(options: Mapping[str, str], known: Iterable[str]) -> None:
    """Refuse unknown source options.

    Raises:
        InvalidValue: One is unknown; the hint lists the known ones.
    """
    names = sorted(known)
    for key in options:
        if key not in names:
            raise InvalidValue(
                f"unknown option {key!r}",
                field=key,
                next_step=f"Known options: {', '.join(names)}." if names else "This kind takes no options.",
            )


def _where(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "config"
