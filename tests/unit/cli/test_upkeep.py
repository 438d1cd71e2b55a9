"""stats, gc, migrate and verify on the command line."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import wire
from llmartifacts.blobs.forms import RAW, RECIPE, key_of

Cli = Callable[..., Any]
MB = 1 << 20


def noise(seed: int, size: int = MB + MB // 4) -> bytes:
    return random.Random(seed).randbytes(size)


def forget(registry: la.Registry, name: str, number: int) -> None:
    backend: Any = registry.backend
    with backend._parts.metadata.writing() as s:
        s.run(
            "delete from version where number = :n and collection_id = (select id from collection where name = :c)",
            {"n": number, "c": name},
        )


@pytest.fixture
def large(cli: Cli, tmp_path: Path) -> Cli:
    """Three versions of a large file, the first of which nobody needs any more."""
    cli("init")
    with la.connect(tmp_path / ".llmartifacts") as registry:
        for seed in (1, 2, 2):
            registry.log("kb", la.Files({"weights.bin": noise(seed), "notes.txt": b"note %d " % seed * 1000}))
        registry.log("kb", la.Files({"weights.bin": noise(2) + b"!", "notes.txt": b"x"}))
        forget(registry, "kb", 1)
    return cli


def stored(tmp_path: Path) -> int:
    return sum(p.stat().st_size for p in (tmp_path / ".llmartifacts" / "blobs").rglob("*") if p.is_file())


def test_gc_says_first_what_it_would_free_and_then_frees_that(large: Cli, tmp_path: Path) -> None:
    before = stored(tmp_path)
    told = large("gc", "--dry-run", "--json").json
    assert stored(tmp_path) == before == told["before"]
    text = large("gc", "--dry-run").out
    assert "would go" in text
    assert "frees 1.3 MB" in text
    done = large("gc", "--json").json
    assert done == {**told, "dry_run": False}
    assert done["freed"] == before - stored(tmp_path) > MB
    assert done["objects"] == 2
    assert "nothing to free" in large("gc").out
    assert "nothing to free" in large("gc", "--compact").out


def test_gc_tells_in_words_what_it_did(large: Cli) -> None:
    text = large("gc", "--compact").out
    for word in ("objects", "chunks", "packs", "gone", "that no version needs", "freed 1.3 MB: ", " stored before, "):
        assert word in text
    assert "dead rows" not in text


def test_gc_ends_with_5_and_frees_nothing_where_something_needed_is_damaged(large: Cli, tmp_path: Path) -> None:
    recipes = sorted((tmp_path / ".llmartifacts" / "blobs").rglob("*.recipe"))
    for path in recipes:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1])
    before = stored(tmp_path)
    ended = large("gc", "--json", expect=wire.DAMAGED)
    assert ended.error["detail"]["versions"]
    text = large("gc", expect=wire.DAMAGED).err
    assert "cannot be put together: its recipe" in text
    assert "- kb:v" in text
    assert stored(tmp_path) == before


def test_stats_say_what_is_unused_and_how_to_free_it(large: Cli) -> None:
    text = large("stats").out
    assert "unused" in text
    assert "llmartifacts gc" in text
    large("gc", "--compact")
    assert "unused" not in large("stats").out


def test_stats_of_one_collection_go_by_version(large: Cli) -> None:
    text = large("stats", "kb").out
    for word in ("version", "added", "stored as", "v2", "v3", "cdc weights.bin, 1 zstd", "1 raw"):
        assert word in text
    (kb,) = large("stats", "kb", "--json").json["collections"]
    assert [v["number"] for v in kb["by_version"]] == [2, 3]
    assert kb["by_version"][0]["codecs"] == {"weights.bin": "cdc", "notes.txt": "zstd"}
    assert sum(v["added"] for v in kb["by_version"]) == kb["stored"]
    assert large("stats", "kbb", expect=None).code == wire.NOT_FOUND


def test_show_tells_how_each_file_is_stored(large: Cli) -> None:
    text = large("show", "kb:v2").out
    for line in (
        r"path +size +as +stored +digest",
        r"notes.txt +7.0 kB +zstd +\d+ B",
        r"weights.bin +1.3 MB +cdc +1.3 MB",
    ):
        assert re.search(line, text), line
    found = large("show", "kb:v2", "--json").json["storage"]
    assert {path: kept["form"] for path, kept in found.items()} == {"notes.txt": "zstd", "weights.bin": "cdc"}
    assert found["weights.bin"]["chunks"] > 5
    assert found["weights.bin"]["dead"] == 0


def test_migrate_moves_whole_files_and_says_how_much_that_saves(large: Cli, tmp_path: Path) -> None:
    assert "nothing to move" in large("migrate").out
    place = tmp_path / ".llmartifacts"
    with la.connect(place) as registry:
        backend: Any = registry.backend
        blobs = backend._parts.blobs
        for number in (2, 3):
            blob = registry.find(f"kb:v{number}").manifest.file("weights.bin").blob  # type: ignore[union-attr]
            data = blobs.read(blob)
            blobs.driver.delete(key_of(blob.digest, RECIPE))
            blobs.driver.put_if_absent(key_of(blob.digest, RAW), data)
    large("gc")
    told = large("migrate", "--dry-run", "--json").json
    assert (told["files"], told["after"]) == (2, None)
    assert "2 files of 2.6 MB would be moved" in large("migrate", "--dry-run").out
    assert "moved 2 files: 2.6 MB stored before, 1.4 MB after" in large("migrate").out
    assert large("migrate", "--json").json["files"] == 0
    assert {k["form"] for k in large("show", "kb:v3", "--json").json["storage"].values()} == {"cdc", "raw"}


def test_migrate_ends_with_5_where_a_file_is_damaged(large: Cli, tmp_path: Path) -> None:
    place = tmp_path / ".llmartifacts"
    with la.connect(place) as registry:
        backend: Any = registry.backend
        blobs = backend._parts.blobs
        blob = registry.find("kb:v2").manifest.file("weights.bin").blob  # type: ignore[union-attr]
        blobs.driver.delete(key_of(blob.digest, RECIPE))
        blobs.driver.put_if_absent(key_of(blob.digest, RAW), b"something else")
    ended = large("migrate", expect=wire.DAMAGED)
    assert "could not be moved" in ended.out
    assert "kb:v2" in ended.out


def test_verify_names_the_damaged_pack(large: Cli, tmp_path: Path) -> None:
    large("gc")
    (pack,) = (tmp_path / ".llmartifacts" / "blobs" / "packs").rglob("*.pack")
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[4000] ^= 1
    pack.write_bytes(data)
    found = large("verify", "--read-data", "--json", expect=wire.DAMAGED).json
    assert found["packs"] == 1
    named = [p for p in found["problems"] if p.get("file") == str(pack)]
    assert named
    assert all(set(p["versions"]) <= {"kb:v2", "kb:v3"} and p["versions"] for p in named)
    assert "1 pack read and hashed" in large("verify", "--read-data", expect=wire.DAMAGED).out
