"""Five releases of real documentation as an index, logged in order; then versions go, and gc runs beside readers."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llmartifacts as la
from llmartifacts.cli.main import main
from llmartifacts.errors import Conflict

VERSIONS = ("1.1.0", "2.0.0", "2.2.0", "2.3.0", "3.1.0")


@pytest.fixture(scope="module")
def releases(shared_data: Path) -> dict[str, Any]:
    folder = shared_data / "corpora" / "flask_docs"
    every = np.load(folder / "embeddings.npy", allow_pickle=False)
    made = {}
    for version in VERSIONS:
        lines = (folder / f"{version}.chunks.jsonl").read_text(encoding="utf-8").splitlines()
        chunks = [json.loads(line) for line in lines]
        made[version] = chunks, every[[c["row"] for c in chunks]]
    return made


def forget(registry: la.Registry, name: str, number: int) -> None:
    backend: Any = registry.backend
    with backend._parts.metadata.writing() as s:
        s.run(
            "delete from version where number = :n and collection_id = (select id from collection where name = :c)",
            {"n": number, "c": name},
        )


@pytest.mark.filterwarnings("ignore::llmartifacts.registry.LogRemark")
@pytest.mark.parametrize("index", ["Flat", "IVF16,Flat", "HNSW32"])
def test_real_indexes_are_counted_collected_and_still_answer_the_same(
    releases: dict[str, Any], tmp_path: Path, index: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = la.EmbeddingSpec("sentence-transformers/all-MiniLM-L6-v2", 384, normalized=True)
    with la.init(tmp_path / "registry") as registry:
        for number, (chunks, vectors) in enumerate(releases.values(), 1):
            value = la.VectorIndex.from_vectors(vectors, chunks, embedding=spec, index=index)
            assert registry.log("kb", value).number == number
        asked = releases["3.1.0"][1][:50]
        before = {n: registry.resolve(f"kb:v{n}", la.VectorIndex).search(asked, 5).ids.tolist() for n in (3, 5)}
        (kb,) = registry.stats("kb").collections
        assert kb.stored < kb.logical
        assert kb.stored == sum(v.added for v in kb.by_version)
        whole = sum(f.size for n in range(1, 6) for f in registry.find(f"kb:v{n}").manifest.files if "faiss" in f.path)
        assert kb.stored < whole

        for number in (1, 2, 4):
            forget(registry, "kb", number)
        told = registry.gc(dry_run=True, compact=True)
        done = registry.gc(compact=True)
        assert (done.freed, done.chunks, done.objects) == (told.freed, told.chunks, told.objects)
        assert done.freed > 0
        assert done.objects > 3
        assert registry.stats().unused == 0
        after = {n: registry.resolve(f"kb:v{n}", la.VectorIndex).search(asked, 5).ids.tolist() for n in (3, 5)}
        assert after == before
    assert main(["--registry", str(tmp_path / "registry"), "stats", "kb"]) == 0
    assert "v5" in capsys.readouterr().out


def test_writers_readers_and_gc_work_side_by_side(tmp_path: Path) -> None:
    place = tmp_path / "registry"
    rows = np.random.default_rng(0).bytes(1_500_000)
    with la.init(place) as registry:
        registry.log("kb", la.Files({"data": rows}))
    done = threading.Event()
    errors: list[BaseException] = []
    logged: dict[str, bytes] = {"kb:v1": rows}
    counts = {"gc": 0, "read": 0, "conflict": 0}

    def guarded(work: Any) -> None:
        try:
            with la.connect(place) as registry:
                work(registry)
        except BaseException as error:
            errors.append(error)
            done.set()

    def write(registry: la.Registry) -> None:
        for number in range(300):
            if number >= 12 and counts["gc"] > 1 and counts["read"] > 1:
                break
            content = rows[: 1_200_000 + 1000 * (number % 250)] + b"%d" % number
            try:
                version = registry.log("kb" if number % 2 else "away", la.Files({"data": content}))
            except Conflict:
                counts["conflict"] += 1
                continue
            if number % 2:
                logged[f"kb:v{version.number}"] = content
            else:
                forget(registry, "away", version.number)
        done.set()

    def collect(registry: la.Registry) -> None:
        while not done.is_set():
            try:
                registry.gc(compact=True)
            except Conflict:
                continue
            counts["gc"] += 1

    def read(registry: la.Registry) -> None:
        while not done.is_set():
            for reference, content in list(logged.items()):
                file = registry.find(reference).manifest.files[0]
                assert registry.backend.blobs.read(file.blob) == content
                counts["read"] += 1

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (write, collect, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert min(counts["gc"], counts["read"], len(logged) - 1) > 0
    with la.connect(place) as registry:
        for reference, content in logged.items():
            file = registry.find(reference).manifest.files[0]
            assert registry.backend.blobs.read(file.blob) == content
        registry.gc(compact=True)
        assert registry.stats().unused == 0
