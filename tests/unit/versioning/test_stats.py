"""What the versions hold, what is stored for it, and how."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmartifacts as la
from llmartifacts.blobs.forms import RECIPE, key_of
from llmartifacts.errors import NotFound

MB = 1 << 20
Shelf = Any


def noise(seed: int, size: int = MB + MB // 4) -> bytes:
    return random.Random(seed).randbytes(size)


def inline(shelf: Shelf) -> int:
    with shelf.parts.metadata.reading() as s:
        return int(s.row("select coalesce(sum(length(body)), 0) from manifest")[0])


def test_stored_is_what_really_lies_in_the_store(shelf: Shelf) -> None:
    assert shelf.registry.stats().stored == 0
    shelf.log("kb", noise(1))
    shelf.log("kb", noise(1) + noise(2))
    shelf.log("notes", b"some text " * 5000)
    shelf.registry.log("prompt", la.Prompt("hello", template_format="f-string"))
    stats = shelf.registry.stats()
    assert stats.stored == shelf.on_disk() + inline(shelf)
    assert stats.unused == 0
    assert stats.blobs == 3
    assert {c.name: c.versions for c in stats.collections} == {"kb": 2, "notes": 1, "prompt": 1}


def test_a_version_adds_what_no_earlier_one_needs(shelf: Shelf, flask_vectors: Any, ivf: Any) -> None:
    first = ivf(flask_vectors)
    shelf.log("kb", first)
    shelf.log("kb", ivf(flask_vectors, remove=[5, 400, 801]))
    shelf.log("kb", ivf(np.vstack([flask_vectors, flask_vectors[:9] * 1.5])))
    (kb,) = shelf.registry.stats("kb").collections
    assert [v.number for v in kb.by_version] == [1, 2, 3]
    assert kb.by_version[0].added > 0.9 * len(first)
    assert max(v.added for v in kb.by_version[1:]) < 0.05 * len(first)
    assert [v.dead for v in kb.by_version] == [0, 3 * 1536, kb.dead]
    assert {v.codecs["index.faiss"] for v in kb.by_version} == {"faiss-ivf"}
    assert kb.stored == sum(v.added for v in kb.by_version)
    (same,) = shelf.registry.stats().collections
    assert (same.stored, same.dead, same.logical) == (kb.stored, kb.dead, kb.logical)
    assert same.by_version == ()


def test_codecs_are_told_by_file(shelf: Shelf) -> None:
    files = {
        "tiny": b"x",
        "text.txt": b"some text " * 5000,
        "lines.jsonl": b"".join(b'{"id": %d, "text": "where is my order %d"}\n' % (i, i * i) for i in range(40_000)),
        "weights.bin": noise(3),
    }
    shelf.registry.log("all", la.Files(files))
    (version,) = shelf.registry.stats("all").collections[0].by_version
    assert version.codecs == {"tiny": "raw", "text.txt": "zstd", "lines.jsonl": "lines", "weights.bin": "cdc"}
    manifest = shelf.registry.find("all").manifest
    for file, kept in zip(
        manifest.files, shelf.registry.backend.storage([f.blob for f in manifest.files]), strict=True
    ):
        assert kept.form == version.codecs[file.path]
        assert kept.size == file.size
        assert 0 < kept.stored <= file.size * 1.01 + 2000
        assert (kept.chunks > 0) == (file.size > MB)


def test_what_nobody_needs_is_unused_until_gc(shelf: Shelf) -> None:
    shelf.log("kb", noise(1))
    shelf.log("kb", noise(2))
    shelf.forget("kb:v1")
    unused = shelf.registry.stats().unused
    assert unused >= len(noise(1))
    freed = shelf.registry.gc(compact=True).freed
    assert abs(freed - unused) < 500  # headers and paddings
    assert shelf.registry.stats().unused == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=5))
def test_what_versions_add_is_what_is_stored(shelf: Shelf, made: list[list[int]]) -> None:
    name = f"c{random.SystemRandom().randrange(1 << 60)}"
    for seeds in made:
        shelf.log(name, b"".join(noise(seed, 600_000) for seed in seeds))
    (found,) = shelf.registry.stats(name).collections
    assert found.stored == sum(v.added for v in found.by_version)
    assert found.logical == sum(v.logical for v in found.by_version)
    assert found.stored == next(c for c in shelf.registry.stats().collections if c.name == name).stored


def test_a_file_that_cannot_be_read_is_said_to_be_damaged_or_missing(shelf: Shelf) -> None:
    shelf.log("kb", noise(1))
    blob = shelf.registry.find("kb").manifest.files[0].blob
    path = shelf.place / "blobs" / key_of(blob.digest, RECIPE)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert shelf.registry.stats("kb").collections[0].by_version[0].codecs == {"index.faiss": "damaged"}
    assert shelf.registry.backend.storage([blob])[0].form == "damaged"
    path.unlink()
    assert shelf.registry.stats("kb").collections[0].by_version[0].codecs == {"index.faiss": "missing"}
    assert shelf.registry.backend.storage([blob])[0].form == "missing"


def test_a_collection_that_is_not_there_is_not_found(shelf: Shelf) -> None:
    shelf.log("kb", b"x")
    with pytest.raises(NotFound) as caught:
        shelf.registry.stats("kbb")
    assert caught.value.near == ("kb",)
    with pytest.raises(NotFound):
        shelf.registry.stats("nobody/kb")


def test_collections_of_other_projects_are_told_apart(shelf: Shelf) -> None:
    shelf.log("kb", b"one")
    shelf.log("acme/kb", b"two and more")
    names = [c.name for c in shelf.registry.stats().collections]
    assert sorted(names) == ["acme/kb", "kb"]
    assert shelf.registry.stats("acme/kb").collections[0].name == "kb"
    assert shelf.registry.stats("acme/kb").collections[0].logical > shelf.registry.stats("kb").collections[0].logical


def test_a_registry_of_prompts_is_counted_and_collected_without_numpy(shelf: Shelf) -> None:
    shelf.registry.log("prompt", la.Prompt("hello", template_format="f-string"))
    code = (
        "import sys, llmartifacts as la\n"
        "with la.connect(sys.argv[1]) as registry:\n"
        "    assert registry.stats().stored > 0 and registry.stats('prompt').collections[0].by_version\n"
        "    assert registry.gc(compact=True).freed == 0 and registry.migrate().files == 0 and registry.verify().ok\n"
        "assert 'numpy' not in sys.modules, 'numpy was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, shelf.place], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
