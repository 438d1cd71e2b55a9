"""Look up: a spec -> the exact versions, with their manifests, all of one revision.

`ask` asks the registry for the aliases; `from_lock` takes the digests of a lockfile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from llmartifacts.errors import BlobMissing, Damaged, InvalidInput, InvalidManifest, LlmartifactsError, NotFound, Yanked
from llmartifacts.records.compatibility import Member
from llmartifacts.records.digest import Digest
from llmartifacts.records.lock import FILE_NAME, Locked, Lockfile
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Found
from llmartifacts.registry import Registry
from llmartifacts.runtime.failures import Failures
from llmartifacts.runtime.generation import Notice
from llmartifacts.runtime.spec import Spec

Manifests = Callable[[Sequence[Digest]], Mapping[Digest, Manifest]]
"""Looks up verified manifests; one that is not there is left out."""
_AGAIN = "Write it anew with `llmartifacts lock`."
_FETCH_IT = "Connect to the registry once, as by `llmartifacts install`; or use the folder that `install --to` made."


@dataclass(frozen=True)
class Selection:
    """The exact versions of a spec.

    Attributes:
        lock: Their digests.
        manifests: Component name -> manifest.
        parts: Manifests of the parts of every bundle among them.
        contains: Component name of a bundle -> role -> name of the collection that the part came from.
        notices: What somebody should know.
    """

    lock: Lockfile
    manifests: Mapping[str, Manifest]
    parts: Mapping[Digest, Manifest]
    contains: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()

    def members(self) -> list[Member]:
        """The set, as the compatibility rules read it."""
        return [
            Member(name, manifest, self.lock.components[name].name, self.contains.get(name, {}))
            for name, manifest in self.manifests.items()
        ]


@dataclass(frozen=True)
class LookedUp:
    """What the references of a spec mean, before anything else is asked.

    Attributes:
        lock: The digests of what was found.
        found: Component name -> version, manifest and move.
        notices: What somebody should know.
        failures: What was not found, or is not to be used.
    """

    lock: Lockfile
    found: Mapping[str, Found]
    notices: tuple[Notice, ...]
    failures: Failures


def ask(
    registry: Registry,
    spec: Spec[Any],
    *,
    keep: Mapping[str, Locked] = MappingProxyType({}),
    project: str | None = None,
    origin: str = FILE_NAME,
) -> Selection:
    """Read every reference of a spec at one revision.

    Args:
        registry: Where to look.
        spec: What the service wants.
        keep: Components that stay at the very version of a lockfile, whatever their alias means now.
        project: The project, if a lockfile says it; by default what the references and the registry say.
        origin: The lockfile's place, for messages.

    Raises:
        ResolutionError: At least one cannot be had; each is named.
        LlmartifactsError: The registry as a whole did not answer.
    """
    return complete(registry, look_up(registry, spec, keep=keep, project=project, origin=origin), spec)


def look_up(
    registry: Registry,
    spec: Spec[Any],
    *,
    keep: Mapping[str, Locked] = MappingProxyType({}),
    project: str | None = None,
    origin: str = FILE_NAME,
) -> LookedUp:
    """What every reference of a spec means at one revision; one question to the registry. Arguments as of `ask`.

    Raises:
        LlmartifactsError: The registry as a whole did not answer.
    """
    failures = Failures(spec)
    wanted = {name: pinned(keep[name]) if name in keep else reference for name, reference in spec.wanted.items()}
    reading = registry.backend.read(project or spec.project(registry.project), list(wanted.values()))
    found: dict[str, Found] = {}
    locked: dict[str, Locked] = {}
    notices: list[Notice] = []
    for (name, reference), item in zip(wanted.items(), reading.items, strict=True):
        if isinstance(item, Found):
            found[name] = item
            locked[name] = keep[name] if name in keep else _locked(reference, item)
            notices += _withdrawn(name, reference, item, failures)
            _as_locked(name, locked[name], item.manifest, failures, origin)
        elif name in keep or not (spec.may_be_absent(name) and _is_absent(item)):
            failures.add(name, item)
    return LookedUp(Lockfile(reading.project, reading.revision, locked), found, tuple(notices), failures)


def complete(registry: Registry, looked: LookedUp, spec: Spec[Any]) -> Selection:
    """Everything that is needed to load what was looked up: the parts of bundles, and where those came from.

    Raises:
        ResolutionError: At least one component cannot be had; each is named.
        LlmartifactsError: The registry as a whole did not answer.
    """
    failures = Failures(spec)
    for name, error in looked.failures.named().items():
        failures.add(name, error)
    manifests = {name: item.manifest for name, item in looked.found.items()}
    parts = _parts(manifests, registry.backend.manifests, failures)
    failures.refuse()
    return Selection(looked.lock, manifests, parts, _contained(registry, looked.found), looked.notices)


def confirm(registry: Registry, lock: Lockfile, spec: Spec[Any], *, origin: str) -> Selection:
    """Read the very versions of a lockfile from the registry; aliases are not looked at.

    Raises:
        ResolutionError: The lockfile is of another spec, or a version is not as it says; each field is named.
        LlmartifactsError: The registry as a whole did not answer.
    """
    failures = Failures(spec)
    _same_references(lock, spec, failures, origin)
    failures.refuse()
    present = spec.only(lock.components)
    selection = ask(registry, present, keep=lock.components, project=lock.project, origin=origin)
    return replace(selection, lock=lock)


def from_lock(lock: Lockfile, spec: Spec[Any], manifests: Manifests, *, origin: str) -> Selection:
    """Take the digests of a lockfile.

    Args:
        lock: The lockfile.
        spec: What the service wants; the lockfile must be of just that.
        manifests: Where manifests come from.
        origin: The lockfile's place, for messages.

    Raises:
        ResolutionError: The lockfile is of another spec, or a manifest is missing or damaged; each field is named.
    """
    failures = Failures(spec)
    _same_references(lock, spec, failures, origin)
    failures.refuse()
    found: dict[str, Manifest] = {}
    for name, locked in lock.components.items():
        try:
            found[name] = _one(manifests, locked.digest, f"the manifest of {locked.reference}")
        except LlmartifactsError as error:
            failures.add(name, error)
        else:
            _as_locked(name, locked, found[name], failures, origin)
    parts = _parts(found, manifests, failures)
    failures.refuse()
    return Selection(lock, found, parts)


def pinned(locked: Locked) -> Reference:
    """The reference `name:vN@sha256:…`, which cannot mean anything else."""
    return Reference(locked.name, number=locked.number, digest=locked.digest)


def _withdrawn(name: str, reference: Reference, item: Found, failures: Failures) -> list[Notice]:
    version = item.version
    if version.yanked_at is None:
        return []
    told = f"{version} was withdrawn: {version.yank_reason}"
    if reference.digest is None:
        hint = f"To have it all the same, write {version.pinned}."
        failures.add(name, Yanked(told, field=str(reference), next_step=hint))
    return [Notice("yanked", told, name)]


def _is_absent(error: LlmartifactsError) -> bool:
    return isinstance(error, NotFound) and error.what in ("collection", "alias")


def _locked(reference: Reference, item: Found) -> Locked:
    manifest = item.manifest
    return Locked(str(reference), manifest.kind, item.version.number, manifest.digest, manifest.size, item.move)


def _parts(manifests: Mapping[str, Manifest], look_up: Manifests, failures: Failures) -> dict[Digest, Manifest]:
    found: dict[Digest, Manifest] = {}
    for name, manifest in manifests.items():
        wanted = [c.digest for c in manifest.components]
        try:
            found |= look_up(wanted) if wanted else {}
        except Damaged as error:
            failures.add(name, error)
            continue
        for part in manifest.components:
            if part.digest not in found:
                told = f"the manifest of its part {part.role!r} is missing"
                failures.add(name, BlobMissing(told, digest=part.digest))
            elif found[part.digest].components:
                failures.add(name, InvalidManifest("a bundle holds no bundle", field=f"components.{part.role}"))
    return found


def _contained(registry: Registry, found: Mapping[str, Found]) -> dict[str, dict[str, str]]:
    """Where the parts of bundles came from; asked only where what is beside one may be another version of a part."""
    bundles = {name: item for name, item in found.items() if item.manifest.components}
    if not bundles or len(found) == 1:
        return {}
    made: dict[str, dict[str, str]] = {}
    for name, item in bundles.items():
        beside = [other.manifest for other in found.values() if other is not item]
        if not any(
            part.kind == m.kind and part.digest != m.digest for part in item.manifest.components for m in beside
        ):
            continue  # a collection has one kind
        version = item.version
        lineage = registry.backend.lineage(version.project, version.pinned, "up")
        edges = [edge for edge, _ in lineage.steps(lineage.root) if edge.relation == "contains"]
        made[name] = {edge.role: Reference.parse(edge.parent).name for edge in edges}
    return made


def _one(manifests: Manifests, digest: Digest, what: str) -> Manifest:
    found = manifests([digest]).get(digest)
    if found is None:
        raise BlobMissing(f"{what} is not kept here", digest=digest, next_step=_FETCH_IT)
    return found


def _same_references(lock: Lockfile, spec: Spec[Any], failures: Failures, origin: str) -> None:
    for name, reference in spec.wanted.items():
        locked = lock.components.get(name)
        if locked is None:
            if not spec.may_be_absent(name):
                failures.add(name, _other(f"the lockfile has no {name!r}", name, origin))
        elif Reference.parse(locked.reference).within(lock.project) != reference.within(lock.project):
            told = f"the lockfile has {locked.reference} for {name!r}, and the spec wants {reference}"
            failures.add(name, _other(told, name, origin))
    for name in lock.components.keys() - spec.wanted.keys():
        failures.add(name, _other(f"the lockfile has {name!r}, which the spec has not", name, origin))


def _as_locked(name: str, locked: Locked, manifest: Manifest, failures: Failures, origin: str) -> None:
    for what, stated, real in (("kind", locked.kind, manifest.kind), ("size", locked.size, manifest.size)):
        if stated != real:
            told = f"the lockfile says {what} {stated}, and the version has {real}: it was edited by hand"
            where = f"components.{name}.{what}"
            failures.add(name, InvalidManifest(told, field=where, origin=origin, next_step=_AGAIN))


def _other(message: str, name: str, origin: str) -> InvalidInput:
    return InvalidInput(message, field=name, origin=origin, next_step=_AGAIN)
