"""Manifests: canonical JSON whose SHA-256 is a version's identity.

A manifest covers everything that changes what the component does. Names, tags, messages and inputs lie outside.

Example:
    >>> m = Manifest("prompt", {"template": "Hi {{ name }}"})
    >>> Manifest.from_bytes(m.to_bytes()) == m
    True
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from llmartifacts.errors import DigestMismatch, InvalidManifest, NewerFormat, TooLarge
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.digest import Blob, Digest, digest_of, parse_digest
from llmartifacts.records.names import check_name, check_paths

SCHEMA = "llmartifacts/manifest/1"
_SCHEMA_FAMILY = "llmartifacts/manifest/"
MAX_FILES = 100_000
MAX_BYTES = 32 * 1024 * 1024
_FILE = frozenset({"path", "digest", "size"})
_PART = frozenset({"role", "kind", "digest"})
INLINE_BYTES = 64 * 1024
"""A longer manifest is stored and sent as a blob by its digest."""


@dataclass(frozen=True, slots=True, order=True)
class Descriptor:
    """One file of a manifest.

    Attributes:
        path: Relative POSIX path inside the artifact.
        digest: SHA-256 of the whole file.
        size: Bytes.
        url: Where the bytes are, only for content kept outside the registry.
    """

    path: str
    digest: Digest
    size: int
    url: str | None = None

    @property
    def blob(self) -> Blob:
        """The bytes' address."""
        return Blob(self.digest, self.size)


@dataclass(frozen=True, slots=True, order=True)
class Component:
    """One part of a bundle, pinned.

    Attributes:
        role: What the part is for, unique in the bundle.
        kind: Its kind.
        digest: Its manifest digest.
    """

    role: str
    kind: str
    digest: Digest


@dataclass(frozen=True)
class Manifest:
    """What a version is.

    Attributes:
        kind: Name of the kind.
        config: JSON object; what the kind needs besides files. Treat as read-only.
        files: Descriptors, sorted by path.
        components: Parts of a bundle, sorted by role.
    """

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Descriptor, ...] = ()
    components: tuple[Component, ...] = ()

    @classmethod
    def build(
        cls,
        kind: str,
        config: Mapping[str, Any],
        files: Iterable[Descriptor] = (),
        components: Iterable[Component] = (),
    ) -> Manifest:
        """Make a manifest from unsorted parts and check every rule.

        Raises:
            InvalidManifest: A rule is broken; the field is named.
            InvalidPath: A file path is unsafe.
            TooLarge: More than 100,000 files or 32 MiB.
        """
        by_path = tuple(sorted(files, key=lambda f: f.path))
        made = cls(kind, dict(config), by_path, tuple(sorted(components, key=lambda c: c.role)))
        made._check()
        made.to_bytes()
        return made

    @classmethod
    def from_bytes(cls, data: bytes, *, expect: Digest | None = None, origin: str = "") -> Manifest:
        """Read a manifest, refusing whatever `build` would not have written.

        Args:
            data: Canonical JSON.
            expect: The digest it must have; checked before anything is parsed.
            origin: Where the bytes came from, for messages.

        Raises:
            DigestMismatch: The bytes are not what `expect` names.
            InvalidManifest: Not a manifest, or not in canonical form.
            NewerFormat: Written by a newer release.
            TooLarge: More than 32 MiB.
        """
        digest = digest_of(data)
        if expect is not None and digest != expect:
            raise DigestMismatch(f"the manifest has digest {digest}, not {expect}", digest=expect, file=origin)
        body = parse_json(data, field="manifest", origin=origin, max_bytes=MAX_BYTES)
        made = cls._from_body(body, origin)
        if expect is None and made.to_bytes() != data:
            raise InvalidManifest("not in canonical form (RFC 8785)", origin=origin)
        made.__dict__["_bytes"] = bytes(data)
        made.__dict__["digest"] = digest
        return made

    @classmethod
    def known(cls, text: str, digest: Digest) -> Manifest:
        """Read a manifest that `from_bytes` read before, in this process, under this digest: nothing is checked again.

        Args:
            text: Its canonical JSON.
            digest: Its digest.
        """
        body = json.loads(text)
        files = tuple(Descriptor(f["path"], Digest(f["digest"]), f["size"], f.get("url")) for f in body["files"])
        parts = tuple(Component(c["role"], c["kind"], Digest(c["digest"])) for c in body["components"])
        made = cls(body["kind"], body["config"], files, parts)
        made.__dict__["_bytes"] = text.encode()
        made.__dict__["digest"] = digest
        return made

    @classmethod
    def _from_body(cls, body: Any, origin: str) -> Manifest:
        schema = body.get("schema") if isinstance(body, dict) else None
        if schema != SCHEMA:
            if isinstance(schema, str) and schema.startswith(_SCHEMA_FAMILY):
                raise NewerFormat(f"the manifest has schema {schema!r}, this release reads {SCHEMA!r}", origin=origin)
            raise InvalidManifest(f"schema is {schema!r}, not {SCHEMA!r}", field="schema", origin=origin)
        extra = body.keys() - {"schema", "kind", "config", "files", "components"}
        if extra:
            raise InvalidManifest(f"unknown fields {sorted(extra)}", field=min(extra), origin=origin)
        try:
            if type(body["files"]) is not list or type(body["components"]) is not list:
                raise InvalidManifest("files and components are lists", origin=origin)
            for i, f in enumerate(body["files"]):
                if f.keys() != _FILE and not (f.keys() == _FILE | {"url"} and f["url"]):
                    raise InvalidManifest(f"the fields are {sorted(f)}", field=f"files[{i}]", origin=origin)
            for i, c in enumerate(body["components"]):
                if c.keys() != _PART:
                    raise InvalidManifest(f"the fields are {sorted(c)}", field=f"components[{i}]", origin=origin)
            files = tuple(
                Descriptor(f["path"], parse_digest(f["digest"]), f["size"], f.get("url")) for f in body["files"]
            )
            parts = tuple(Component(c["role"], c["kind"], parse_digest(c["digest"])) for c in body["components"])
            made = cls(body["kind"], body["config"], files, parts)
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidManifest(f"a field is missing or of the wrong type: {error}", origin=origin) from None
        made._check()
        return made

    def to_bytes(self) -> bytes:
        """Canonical JSON of the manifest."""
        return self._bytes

    @cached_property
    def _bytes(self) -> bytes:
        body = {
            "schema": SCHEMA,
            "kind": self.kind,
            "config": self.config,
            "files": [
                {"path": f.path, "digest": f.digest, "size": f.size, **({"url": f.url} if f.url else {})}
                for f in self.files
            ],
            "components": [{"role": c.role, "kind": c.kind, "digest": c.digest} for c in self.components],
        }
        return canonical_bytes(body, max_bytes=MAX_BYTES)

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical bytes: the version's identity."""
        return digest_of(self._bytes)

    @property
    def size(self) -> int:
        """Logical size in bytes: the manifest and every file."""
        return len(self._bytes) + sum(f.size for f in self.files)

    def file(self, path: str) -> Descriptor | None:
        """The descriptor of one path, or None."""
        return self._by_path.get(path)

    @cached_property
    def _by_path(self) -> dict[str, Descriptor]:
        return {f.path: f for f in self.files}

    def _check(self) -> None:
        check_name(self.kind, field="kind")
        if not isinstance(self.config, dict):
            raise InvalidManifest("config is not an object", field="config")
        if len(self.files) > MAX_FILES:
            raise TooLarge(f"{len(self.files)} files, the limit is {MAX_FILES}", field="files")
        check_paths(f.path for f in self.files)
        for i, f in enumerate(self.files):
            if type(f.size) is not int or f.size < 0:
                raise InvalidManifest(f"size {f.size!r} is not a number of bytes", field=f"files[{i}].size")
            if f.url is not None:
                from llmartifacts.records.external import url_problem  # few manifests need it

                if problem := url_problem(f.url):
                    raise InvalidManifest(f"the URL {problem}", field=f"files[{i}].url")
        for i, c in enumerate(self.components):
            check_name(c.role, field=f"components[{i}].role")
            check_name(c.kind, field=f"components[{i}].kind")
        if list(self.files) != sorted(self.files, key=lambda f: f.path):
            raise InvalidManifest("files are not sorted by path", field="files")
        roles = [c.role for c in self.components]
        if roles != sorted(set(roles)):
            raise InvalidManifest("components are not sorted by role, each once", field="components")
