"""gc that is killed, or that the disk refuses, at any system call: every version reads, and the next gc finishes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la

GC = """
import sys
import llmartifacts as la
from llmartifacts.errors import LlmartifactsError
with la.connect(sys.argv[1]) as registry:
    try:
        print(registry.gc(compact=True))
    except LlmartifactsError as error:
        print("refused", error.code, error)
        sys.exit(7)
"""


def ivf(removed: int) -> bytes:
    import faiss
    import numpy as np

    vectors = np.random.default_rng(1).normal(size=(3000, 100)).astype("f4")
    quantizer = faiss.IndexFlatL2(100)
    index = faiss.IndexIVFFlat(quantizer, 100, 8)
    index.train(vectors[:500])
    index.add_with_ids(vectors, np.arange(3000))
    if removed:
        index.remove_ids(np.arange(0, removed * 50, 50))
    return bytes(faiss.serialize_index(index))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, bytes]]]:
    """A registry in which gc has everything to do: objects and chunks to free, packs to rewrite, dead rows to erase."""
    folder = tmp_path_factory.mktemp("template")
    old = {name: os.environ.get(name) for name in ("LLMARTIFACTS_ACTOR", "LLMARTIFACTS_CACHE")}
    os.environ |= {"LLMARTIFACTS_ACTOR": "tester", "LLMARTIFACTS_CACHE": str(folder / "cache")}
    try:
        contents = {}
        with la.init(folder / "registry") as registry:
            for number in range(4):
                contents[f"kb:v{number + 1}"] = ivf(number * 3)
                registry.log("kb", la.Files({"index.faiss": contents[f"kb:v{number + 1}"]}))
            registry.log("small", la.Files({"text": b"some text " * 1000}))
            forget(registry, "kb", 1)
            forget(registry, "small", 1)
            del contents["kb:v1"]
            told = registry.gc(dry_run=True, compact=True)
            assert told.objects == 2
            assert told.recoded
            assert told.dead
        yield folder / "registry", contents
    finally:
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def forget(registry: Any, name: str, number: int) -> None:
    with registry.backend._parts.metadata.writing() as s:
        s.run(
            "delete from version where number = :n and collection_id = (select id from collection where name = :c)",
            {"n": number, "c": name},
        )


def all_is_well(place: Path, contents: dict[str, bytes]) -> None:
    """Every version reads, nothing that is stored is damaged, and what the last call left undone can be done."""
    with la.connect(place) as registry:
        for reference, content in contents.items():
            file = registry.find(reference).manifest.file("index.faiss")
            assert file is not None
            assert registry.backend.blobs.read(file.blob) == content
        about_bytes = [
            str(p) for p in registry.verify(read_data=True).problems if "blobs" in str(p) or "chunk" in str(p)
        ]
        assert about_bytes == []
        done = registry.gc(compact=True)
        assert registry.stats().unused == 0
        assert registry.stats("kb").collections[0].dead == 0
        files = [p for p in (place / "blobs").rglob("*") if p.is_file()]
        assert sum(p.stat().st_size for p in files) == done.after
        assert not list((place / "tmp").rglob("*"))
        again = registry.gc(dry_run=True, compact=True)
        assert (again.objects, again.packs, again.freed) == (0, 0, 0)
        for reference, content in contents.items():
            file = registry.find(reference).manifest.file("index.faiss")
            assert file is not None
            assert registry.backend.blobs.read(file.blob) == content


def injected(strace: str, inject: str, place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"inject={inject}", sys.executable, "-B", "-c", GC, place],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("calls", "times"),
    [
        ("link,linkat", range(1, 4)),
        pytest.param("rename,renameat,renameat2", range(1, 6), marks=pytest.mark.matrix),
        ("unlink,unlinkat", range(1, 40, 6)),
        pytest.param("fdatasync", range(1, 20, 2), marks=pytest.mark.matrix),
        pytest.param("fsync", range(1, 20, 3), marks=pytest.mark.matrix),
        pytest.param("pwrite64", range(1, 120, 9), marks=pytest.mark.matrix),
        pytest.param("writev,write", range(1, 30, 3), marks=pytest.mark.matrix),
        pytest.param("unlink,unlinkat", range(2, 40), marks=pytest.mark.matrix),
        pytest.param("fdatasync", range(2, 20, 2), marks=pytest.mark.matrix),
    ],
)
def test_gc_killed_at_any_system_call_loses_nothing(
    strace: str, tmp_path: Path, template: tuple[Path, dict[str, bytes]], calls: str, times: range
) -> None:
    killed = 0
    for when in times:
        place = tmp_path / str(when)
        shutil.copytree(template[0], place)
        done = injected(strace, f"{calls}:signal=SIGKILL:when={when}", place)
        killed += done.returncode != 0
        all_is_well(place, template[1])
        shutil.rmtree(place)
        if done.returncode == 0:
            break
    assert killed


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("writev", "ENOSPC"),
        ("fdatasync", "EIO"),
        pytest.param("link,linkat", "ENOSPC", marks=pytest.mark.matrix),
        pytest.param("rename,renameat,renameat2", "EIO", marks=pytest.mark.matrix),
        ("unlink,unlinkat", "EIO"),
        pytest.param("fsync", "EIO", marks=pytest.mark.matrix),
    ],
)
def test_gc_that_the_disk_refuses_is_a_typed_error_and_loses_nothing(
    strace: str, tmp_path: Path, template: tuple[Path, dict[str, bytes]], call: str, error: str
) -> None:
    place = tmp_path / "registry"
    shutil.copytree(template[0], place)
    done = injected(strace, f"{call}:error={error}", place)
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("refused")
    all_is_well(place, template[1])
