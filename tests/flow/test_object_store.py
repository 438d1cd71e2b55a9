"""A team's registry whose bytes lie in an S3 server: log, promote, pull, resolve, collect, verify; who fetches what."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.blobs.chunks.pack import key_of as key_of_pack
from llmartifacts.blobs.object_store import ObjectStoreDriver
from llmartifacts.errors import Conflict, Unreachable
from llmartifacts.registry import Registry
from llmartifacts.testing.server import running_server
from llmartifacts.versioning.team import open_team

pytestmark = [pytest.mark.usefixtures("s3_environment"), pytest.mark.slow]
MB = 1024 * 1024
NOISE = random.Random(11).randbytes(9 * MB)


@pytest.fixture(params=["moto", pytest.param("radosgw", marks=[pytest.mark.matrix, pytest.mark.xdist_group("s3")])])
def s3(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("moto_server" if request.param == "moto" else "s3_server")


@pytest.fixture
def line(s3: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """What clients go through where they fetch from the store; the servers go straight there."""
    with closing(type(request.getfixturevalue("bad_line"))(s3)) as made:
        yield made


def llmartifacts(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "llmartifacts", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_teams_registry_lives_in_a_bucket_and_clients_fetch_from_it(
    s3: Any, line: Any, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.new_bucket()
    blobs = s3.url(bucket, "team/registry", public=line.endpoint)
    workers = 1 if s3.name == "moto" else 2
    with running_server(database=postgres_url, blobs=blobs, folder=tmp_path / "server", workers=workers) as server:
        monkeypatch.setenv("LLMARTIFACTS_REGISTRY", server.url)
        monkeypatch.setenv("LLMARTIFACTS_TOKEN", server.token)
        with la.connect(server.url) as ours:
            ours.log("agent", la.Prompt("Answer: {{ question }}", template_format="jinja2"), aliases="staging")
            ours.log("kb", la.Files({"noise": NOISE, "notes.txt": b"note\n" * 1000}), aliases="staging")
            ours.promote("agent:v1", to="prod", reason="good")
            ours.promote("kb:v1", to="prod", reason="good")
        assert not [one for one in line.asked if one.method == "PUT"], (
            "uploads pass through the server, which checks them"
        )

        monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "another machine"))
        line.quiet()
        llmartifacts("pull", "kb:prod", str(tmp_path / "pulled"))
        assert (tmp_path / "pulled" / "noise").read_bytes() == NOISE
        fetched = [one for one in line.asked if one.method == "GET"]
        assert sum(len(one.answer) for one in fetched) >= len(NOISE), "what is large comes from the store itself"
        assert {one.status for one in fetched} == {206}
        assert not [one for one in fetched if "authorization" in one.headers]

        with la.connect(server.url) as theirs:
            assert theirs.resolve("agent:prod", la.Prompt).format(question="why?") == "Answer: why?"
            for _ in range(2):
                theirs.log("kb", la.Files({"noise": NOISE[MB:] + b"more"}))
        assert "token" not in server.log_text()

    with Registry(open_team(postgres_url, blobs), project="default", actor="tester") as registry:
        driver = registry.backend.parts.blobs.driver  # type: ignore[attr-defined]
        assert isinstance(driver, ObjectStoreDriver)
        stored = dict(driver.list())
        report = registry.verify(read_data=True)
        assert not report.problems, report
        driver.put_if_absent("sha256/" + "0" * 2 + "/" + "0" * 64, b"of nobody")
        first = registry.gc(dry_run=True)
        registry.gc()
        assert first
        assert stored.keys() <= dict(driver.list()).keys()
        pack = next(key for key in stored if key.startswith("packs/"))
        driver.replace(pack, b"damaged")
        assert registry.verify(read_data=True).problems
        assert key_of_pack(pack[-69:-5]) == pack
        with pytest.raises(Conflict, match=r"belong|place|empty"):
            open_team(postgres_url, s3.url(bucket, "team/other"))


def test_a_store_that_fails_a_third_of_its_calls_costs_a_client_nothing_but_time(
    s3: Any, line: Any, postgres_url: str, tmp_path: Path
) -> None:
    chance = random.Random(2)

    def fails(passed: Any) -> None:
        if chance.random() < 0.3:
            passed.fail(503, "SlowDown") if chance.random() < 0.5 else setattr(passed, "lost", True)

    line.before = fails
    blobs = s3.url(s3.new_bucket(), "p", endpoint=line.endpoint)
    with Registry(open_team(postgres_url, blobs), project="default", actor="tester") as registry:
        for number in range(3):
            registry.log("kb", la.Files({"data": NOISE[: 2 * MB] + bytes([number])}), aliases="staging")
        registry.promote("kb:v3", to="prod", reason="best")
        for number in range(3):
            found = registry.resolve(f"kb:v{number + 1}", la.Files)
            assert found.read("data") == NOISE[: 2 * MB] + bytes([number])
    assert len(line.asked) > 20
    line.before = lambda passed: setattr(passed, "lost", True)
    with pytest.raises(Unreachable):
        ObjectStoreDriver(blobs, seconds=0.3).size("registry")


LOG = """
import random, sys
import llmartifacts as la
from llmartifacts.versioning.team import open_team
database, blobs, me, count = sys.argv[1:]
common = random.Random(1).randbytes(3_000_000)
with la.Registry(open_team(database, blobs, connections=2), project="default", actor=f"writer-{me}") as registry:
    for i in range(int(count)):
        own = random.Random(int(me) * 1000 + i).randbytes(1_500_000)
        files = {"common": common, "own": own + common[: 500_000], "note.txt": f"{me} {i}".encode()}
        registry.log("files", la.Files(files))
        registry.log("same", la.Files({"a.txt": f"the same {i}".encode(), "large": common[i:]}))
"""


@pytest.mark.matrix
def test_processes_that_log_into_one_bucket_while_it_is_collected_lose_nothing(
    s3: Any, postgres_url: str, tmp_path: Path
) -> None:
    blobs, count, processes = s3.url(s3.new_bucket(), "p"), 6, 4
    with Registry(open_team(postgres_url, blobs), project="default", actor="tester") as registry:
        children = [
            subprocess.Popen(
                [sys.executable, "-c", LOG, postgres_url, blobs, str(me), str(count)], stderr=subprocess.PIPE, text=True
            )
            for me in range(processes)
        ]
        collected = 0
        while any(child.poll() is None for child in children):
            registry.gc(grace=timedelta(0))
            collected += 1
        told = [child.communicate()[1] for child in children]
        assert [child.returncode for child in children] == [0] * processes, "\n".join(told)
        assert collected
        assert [v.number for v in registry.versions("files")] == list(range(processes * count, 0, -1))
        assert len(registry.versions("same")) == count
        for step in ("as it is", "after a last collection"):
            assert registry.verify(read_data=True).ok, step
            registry.gc(grace=timedelta(0))
