"""A service starts from a server, again and again in new processes: what has not changed is not sent again."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.runtime import lockfile as lockfiles

BOTH = {"agent": "agent:prod", "kb": "kb:prod"}
START = """
    import sys, llmartifacts as la
    resolver = la.Resolver({"agent": "agent:prod", "kb": "kb:prod"}, registry=sys.argv[1])
    generation = resolver.start()
    print(generation.source, *[c.number for c in generation.lock.components.values()], generation.revision)
    print(generation.value["agent"].read("agent.txt")[:7].decode())
"""


def in_new_process(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def of_the_set(service: Any) -> list[Any]:
    """What was asked, but for which registry it is: that is asked once for each new set."""
    return [one for one in service.between.asked if not one.path.endswith("/info")]


def test_with_nothing_changed_a_new_process_makes_one_conditional_request(service: Any):
    cold = in_new_process(START, service.url)
    assert len(service.between.asked) > 1
    service.between.asked.clear()
    assert in_new_process(START, service.url) == cold
    (asked,) = service.between.asked
    assert asked.status == 304
    assert asked.headers["if-none-match"] == asked.reply.headers["etag"]


def test_what_changed_is_fetched_and_nothing_else(service: Any):
    in_new_process(START, service.url)
    service.promote(2, "kb")
    service.between.asked.clear()
    out = in_new_process(START, service.url)
    assert out.splitlines()[0].startswith("registry 1 2 ")
    read, blob = of_the_set(service)
    assert (read.status, blob.status) == (200, 200)
    assert service.registry.find("kb:v2").manifest.files[0].digest.replace(":", "%3A") in blob.path
    service.between.asked.clear()
    in_new_process(START, service.url)
    assert [one.status for one in service.between.asked] == [304]


def test_a_promotion_and_its_rollback_send_the_references_again_and_no_bytes(service: Any):
    in_new_process(START, service.url)
    service.promote(2)
    in_new_process(START, service.url)
    service.registry.rollback("kb:prod", whole=True, reason="worse")
    service.between.asked.clear()
    assert in_new_process(START, service.url).splitlines()[1] == "agent 1"
    assert [one.status for one in of_the_set(service)] == [200]


def test_a_frozen_start_asks_for_nothing(service: Any, tmp_path: Any):
    with la.connect(service.url) as registry:
        spec = la.Resolver(BOTH, registry=registry)
        lockfiles.write(lockfiles.lock(BOTH, registry=registry), tmp_path / "llmartifacts.lock")
        spec.start()
    service.between.asked.clear()
    script = """
        import sys, llmartifacts as la
        wanted = {"agent": "agent:prod", "kb": "kb:prod"}
        print(la.Resolver(wanted, registry=sys.argv[1], lockfile=sys.argv[2], frozen=True).start().source)
    """
    assert in_new_process(script, service.url, str(tmp_path / "llmartifacts.lock")) == "lockfile\n"
    assert service.between.asked == []


def test_a_bundle_needs_no_second_request(service: Any):
    service.registry.log("stack", la.Bundle(components={"agent": "agent:v1", "kb": "kb:v1"}), aliases="prod")

    @dataclass(frozen=True)
    class Stack:
        agent: la.Files
        kb: la.Files

    la.Resolver(Stack, "stack:prod", registry=service.url).start()
    service.between.asked.clear()
    assert la.Resolver(Stack, "stack:prod", registry=service.url).start().value.kb.read("kb.txt").startswith(b"kb 1")
    assert [one.status for one in service.between.asked] == [304]


def test_a_bundle_beside_its_own_parts_and_other_kinds_needs_none_either(service: Any):
    questions = la.EvalDataset([{"id": "1", "input": "why?", "expected_output": "so"}])
    service.registry.log("questions", questions, aliases="prod")
    service.registry.log("stack", la.Bundle(components={"agent": "agent:v1"}), aliases="prod")
    wanted = {"agent": "agent:prod", "questions": "questions:prod", "stack": "stack:prod"}
    la.Resolver(wanted, registry=service.url).start()
    service.between.asked.clear()
    assert la.Resolver(wanted, registry=service.url).start().source == "registry"
    assert [one.status for one in service.between.asked] == [304]


def test_a_manifest_too_large_for_the_answer_is_found_in_the_cache(service: Any):
    many = {f"{n:05}-{'x' * 60}.txt": b"same" for n in range(600)}
    service.registry.log("many", la.Files(many))
    service.registry.promote("many:v1", to="prod", reason="first")
    wanted = {"many": "many:prod"}
    la.Resolver(wanted, registry=service.url).start()
    assert [one for one in service.between.asked if "/manifests/" in one.path]
    service.between.asked.clear()
    assert la.Resolver(wanted, registry=service.url).start().value["many"].read(min(many)) == b"same"
    assert [one.status for one in service.between.asked] == [304]


@pytest.mark.parametrize("cache_is", ["gone", "read-only"])
def test_where_nothing_can_be_kept_it_starts_all_the_same(cache_is: str, service: Any):
    la.Resolver(BOTH, registry=service.url).start()
    answers = service.cache / "answers"
    if cache_is == "gone":
        for file in answers.iterdir():
            file.unlink()
        answers.rmdir()
        answers.write_text("in the way")
    else:
        for file in answers.iterdir():
            file.unlink()
        answers.chmod(0o500)
    assert la.Resolver(BOTH, registry=service.url).start().source == "registry"
    assert la.Resolver(BOTH, registry=service.url).start().source == "registry"
