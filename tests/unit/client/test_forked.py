"""What an open registry remembers in memory stays usable in a forked child, whatever another thread was about."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

FORKS = """
import os, signal, sys, threading


def forked(one, use):
    held, done = threading.Event(), threading.Event()

    def hold():
        with one._lock:
            held.set()
            done.wait()

    threading.Thread(target=hold).start()
    held.wait()
    child = os.fork()
    if not child:
        signal.alarm(20)  # a lock that nobody lets go would keep it for ever
        print(use(one), flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    done.set()
    print(os.waitstatus_to_exitcode(status))
"""

ANSWERS = """
from llmartifacts.client.reading import _Recent

kept = _Recent(10)
kept.put("a", 1, 1)
forked(kept, lambda one: (one.put("b", 2, 1), one.get("a"), one.get("b")))
assert (kept.get("a"), kept.get("b")) == (1, None)
"""
CHUNKS = """
from llmartifacts.client.index import RemoteIndex

forked(RemoteIndex(), lambda one: one.find([bytes(32)]))
"""
RECIPES = """
from llmartifacts.blobs.cache import BlobCache
from llmartifacts.client.index import RemoteIndex
from llmartifacts.client.sides import Sides

forked(Sides(BlobCache(sys.argv[1]), RemoteIndex()), lambda one: one.recipe("sha256:" + 64 * "0"))
"""
PACKS = """
from llmartifacts.versioning.chunk_index import RecordedIndex

index = RecordedIndex(None, None)
forked(index, lambda one: one._forget_overlaid(set()))
"""


@pytest.mark.parametrize(
    ("holding", "told"),
    [
        pytest.param(ANSWERS, "(None, None, 2)", id="answers"),
        pytest.param(CHUNKS, "{}", id="chunks"),
        pytest.param(RECIPES, "None", id="recipes"),
        pytest.param(PACKS, "None", id="packs"),
    ],
)
def test_a_child_forked_while_another_thread_remembers_something_is_not_held_up(
    holding: str, told: str, tmp_path: Path
) -> None:
    code = textwrap.dedent(FORKS) + textwrap.dedent(holding)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [told, "0"]
