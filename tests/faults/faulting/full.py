"""A verb on a disk with a little more room each time. Runs in a mount namespace: `full.py FOLDER ASIDE VERB few|all`.

FOLDER is on a small file system of its own, ASIDE elsewhere. Prints a line of JSON for each size that was tried,
`{"free", "outcome", "told"}`; exits with a traceback where something is not as promised.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

KB = 1024
STEPS = {
    "all": [*range(0, 132, 4), *range(160, 512, 32), *range(512, 8192, 256)],
    "few": [0, 64, 128, 8192, 8192],
}
BEFORE: list[str] = []
"""What `verify` found before."""
ENOUGH = 2
"""Sizes in a row with which it worked, after which no more are tried."""


def fill(ballast: Path, leave: int) -> None:
    """Take all room but so many bytes."""
    with ballast.open("wb") as file:
        file.truncate(0)
        size = 0
        while True:
            found = os.statvfs(ballast.parent)
            more = found.f_bavail * found.f_frsize - leave
            if more <= 0:
                return
            os.posix_fallocate(file.fileno(), size, more)
            size += more


def attempt(operation: Any, place: Path, free: int) -> dict[str, Any]:
    """One try with so much room, and another with all of it."""
    import llmartifacts as la
    from llmartifacts.errors import LlmartifactsError
    from llmartifacts.wire.errors import exit_code

    before = operation.state(place)
    ballast = place.parent / "ballast"
    fill(ballast, free)
    done: list[Any] = []
    told: list[Any] = []
    try:
        operation.work(place, lambda *words: done.append(words))
    except LlmartifactsError as error:
        told = [exit_code(error), error.code, str(error), error.hint()]
    if told:
        assert told[0] not in (0, 70), told
        assert all(told), told
    if (place / "registry").exists():
        with la.connect(place / "registry") as registry:  # full as it is, it can be read
            registry.collections()
            registry.state("prod")
    ballast.unlink()
    after = operation.state(place)
    operation.whole(place)
    if (place / "registry").exists():
        sound(operation, place, ended=False)
    operation.again(place)
    last = operation.state(place)
    assert after in (before, last), (free, told, before, after, last)
    assert not done or after == last, (free, "acknowledged, and lost", after, last)
    operation.whole(place)
    operation.finished(place)
    sound(operation, place, ended=True)
    left = list((place / "registry" / "tmp").rglob("*"))
    assert left == [], left
    return {"free": free, "outcome": "done" if done else "refused", "told": told}


def sound(operation: Any, place: Path, *, ended: bool) -> None:
    """Every byte and the audit verify, as far as they should."""
    import llmartifacts as la

    with la.connect(place / "registry") as registry:
        found = (*registry.verify(read_data=True).problems, *registry.verify_audit().problems)
    problems = [str(problem) for problem in found]
    assert operation.sound(BEFORE, problems, ended=ended), problems


def main(folder: Path, aside: Path, verb: str, steps: str) -> None:
    """Try every size."""
    import llmartifacts as la
    from faulting.operations import surroundings
    from faulting.verbs import EVERY

    operation, place = EVERY[verb], folder / "place"
    os.environ.update(surroundings(place))
    place.mkdir()
    operation.prepare(place)
    if (place / "registry").exists():
        with la.connect(place / "registry") as registry:
            BEFORE.extend(str(problem) for problem in registry.verify(read_data=True).problems)
    shutil.copytree(place, aside / "template")
    shutil.rmtree(place)
    worked = 0
    for step in STEPS[steps]:
        shutil.copytree(aside / "template", place)
        made = attempt(operation, place, step * KB)
        print(json.dumps(made), flush=True)
        shutil.rmtree(place)
        worked = worked + 1 if made["outcome"] == "done" else 0
        if worked == ENOUGH:
            return
    raise AssertionError("it never worked")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
