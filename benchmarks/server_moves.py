"""Two replicas over PostgreSQL: what eight writers move, and what is left of it when a replica is killed meanwhile.

Each writer moves two aliases of its own together, to and fro, through a balancer, with the real client. Whoever reads
asks for both at one revision: two that disagree, or a revision that goes back, would be a wrong answer. Afterwards
the history in the database is held against what each writer was told: a move that was confirmed and is not there is
lost, one that is there twice was done twice.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import llmartifacts as la
from benchmarks.inputs import prompts
from benchmarks.measure import Absent, Bench, Budget, Figure, Line, Subject
from benchmarks.server_setup import Postgres, Server, Store, balanced, ended, postgres, serving, start
from llmartifacts.errors import Conflict

WRITERS = 8
KINDS = ("prompt", "guard")
ALL = Budget("100 %", lambda ours, floor: ours >= 100)
NONE_LOST = "confirmed, once"


@dataclass(frozen=True, slots=True)
class Told:
    """What one writer or reader saw.

    Attributes:
        who: Number of a writer; -1 for a reader.
        confirmed: Revisions of the moves that it was told are done; of a reader, how many right answers it had.
        wrong: What must not be, one line each.
        refused: Moves that ended in a typed error; nothing is said about whether they happened.
        seconds: How long it worked.
    """

    who: int
    confirmed: tuple[int, ...]
    wrong: tuple[str, ...]
    refused: tuple[str, ...]
    seconds: float


def measure(bench: Bench) -> Iterator[Line | Absent]:
    moves = bench.size(20, 200)
    with postgres(bench) as database:
        if not isinstance(database, Postgres):
            yield database
            return
        bench.say(f"{WRITERS} writers, {moves} moves each, two replicas")
        calm = [_run(bench, database, f"moves-{n}", moves, kill=False) for n in range(bench.runs)]
        direct = [_direct(bench, database, f"direct-{n}", moves) for n in range(bench.runs)]
        bench.say("the same, and a replica is killed and started again")
        hurt = [_run(bench, database, f"killed-{n}", moves, kill=True) for n in range(bench.runs)]
    note = (
        f"{WRITERS} processes, {moves} moves of two aliases each, through a balancer to two replicas over PostgreSQL,"
        " and two readers. Beside: the same processes over the same kind of database, without servers"
    )
    rates = Figure(tuple(o.rate for o in calm), "/s"), Figure(tuple(o.rate for o in direct), "/s")
    yield Line("moves, all together", *rates, "no server", note=note)
    for name, found in (("two replicas", calm), ("one killed", hurt)):
        kept = Figure(tuple(o.kept for o in found), "%")
        right = Figure(tuple(o.right for o in found), "%")
        lost = (
            f"{sum(o.lost for o in found)} lost, {sum(o.doubled for o in found)} done twice, of {found[0].total} a run"
        )
        wrong = f"{sum(o.wrong for o in found)} wrong answers of {sum(o.answers for o in found):,}"
        refused = (
            f"; {sum(o.refused for o in found)} moves ended in a typed error, {sum(o.kills for o in found)} kills"
            * (found is hurt)
        )
        yield Line(f"{name}: moves kept", kept, kept, NONE_LOST, ALL, note=f"{lost}{refused}")
        yield Line(f"{name}: answers", right, right, "right", ALL, note=wrong)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to."""

    total: int
    lost: int
    doubled: int
    refused: int
    wrong: int
    answers: int
    rate: float
    kills: int = 0

    @property
    def kept(self) -> float:
        """Of the moves that were confirmed, those that are there once, in per cent."""
        return 100 * (1 - (self.lost + self.doubled) / max(1, self.total))

    @property
    def right(self) -> float:
        """Of the answers that readers had, those that are right, in per cent."""
        return 100 * (1 - self.wrong / max(1, self.answers))


def _run(bench: Bench, database: Postgres, name: str, moves: int, *, kill: bool) -> Outcome:
    store = Store("PostgreSQL", bench.folder / name, database.new_database())
    _fill(store)
    token = store.token()
    with ExitStack() as stack:
        servers = stack.enter_context(serving(store, replicas=2))
        host, port = stack.enter_context(balanced(servers))
        stop, killed = threading.Event(), list[int]()
        thread = threading.Thread(target=_mistreat, args=(store, servers, stop, stack, killed))
        told = _work(f"http://{host}:{port}", store, token, moves, thread if kill else None)
        stop.set()
        if kill:
            thread.join()
        return replace(_judged(store, told, moves), kills=len(killed))


def _direct(bench: Bench, database: Postgres, name: str, moves: int) -> Outcome:
    store = Store("PostgreSQL", bench.folder / name, database.new_database())
    _fill(store)
    return _judged(store, _work("", store, "", moves, None), moves)


def _fill(store: Store) -> None:
    with store.open() as registry:
        for writer in range(WRITERS):
            for kind in KINDS:
                registry.log_many([(f"{kind}-{writer}", p) for p in prompts(2, mark=f"{kind} {writer} ")])
            registry.promote([f"{kind}-{writer}:v1" for kind in KINDS], to="prod", reason="first")


def _mistreat(store: Store, servers: list[Server], stop: threading.Event, stack: ExitStack, killed: list[int]) -> None:
    """Kill a replica under load, let the other carry on, and start it again; then the other one."""
    for number in (0, 1):
        if stop.wait(1.0):
            return
        servers[number].kill()
        killed.append(number)
        if stop.wait(1.0):
            return
        again = start(store, port=servers[number].port)
        stack.callback(ended, again.process)


def _work(url: str, store: Store, token: str, moves: int, mistreat: threading.Thread | None) -> list[Told]:
    spawn = multiprocessing.get_context("spawn")
    barrier, told, done = spawn.Barrier(WRITERS + 3), spawn.Queue(), spawn.Event()
    writers = [
        spawn.Process(target=_writer, args=(url, store, token, number, moves, barrier, told))
        for number in range(WRITERS)
    ]
    readers = [spawn.Process(target=_reader, args=(url, store, token, barrier, told, done)) for _ in range(2)]
    for process in (*writers, *readers):
        process.start()
    barrier.wait(timeout=120)
    if mistreat is not None:
        mistreat.start()
    found = [told.get(timeout=600) for _ in writers]
    done.set()
    found += [told.get(timeout=120) for _ in readers]
    for process in (*writers, *readers):
        process.join()
    broken = [one for one in found if isinstance(one, str)]
    if broken:
        raise RuntimeError(broken[0])
    return found


def _connect(url: str, store: Store, token: str) -> Any:
    if not url:
        return store.open()
    os.environ["LLMARTIFACTS_TOKEN"] = token
    return la.connect(url)


def _writer(url: str, store: Store, token: str, number: int, moves: int, barrier: Any, told: Any) -> None:
    try:
        confirmed, refused = [], []
        with _connect(url, store, token) as registry:
            registry.get(f"prompt-{number}:prod")
            barrier.wait(timeout=120)
            begin = time.perf_counter()
            for move in range(moves):
                goal = (move + 1) % 2 + 1
                try:
                    made = registry.promote(
                        [f"{kind}-{number}:v{goal}" for kind in KINDS], to="prod", reason=f"{number}.{move}"
                    )
                    if made.moves:  # none where one before, of which nothing was known, had happened after all
                        confirmed.append(made.revision)
                except (la.errors.Unreachable, la.errors.DeadlineExceeded, Conflict) as error:
                    refused.append(f"{type(error).__name__}: {error}")
            told.put(Told(number, tuple(confirmed), (), tuple(refused), time.perf_counter() - begin))
    except BaseException as error:  # noqa: BLE001 - whoever waits has to hear of it
        barrier.abort()
        told.put(f"writer {number}: {type(error).__name__}: {error}")


def _reader(url: str, store: Store, token: str, barrier: Any, told: Any, done: Any) -> None:
    try:
        answers, wrong, last, turn = 0, [], 0, 0
        with _connect(url, store, token) as registry:
            registry.read(["prompt-0:prod"])
            barrier.wait(timeout=120)
            begin = time.perf_counter()
            while not done.is_set():
                turn = (turn + 1) % WRITERS
                try:
                    reading = registry.read([f"{kind}-{turn}:prod" for kind in KINDS])
                except (la.errors.Unreachable, la.errors.DeadlineExceeded):
                    continue
                numbers = {getattr(getattr(item, "version", None), "number", repr(item)) for item in reading.items}
                answers += 1
                if numbers not in ({1}, {2}):
                    wrong.append(f"two aliases that move together name {numbers}")
                if reading.revision < last:
                    wrong.append(f"revision {reading.revision} after {last}")
                last = reading.revision
        told.put(Told(-1, (answers,), tuple(wrong), (), time.perf_counter() - begin))
    except BaseException as error:  # noqa: BLE001 - as above
        barrier.abort()
        told.put(f"a reader: {type(error).__name__}: {error}")


def _judged(store: Store, told: list[Told], moves: int) -> Outcome:
    """Hold what each was told against the history that is there."""
    lost = doubled = refused = 0
    writers = [one for one in told if one.who >= 0]
    readers = [one for one in told if one.who < 0]
    with store.open() as registry:
        for one in writers:
            kept = [
                entry for entry in registry.history(f"prompt-{one.who}:prod") if entry.reason.startswith(f"{one.who}.")
            ]
            revisions = {entry.revision for entry in kept}
            lost += len(set(one.confirmed) - revisions)
            doubled += len(kept) - len({entry.reason for entry in kept})
            refused += len(one.refused)
    answers = sum(one.confirmed[0] for one in readers)
    wrong = sum(len(one.wrong) for one in readers)
    confirmed = sum(len(one.confirmed) for one in writers)
    rate = confirmed / max(one.seconds for one in writers)
    return Outcome(WRITERS * moves, lost, doubled, refused, wrong, answers, rate)


SUBJECT = Subject(
    "server_moves",
    "two replicas over PostgreSQL: 8 writers moving aliases, then one replica killed under load",
    "the same without servers; what was confirmed against what is there",
    measure,
)
