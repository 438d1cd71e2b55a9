"""What a service needs of its cache or folder is there and right, and said with its versions where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.blobs.cache_check import object_path
from llmartifacts.errors import BlobMissing, Damaged, NotFound
from llmartifacts.records.digest import digest_of
from llmartifacts.runtime import lockfile, verify_kept
from llmartifacts.runtime.verify_kept import verify_cache, verify_installed


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a service that started from a bundle and from an index of another project, both with the same file."""
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    with la.init(tmp_path / "registry") as registry:
        registry.log("notes", la.Files({"shared.txt": b"shared", "own.txt": b"own"}))
        registry.log("set", la.Bundle(components={"notes": "notes:v1"}), aliases="prod")
        registry.log("acme/more", la.Files({"shared.txt": b"shared"}), aliases="prod")
    for spec in ({"set": "set:prod"}, {"more": "acme/more:prod"}):
        with la.Resolver(spec, registry=tmp_path / "registry") as resolver:
            lock = resolver.current.lock
            with la.connect(tmp_path / "registry") as registry:
                lockfile.install(lock, registry, tmp_path / next(iter(spec)))
    return tmp_path / "cache"


def versions(found: verify_kept.KeptVerification) -> list[tuple[type, tuple[str, ...]]]:
    assert all(isinstance(p, Damaged) and p.needed_by == len(p.versions) for p in found.problems)
    return sorted(((type(p), tuple(sorted(p.versions))) for p in found.problems), key=str)  # type: ignore[attr-defined]


def test_all_that_sets_need_is_followed_to_the_parts_of_bundles(cache: Path) -> None:
    found = verify_cache()
    assert (found.ok, found.objects, found.sets, found.place) == (True, 5, 2, str(cache))
    object_path(cache, digest_of(b"own")).unlink()
    assert versions(verify_cache(cache)) == [(BlobMissing, ("set:v1",))]
    object_path(cache, digest_of(b"shared")).unlink()
    assert (BlobMissing, ("acme/more:v1", "set:v1")) in versions(verify_cache(cache))


def test_a_missing_manifest_is_told_once_and_what_it_would_name_is_not_made_up(cache: Path, tmp_path: Path) -> None:
    lock = lockfile.read(tmp_path / "set")
    (locked,) = lock.components.values()
    object_path(cache, locked.digest).unlink()
    (problem,) = verify_cache(cache).problems
    assert isinstance(problem, BlobMissing)
    assert (problem.digest, problem.versions) == (locked.digest, ("set:v1",))


def test_what_is_fetched_while_it_looks_is_not_missing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service starts between the listing of the objects and the reading of the sets."""
    file = object_path(cache, digest_of(b"own"))
    records: Any = verify_kept.known_good.records
    for data, expected in ((b"own", []), (b"rotten", [str(file)])):
        file.unlink(missing_ok=True)

        def late(root: Path, data: bytes = data) -> Any:
            file.write_bytes(data)
            return records(root)

        monkeypatch.setattr(verify_kept.known_good, "records", late)
        assert [getattr(p, "file", "") for p in verify_cache(cache).problems] == expected


def test_a_folder_is_checked_alone(cache: Path, tmp_path: Path) -> None:
    found = verify_installed(tmp_path / "more")
    assert (found.ok, found.objects, found.sets) == (True, 2, 1)
    object_path(tmp_path / "more", digest_of(b"shared")).unlink()
    assert versions(verify_installed(tmp_path / "more")) == [(BlobMissing, ("acme/more:v1",))]
    lock = tmp_path / "more" / lockfile.FILE_NAME
    lock.write_text("{}")
    (problem,) = verify_installed(tmp_path / "more").problems
    assert isinstance(problem, Damaged)
    assert problem.file == str(lock)


def test_of_very_many_problems_the_first_are_listed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_kept, "MAX_PROBLEMS", 2)
    for file in cache.rglob("sha256/*/*"):
        file.chmod(0o644)
        file.write_bytes(b"rotten")
    found = verify_cache(cache)
    assert (len(found.problems), found.more) == (2, 3)


def test_where_there_is_nothing_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as refused:
        verify_cache(tmp_path / "no-cache")
    assert "LLMARTIFACTS_CACHE" in refused.value.hint()
    with pytest.raises(NotFound):
        verify_installed(tmp_path)
