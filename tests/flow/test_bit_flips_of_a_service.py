"""One flipped bit in any file that a service keeps beside itself is found by verify, and nothing of it is handed out.

`make test` flips a few bits in each sort of file; `make matrix` flips 64 in each.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import errors
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.records.digest import Blob, digest_from_hex, digest_of
from llmartifacts.runtime import lockfile
from llmartifacts.runtime.verify_kept import KeptVerification, verify_cache, verify_installed

FEW, MANY = 1, 64
COUNTS = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.matrix)]
SET = {"agent": "agent:prod", "kb": "kb:prod", "noise": "noise:prod"}
_CHANCE = random.Random(3)
LARGE = b"".join(b'{"n": %d, "text": "%s"}\n' % (n, _CHANCE.randbytes(200).hex().encode()) for n in range(20_500))
"""Of a file so large, of more than 8 MiB, it is noted that it was hashed; and of its chunks some are kept."""
OF_THE_CACHE: dict[str, Callable[[Path], bool]] = {
    "object": lambda file: file.parent.parent.name == "sha256" and not file.suffix,
    "record that an object was hashed": lambda file: file.suffix == ".ok",
    "last-known-good set": lambda file: file.parent.name == "known-good",
    "look": lambda file: file.parent.name == "looks" and file.suffix == ".json",
    "recipe of a large file": lambda file: file.suffix == ".recipe",
    "head of a large file": lambda file: file.suffix == ".pack",
}
MEANS_NOTHING: dict[str, Callable[[Path], bool]] = {
    "answer of the server": lambda file: file.parent.name == "answers",
    "lock": lambda file: file.suffix == ".lock",
    "part of a builder that was killed": lambda file: file.suffix == ".part",
}
OF_A_FOLDER: dict[str, Callable[[Path], bool]] = {
    "object": OF_THE_CACHE["object"],
    "record that an object was hashed": OF_THE_CACHE["record that an object was hashed"],
    "lockfile": lambda file: file.name == "llmartifacts.lock",
}


OF_EACH = [
    pytest.param(FEW, tuple(OF_THE_CACHE), id="few"),
    *(pytest.param(MANY, (sort,), id=sort, marks=pytest.mark.matrix) for sort in OF_THE_CACHE),
]


@dataclass
class Kept:
    """What a service keeps, and what it serves."""

    service: Any
    cache: Path
    folder: Path
    right: dict[str, bytes]

    def start(self, **how: Any) -> dict[str, bytes]:
        """What a service serves that starts now; nothing if it does not start."""
        try:
            with la.Resolver(SET, **how) as resolver:
                value: Any = resolver.current.value
                return {f"{name}/{path}": value[name].read(path) for name in SET for path in value[name].paths()}
        except errors.LlmartifactsError:
            return {}

    def without_the_registry(self) -> dict[str, bytes]:
        return self.start(registry=self.service.url, startup_timeout=0.2)

    def frozen(self) -> dict[str, bytes]:
        return self.start(lockfile=self.folder, frozen=True)


@pytest.fixture
def kept(service: Any, tmp_path: Path) -> Kept:
    """A service that has started from a server, looked once again, and was installed into a folder."""
    service.registry.log("noise", la.Files({"large.jsonl": LARGE, "small.txt": b"word " * 2000}))
    service.registry.promote("noise:v1", to="prod", reason="first")
    made = Kept(service, service.cache, tmp_path / "folder", {})
    with la.Resolver(SET, registry=service.url) as resolver:
        resolver.refresh()
        lock = resolver.current.lock
    made.right = made.start(registry=service.url)
    assert made.right["noise/large.jsonl"] == LARGE
    with la.connect(service.url) as registry:
        lockfile.install(lock, registry, made.folder)
    assert made.frozen() == made.right
    return made


def files(root: Path, sort: Callable[[Path], bool]) -> list[Path]:
    return sorted(file for file in root.rglob("*") if file.is_file() and sort(file))


class flipped:
    """One bit of a file is another meanwhile."""

    def __init__(self, file: Path, chance: random.Random) -> None:
        self._file = file
        self._good = file.read_bytes()
        self._bit = chance.randrange(8 * len(self._good))

    def __enter__(self) -> str:
        bad = bytearray(self._good)
        bad[self._bit // 8] ^= 1 << self._bit % 8
        self._file.chmod(0o644)
        self._file.write_bytes(bad)
        self._file.chmod(0o444)
        return f"bit {self._bit % 8} of byte {self._bit // 8} of {self._file.name}"

    def __exit__(self, *_: object) -> None:
        self._file.unlink(missing_ok=True)  # what a start has put there in its place is another file
        self._file.write_bytes(self._good)


def handed(root: Path) -> dict[str, bytes]:
    """What a cache hands over, by name; each way of asking."""
    cache, found = BlobCache(root, limit="none"), {}
    for file in files(root, OF_THE_CACHE["object"]):
        blob = Blob(digest_from_hex(file.name), file.stat().st_size)
        ways: tuple[Callable[[], bytes | None], ...] = (
            lambda blob=blob: cache.read(blob),  # type: ignore[misc]
            lambda blob=blob: opened(cache, blob),  # type: ignore[misc]
            lambda blob=blob: path.read_bytes() if (path := cache.get(blob)) else None,  # type: ignore[misc]
            lambda blob=blob: path.read_bytes() if (path := cache.at_hand(blob)) else None,  # type: ignore[misc]
            lambda blob=blob: bytes(view) if (view := cache.peek(blob)) else None,  # type: ignore[misc]
        )
        for number, way in enumerate(ways):
            try:
                data = way()
            except errors.Damaged:
                continue
            if data is not None:
                found[f"{number} {file.name}"] = data
    return found


def opened(cache: BlobCache, blob: Blob) -> bytes:
    with cache.open(blob) as stream:
        return stream.read()


def all_named(contents: dict[str, bytes]) -> bool:
    return all(digest_of(data)[7:] == name.split()[1] for name, data in contents.items())


def names_it(found: KeptVerification, file: Path) -> bool:
    """Whether the file is named, with what to do; removing it is what the next step says, or installing again."""
    named = [p for p in found.problems if getattr(p, "file", "") == str(file)]
    return bool(named) and all(isinstance(p, errors.Damaged | errors.NewerFormat) and p.hint() for p in named)


@pytest.mark.parametrize(("count", "sorts"), OF_EACH)
def test_every_flip_in_the_cache_is_found_and_nothing_of_it_is_handed_over(
    kept: Kept, count: int, sorts: tuple[str, ...]
) -> None:
    assert verify_cache(kept.cache).ok
    assert all_named(handed(kept.cache))
    starts = count == MANY  # with the registry gone each takes its time
    if starts:
        kept.service.between.close()
        assert kept.start(registry=kept.service.url, startup_timeout=5) == kept.right, "it starts from what is kept"
    for number, sort in enumerate(sorts):
        chance = random.Random(number)
        for _ in range(count):
            file = chance.choice(files(kept.cache, OF_THE_CACHE[sort]))
            with flipped(file, chance) as what:
                found = verify_cache(kept.cache)
                assert names_it(found, file), f"{sort}: {what} was not found"
                assert all_named(handed(kept.cache)), f"{sort}: {what}"
                assert not starts or kept.without_the_registry() in ({}, kept.right), f"{sort}: {what}"
    assert verify_cache(kept.cache).ok


@pytest.mark.parametrize("count", COUNTS)
def test_every_flip_in_an_installed_folder_is_found_and_installing_again_mends_it(
    kept: Kept, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert verify_installed(kept.folder).ok
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "empty"))  # another would give what the folder has not
    served = 0
    for number, (sort, of_sort) in enumerate(OF_A_FOLDER.items()):
        chance = random.Random(number)
        for _ in range(count):
            file = chance.choice(files(kept.folder, of_sort))
            with flipped(file, chance) as what:
                found = verify_installed(kept.folder)
                assert names_it(found, file), f"{sort}: {what} was not found"
                told = kept.frozen()
                assert told in ({}, kept.right), f"{sort}: {what}"
                served += bool(told)
    assert verify_installed(kept.folder).ok
    assert served, "a record that was altered does not keep it from starting"
    for file in files(kept.folder, OF_A_FOLDER["object"]):
        file.chmod(0o644)
        file.write_bytes(b"rotten")
    problems = verify_installed(kept.folder).problems
    assert len(problems) == 7
    assert all(f"llmartifacts install {kept.folder}" in problem.hint() for problem in problems)
    with la.connect(kept.service.url) as registry:
        lockfile.install(lockfile.read(kept.folder), registry, kept.folder)
    assert verify_installed(kept.folder).ok


@pytest.mark.parametrize("count", COUNTS[1:])
def test_a_flip_in_bytes_that_mean_nothing_is_no_damage_and_changes_nothing(kept: Kept, count: int) -> None:
    """Locks and unfinished parts are never read; an answer is not believed, the server says whether it holds."""
    entry = files(kept.cache, OF_THE_CACHE["object"])[0]
    entry.with_name(f"{entry.name}.part").write_bytes(b"half of it")
    entry.with_name(f"{entry.name}.lock").write_bytes(b"nobody holds it")
    for number, (sort, of_sort) in enumerate(MEANS_NOTHING.items()):
        chance = random.Random(number)
        for _ in range(count):
            file = chance.choice(files(kept.cache, of_sort))
            with flipped(file, chance) as what:
                assert verify_cache(kept.cache).ok, f"{sort}: {what}"
                assert all_named(handed(kept.cache))
                assert kept.start(registry=kept.service.url) == kept.right, f"{sort}: {what}"
    for file in files(kept.cache, lambda file: file.suffix in ("", ".ok")):
        os.utime(file, ns=(0, 0))  # when it was used last says what is evicted first
    before = {file: file.stat().st_mtime_ns for file in files(kept.cache, lambda file: True)}
    assert verify_cache(kept.cache).ok
    assert {file: file.stat().st_mtime_ns for file in before} == before, "verify does not count as use"


@pytest.mark.matrix
def test_what_is_removed_is_fetched_again(kept: Kept) -> None:
    """As the next step says of whatever is damaged in a cache."""
    for file in files(kept.cache, lambda file: not MEANS_NOTHING["lock"](file)):
        file.chmod(0o644)
        file.write_bytes(b"rotten")
    found = verify_cache(kept.cache)
    for problem in found.problems:
        assert "safe" in problem.hint()
        Path(getattr(problem, "file", "")).unlink()
    assert not [file for file in files(kept.cache, lambda file: True) if file.parent.name in ("known-good", "recipes")]
    assert verify_cache(kept.cache).ok
    assert kept.start(registry=kept.service.url) == kept.right
    assert verify_cache(kept.cache).sets == 1
