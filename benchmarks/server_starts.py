"""Five hundred services that start at the same moment: each opens a connection of its own and resolves four components.

A start of the real client would cost the machine a Python each, and measure that. So the connections are bare, one
request each as the client sends it, all begun before the first is answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.measure import Absent, Bench, Budget, Figure, Line, Subject
from benchmarks.server_load import Outcome, burst, get
from benchmarks.server_resolve import answer, asking, fill
from benchmarks.server_setup import bare, postgres, serving, stores

ALL = Budget("100 %", lambda ours, floor: ours >= 100)


def measure(bench: Bench) -> Iterator[Line | Absent]:
    clients = bench.size(100, 500)
    with postgres(bench) as database:
        if isinstance(database, Absent):
            yield database
        for store in stores(bench, database, "starting"):
            with store.open() as registry:
                digests = fill(registry)
            token = store.token()
            bench.say(f"{clients} services starting at once over {store.kind}")
            with ExitStack() as stack:
                (server,) = stack.enter_context(serving(store, workers=2))
                work = asking(server.host, token, digests)
                floor = stack.enter_context(bare(bench, answer(server.url, token), 2))
                plain = [get("/read", f"127.0.0.1:{floor[1]}")]
                taken = [
                    (burst(server.address, work, clients=clients), burst(floor, plain, clients=clients))
                    for _ in range(bench.runs + 1)
                ][1:]
            ours, beside = ([one[n] for one in taken] for n in (0, 1))
            note = (
                f"{clients} connections at the same moment, 2 server processes; the time from then to the last byte of"
                " each, with its connection and its wait"
            )
            yield Line(f"{store.kind}: answered", _answered(ours, clients), _answered(beside, clients), "FastAPI", ALL,
                       note=note)  # fmt: skip
            for text, share in (("half of them", 0.5), ("99 of 100", 0.99), ("all", 1.0)):
                pair = (Figure(tuple(o.within(share) for o in each)) for each in (ours, beside))
                yield Line(f"{store.kind}: {text}", *pair, "FastAPI", note=note)


def _answered(outcomes: list[Outcome], clients: int) -> Figure:
    return Figure(tuple(100 * len(o.times) / clients for o in outcomes), "%")


SUBJECT = Subject(
    "server_starts",
    "500 services (small: 100) starting at once, each resolving four components by its own connection",
    "FastAPI that answers with the same bytes",
    measure,
)
