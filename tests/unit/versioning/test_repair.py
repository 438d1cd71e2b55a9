"""repair makes damaged and missing bytes right again: from what is here, from another registry, from a copy."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.errors import BlobMissing, Damaged, InvalidInput, Unreachable
from llmartifacts.records.digest import Blob
from llmartifacts.records.verification import Verification
from llmartifacts.versioning.place import open_place

Harm = Callable[[Path], None]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("filled") / "here"
    with la.init(place) as made:
        made.log("small", la.Files({"text.txt": b"word " * 5000, "noise.bin": random.Random(1).randbytes(50_000)}))
        made.log("large", la.Files({"noise.bin": random.Random(2).randbytes(1_500_000)}))
        rows = [f'{{"id": "q{i}", "input": "{random.Random(i).random()}"}}' for i in range(40_000)]
        made.log("lines", la.EvalDataset.from_jsonl(rows))
    return place


@pytest.fixture
def here(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(filled, tmp_path / "here")


@pytest.fixture
def there(filled: Path, tmp_path: Path) -> Iterator[la.Registry]:
    """The same content in another registry."""
    with la.connect(shutil.copytree(filled, tmp_path / "there")) as other:
        yield other


def stored(place: Path, suffix: str) -> Path:
    return min(p for p in (place / "blobs").rglob("*") if p.is_file() and p.suffix == suffix)


def flip(at: int) -> Harm:
    def harm(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[at if at >= 0 else len(data) + at] ^= 16
        file.chmod(0o644)
        file.write_bytes(data)

    return harm


def cut(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


HARMS: dict[str, Harm] = {"a flipped bit": flip(20), "missing": Path.unlink, "cut short": cut}


def check(place: Path) -> Verification:
    with la.connect(place) as fresh:
        return fresh.verify(read_data=True)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("suffix", ["", ".zst", ".recipe", ".pack"])
def test_what_is_damaged_comes_from_another_registry(
    here: Path, there: la.Registry, suffix: str, harm: str, tmp_path: Path
) -> None:
    file = stored(here, suffix)
    HARMS[harm](file)
    assert not check(here).ok
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    with la.connect(here) as registry:
        dry = registry.repair(there, dry_run=True)
        assert (dry.ok, dry.dry_run, dry.blobs) == (True, True, 1)
        assert not check(here).ok, "a dry run changes nothing"
        done = registry.repair(there)
        assert (done.ok, done.blobs, done.source) == (True, 1, there.backend.location)
        again = registry.repair(there)
        assert (again.ok, again.blobs, again.packs, again.removed, again.index) == (True, 0, 0, 0, False)
        (entry,) = registry.audit_log(verb="repair", limit=1)
        assert entry.event.body["part"] in ("blob", "index", "removed")
    assert check(here).ok


@pytest.mark.parametrize("at", [3, -5, -45, -60], ids=["header", "end", "its checksum", "a row of the footer"])
def test_a_pack_is_mended_from_what_its_name_and_the_index_prove(here: Path, at: int) -> None:
    file = stored(here, ".pack")
    good = file.read_bytes()
    flip(at)(file)
    assert not check(here).ok
    with la.connect(here) as registry:
        done = registry.repair()
    assert (done.ok, done.packs, done.blobs) == (True, 1, 0)
    assert file.read_bytes() == good
    assert check(here).ok


def test_a_pack_that_lost_its_end_is_mended_from_the_index(here: Path) -> None:
    file = stored(here, ".pack")
    good = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(good[: -packs.TRAILER - 100])
    with la.connect(here) as registry:
        assert (registry.repair().ok, file.read_bytes() == good) == (True, True)


def test_a_blob_that_the_cache_holds_comes_from_there(here: Path) -> None:
    with la.connect(here) as registry:
        registry.resolve("large:v1", la.Files).path("noise.bin")
    flip(20)(stored(here, ".pack"))
    damaged = {p.versions for p in check(here).problems if isinstance(p, Damaged)}
    with la.connect(here) as registry:
        done = registry.repair()
    assert done.ok is (damaged == {("large:v1",)})


def test_a_wrong_index_is_made_anew_from_the_packs(here: Path) -> None:
    with la.connect(here) as registry:
        with registry.backend.parts.metadata.writing() as s:
            s.run("update chunk set place_offset = place_offset + 8")
        found = registry.verify()
        assert not found.ok
        assert registry.repair(dry_run=True).index
        done = registry.repair()
        assert (done.ok, done.index, done.blobs) == (True, True, 0)
    assert check(here).ok


def test_a_damaged_manifest_is_put_back(here: Path, there: la.Registry) -> None:
    with la.connect(here) as registry:
        digest = registry.get("small:v1").digest
        with registry.backend.parts.metadata.writing() as s:
            s.run("update manifest set body = cast(replace(cast(body as text), 'text.txt', 'text.txx') as blob)")
        assert not registry.verify().ok
        done = registry.repair(there)
        assert (done.ok, done.manifests) == (True, 1)
    with la.connect(here) as registry:
        assert registry.get("small:v1").digest == digest
        assert registry.resolve("small:v1", la.Files).read("text.txt") == b"word " * 5000


def test_a_copy_of_the_bytes_alone_will_do(here: Path, filled: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(filled / "blobs", tmp_path / "copy")
    before = sorted(copy.rglob("*"))
    for suffix in ("", ".zst", ".recipe", ".pack"):
        stored(here, suffix).unlink()
    with la.connect(here) as registry:
        assert registry.repair(open_place(str(copy), tmp_path)).ok
    assert check(here).ok
    assert sorted(copy.rglob("*")) == before, "nothing is written there"


def test_what_cannot_be_had_is_said_with_the_versions_that_need_it(here: Path, there: la.Registry) -> None:
    for place in (here, Path(there.backend.location)):
        stored(place, ".zst").unlink()
    with la.connect(here) as registry:
        for dry_run in (True, False):
            done = registry.repair(there, dry_run=dry_run)
            (problem,) = done.problems
            assert isinstance(problem, BlobMissing)
            assert (problem.versions, problem.needed_by) == (("small:v1",), 1)
            assert "could not be had elsewhere" in problem.message
        nowhere = registry.repair()
        assert [type(p) for p in nowhere.problems] == [BlobMissing]


def test_a_place_that_gives_other_bytes_changes_nothing(here: Path, tmp_path: Path) -> None:
    class Lies:
        def path(self, blob: Blob) -> Path:
            file = tmp_path / "lie"
            file.write_bytes(b"x" * blob.size)
            return file

    stored(here, ".zst").unlink()
    before = sorted(p for p in (here / "blobs").rglob("*") if p.is_file())
    with la.connect(here) as registry:
        done = registry.repair(Lies())
        (problem,) = done.problems
        assert "gave other bytes" in problem.message
    assert sorted(p for p in (here / "blobs").rglob("*") if p.is_file()) == before


def test_a_place_that_fails_half_way_leaves_the_rest_to_the_next_call(here: Path, there: la.Registry) -> None:
    class Fails:
        calls = 0

        def path(self, blob: Blob) -> Path:
            self.calls += 1
            if self.calls > 1:
                raise Unreachable("the credential has expired")
            return there.backend.blobs.path(blob)

    for suffix in ("", ".zst"):
        stored(here, suffix).unlink()
    with la.connect(here) as registry:
        done = registry.repair(Fails())
        assert (done.blobs, len(done.problems)) == (1, 1)
        assert "the credential has expired" in done.problems[0].message
        done = registry.repair(there)
        assert (done.ok, done.blobs) == (True, 1)


def test_a_damaged_pack_that_no_version_needs_goes(here: Path) -> None:
    file = stored(here, ".pack")
    lost = here / "blobs" / packs.key_of("0" * 64)
    lost.parent.mkdir(parents=True, exist_ok=True)
    lost.write_bytes(file.read_bytes())
    assert not check(here).ok
    with la.connect(here) as registry:
        done = registry.repair()
        assert (done.ok, done.removed) == (True, 1)
    assert not lost.exists()


def test_only_a_registry_or_a_place_of_bytes_is_taken(here: Path) -> None:
    with la.connect(here) as registry, pytest.raises(InvalidInput) as refused:
        registry.repair(42)
    assert refused.value.field == "source"
