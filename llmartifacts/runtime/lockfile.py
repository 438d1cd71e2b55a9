"""Lockfiles in use: write one, see what moved, move single names, and lay out what a start without a registry needs.

`install(…, directory=DIR)` makes

    DIR/llmartifacts.lock        the digests
    DIR/sha256/ab/<hex>          every manifest and every file by its SHA-256, mode 0444

from which `Resolver(spec, lockfile=DIR, frozen=True)` starts with no registry and no cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmartifacts import packing
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.errors import Conflict, InvalidInput, LlmartifactsError, NotAllowed, NotFound
from llmartifacts.records.digest import Blob
from llmartifacts.records.lock import FILE_NAME, MAX_BYTES, Lockfile
from llmartifacts.records.manifest import Descriptor, Manifest
from llmartifacts.records.names import did_you_mean, near_names
from llmartifacts.records.reference import Reference, strings
from llmartifacts.records.version import Found
from llmartifacts.registry import Registry
from llmartifacts.runtime.failures import Failures
from llmartifacts.runtime.fetch import CachedBlobs
from llmartifacts.runtime.load import check_fit, check_types
from llmartifacts.runtime.selection import Selection, ask, confirm, from_lock
from llmartifacts.runtime.spec import Spec, chosen_alias, parse_spec
from llmartifacts.runtime.text_file import read_bounded, write_atomically

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One component that a lockfile and the registry see differently.

    Attributes:
        name: Field or component name.
        reference: The reference that was asked for.
        locked: What the lockfile has, such as `v3`; empty if it has nothing.
        now: What the reference means now; empty if that cannot be told.
        error: Why it cannot be told; None if it can.
    """

    name: str
    reference: str
    locked: str
    now: str
    error: LlmartifactsError | None = None

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.name}: {self.reference} was {self.locked}; {self.error}"
        return f"{self.name}: {self.reference} was {self.locked or 'not there'}, is {self.now or 'gone'}"


def lock(
    spec: type[Any] | Mapping[str, str],
    registry: Registry,
    *,
    bundle: str | Reference | None = None,
    alias: str | None = None,
) -> Lockfile:
    """Resolve a spec to exact digests, all of one revision; the set must fit together. No file is fetched.

    Args:
        spec: As `Resolver` takes it.
        registry: Where to look.
        bundle: As `Resolver` takes it.
        alias: Selector of references that have none; by default `$LLMARTIFACTS_ALIAS`.

    Raises:
        ResolutionError: A component is missing, of the wrong kind, withdrawn, or does not fit; each is named.
        InvalidInput: The spec cannot be used.
    """
    parsed = parse_spec(spec, bundle, chosen_alias(alias))
    return _checked(ask(registry, parsed), parsed).lock


def write(lockfile: Lockfile, path: str | os.PathLike[str] = FILE_NAME) -> Path:
    """Write a lockfile, atomically; a directory means `llmartifacts.lock` in it. Returns the file."""
    place = _file(path)
    write_atomically(place, lockfile.to_text())
    return place


def read(path: str | os.PathLike[str] = FILE_NAME) -> Lockfile:
    """Read a lockfile; a directory means `llmartifacts.lock` in it.

    Raises:
        NotFound: There is none.
        InvalidManifest: It is no lockfile, or was edited by hand.
        NewerFormat: Written by a newer release.
    """
    place = _file(path)
    try:
        text = read_bounded(place, MAX_BYTES, follow=True)
    except FileNotFoundError:
        raise NotFound(
            f"there is no lockfile {place}",
            what="lockfile",
            name=str(place),
            field="lockfile",
            next_step="Write one with `llmartifacts lock`.",
        ) from None
    return Lockfile.from_text(text, origin=str(place))


def check(lockfile: Lockfile, registry: Registry) -> list[Difference]:
    """What the references of a lockfile mean now, where that is not what is locked; empty if nothing moved."""
    names = list(lockfile.components)
    wanted = [Reference.parse(lockfile.components[n].reference) for n in names]
    reading = registry.backend.read(lockfile.project, wanted) if names else None
    made = []
    for name, item in zip(names, reading.items if reading else (), strict=True):
        locked = lockfile.components[name]
        if isinstance(item, Found):
            if item.version.digest != locked.digest:
                made.append(Difference(name, locked.reference, f"v{locked.number}", f"v{item.version.number}"))
        else:
            made.append(Difference(name, locked.reference, f"v{locked.number}", "", item))
    return made


def differences(before: Lockfile, after: Lockfile) -> list[Difference]:
    """What differs between two lockfiles, by name."""
    made = []
    for name, known in sorted({**before.components, **after.components}.items()):
        old, new = before.components.get(name), after.components.get(name)
        if old is None or new is None or old.digest != new.digest:
            was, now = (f"v{locked.number}" if locked else "" for locked in (old, new))
            made.append(Difference(name, known.reference, was, now))
    return made


def upgrade(lockfile: Lockfile, registry: Registry, names: str | Sequence[str] = ()) -> Lockfile:
    """Move single components to what their references mean now; the others keep their digests, the set must fit.

    Args:
        lockfile: The lockfile; it stays as it is.
        registry: Where to look.
        names: Fields, or names of collections; none means all.

    Raises:
        NotFound: A name is not in the lockfile.
        ResolutionError: A component cannot be had, or does not fit the others.
    """
    moving = _named(lockfile, strings(names))
    spec = spec_of(lockfile)
    keep = {name: locked for name, locked in lockfile.components.items() if name not in moving}
    made = _checked(ask(registry, spec, keep=keep, project=lockfile.project), spec).lock
    asked = {n: replace(c, reference=lockfile.components[n].reference) for n, c in made.components.items()}
    return replace(made, components=asked)


def install(
    lockfile: Lockfile,
    registry: Registry | None,
    directory: str | os.PathLike[str] | None = None,
    *,
    frozen: bool = False,
    progress: Progress | None = None,
) -> int:
    """Fetch everything that a lockfile names, verified, so that a start needs no registry.

    Args:
        lockfile: What to fetch.
        registry: Where from; not needed when `frozen`.
        directory: Lay it out there, lockfile last, for `Resolver(lockfile=DIR)`; None fills the cache only.
        frozen: Take it from the cache, and never touch the registry.
        progress: Told the bytes done and in all, after each file.

    Returns:
        Bytes installed.

    Raises:
        ResolutionError: Something is missing or damaged; each component is named.
        Conflict: The directory holds something else.
        InvalidInput: No registry was given, and it is not frozen.
        NotAllowed: The cache, or the directory, cannot be written.
    """
    if registry is None and not frozen:
        raise InvalidInput("install needs a registry", field="registry", next_step="Give one, or frozen=True.")
    target = None if directory is None else _target(Path(directory))
    cache = BlobCache()
    upstream = None if frozen or registry is None else registry.backend.blobs
    outside = None if frozen or registry is None else lambda: registry.external
    # With a directory, what is cached already is copied from there, and the rest is fetched straight into it.
    blobs = (
        CachedBlobs(cache, upstream=upstream, outside=outside)
        if target is None
        else CachedBlobs(target, folder=cache, upstream=upstream, outside=outside)
    )
    spec = spec_of(lockfile)
    if upstream is None or registry is None:
        selection = from_lock(lockfile, spec, blobs.manifests, origin="the lockfile")
    else:
        selection = confirm(registry, lockfile, spec, origin="the lockfile")
    done = _fetch_all(selection, blobs, target, Failures(spec), progress)
    if not blobs.all_kept:
        raise NotAllowed(
            f"{(target or cache).root} cannot be written, so nothing would be there at the next start",
            field="directory" if target is not None else "",
            next_step="Ask for the right to write there, set LLMARTIFACTS_CACHE, or name a directory with --to.",
        )
    if target is not None:
        write(lockfile, target.root / FILE_NAME)
    return done


def spec_of(lockfile: Lockfile) -> Spec[Any]:
    """The spec that a lockfile answers, as a mapping."""
    return parse_spec(
        {n: Reference.parse(c.reference).within(lockfile.project) for n, c in lockfile.components.items()}
    )


def _checked(selection: Selection, spec: Spec[Any]) -> Selection:
    failures = Failures(spec)
    check_types(spec, selection, failures)
    check_fit(selection, failures)
    failures.refuse()
    return selection


def _named(lockfile: Lockfile, names: Sequence[str]) -> set[str]:
    if not names:
        return set(lockfile.components)
    found: set[str] = set()
    for name in names:
        fields = {f for f, locked in lockfile.components.items() if name in (f, locked.name)}
        if not fields:
            known = [*lockfile.components, *(c.name for c in lockfile.components.values())]
            raise NotFound(
                f"the lockfile has no {name!r}",
                what="component",
                name=name,
                near=near_names(name, known),
                field="names",
                next_step=did_you_mean(name, known, f"It has {', '.join(lockfile.components)}."),
            )
        found |= fields
    return found


def _target(directory: Path) -> BlobCache:
    used = directory.exists() and not (directory / FILE_NAME).is_file() and not (directory / "sha256").is_dir()
    if used and (not directory.is_dir() or any(directory.iterdir())):
        raise Conflict(
            f"{directory} holds something else",
            field="directory",
            next_step="Name an empty directory, or one that was installed into before.",
        )
    return BlobCache(directory, limit="none")


def _fetch_all(
    selection: Selection, blobs: CachedBlobs, target: BlobCache | None, failures: Failures, progress: Progress | None
) -> int:
    owners: dict[Blob, str] = {}
    bodies: dict[Blob, Manifest] = {}
    files: dict[Blob, Descriptor] = {}
    for name, manifest in selection.manifests.items():
        for part in (manifest, *(selection.parts[c.digest] for c in manifest.components)):
            body = Blob(part.digest, len(part.to_bytes()))
            owners.setdefault(body, name)
            bodies[body] = part
            try:
                packing.check_outside(part)
            except LlmartifactsError as error:
                failures.add(name, error)
                continue
            for file in part.files:
                owners.setdefault(file.blob, name)
                if file.url is None or file.blob not in files:  # what the registry has too is taken from there
                    files[file.blob] = file
    total, done = sum(blob.size for blob in owners), 0
    for blob, name in owners.items():
        try:
            if blob in bodies:
                blobs.keep([bodies[blob]])
            else:
                path = blobs.fetch_file(files[blob])
                if target is not None:
                    target.put(blob, path)
        except LlmartifactsError as error:
            failures.add(name, error)
        done += blob.size
        if progress is not None:
            progress(done, total)
    failures.refuse()
    return total


def _file(path: str | os.PathLike[str]) -> Path:
    place = Path(path)
    return place / FILE_NAME if place.is_dir() else place
