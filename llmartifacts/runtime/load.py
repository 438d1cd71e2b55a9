"""Fetch and unpack: a selection -> the typed, frozen value of a spec, or every component that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from llmartifacts import packing, plugins
from llmartifacts.errors import BlobMissing, Incompatible, LlmartifactsError, NotFound, WrongKind
from llmartifacts.records.compatibility import Problem, check_set
from llmartifacts.records.digest import Blob, Digest
from llmartifacts.records.lock import Lockfile
from llmartifacts.records.manifest import Descriptor, Manifest
from llmartifacts.records.names import near_names
from llmartifacts.runtime.failures import Failures, typed
from llmartifacts.runtime.fetch import CachedBlobs
from llmartifacts.runtime.generation import Notice
from llmartifacts.runtime.selection import Selection
from llmartifacts.runtime.spec import BUNDLE, Spec, SpecField
from llmartifacts.runtime.task import Task, each

T = TypeVar("T")


def load(
    task: Task[Any],
    spec: Spec[T],
    selection: Selection,
    blobs: CachedBlobs,
    failures: Failures,
    known: Mapping[Digest, Any] = MappingProxyType({}),
) -> tuple[T, tuple[Notice, ...]]:
    """Check the set, fetch and verify every byte, unpack every component.

    Args:
        task: The task that this is part of; it may be given up between two steps.
        spec: What the service wants.
        selection: The exact versions.
        blobs: Where bytes come from.
        failures: Takes each error as it comes, so that somebody who stops waiting can tell what is known.
        known: Manifest digest -> value that is loaded already, and taken as it is.

    Returns:
        The spec's value, and what somebody should know.

    Raises:
        ResolutionError: At least one component failed.
    """
    with task.step("checking that the components fit each other"):
        check_types(spec, selection, failures)
        notices = check_fit(selection, failures)
    failures.refuse()
    _fetch(task, selection, blobs, failures)
    failures.refuse()
    with task.step("unpacking the components"):
        values = _Unpacking(spec, selection, blobs, failures, known).values()
        failures.refuse()
        try:
            return spec.make(values), (*selection.notices, *notices)
        except Exception as error:  # the class is the user's, and may raise anything from __post_init__
            raise failures.all(error) from error


def keep_manifests(blobs: CachedBlobs, selection: Selection, failures: Failures) -> None:
    """Cache the manifests of a selection, for a start without the registry.

    Raises:
        ResolutionError: The cache takes nothing more.
    """
    try:
        blobs.keep([*selection.manifests.values(), *selection.parts.values()])
    except LlmartifactsError as error:
        raise failures.all(error) from error


def loaded_values(spec: Spec[Any], lock: Lockfile, value: Any) -> dict[Digest, Any]:
    """Manifest digest -> value, of a set that is loaded; the parts of a bundle are not among them."""
    if spec.from_bundle:
        return {}
    get = value.__getitem__ if isinstance(value, Mapping) else partial(getattr, value)
    return {locked.digest: get(name) for name, locked in lock.components.items()}


def check_fit(selection: Selection, failures: Failures) -> tuple[Notice, ...]:
    """Apply the compatibility rules: errors go to the components concerned, the rest is told."""
    problems = check_set(selection.members(), selection.parts, installed=partial(plugins.is_installed, "kinds"))
    for name, broken in _by_component(selection, [p for p in problems if p.severity == "error"]).items():
        mend = " ".join(dict.fromkeys(p.mend for p in broken if p.mend))
        failures.add(name, Incompatible(broken[0].message, problems=tuple(map(str, broken)), next_step=mend))
    return tuple(
        Notice(p.rule, p.message, name)
        for name, told in _by_component(selection, [p for p in problems if p.severity != "error"]).items()
        for p in told
    )


def check_types(spec: Spec[Any], selection: Selection, failures: Failures) -> None:
    """Refuse a component of a wrong kind before its bytes are fetched."""
    for name, manifest in selection.manifests.items():
        if spec.from_bundle:
            if manifest.kind != "bundle":
                failures.add(name, _not_a_bundle(selection, name, manifest))
            continue
        try:
            made = packing.kind_named(manifest.kind).value_type
        except LlmartifactsError as error:
            failures.add(name, error)
            continue
        wanted = spec.fields[name].type
        if wanted is not None and not (issubclass(made, wanted) or issubclass(wanted, made)):
            failures.add(
                name,
                WrongKind(
                    f"{spec.wanted[name]} is a {made.__name__}, not a {wanted.__name__}",
                    field=name,
                    next_step=f"Annotate the field as la.{made.__name__}, or name another collection.",
                ),
            )


def _by_component(selection: Selection, problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    made: dict[str, list[Problem]] = {}
    for problem in problems:
        concerned = [
            name
            for name, manifest in selection.manifests.items()
            if not {manifest.digest, *(c.digest for c in manifest.components)}.isdisjoint(problem.digests)
        ]
        for name in concerned or selection.manifests:
            made.setdefault(name, []).append(problem)
    return made


def _not_a_bundle(selection: Selection, name: str, manifest: Manifest) -> WrongKind:
    reference = selection.lock.components[name].reference
    return WrongKind(
        f"{reference} is a {manifest.kind}, not a bundle",
        field=name,
        next_step="Name a bundle, or give every field its own reference.",
    )


def _fetch(task: Task[Any], selection: Selection, blobs: CachedBlobs, failures: Failures) -> None:
    """Have every byte in the cache, verified; each blob once, whatever needs it."""
    needed: dict[Blob, list[tuple[str, str]]] = {}
    files: dict[Blob, Descriptor] = {}
    for name, manifest in selection.manifests.items():
        for role, part in [("", manifest), *((c.role, selection.parts[c.digest]) for c in manifest.components)]:
            try:
                packing.check_outside(part)
            except LlmartifactsError as error:
                failures.add(name, error)
                continue
            for file in part.files:
                needed.setdefault(file.blob, []).append((name, f"{role}: {file.path}" if role else file.path))
                if file.url is None or file.blob not in files:  # what the registry has too is taken from there
                    files[file.blob] = file

    def fetch(blob: Blob) -> None:
        try:
            blobs.fetch_file(files[blob])
        except Exception as error:  # noqa: BLE001 - whatever a source raises, the component has failed
            for name, path in needed[blob]:
                failures.add(name, _named(error, path))

    # On a warm start nothing is left to do, and threads for nothing take longer than all of this.
    missing = [blob for blob in needed if not _at_hand(blobs, blob)]
    each(task, sorted(missing, key=lambda blob: -blob.size), fetch)


def _at_hand(blobs: CachedBlobs, blob: Blob) -> bool:
    with suppress(LlmartifactsError, OSError):  # `fetch` meets it again, and says so
        return blobs.at_hand(blob)
    return False


def _named(error: Exception, path: str) -> LlmartifactsError:
    told = typed(error)
    if isinstance(told, BlobMissing):
        return BlobMissing(f"{path}: {told.message}", digest=told.digest, file=told.file, versions=told.versions)
    return told


class _Unpacking:
    """Values by manifest digest: what two components share is loaded once."""

    def __init__(
        self,
        spec: Spec[Any],
        selection: Selection,
        blobs: CachedBlobs,
        failures: Failures,
        known: Mapping[Digest, Any],
    ) -> None:
        self._spec = spec
        self._selection = selection
        self._blobs = blobs
        self._failures = failures
        self._made = dict(known)

    def values(self) -> dict[str, Any]:
        """Field name -> value; absent optional fields are left out."""
        if self._spec.from_bundle:
            return self._roles(self._selection.manifests[BUNDLE])
        made: dict[str, Any] = {}
        for name, manifest in self._selection.manifests.items():
            try:
                field = self._spec.fields[name]
                made[name] = _expected(self._value(manifest), field, str(self._spec.wanted[name]))
            except Exception as error:  # noqa: BLE001 - a kind may be a plug-in, and raise anything
                self._failures.add(name, error)
        return made

    def _value(self, manifest: Manifest) -> Any:
        if manifest.digest not in self._made:
            self._made[manifest.digest] = packing.unpack(manifest, self._blobs, self._parts, self._blobs)
        return self._made[manifest.digest]

    def _parts(self, digests: Sequence[Digest]) -> Mapping[Digest, Manifest]:
        return {d: self._selection.parts[d] for d in digests if d in self._selection.parts}

    def _roles(self, manifest: Manifest) -> dict[str, Any]:
        """Each part by itself, so that every one that fails is named; then the bundle, for its models."""
        parts: dict[str, Any] = {}
        for part in manifest.components:
            try:
                parts[part.role] = self._value(self._selection.parts[part.digest])
            except Exception as error:  # noqa: BLE001 - as above
                self._failures.add(part.role, error)
        self._failures.refuse()
        try:
            kind = packing.kind_named(manifest.kind)
            bundle = kind.unpack(manifest.config, packing.StoredFiles(manifest, self._blobs, parts, self._blobs))
        except Exception as error:  # noqa: BLE001 - as above
            self._failures.add(BUNDLE, error)
            return {}
        roles = {**parts, **bundle.models}
        made: dict[str, Any] = {}
        for name, field in self._spec.fields.items():
            if name in roles:
                try:
                    made[name] = _expected(roles[name], field, name)
                except WrongKind as error:
                    self._failures.add(name, error)
            elif not field.optional:
                self._failures.add(name, _no_role(name, roles))
        return made


def _expected(value: Any, field: SpecField, label: str) -> Any:
    return value if field.type is None else packing.expect_type(value, field.type, label)


def _no_role(name: str, roles: Mapping[str, Any]) -> NotFound:
    return NotFound(
        f"the bundle has no role {name!r}",
        what="role",
        name=name,
        near=near_names(name, roles),
        next_step=f"Its roles: {', '.join(sorted(roles))}.",
    )
