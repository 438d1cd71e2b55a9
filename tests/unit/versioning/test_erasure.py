"""Erased documents are stored nowhere afterwards: not in the store, not in the database's files, not in the cache."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

import llmartifacts as la
from llmartifacts.blobs.chunks import pack as packs
from llmartifacts.blobs.chunks.pack import RAW
from llmartifacts.blobs.chunks.reader import decompress
from llmartifacts.blobs.chunks.survey import read_footer
from llmartifacts.errors import Damaged, InvalidInput, NotFound, Refused, Removed, WrongKind
from llmartifacts.kinds.report import ItemScore, Metric
from llmartifacts.records.digest import digest_of

CANARY = "the person's own words 7f3a91"
SPEC = la.EmbeddingSpec("model", 32)
ROWS = 9_000


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    with la.init(tmp_path / "registry", actor="ann") as made:
        yield made


@pytest.fixture(scope="module")
def vectors() -> Any:
    return np.random.default_rng(5).normal(size=(ROWS, 32)).astype("f4")


def documents(count: int = ROWS) -> list[dict[str, Any]]:
    words = random.Random(3)
    made = [{"id": f"d{i}", "text": f"{i} " + words.randbytes(60).hex(), "metadata": {}} for i in range(count)]
    made[77]["text"] = CANARY
    return made


def places(registry: la.Registry, tmp_path: Path, needle: bytes) -> list[str]:
    """Every place below a folder where some bytes are: in a file as it is, or in what a file holds compressed."""
    backend: Any = registry.backend
    driver = backend.parts.blobs.driver
    found = []
    for file in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        data = file.read_bytes()
        contents = [data]
        with suppress(zstandard.ZstdError):
            contents.append(zstandard.ZstdDecompressor().decompressobj().decompress(data))
        if file.suffix == ".pack":
            for row in read_footer(driver, file.stem, len(data)):
                stored = memoryview(data)[int(row["offset"]) :][: int(row["stored"])]
                contents.append(bytes(stored if row["form"] == RAW else decompress(stored, int(row["length"]))))
        if any(needle in content for content in contents):
            found.append(str(file.relative_to(tmp_path)))
    return found


def test_a_document_of_an_index_is_erased_from_every_version_that_holds_it(
    registry: la.Registry, tmp_path: Path, vectors: Any
) -> None:
    first = la.VectorIndex.from_vectors(vectors, documents(), embedding=SPEC, index="IVF16,Flat")
    registry.log("kb", first, aliases="prod")
    more = documents()[:200]
    registry.log("kb", la.VectorIndex.from_vectors(vectors[:200], more, embedding=SPEC, index="Flat"))
    without = registry.resolve("kb:v1", la.VectorIndex).updated(remove=["d77"])
    registry.log("kb", without)
    row = vectors[77].tobytes()
    assert places(registry, tmp_path, CANARY.encode())
    with pytest.raises(Refused, match=r"kb:v1.*kb:prod"):
        registry.erase("kb", "d77", reason="request 12")
    registry.promote("kb:v3", to="prod")
    told = registry.erase("kb", ["d77", "nobody"], reason="request 12", dry_run=True)
    assert (told.found, told.versions, told.searched, told.dry_run) == (1, ("kb:v1", "kb:v2"), 3, True)
    assert registry.get("kb:v1").removed_at is None
    done = registry.erase("kb", ["d77", "nobody"], reason="request 12")
    assert (done.found, done.versions, done.complete) == (1, ("kb:v1", "kb:v2"), True)
    assert done.freed > 0
    assert places(registry, tmp_path, CANARY.encode()) == []
    assert places(registry, tmp_path, row) == [], "its vector is gone too"
    assert registry.verify(read_data=True).problems == ()
    assert registry.verify_audit().ok
    assert registry.stats().unused == 0
    found = registry.resolve("kb:prod", la.VectorIndex).search(vectors[:3], 1)
    assert found.ids[:, 0].tolist() == ["d0", "d1", "d2"]
    with pytest.raises(Removed):
        registry.resolve("kb:v1")
    assert [v.remove_rule for v in registry.versions("kb")] == ["", "erase", "erase"]


def test_an_item_of_a_dataset_goes_from_its_config_and_the_databases_files_too(
    registry: la.Registry, tmp_path: Path
) -> None:
    def rows(*, whole: bool) -> la.EvalDataset:
        lines = [f'{{"id": "q{i}", "input": "ask {i}", "label": "{CANARY if i == 3 else "x"}"}}' for i in range(9)]
        file = tmp_path / "rows.jsonl"
        file.write_text("\n".join(lines if whole else [line for line in lines if '"q3"' not in line]) + "\n")
        made = la.EvalDataset.from_file(file)
        file.unlink()
        return made

    full = rows(whole=True)
    registry.log("qa", full)
    assert CANARY in str(registry.find("qa:v1").manifest.config), "small columns are told of in the config"
    registry.log("qa", rows(whole=False))
    assert any("registry.db" in place for place in places(registry, tmp_path, CANARY.encode()))
    done = registry.erase("qa", "q3", reason="request 13")
    assert done.versions == ("qa:v1",)
    assert places(registry, tmp_path, CANARY.encode()) == []
    assert registry.verify(read_data=True).problems == ()
    with pytest.raises(Refused, match="erased: request 13"):
        registry.log("qa", full)
    assert registry.versions("qa")[1].digest == done_digest(registry)


def done_digest(registry: la.Registry) -> str:
    (entry,) = registry.audit_log(verb="version-remove", limit=1)
    assert entry.event is not None
    assert entry.event.body["erased"] is True
    return str(entry.event.body["digest"])


def test_versions_that_retention_removed_before_keep_nothing_either(registry: la.Registry, tmp_path: Path) -> None:
    for label in (CANARY, "other", "third"):
        file = tmp_path / "rows.jsonl"
        file.write_text(f'{{"id": "q", "input": "ask", "label": "{label}"}}\n')
        registry.log("qa", la.EvalDataset.from_file(file))
        file.unlink()
    registry.gc(keep_last=2)
    assert places(registry, tmp_path, CANARY.encode()), "the manifest says what it was"
    registry.erase("qa", "nobody", reason="request 14")
    assert places(registry, tmp_path, CANARY.encode()) == []
    assert registry.verify(read_data=True).problems == ()


def test_items_of_reports_are_erased_by_their_ids(registry: la.Registry, tmp_path: Path) -> None:
    def report(*ids: str) -> la.Report:
        items = [ItemScore(i, {"m": 1.0}, output=CANARY) for i in ids]
        return la.Report(
            "s", {"a:v1": digest_of(b"a")}, digest_of(b"q"), [Metric("m", 1.0, 0.9, 1.0, len(ids))], items=items
        )

    registry.log("r", report("q1", "q2"))
    registry.log("r", report("q1"))
    assert registry.erase("r", "q2", reason="request 15").versions == ("r:v1",)


def test_a_bundle_goes_with_its_part_and_is_never_served_without_it(registry: la.Registry, vectors: Any) -> None:
    def index(count: int) -> la.VectorIndex:
        return la.VectorIndex.from_vectors(vectors[:count], documents(100)[:count], embedding=SPEC, index="Flat")

    registry.log("kb", index(90))
    registry.log("kb", index(50))
    registry.log("set", la.Bundle(components={"index": "kb:v1"}), aliases="prod")
    with pytest.raises(Refused, match=r"set:v1.*set:prod"):
        registry.erase("kb", "d77", reason="request 16")
    registry.log("set", la.Bundle(components={"index": "kb:v2"}), aliases="prod")
    done = registry.erase("kb", "d77", reason="request 16")
    assert (done.versions, done.bundles) == (("kb:v1",), ("set:v1",))
    assert registry.verify_audit().ok
    assert registry.resolve("set:prod", la.Bundle).component("index", la.VectorIndex).search(vectors[:1], 1).ids[0]


def test_what_another_name_holds_too_stays_and_is_named(registry: la.Registry, tmp_path: Path, vectors: Any) -> None:
    full = la.VectorIndex.from_vectors(vectors[:100], documents(100), embedding=SPEC, index="Flat")
    less = la.VectorIndex.from_vectors(vectors[:50], documents(100)[:50], embedding=SPEC, index="Flat")
    for name in ("kb", "copy"):
        registry.log(name, full)
        registry.log(name, less)
    done = registry.erase("kb", "d77", reason="request 17")
    assert not done.complete
    assert done.holders == ("copy:v1",)
    assert registry.resolve("copy:v1", la.VectorIndex).documents[77].text == CANARY
    assert registry.verify(read_data=True).problems == ()
    assert registry.erase("copy", "d77", reason="request 17").complete
    assert places(registry, tmp_path, CANARY.encode()) == []
    assert registry.verify(read_data=True).problems == ()


def test_the_latest_version_is_not_erased(registry: la.Registry, vectors: Any) -> None:
    registry.log("kb", la.VectorIndex.from_vectors(vectors[:100], documents(100), embedding=SPEC, index="Flat"))
    with pytest.raises(Refused, match="kb:latest") as caught:
        registry.erase("kb", "d77", reason="request 18")
    assert "updated(remove=ids)" in caught.value.hint()


def test_an_erasure_that_stopped_halfway_is_finished_by_asking_again(
    registry: la.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectors: Any
) -> None:
    registry.log("kb", la.VectorIndex.from_vectors(vectors[:100], documents(100), embedding=SPEC, index="Flat"))
    registry.log("kb", la.VectorIndex.from_vectors(vectors[:50], documents(100)[:50], embedding=SPEC, index="Flat"))

    def stopped(*arguments: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("llmartifacts.versioning.erasure.gc", stopped)
        registry.erase("kb", "d77", reason="request 19")
    assert registry.verify(read_data=True).problems == ()
    with pytest.raises(Removed):
        registry.resolve("kb:v1")
    registry.erase("kb", "d77", reason="request 19")
    assert places(registry, tmp_path, CANARY.encode()) == []


def test_nothing_is_erased_where_a_version_cannot_be_read(registry: la.Registry, vectors: Any) -> None:
    registry.log("kb", la.VectorIndex.from_vectors(vectors[:100], documents(100), embedding=SPEC, index="Flat"))
    registry.log("kb", la.VectorIndex.from_vectors(vectors[:50], documents(100)[:50], embedding=SPEC, index="Flat"))
    backend: Any = registry.backend
    file = registry.find("kb:v1").manifest.file("documents.jsonl")
    assert file is not None
    backend.parts.blobs.delete(file.digest)
    with pytest.raises(Damaged):
        registry.erase("kb", "d77", reason="request 20")
    assert registry.get("kb:v1").removed_at is None


def test_the_audit_does_not_say_which_documents_it_was(registry: la.Registry, tmp_path: Path) -> None:
    name = "someone@example.org"
    for lines in ((name, "b"), ("b",)):
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(f'{{"id": "{one}", "input": "ask"}}\n' for one in lines))
        registry.log("qa", la.EvalDataset.from_file(file))
        file.unlink()
    registry.erase("qa", name, reason="request 21")
    assert places(registry, tmp_path, name.encode()) == []
    (entry,) = registry.audit_log(verb="erase", limit=1)
    assert entry.event is not None
    assert entry.event.body["documents"] == entry.event.body["versions"] == 1


@pytest.mark.parametrize("ids", [[], [""], [5], ["x" * 1025]])
def test_ids_that_cannot_be_are_refused(registry: la.Registry, ids: Any) -> None:
    with pytest.raises(InvalidInput):
        registry.erase("kb", ids, reason="r")


def test_only_what_has_documents_can_be_searched_for_them(registry: la.Registry) -> None:
    registry.log("p", la.Prompt("hello", template_format="f-string"))
    with pytest.raises(WrongKind):
        registry.erase("p", "d1", reason="r")
    with pytest.raises(NotFound):
        registry.erase("nothing", "d1", reason="r")
    with pytest.raises(InvalidInput):
        registry.erase("p", "d1", reason=" ")


def test_no_pack_is_left_with_a_chunk_that_only_erased_versions_had(registry: la.Registry, vectors: Any) -> None:
    full = la.VectorIndex.from_vectors(vectors, documents(), embedding=SPEC, index="Flat")
    registry.log("kb", full)
    registry.log("kb", full.updated(remove=["d77"]))
    registry.erase("kb", "d77", reason="request 22")
    backend: Any = registry.backend
    parts = backend.parts
    stored = {name for key, _ in parts.blobs.driver.list("packs/") if (name := packs.parse_key(key))}
    assert stored == set(parts.blobs.index.packs())


_STEPS = """
import os, sys
import llmartifacts as la
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.blobs.chunks.sweep import Sweep
from llmartifacts.blobs.local import LocalDriver
from llmartifacts.metadata import audit, condemned, removals
from llmartifacts.metadata.sqlite import SqliteDatabase

left = int(sys.argv[2])
def dying(real):
    def called(*arguments, **more):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        made = real(*arguments, **more)
        left -= 1
        if left == 0:
            os._exit(9)
        return made
    return called
for owner, names in (
    (removals, "mark erase"), (audit, "record"), (condemned, "replace"), (Sweep, "apply delete"),
    (LocalDriver, "delete put_many replace"), (SqliteDatabase, "scrub"), (BlobCache, "remove"),
):
    for name in names.split():
        setattr(owner, name, dying(getattr(owner, name)))
with la.connect(sys.argv[1], actor="ann") as registry:
    registry.erase("kb", ["d77"], reason="request")
"""


@pytest.mark.matrix
def test_an_erasure_that_is_killed_anywhere_loses_nothing_and_is_finished_by_asking_again(
    registry: la.Registry, tmp_path: Path, vectors: Any
) -> None:
    full = la.VectorIndex.from_vectors(vectors, documents(), embedding=SPEC, index="IVF16,Flat")
    registry.log("kb", full)
    registry.log("kb", registry.resolve("kb:v1", la.VectorIndex).updated(remove=["d77"]), aliases="prod")
    registry.close()
    reached = 0
    for point in range(1, 80):
        place = tmp_path / str(point) / "registry"
        shutil.copytree(tmp_path / "registry", place)
        done = subprocess.run([sys.executable, "-c", _STEPS, str(place), str(point)], check=False)
        with la.connect(place, actor="ann") as opened:
            assert opened.verify(read_data=True).problems == ()
            assert opened.resolve("kb:prod", la.VectorIndex).search(vectors[:1], 1).ids[0].tolist() == ["d0"]
            opened.erase("kb", ["d77"], reason="request")
            assert places(opened, place, CANARY.encode()) == []
            assert places(opened, place, vectors[77].tobytes()) == []
            assert opened.verify(read_data=True).problems == ()
            assert opened.stats().unused == 0
        shutil.rmtree(place)
        if done.returncode == 0:
            break
        assert done.returncode == 9
        reached += 1
    assert reached >= 12
