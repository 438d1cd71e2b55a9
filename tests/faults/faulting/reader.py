"""Reads a registry over and over while others write it: `reader.py PLACE`, until standard input ends.

Every read must show a set that was promoted together, whole and right, and none older than one seen before. Prints a
line of JSON at the end: how many reads there were, and how many different sets they showed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

ENOUGH = 20
"""Reads with one connection, before it is opened anew."""


def read(place: Path, stopped: threading.Event) -> dict[str, int]:
    """Read until stopped."""
    import llmartifacts as la
    from faulting.operations import PAIR, pair_content
    from llmartifacts.records.backend import Found

    reads = last = 0
    seen: set[int] = set()
    while not stopped.is_set():
        with la.connect(place / "registry") as registry:
            for _ in range(ENOUGH):
                found = registry.read([f"{name}:prod" for name in PAIR]).items
                assert all(isinstance(one, Found) for one in found), found
                numbers = [one.version.number for one in found if isinstance(one, Found)]
                assert len(set(numbers)) == 1, f"half of a set was seen: {numbers}"
                assert numbers[0] >= last, f"{numbers[0]} was seen after {last}"
                for one in found:
                    value = registry.load(one.manifest)  # type: ignore[union-attr]
                    assert {p: value.read(p) for p in value.paths()} == pair_content(numbers[0])
                last = numbers[0]
                seen.add(last)
                reads += 1
                if stopped.is_set():
                    break
    return {"reads": reads, "seen": len(seen)}


def main() -> None:
    """Read until standard input ends."""
    from faulting.operations import surroundings

    place = Path(sys.argv[1])
    os.environ.update(surroundings(place))
    stopped = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
    print(json.dumps(read(place, stopped)))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
