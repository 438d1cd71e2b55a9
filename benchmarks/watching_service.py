"""What the processes do that `benchmarks.watching` counts at a server: ours with a resolver, the floor by plain GETs.

`main(WHAT, URL, TOKEN, FOLDER, …)` prints one line of JSON. Where several begin together, each says that it is ready,
and waits for a line.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import llmartifacts as la

COMPONENTS = ("agent", "kb", "stack", "questions")
PAIR = ("first", "second")
VERSIONS = 50
"""Of each of the pair; the same number is promoted of both."""
THREADS = 16
READERS = 4
WORK = 0.002
"""Seconds of a request between its two uses of a prompt."""


def spec(names: tuple[str, ...] = COMPONENTS) -> dict[str, str]:
    """What a service of these components wants."""
    return {name: f"{name}:prod" for name in names}


class Plain:
    """What a client does that looks whether it has something, and fetches it if it has not: right, and once too often.

    Args:
        url: The server.
        token: Of who asks.
        folder: Where files are kept, for other processes too.
    """

    def __init__(self, url: str, token: str, folder: Path) -> None:
        self._url, self._token, self._folder = f"{url}/api/v1", token, folder
        self._kept: dict[str, bytes] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, path: str) -> bytes:
        """The body of one answer."""
        asked = urllib.request.Request(self._url + path, headers={"Authorization": f"Bearer {self._token}"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            body: bytes = answer.read()
        return body

    def load(self) -> None:
        """Every component and its files."""
        references = "&".join(f"ref={quote(reference)}" for reference in spec().values())
        path = f"/projects/default/read?{references}"
        if path not in self._kept:
            self._kept[path] = self.get(path)
        for item in json.loads(self._kept[path])["items"]:
            for file in item["manifest"]["files"]:
                place = self._folder / file["digest"].rpartition(":")[2]
                if not place.exists():
                    aside = place.with_name(f"{place.name}.{os.getpid()}.{threading.get_ident()}")
                    aside.write_bytes(self.get(f"/blobs/{file['digest']}"))
                    aside.rename(place)

    def read_each(self) -> None:
        """Every component, one request after another."""
        for reference in spec().values():
            self.get(f"/projects/default/read?ref={quote(reference)}")


def at_once(work: Callable[[], object], threads: int) -> None:
    """Do it in so many threads that begin at the same moment."""
    barrier, errors = threading.Barrier(threads), []

    def run() -> None:
        try:
            barrier.wait(60)
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    made = [threading.Thread(target=run) for _ in range(threads)]
    for one in made:
        one.start()
    for one in made:
        one.join()
    if errors:
        raise errors[0]


# --- what is measured


def cold(url: str, token: str, folder: str, plainly: str) -> dict[str, Any]:
    """Sixteen threads that want the same set at the same moment, and nothing is here."""
    if plainly:
        plain = Plain(url, token, Path(folder))
        at_once(plain.load, THREADS)
        return {}
    resolver = la.Resolver(spec(), registry=url)
    at_once(resolver.start, THREADS)
    status = resolver.status()
    return {"source": status.source, "fetched": status.checks.fetched, "generation": status.generation}


def one(url: str, token: str, folder: str, plainly: str) -> dict[str, Any]:
    """One of several processes that start at the same moment, and nothing is here."""
    import llmartifacts.kinds.vector_index  # before it is ready: what is imported is not what is measured  # noqa: F401

    _ready()
    if plainly:
        Plain(url, token, Path(folder)).load()
        return {}
    return {"source": la.Resolver(spec(), registry=url).start().source}


def watched(url: str, token: str, folder: str, plainly: str, interval: str) -> dict[str, Any]:
    """One of several processes that keep themselves up to date, until it is told to end."""
    with la.Resolver(spec(), registry=url) as resolver:
        resolver.watch(float(interval))
        _ready()
        sys.stdin.readline()
        status = resolver.status()
        return {"state": status.state, "failed": status.checks.failed, "shared": status.checks.shared}


def warm(url: str, token: str, folder: str, plainly: str) -> dict[str, Any]:
    """A start with everything here and nothing changed."""
    if plainly:
        Plain(url, token, Path(folder)).read_each()
        return {}
    return {"source": la.Resolver(spec(), registry=url).start().source}


def frozen(url: str, token: str, folder: str, plainly: str) -> dict[str, Any]:
    """A start from a lockfile's folder, with the address of a server that would answer."""
    started = la.Resolver(spec(), registry=url, lockfile=folder, frozen=True).start()
    return {"source": started.source}


def look(url: str, token: str, folder: str, plainly: str) -> dict[str, Any]:
    """One look at the registry by a service that is up to date."""
    if plainly:
        Plain(url, token, Path(folder)).read_each()
        return {}
    with la.Resolver(spec(), registry=url) as resolver:
        _ready()
        swapped = resolver.refresh()
        return {"swapped": swapped}


def torn(url: str, token: str, folder: str, plainly: str, promotions: str) -> dict[str, Any]:
    """A pair that is promoted together again and again, while some read it: from one generation, or one by one."""
    over, lock = threading.Event(), threading.Lock()
    counts = {"pairs": 0, "torn": 0, "plain pairs": 0, "plain torn": 0}
    errors: list[BaseException] = []

    def reading(name: str, pair: Callable[[], tuple[str, str]]) -> None:
        try:
            while not over.is_set():
                mine, other = pair()
                with lock:
                    counts[f"{name}pairs"] += 1
                    counts[f"{name}torn"] += mine != other
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    def number(prompt: la.Prompt) -> str:
        return str(prompt.template)[-10:]

    with la.connect(url) as registry, la.Resolver(spec(PAIR), registry=url) as resolver:

        def ours() -> tuple[str, str]:
            generation = resolver.current
            mine = number(generation.value["first"])
            time.sleep(WORK)
            return mine, number(generation.value["second"])

        def one_by_one() -> tuple[str, str]:
            mine = number(registry.resolve("first:prod", la.Prompt))
            time.sleep(WORK)
            return mine, number(registry.resolve("second:prod", la.Prompt))

        readers = [threading.Thread(target=reading, args=("", ours)) for _ in range(READERS)]
        readers += [threading.Thread(target=reading, args=("plain ", one_by_one)) for _ in range(READERS)]
        for reader in readers:
            reader.start()
        promoting, serving, before = [], [], resolver.status().generation
        try:
            for n in range(int(promotions)):
                begin = time.perf_counter()
                target = (n + 1) % VERSIONS + 1
                moved = registry.promote([f"{name}:v{target}" for name in PAIR], to="prod", reason="measured")
                promoting.append(time.perf_counter() - begin)
                resolver.wait_for(moved.revision, timeout=60)
                serving.append(time.perf_counter() - begin)
        finally:
            over.set()
            for reader in readers:
                reader.join()
        if errors:
            raise errors[0]
        swaps = resolver.status().generation - before
    middle = len(promoting) // 2
    return {**counts, "swaps": swaps, "promote": sorted(promoting)[middle], "served": sorted(serving)[middle]}


def _ready() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def main(what: str, url: str, token: str, folder: str, *more: str) -> None:
    """Do it, and tell."""
    os.environ["LLMARTIFACTS_TOKEN"] = token
    made = {f.__name__: f for f in (cold, one, watched, warm, frozen, look, torn)}[what]
    print(json.dumps(made(url, token, folder, *more)), flush=True)
