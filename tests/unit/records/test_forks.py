"""What is made anew in a forked child comes in an order: a thread must not find anything as the parent left it."""

from __future__ import annotations

import os

from llmartifacts.records import forks


class _Noted:
    def __init__(self, name: str, said: list[str]) -> None:
        self.name = name
        self.said = said

    def after_fork(self) -> None:
        self.said.append(f"{self.name} anew")

    def go_on_after_fork(self) -> None:
        self.said.append(f"{self.name} goes on")


def _in_a_child(said: list[str]) -> list[str]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, "\n".join(said).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as told:
        return told.read().splitlines()


def test_databases_come_first_and_threads_last() -> None:
    said: list[str] = []
    kept = [_Noted(name, said) for name in ("one", "other")]
    for one in kept:
        forks.renew_after_fork(one)
    first = lambda: said.append("first")  # noqa: E731 - it is taken out again below
    forks.first_in_child(first)
    try:
        told = _in_a_child(said)
    finally:
        forks._FIRST.remove(first)
    assert told[0] == "first"
    assert sorted(told[1:3]) == ["one anew", "other anew"]
    assert sorted(told[3:]) == ["one goes on", "other goes on"]
    assert said == []  # the parent goes on as it was
