"""Resolving four components over loopback: how many services a second, and how long each waits.

One request reads all four at one revision, with their manifests; `mlflow server` needs four. Those who ask, the servers
and PostgreSQL share the machine's cores, ours as theirs.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import quote

import llmartifacts as la
from benchmarks import server_mlflow
from benchmarks.inputs import index, prompts, questions
from benchmarks.measure import Absent, Bench, Budget, Figure, Line, Subject, Unit
from benchmarks.server_load import Ask, Outcome, get, load
from benchmarks.server_setup import Postgres, Store, bare, postgres, serving, stores
from llmartifacts.registry import Registry

NAMES = ("agent", "kb", "stack", "questions")
CONNECTIONS = 8
GOAL = 10.0
PATH = "/api/v1/projects/default/read?" + "&".join(f"ref={quote(f'{name}:prod')}" for name in NAMES)


def fill(registry: Registry) -> list[str]:
    """Log what a service needs, each in three versions; gives the digests that `prod` names."""
    registry.log_many([("agent", prompt) for prompt in prompts(3)])
    for number in range(3):
        registry.log("kb", index(100 + number))
        registry.log("questions", questions(50 + number))
        models = {"llm": la.ModelSpec(provider="openai", name="gpt-4-turbo", parameters={"temperature": number / 10})}
        registry.log("stack", la.Bundle(components={"prompt": f"agent:v{number + 1}"}, models=models))
    registry.promote([f"{name}:v3" for name in NAMES], to="prod", reason="measured")
    return [str(registry.get(f"{name}:prod").digest) for name in NAMES]


def asking(host: str, token: str, digests: list[str]) -> list[Ask]:
    """What one resolution asks for; the right answer names every digest."""
    return [get(PATH, host, token, tuple(digest.encode() for digest in digests))]


def measure(bench: Bench) -> Iterator[Line | Absent]:
    python = server_mlflow.found(bench) if bench.peers else None
    if isinstance(python, Absent):
        yield python
    with postgres(bench) as database:
        if isinstance(database, Absent):
            yield database
        for store in stores(bench, database, "resolving"):
            with store.open() as registry:
                digests = fill(registry)
            token = store.token()
            for workers in (1, 2):
                bench.say(f"resolving over {store.kind}, {workers} process{'es' * (workers > 1)}")
                with ExitStack() as stack:
                    (server,) = stack.enter_context(serving(store, workers=workers))
                    work = asking(server.host, token, digests)
                    subjects = [_loading(bench, server.address, work)]
                    floor = stack.enter_context(bare(bench, answer(server.url, token), workers))
                    subjects.append(_loading(bench, floor, [get("/read", f"127.0.0.1:{floor[1]}")]))
                    if python is not None and not isinstance(python, Absent):
                        uri = _mlflow_store(bench, store, database)
                        host = stack.enter_context(server_mlflow.serving(python, bench.folder / "mlflow", uri, workers))
                        if workers == 1:
                            server_mlflow.fill(python, host, NAMES)
                        theirs = server_mlflow.resolution(host, NAMES)
                        subjects.append(_loading(bench, ("127.0.0.1", int(host.rpartition(":")[2])), theirs))
                    taken = [[one() for one in subjects] for _ in range(bench.runs + 1)][1:]
                yield from _lines(bench, store, workers, [list(one) for one in zip(*taken, strict=True)])


def _mlflow_store(bench: Bench, store: Store, database: Postgres | Absent) -> str:
    """The same kind of database; the same one for any number of processes."""

    def made() -> str:
        if store.kind == "SQLite" or isinstance(database, Absent):
            return f"sqlite:///{bench.folder}/mlflow.db"
        return database.new_database().replace("postgresql:", "postgresql+psycopg2:")

    uri: str = bench.shared(f"mlflow {store.kind}", made)
    return uri


def _loading(bench: Bench, address: tuple[str, int], work: list[Ask]) -> Callable[[], Outcome]:
    def run() -> Outcome:
        found = load([address], work, connections=CONNECTIONS, lasting=bench.size(1, 6))
        if found.failures:
            raise RuntimeError(f"{len(found.failures)} wrong answers, such as {found.failures[0]}")
        return found

    return run


def answer(url: str, token: str) -> bytes:
    """The body of one resolution."""
    asked = urllib.request.Request(url + PATH, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=10) as response:
        body: bytes = response.read()
    return body


def _lines(bench: Bench, store: Store, workers: int, outcomes: list[list[Outcome]]) -> Iterator[Line]:
    ours, floor, *theirs = outcomes
    name = f"{store.kind}, {workers} process{'es' * (workers > 1)}"
    note = (
        f"{CONNECTIONS} kept connections that ask again as soon as they are answered; every answer is compared. The"
        f" asking process, the servers{' and PostgreSQL' * (store.kind == 'PostgreSQL')} share the cores. FastAPI: the"
        " same bytes from memory, no token, no database"
    )
    yield Line(
        name, _figure(ours, lambda o: o.rate, "/s"), _figure(floor, lambda o: o.rate, "/s"), "FastAPI", note=note
    )
    beside, name_of, goal = floor, "FastAPI", None
    if theirs:
        goal = Budget(f"{GOAL:g} x mlflow", lambda a, b: a >= GOAL * b, relative=True)
        beside, name_of = theirs[0], "mlflow server"
        rates = _figure(ours, lambda o: o.rate, "/s"), _figure(beside, lambda o: o.rate, "/s")
        yield Line(name, *rates, name_of, goal, note=f"{note}. mlflow: four requests, one after another")
    for text, share in (("p50", 0.5), ("p99", 0.99)):
        pair = (_figure(each, lambda o, share=share: o.within(share), "s") for each in (ours, beside))  # type: ignore[misc]
        yield Line(f"  its {text}", *pair, name_of, note=note)


def _figure(outcomes: list[Outcome], of: Callable[[Outcome], float], unit: Unit) -> Figure:
    return Figure(tuple(map(of, outcomes)), unit)


SUBJECT = Subject(
    "server_resolve",
    "a server: four components by alias, over loopback; SQLite and PostgreSQL, 1 and 2 processes",
    "FastAPI that answers with the same bytes; with --peers, mlflow server doing its nearest work",
    measure,
)
