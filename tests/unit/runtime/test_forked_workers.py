"""Workers that are forked from a process that has started the resolver, as `gunicorn --preload` does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.testing.server import running_server

COUNT, DIMENSION = 3000, 16

PRELOADED = """
import gc, json, os, signal, sys
import numpy as np
import llmartifacts as la

location, said, tried = sys.argv[1:4]
resolver = la.Resolver({"kb": "kb:prod", "prompt": "prompt:prod"}, registry=location)
generation = resolver.start()
queries = np.load(said)
if tried == "tried":  # in several threads of FAISS
    generation.value["kb"].search(queries, k=3)

def worker(number):
    r, w = os.pipe()
    go_r, go_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # one that hangs is killed
        os.close(r), os.close(go_w)
        with os.fdopen(w, "w") as out:
            work(number, out, go_r)
        os._exit(0)
    os.close(w), os.close(go_r)
    return pid, r, go_w
"""
SEARCHES = """
def work(number, out, go):
    os.read(go, 1)
    hits = resolver.current.value["kb"].search(queries, k=3)
    again = resolver.start().number
    json.dump([hits.ids.tolist(), hits.documents[0][0].text, resolver.current.stamp(), again], out)

workers = [worker(n) for n in range(3)]
for _, _, go in workers:
    os.close(go)
print(json.dumps([json.loads(open(r).read()) for _, r, _ in workers]))
"""
DROPS = """
def work(number, out, go):
    global resolver, generation
    if number == 0:  # lets go of everything, and ends
        del resolver, generation
        gc.collect()
        out.write("gone")
        return
    os.read(go, 1)
    json.dump(generation.value["kb"].search(queries, k=3).ids.tolist(), out)

first, second = worker(0), worker(1)
gone = open(first[1]).read()
os.waitpid(first[0], 0)
os.close(second[2])
here = generation.value["kb"].search(queries[:1], k=3).ids.tolist()
print(json.dumps([gone, json.loads(open(second[1]).read()), here]))
"""
STARTS_ITSELF = """
def work(number, out, go):
    os.read(go, 1)
    own = la.Resolver({"kb": "kb:prod"}, registry=location).start()
    json.dump(own.value["kb"].search(queries, k=3).ids.tolist(), out)

one = worker(0)
os.close(one[2])
print(json.dumps(json.loads(open(one[1]).read())))
"""
FOLLOWS = """
import threading, time

def work(number, out, go):
    before = resolver.status().checks
    os.read(go, 1)
    got = resolver.wait_for(goal, 15).lock.components["prompt"].number
    while resolver.status().checks.made + resolver.status().checks.shared <= before.made + before.shared + 3:
        time.sleep(0.001)  # it goes on looking without being asked
    watching = [t.name for t in threading.enumerate() if t.is_alive() and t.name == "llmartifacts-watch"]
    json.dump([got, resolver.state, watching], out)

resolver.watch(0.001)  # looks without a pause, so that a fork meets one at any point
workers = []
with la.connect(location) as registry:
    goal = registry.backend.revision("default") + 8
    for n in range(8):
        workers.append(worker(n))
        registry.promote(f"prompt:v{2 - n % 2}", to="prod", reason=str(n))
for _, _, go in workers:
    os.close(go)
print(json.dumps([json.loads(open(r).read()) for _, r, _ in workers]))
"""
CLOSES = """
def work(number, out, go):
    os.read(go, 1)
    if number == 0:
        resolver.close()
        json.dump(["closed", resolver.state], out)
    else:
        json.dump([resolver.refresh(), resolver.state], out)

resolver.watch(3600)
workers = [worker(n) for n in range(2)]
for _, _, go in workers:
    os.close(go)
said = [json.loads(open(r).read()) for _, r, _ in workers]
print(json.dumps([*said, [resolver.refresh(), resolver.state]]))
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A registry with an index and a prompt, queries, and what the index answers."""
    import numpy as np

    base = tmp_path_factory.mktemp("forked")
    random = np.random.default_rng(3)
    vectors = random.standard_normal((COUNT, DIMENSION), dtype=np.float32)
    queries = vectors[::50] + np.float32(0.01)
    np.save(base / "queries.npy", queries)
    space = la.EmbeddingSpec("toy", DIMENSION, metric="l2")
    kb = la.VectorIndex.from_vectors(
        vectors, [f"text {n}" for n in range(COUNT)], embedding=space, index="IVF8,Flat", nprobe=8
    )
    with la.init(base / "registry") as registry:
        registry.log("kb", kb, aliases="prod")
        registry.log("prompt", la.Prompt("Hi {{ name }}", template_format="jinja2"), aliases="prod")
        registry.log("prompt", la.Prompt("Hello {{ name }}", template_format="jinja2"))
    return {"base": base, "answers": kb.search(queries, k=3).ids.tolist()}


def run(served: dict[str, Any], code: str, tried: str, location: str = "", **env: str) -> Any:
    base: Path = served["base"]
    place = location or str(base / "registry")
    done = subprocess.run(
        [sys.executable, "-c", PRELOADED + code, place, str(base / "queries.npy"), tried],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "LLMARTIFACTS_CACHE": str(base / "cache"), "OMP_NUM_THREADS": "4", **env},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("tried", ["untried", "tried"])
def test_forked_workers_answer_as_the_one_they_come_from(served: dict[str, Any], tried: str) -> None:
    told = run(served, SEARCHES, tried)
    assert [answer for answer, *_ in told] == [served["answers"]] * 3
    assert {text.split()[0] for _, text, *_ in told} == {"text"}
    assert len({stamp for *_, stamp, _ in told}) == 1
    assert [again for *_, again in told] == [1, 1, 1]


@pytest.mark.parametrize("tried", ["untried", "tried"])
def test_a_worker_that_drops_its_index_hurts_no_other(served: dict[str, Any], tried: str) -> None:
    gone, other, parent = run(served, DROPS, tried)
    assert gone == "gone"
    assert other == served["answers"]
    assert parent == served["answers"][:1]


def test_a_forked_worker_may_start_a_resolver_of_its_own(served: dict[str, Any]) -> None:
    assert run(served, STARTS_ITSELF, "tried") == served["answers"]


def test_eight_workers_forked_while_the_parent_looks_follow_what_is_promoted_by_themselves(
    served: dict[str, Any],
) -> None:
    assert run(served, FOLLOWS, "untried") == [[1, "READY", ["llmartifacts-watch"]]] * 8


@pytest.mark.slow
def test_they_do_so_over_http_too(served: dict[str, Any]) -> None:
    with running_server(served["base"] / "registry") as server:
        told = run(served, FOLLOWS, "untried", server.url, LLMARTIFACTS_TOKEN=server.token)
    assert told == [[1, "READY", ["llmartifacts-watch"]]] * 8


def test_a_worker_that_closes_its_resolver_closes_nobody_else_s(served: dict[str, Any]) -> None:
    assert run(served, CLOSES, "untried") == [["closed", "NOT_READY"], [False, "READY"], [False, "READY"]]
