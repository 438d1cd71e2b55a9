"""Is what a service keeps beside itself right? The cache, and a folder that `install --to` made; no registry is asked.

    objects      hashed against their names; the records beside them, whole or not
    known-good   every record, and every manifest and file that a start from it needs
    looks        what processes of this host tell each other, by its own digest
    recipes      what is kept of large files, by its checksums

Whatever of it is damaged is refused, or passed over, when it is used; this finds it before it is needed. Nothing is
changed, not even the time of use that the eviction goes by.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from llmartifacts.blobs.cache import default_root
from llmartifacts.blobs.cache_check import FETCHED_AGAIN, check_object, check_objects, object_path
from llmartifacts.blobs.failures import storage_error
from llmartifacts.errors import (
    BlobMissing,
    Damaged,
    InvalidInput,
    InvalidManifest,
    LlmartifactsError,
    NotFound,
)
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.digest import Digest, digest_of
from llmartifacts.records.lock import FILE_NAME, MAX_BYTES, Locked, Lockfile
from llmartifacts.records.manifest import MAX_BYTES as MAX_MANIFEST
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.names import DEFAULT_PROJECT
from llmartifacts.runtime import known_good, lockfile, looks
from llmartifacts.runtime.text_file import read_bounded

Progress = Callable[[int, int], None]
"""Called with the bytes read and the bytes in all."""
MAX_PROBLEMS = 1000
"""Problems that are listed; of the others it is told how many there are."""
_VERSIONS = 20
_PAUSE, _TRIES = 0.02, 5
_HASHED = re.compile(r"[0-9a-f]{64}\.json")
_SIDE = re.compile(r"[0-9a-f]{64}\.(pack|recipe)")
_LOCK_KEYS = frozenset({"schema", "project", "revision", "set", "components", "check"})
_REMOVE = "Remove the file: that is safe, it is made anew when it is needed."


@dataclass(frozen=True, slots=True)
class KeptVerification:
    """What a check of a cache or an installed folder found.

    Attributes:
        place: Its folder.
        objects: How many objects were read and hashed.
        size: Their bytes.
        sets: How many last-known-good sets were checked, or 1 for the lockfile of an installed folder.
        problems: What is wrong, each naming the file, and the versions that need it where that is known.
        more: How many problems there are besides those that are listed.
    """

    place: str
    objects: int
    size: int
    sets: int
    problems: tuple[LlmartifactsError, ...] = ()
    more: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_cache(root: str | os.PathLike[str] | None = None, *, progress: Progress | None = None) -> KeptVerification:
    """Check every byte of a cache that somebody goes by. Others may use it meanwhile.

    Answers of a server that are kept (`answers/`) have no digest of their own: nobody believes them, the server is
    asked whether they hold. Outputs of evaluations (`outputs/`) carry one in every line, and a line that does not match
    it is asked for anew. Both are left alone here, as are locks and what is being written.

    Args:
        root: Its folder; by default `$LLMARTIFACTS_CACHE`, else the user's.
        progress: Told the bytes read and in all, after each object.

    Raises:
        NotFound: There is no such folder.
        NotAllowed: It cannot be listed.
        UnsafeContent: A link, or no folder, lies in the place of one of its folders.
    """
    place = Path(root).absolute() if root is not None else default_root()
    if not place.is_dir():
        raise NotFound(
            f"there is no cache {place}",
            what="cache",
            name=str(place),
            field="cache",
            next_step="Set LLMARTIFACTS_CACHE to the folder that the service uses; it makes one at its first start.",
        )
    found = _Found(place)
    found.objects(progress)
    sets = 0
    for path, record in known_good.records(place):
        sets += 1
        if isinstance(record, known_good.KnownGood):
            found.need(record.lock, path)
        else:
            found.add(_damaged(record, path, _AFTER_A_START))
    found.settle(
        lambda origin: (
            f"Start that service once while the registry can be had; or remove {origin} if nothing starts"
            " from it any more."
        )
    )
    for problem in (*_looks(place), *_sides(place)):
        found.add(problem)
    return found.told(sets)


def verify_installed(directory: str | os.PathLike[str], *, progress: Progress | None = None) -> KeptVerification:
    """Check every byte of a folder that `install --to` made.

    Args:
        directory: The folder, or the lockfile in it.
        progress: As in `verify_cache`.

    Raises:
        NotFound: There is no lockfile.
        NotAllowed: It cannot be read.
    """
    path = Path(directory).absolute()
    file = path / FILE_NAME if path.is_dir() else path
    again = f"Install into it again; what is right there stays: llmartifacts install {file} --to {file.parent}"
    found = _Found(file.parent, again)
    try:
        lock: Lockfile | None = lockfile.read(file)
        _same_keys(file)
    except InvalidInput as error:
        step = "Have back the lockfile that `llmartifacts lock` wrote, and install it into this folder again."
        found.add(_damaged(error, file, step))
        lock = None
    found.objects(progress)
    if lock is not None:
        found.need(lock, file)
    found.settle(lambda origin: again)
    return found.told(1)


_AFTER_A_START = "Remove the file: that is safe, the next start that reaches the registry writes it anew."


class _Found:
    """What was found in one place.

    Args:
        root: Its folder.
        next_step: What to do about an object that is damaged.
    """

    def __init__(self, root: Path, next_step: str = FETCHED_AGAIN) -> None:
        self._root = root
        self._next_step = next_step
        self._count = self._size = self._more = 0
        self._sound: set[Digest] = set()
        self._damaged: dict[Digest, LlmartifactsError] = {}
        self._needed: dict[Digest, tuple[Path, dict[str, None]]] = {}
        self._problems: list[LlmartifactsError] = []

    def add(self, problem: LlmartifactsError) -> None:
        """Note a problem."""
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(problem)
        else:
            self._more += 1

    def objects(self, progress: Progress | None) -> None:
        """Read every object."""
        for one in check_objects(self._root, self._next_step, progress):
            self._count += 1
            self._size += one.size
            if one.problem is None:
                self._sound.add(one.digest)
            else:
                self._damaged[one.digest] = one.problem
            if one.record_problem is not None:
                self.add(one.record_problem)

    def need(self, lock: Lockfile, origin: Path) -> None:
        """Note all that the components of a set need, as far as their manifests can be read."""
        for locked in lock.components.values():
            version = _version(lock, locked)
            manifest = self._manifest(locked.digest, version, origin)
            if manifest is None:
                continue
            if (manifest.kind, manifest.size) != (locked.kind, locked.size):
                told = f"{origin} says another kind or size of {version} than its manifest"
                self.add(Damaged(told, digest=locked.digest, file=str(origin), versions=(version,)))
            parts = [self._manifest(part.digest, version, origin) for part in manifest.components]
            for one in (manifest, *parts):
                for file in one.files if one is not None else ():
                    self._note(file.blob.digest, version, origin)

    def settle(self, next_step: Callable[[Path], str]) -> None:
        """Add what is damaged, with the versions that need it, and what is needed and not there.

        Args:
            next_step: What to do about what is missing, given the file that names it.
        """
        for digest, problem in self._damaged.items():
            if digest in self._needed and isinstance(problem, Damaged):
                versions = self._needed[digest][1]
                problem = replace(problem, versions=tuple(versions)[:_VERSIONS], needed_by=len(versions))
            self.add(problem)
        for digest, (origin, versions) in self._needed.items():
            if digest in self._sound or digest in self._damaged:
                continue
            now = check_object(object_path(self._root, digest), self._next_step)
            if now is not None:  # fetched since the others were listed
                if now.problem is not None:
                    self.add(now.problem)
                continue
            self.add(
                BlobMissing(
                    f"{digest} is not in {self._root}, and {origin} names it",
                    digest=digest,
                    file=str(object_path(self._root, digest)),
                    versions=tuple(versions)[:_VERSIONS],
                    needed_by=len(versions),
                    next_step=next_step(origin),
                )
            )

    def told(self, sets: int) -> KeptVerification:
        """All of it."""
        problems = tuple(self._problems)
        return KeptVerification(str(self._root), self._count, self._size, sets, problems, self._more)

    def _note(self, digest: Digest, version: str, origin: Path) -> None:
        self._needed.setdefault(digest, (origin, {}))[1][version] = None

    def _manifest(self, digest: Digest, version: str, origin: Path) -> Manifest | None:
        """A manifest that is needed; None where it is not there, or was told to be damaged."""
        self._note(digest, version, origin)
        if digest not in self._sound:
            return None
        path = object_path(self._root, digest)
        try:
            return Manifest.from_bytes(read_bounded(path, MAX_MANIFEST, follow=False), expect=digest, origin=str(path))
        except FileNotFoundError:
            self._sound.discard(digest)
        except LlmartifactsError as error:
            self.add(error)
        return None


def _version(lock: Lockfile, locked: Locked) -> str:
    prefix = "" if lock.project == DEFAULT_PROJECT else f"{lock.project}/"
    return f"{prefix}{locked.name}:v{locked.number}"


def _damaged(error: LlmartifactsError, path: Path, next_step: str) -> LlmartifactsError:
    """What cannot be parsed is damaged: nobody writes it by hand."""
    if not isinstance(error, InvalidInput):
        return error
    return Damaged(error.message, field=error.field, file=str(path), next_step=next_step)


def _same_keys(path: Path) -> None:
    """Refuse a lockfile with a word that none has: without the one that says so, nothing is held against its digest."""
    body = parse_json(read_bounded(path, MAX_BYTES, follow=True), field="lockfile", max_bytes=MAX_BYTES)
    if not isinstance(body, dict) or body.keys() - _LOCK_KEYS:
        raise InvalidManifest("the lockfile says something that no lockfile says", origin=str(path))


def _named_in(folder: Path, pattern: re.Pattern[str]) -> Iterable[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))
    return ()


def _looks(root: Path) -> Iterator[LlmartifactsError]:
    for path in _named_in(root / looks.FOLDER, _HASHED):
        for left in reversed(range(_TRIES)):
            with suppress(FileNotFoundError):
                problem = _of_look(path)
                if problem is None:
                    break
                if left:
                    time.sleep(_PAUSE)  # it is written in place, and whole again in a moment
                else:
                    yield problem


def _of_look(path: Path) -> LlmartifactsError | None:
    try:
        body = parse_json(read_bounded(path, MAX_BYTES, follow=False), field="look", origin=str(path))
        if not isinstance(body, dict) or body.pop("check", None) != digest_of(canonical_bytes(body)):
            raise InvalidManifest("what processes tell each other of their last look was altered", origin=str(path))
    except LlmartifactsError as error:
        return _damaged(error, path, _REMOVE)
    return None


def _sides(root: Path) -> Iterator[LlmartifactsError]:
    found = _named_in(root / "recipes", _SIDE)
    if not found:
        return
    from llmartifacts.client.sides_check import side_problem  # imports numpy

    for path in found:
        try:
            problem = side_problem(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            yield storage_error(error, "read", path)
            continue
        if problem is not None:
            yield Damaged(f"{path} is damaged: {problem}", file=str(path), next_step=_REMOVE)
