"""Many processes log while others clean up: nothing that is needed goes, and nothing is stored twice."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.blobs.chunks.entries import ids_of
from llmartifacts.blobs.chunks.survey import read_footer

WRITER = """
import hashlib, json, random, sys
import llmartifacts as la
from llmartifacts.errors import Conflict, Damaged

place, who, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
shared = [random.Random(n).randbytes(70_000) for n in range(40)]
choice = random.Random(1000 + who)
with la.connect(place, actor=f"writer-{who}") as registry:
    for number in range(count):
        if number % 3 == 2:
            files = {"text": b"%d %d " % (who, number) * 500, "same": b"the same for all " * 900}
        else:
            files = {"data": b"".join(choice.choices(shared, k=17)) + b"%d %d" % (who, number)}
        name = "kept" if number % 2 else "brief"
        while True:
            try:
                version = registry.log(name, la.Files(files))
                break
            except Conflict:
                continue  # somebody cleaned up what it was about to rely on
        sums = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
        print(json.dumps([str(version), version.created, sums]), flush=True)
"""
CLEANER = """
import sys
from datetime import timedelta
import llmartifacts as la
from llmartifacts.errors import Conflict

grace = timedelta(seconds=float(sys.argv[2]))
done = 0
with la.connect(sys.argv[1], actor="cleaner") as registry:
    while True:
        try:
            registry.gc(compact=done % 2 == 1, grace=grace, keep_last=3, collections="brief")
            done += 1
            print(done, flush=True)
        except Conflict:
            pass
"""


@pytest.mark.parametrize(
    ("writers", "versions", "grace"),
    [
        pytest.param(3, 6, 0.3, id="few", marks=pytest.mark.slow),
        pytest.param(16, 50, 0, id="many-at-once", marks=pytest.mark.matrix),
        pytest.param(16, 50, 0.5, id="many-with-grace", marks=pytest.mark.matrix),
    ],
)
def test_writers_and_cleaners_side_by_side(tmp_path: Path, writers: int, versions: int, grace: float) -> None:
    place = tmp_path / "registry"
    with la.init(place) as registry:
        for name in ("kept", "brief"):
            registry.log(name, la.Files({"data": random.Random(name).randbytes(1_200_000)}))
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(place), *map(str, arguments)]
        environment = {**os.environ, "LLMARTIFACTS_CACHE": str(tmp_path / "cache")}
        made = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(made)
        return made

    try:
        cleaner = start(CLEANER, grace)
        assert cleaner.stdout is not None
        assert cleaner.stdout.readline() == "1\n"
        running = [start(WRITER, who, versions) for who in range(writers)]
        told = [one.communicate()[0] for one in running]
        assert [one.returncode for one in running] == [0] * writers
        assert cleaner.poll() is None
        cleaner.kill()
        rounds = len(cleaner.communicate()[0].split())
        assert rounds >= 1
    finally:
        for one in started:
            if one.poll() is None:
                one.kill()
                one.wait()
    logged: dict[str, Any] = {}
    for line in "".join(told).splitlines():
        version, created, sums = json.loads(line)
        assert created
        assert version not in logged, "a number was given twice"
        logged[version] = sums
    assert len(logged) == writers * versions
    with la.connect(place) as registry:
        check(registry, logged)
        time.sleep(grace)
        registry.gc(compact=True)
        check(registry, logged)
        assert registry.stats().unused == 0
        refuse_doubles(registry)
        assert registry.verify(read_data=True).problems == ()


def check(registry: la.Registry, logged: dict[str, Any]) -> None:
    there = {
        str(v) for name in ("kept", "brief") for v in registry.versions(name) if v.removed_at is None and v.number > 1
    }
    assert {one for one in logged if one.startswith("kept")} <= there
    assert len([one for one in there if one.startswith("brief")]) >= 3
    for version in there:
        value = registry.resolve(version, la.Files)
        assert {path: hashlib.sha256(value.read(path)).hexdigest() for path in value.paths()} == logged[version]
    numbers = [v.number for v in registry.versions("kept")]
    assert numbers == list(range(len(numbers), 0, -1))


def refuse_doubles(registry: la.Registry) -> None:
    backend: Any = registry.backend
    parts = backend.parts
    seen: set[bytes] = set()
    for name, size in parts.blobs.index.packs().items():
        for one in ids_of(read_footer(parts.blobs.driver, name, size)):
            assert one not in seen, "a chunk is stored twice"
            seen.add(one)
