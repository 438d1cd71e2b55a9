"""Readers of a registry whose writer is killed again and again see whole sets only, and never an older one."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faulting import reader
from faulting.injector import Injector, Point
from faulting.operations import PAIR, surroundings
from faulting.verbs import EVERY

import llmartifacts as la


@pytest.mark.slow
@pytest.mark.xdist_group("faults")
@pytest.mark.parametrize("kills", [6, pytest.param(60, marks=pytest.mark.faults)])
def test_readers_see_whole_sets_while_a_writer_is_killed(
    injector: Injector, folder: Path, kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder / "place"
    for name, value in surroundings(place).items():
        monkeypatch.setenv(name, value)
    place.mkdir()
    EVERY["log a pair"].prepare(place)
    shutil.copytree(place, folder / "other")
    calls, _ = injector.points("log a pair", folder / "other", folder / "trace")
    readers = [
        subprocess.Popen(
            [sys.executable, reader.__file__, str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        chosen = random.Random(kills)
        killed = 0
        for _ in range(kills):
            before = head(place)
            ended = injector.run("log a pair", place, point=Point("kill", *chosen.choice(calls)))
            killed += ended.status != 0
            after = head(place)
            assert after in ((before + 1,) if ended.done else (before, before + 1))
            if ended.status:  # whoever comes next goes on from there
                assert injector.run("log a pair", place).done
                assert head(place) == after + 1
        assert killed > kills // 2
    finally:
        told = [one.communicate("", timeout=60) for one in readers]
    for one, (out, err) in zip(readers, told, strict=True):
        assert one.returncode == 0, err
        found = json.loads(out)
        assert found["reads"] > 1
        assert found["seen"] > 1, "they read while it was written"
    with la.connect(place / "registry") as registry:
        assert registry.verify(read_data=True).ok
        assert registry.verify_audit().ok


def head(place: Path) -> int:
    with la.connect(place / "registry") as registry:
        numbers = {entry.version.number for entry in registry.state("prod").values()}
        assert len(registry.state("prod")) == len(PAIR)
        (number,) = numbers
        return number
