"""A registry of whole files, as the previous release wrote it, moves to packs in place."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llmartifacts as la
from llmartifacts.blobs.forms import RAW, RECIPE, ZSTD, encode, key_of
from llmartifacts.errors import Damaged
from llmartifacts.metadata.schema import MIGRATIONS
from llmartifacts.records.digest import digest_of

MB = 1 << 20
Shelf = Any


def noise(seed: int, size: int = MB + MB // 4) -> bytes:
    return random.Random(seed).randbytes(size)


def as_it_was(shelf: Shelf) -> None:
    """Bring a registry into the state that the previous release would have left: whole files, no chunks, schema 1."""
    blobs = shelf.parts.blobs
    with shelf.parts.metadata.reading() as s:
        from llmartifacts.metadata import versions

        needed = versions.all_blobs(s)
    for blob in needed:
        if blob.size > MB:
            data = blobs.read(blob)
            form = RAW if b"\0" in data[:65536] else ZSTD
            blobs.driver.delete(key_of(blob.digest, RECIPE))
            blobs.driver.put_if_absent(key_of(blob.digest, form), encode(form, data))
    for name in shelf.files("packs"):
        (shelf.place / "blobs" / name).unlink()
    with shelf.parts.metadata.writing() as s:
        later = "".join(MIGRATIONS[1:])
        for index in re.findall(r"create index (\w+)", later):
            s.run(f"drop index {index}")
        made = re.findall(r"create table (\w+)", later)
        for table in reversed(made):
            s.run(f"drop table {table}")
        for table, column in re.findall(r"alter table (\w+) add column (\w+)", later):
            if table not in made:
                s.run(f"alter table {table} drop column {column}")
        s.run("update meta set value = 1 where name = 'schema'")
    shelf.registry.close()


@pytest.fixture
def old(shelf: Shelf) -> Any:
    """Three versions of an index, of real text and of noise, and small files, all stored whole."""
    lines = b"".join(b'{"id": %d, "text": "where is my order %d"}\n' % (i, i * i) for i in range(40_000))
    contents = {}
    for number in range(3):
        content = noise(number // 2) + b"%d" % number
        contents[f"kb:v{number + 1}"] = content
        shelf.log("kb", content)
        contents[f"lines:v{number + 1}"] = lines + b"one more line\n" * number
        shelf.log("lines", contents[f"lines:v{number + 1}"])
    contents["small:v1"] = b"small " * 1000
    shelf.log("small", contents["small:v1"])
    as_it_was(shelf)
    made = type(shelf)(la.connect(shelf.place))
    made.contents = contents
    yield made
    made.registry.close()


def whole(shelf: Shelf) -> list[str]:
    return [name for name, size in shelf.files("sha256").items() if not name.endswith(RECIPE) and size > 50_000]


def all_is_there(shelf: Shelf) -> None:
    for reference, content in shelf.contents.items():
        assert shelf.read(reference) == content
    assert shelf.registry.verify(read_data=True).problems == ()


def test_it_reads_before_and_after_and_takes_less(old: Shelf) -> None:
    all_is_there(old)
    assert len(whole(old)) == 6
    before = old.on_disk()
    told = old.registry.migrate(dry_run=True)
    assert (told.dry_run, told.files, told.after) == (True, 6, None)
    assert len(whole(old)) == 6
    seen: list[tuple[int, int]] = []
    done = old.registry.migrate(progress=lambda at, total: seen.append((at, total)))
    assert (done.files, done.before, done.problems) == (6, told.before, ())
    assert done.before - done.after == before - old.on_disk()
    assert done.after < 0.7 * done.before
    assert seen[-1] == (done.before, done.before)
    assert whole(old) == []
    all_is_there(old)
    assert old.registry.stats().unused == 0
    assert old.registry.migrate().files == 0
    verbs = [e["verb"] for e in old.registry.backend.audit()]
    assert verbs.count("migrate") == 6


def test_a_second_version_costs_what_changed(shelf: Shelf, flask_vectors: Any, ivf: Any) -> None:
    order = np.random.default_rng(0).permutation(len(flask_vectors)) + 10_000
    first, second = ivf(flask_vectors, order), ivf(flask_vectors, order, remove=order[:5])
    shelf.log("kb", first)
    shelf.log("kb", second)
    as_it_was(shelf)
    with la.connect(shelf.place) as registry:
        registry.migrate()
        (kb,) = registry.stats("kb").collections
        assert {v.codecs["index.faiss"] for v in kb.by_version} == {"faiss-ivf"}
        assert kb.by_version[1].added < 0.03 * len(second)
        assert kb.by_version[1].dead == 5 * 1536
        assert type(shelf)(registry).read("kb:v2") == second


def test_a_damaged_file_stays_and_is_named_and_the_others_move(old: Shelf) -> None:
    digest = digest_of(old.contents["kb:v2"])
    path = old.place / "blobs" / key_of(digest, RAW)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"damaged")
    done = old.registry.migrate()
    assert done.files == 5
    (problem,) = done.problems
    assert isinstance(problem, Damaged)
    assert problem.versions == ("kb:v2",)
    assert problem.file == str(path)
    assert path.exists()
    assert not (old.place / "tmp").exists() or not list((old.place / "tmp").iterdir())


def test_what_an_interrupted_call_left_is_finished(old: Shelf) -> None:
    """Killed between the two steps, a file is there twice."""
    digest = digest_of(old.contents["kb:v1"])
    raw = old.place / "blobs" / key_of(digest, RAW)
    data = raw.read_bytes()
    old.registry.migrate()
    raw.write_bytes(data)
    all_is_there(old)
    done = old.registry.migrate()
    assert (done.files, done.after) == (1, 0)
    assert not raw.exists()
    recipe = old.place / "blobs" / key_of(digest, RECIPE)
    raw.write_bytes(data)
    recipe.chmod(0o644)
    recipe.write_bytes(recipe.read_bytes()[:-5])
    assert old.registry.migrate().files == 1
    assert not raw.exists()
    all_is_there(old)


def test_a_full_store_says_so_and_leaves_the_rest(old: Shelf) -> None:
    code = (
        "import resource, sys, llmartifacts as la\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try:\n"
        "    la.connect(sys.argv[1]).migrate()\n"
        "except la.errors.NotAllowed as error:\n"
        "    print('refused', error)\n"
    )
    code = code.replace("la.errors.NotAllowed", "NotAllowed").replace(
        "import resource", "from llmartifacts.errors import NotAllowed\nimport resource", 1
    )
    done = subprocess.run([sys.executable, "-c", code, old.place], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("refused"), done.stderr
    all_is_there(old)
    old.registry.migrate()
    assert whole(old) == []


def test_killed_at_any_moment_everything_reads_and_the_next_call_goes_on(old: Shelf) -> None:
    chosen = random.Random(5)
    code = (
        "import sys, llmartifacts as la\n"
        "registry = la.connect(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "registry.migrate()\n"
    )
    environment = {**os.environ, "LLMARTIFACTS_CACHE": str(Path(old.place).parent / "cache")}
    killed = 0
    for _ in range(8):
        worker = subprocess.Popen(
            [sys.executable, "-c", code, old.place], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        time.sleep(chosen.random() * 0.25)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        killed += worker.returncode != 0
        with la.connect(old.place) as registry:
            here = type(old)(registry)
            for reference, content in old.contents.items():
                assert here.read(reference) == content
    assert killed
    old.registry.migrate()
    assert whole(old) == []
    all_is_there(old)
    old.registry.gc(compact=True)
    assert old.registry.stats().unused == 0
    all_is_there(old)
