"""A model in memory, a dozen lines a verb, beside the real registry: after every step both say the same.

The model keeps, for each alias, what it serves and a stack of what it served before; nothing else decides a rollback.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import llmartifacts as la
from llmartifacts.errors import AliasMoved, Conflict, LlmartifactsError, NotFound, Refused, Yanked
from llmartifacts.records.promotion import Promotion

ALIASES = ("prod", "staging")
names = st.sampled_from("aaaabbbc")
contents = st.integers(0, 4)
alias_sets = st.sampled_from([[], ["prod"], ["staging"], ["prod", "staging"]])
numbers = st.integers(0, 99)
Key = tuple[str, str]
TICK = timedelta(microseconds=1)


@dataclass
class Model:
    """What the design says, in the simplest way."""

    contents: dict[str, list[int]] = field(default_factory=dict)
    latest: dict[str, int] = field(default_factory=dict)
    yanked: set[tuple[str, int]] = field(default_factory=set)
    serves: dict[Key, int | None] = field(default_factory=dict)
    served: dict[Key, set[int]] = field(default_factory=dict)
    before: dict[Key, list[tuple[int | None, int]]] = field(default_factory=dict)
    moves: dict[Key, list[tuple[int | None, int | None, int]]] = field(default_factory=dict)
    members: dict[int, list[Key]] = field(default_factory=dict)
    rollbacks: set[int] = field(default_factory=set)
    states: list[dict[Key, int]] = field(default_factory=lambda: [{}])

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    def require(self, name: str, number: int | None) -> None:
        if number is not None and not 1 <= number <= len(self.contents.get(name, [])):
            raise NotFound("")

    def log(self, batch: list[tuple[str, int]], aliases: list[str]) -> None:
        known, latest = {n: list(c) for n, c in self.contents.items()}, dict(self.latest)
        for name, content in batch:
            versions = known.setdefault(name, [])
            if content not in versions:
                versions.append(content)
            latest[name] = versions.index(content) + 1
        goals = {(name, alias): known[name].index(content) + 1 for name, content in batch for alias in aliases}
        self.refuse_withdrawn(goals)
        self.contents, self.latest = known, latest
        self.move({key: goal for key, goal in goals.items() if self.serves.get(key) != goal})

    def refuse_withdrawn(self, goals: dict[Key, int]) -> None:
        if any((name, number) in self.yanked for (name, _), number in goals.items()):
            raise Yanked("")

    def promote(self, goals: dict[Key, int], expect: dict[str, int | None]) -> None:
        for (name, alias), number in goals.items():
            self.require(name, number)
            self.refuse_withdrawn({(name, alias): number})
        for name, alias in goals:
            if name in expect and expect[name] != self.serves.get((name, alias)):
                raise AliasMoved("")
        self.move({key: goal for key, goal in goals.items() if self.serves.get(key) != goal})

    def move(self, goals: dict[Key, int | None], *, undo: bool = False) -> None:
        if not goals:
            return
        revision = self.revision + 1
        for key, goal in goals.items():
            was = self.serves.get(key)
            if not undo:
                self.before.setdefault(key, []).append((was, revision))
            self.moves.setdefault(key, []).append((was, goal, revision))
            self.serves[key] = goal
            if goal is not None:
                self.served.setdefault(key, set()).add(goal)
        self.members[revision] = sorted(goals)
        self.states.append({key: number for key, number in self.serves.items() if number is not None})

    def undo(self, keys: list[Key], revision: int) -> None:
        for key in keys:
            if not self.before.get(key) or self.before[key][-1][1] != revision:
                raise Conflict("")
        goals = {key: self.before[key][-1][0] for key in keys}
        self.refuse_withdrawn({key: goal for key, goal in goals.items() if goal is not None})
        for key in keys:
            self.before[key].pop()
        self.move(goals, undo=True)
        self.rollbacks.add(self.revision)

    def rollback(self, key: Key, *, whole: bool) -> None:
        if key[0] not in self.contents or key not in self.moves:
            raise NotFound("")
        if not self.before[key]:
            raise Conflict("")
        revision = self.before[key][-1][1]
        self.undo(self.members[revision] if whole else [key], revision)

    def rollback_by_id(self, revision: int) -> None:
        if revision not in self.members:
            raise NotFound("")
        if revision in self.rollbacks:
            raise Conflict("")
        self.undo(self.members[revision], revision)

    def rollback_to(self, key: Key, goal: int) -> None:
        if key[0] not in self.contents:
            raise NotFound("")
        self.require(key[0], goal)
        if self.serves.get(key) == goal:
            raise Conflict("")
        if goal not in self.served.get(key, set()):
            raise Refused("")
        self.refuse_withdrawn({key: goal})
        passed = [old for old, _ in reversed(self.before[key])]
        if goal in passed:
            del self.before[key][len(passed) - passed.index(goal) - 1 :]
        self.move({key: goal}, undo=goal in passed)
        self.rollbacks.add(self.revision)

    def remove(self, key: Key) -> None:
        if self.serves.get(key) is None:
            raise NotFound("")
        self.move({key: None})

    def yank(self, name: str, number: int) -> None:
        if name not in self.contents:
            raise NotFound("")
        self.require(name, number)
        if any(n == name and serving == number for (n, _), serving in self.serves.items()):
            raise Conflict("")
        self.yanked.add((name, number))


class RegistryAgainstModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.offset = 0
        self.clock = mock.patch("llmartifacts.metadata.sqlite._Session.now", side_effect=self.now)
        self.clock.start()
        self.registry = la.init(f"{self.folder}/registry", actor="ann")
        self.model = Model()
        for batch in ([(name, content) for content in range(3)] for name in ("a", "b")):
            self.log_many(batch, ["prod"])

    def now(self) -> int:
        return time.time_ns() // 1000 + self.offset * 1_000_000

    def teardown(self) -> None:
        if hasattr(self, "registry"):
            try:
                assert self.registry.verify(read_data=True).problems == ()
            finally:
                self.clock.stop()
                self.registry.close()
                shutil.rmtree(self.folder)

    def number(self, name: str, drawn: int) -> int:
        """A version's number; now and then one that is not there."""
        count = len(self.model.contents.get(name, []))
        return drawn % count + 1 if count and drawn < 95 else count + 1

    def both(self, real: Any, modelled: Any) -> None:
        """Do it twice: the same error, or the same success."""
        expected: type[Exception] | None = None
        try:
            modelled()
        except LlmartifactsError as error:
            expected = type(error)
        if expected is None:
            made = real()
            if isinstance(made, Promotion) and made.id:
                assert made.revision == self.model.revision
                assert sorted((m.name, m.alias) for m in made.moves) == self.model.members[made.revision]
        else:
            with pytest.raises(LlmartifactsError) as caught:
                real()
            assert type(caught.value) is expected
            assert caught.value.message

    # --- the verbs

    @rule(name=names, content=contents, aliases=alias_sets)
    def log(self, name: str, content: int, aliases: list[str]) -> None:
        self.both(
            lambda: self.registry.log(name, prompt(content), aliases=aliases),
            lambda: self.model.log([(name, content)], aliases),
        )

    @rule(batch=st.lists(st.tuples(names, contents), min_size=1, max_size=4), aliases=alias_sets)
    def log_many(self, batch: list[tuple[str, int]], aliases: list[str]) -> None:
        self.both(
            lambda: self.registry.log_many([(n, prompt(c)) for n, c in batch], aliases=aliases),
            lambda: self.model.log(batch, aliases),
        )

    @rule(
        chosen=st.dictionaries(st.sampled_from("aabbc"), numbers, min_size=1, max_size=2),
        aliases=st.sampled_from([["prod"], ["staging"], ["prod", "staging"]]),
        expect=st.sampled_from([None, None, None, 0, 1, 2, 3]),
    )
    def promote(self, chosen: dict[str, int], aliases: list[str], expect: int | None) -> None:
        chosen = {name: self.number(name, drawn) for name, drawn in chosen.items()}
        name = min(chosen)
        expected = {} if expect is None else {name: expect or None}
        goals = {(n, a): number for n, number in chosen.items() for a in aliases}
        self.both(
            lambda: self.registry.promote(
                [f"{n}:v{number}" for n, number in chosen.items()],
                to=aliases,
                expect={n: f"v{v}" if v else None for n, v in expected.items()} or None,
            ),
            lambda: self.model.promote(goals, expected),
        )

    @rule(name=names, alias=st.sampled_from(ALIASES), whole=st.booleans())
    def rollback(self, name: str, alias: str, whole: bool) -> None:
        self.both(
            lambda: self.registry.rollback(f"{name}:{alias}", whole=whole, reason="worse"),
            lambda: self.model.rollback((name, alias), whole=whole),
        )

    @rule(back=st.sampled_from([-1, 0, 0, 0, 1, 1, 2, 3]))
    def rollback_by_id(self, back: int) -> None:
        revision = self.model.revision - back
        self.both(
            lambda: self.registry.rollback(f"default@r{revision}", reason="worse"),
            lambda: self.model.rollback_by_id(revision),
        )

    @rule(name=names, alias=st.sampled_from(ALIASES), goal=numbers)
    def rollback_to(self, name: str, alias: str, goal: int) -> None:
        served = sorted(self.model.served.get((name, alias), ()))
        goal = served[goal % len(served)] if served and goal < 85 else self.number(name, goal)
        self.both(
            lambda: self.registry.rollback(f"{name}:{alias}", to=f"v{goal}", reason="worse"),
            lambda: self.model.rollback_to((name, alias), goal),
        )

    @rule(name=names, alias=st.sampled_from(ALIASES))
    def remove_alias(self, name: str, alias: str) -> None:
        self.both(lambda: self.registry.remove_alias(f"{name}:{alias}"), lambda: self.model.remove((name, alias)))

    @rule(name=names, number=numbers)
    def yank(self, name: str, number: int) -> None:
        number = self.number(name, number)
        self.both(
            lambda: self.registry.yank(f"{name}:v{number}", reason="leaks"), lambda: self.model.yank(name, number)
        )

    @rule(seconds=st.sampled_from([-86_400, -1, 0, 1, 86_400]))
    def the_clock_is_set(self, seconds: int) -> None:
        self.offset += seconds

    # --- what both say

    @invariant()
    def the_same_versions_and_aliases(self) -> None:
        collections = {c.name: c for c in self.registry.collections()}
        assert {n: (c.versions, c.latest) for n, c in collections.items()} == {
            n: (len(c), self.model.latest[n]) for n, c in self.model.contents.items()
        }
        now = {(n, a): number for n, c in collections.items() for a, number in c.aliases.items()}
        assert now == self.model.states[-1]
        for name in self.model.contents:
            for version in self.registry.versions(name):
                held = {a for (n, a), number in now.items() if (n, number) == (name, version.number)}
                assert set(version.aliases) - {"latest"} == held
                assert ("latest" in version.aliases) == (version.number == self.model.latest[name])
                assert (version.yanked_at is not None) == ((name, version.number) in self.model.yanked)

    @invariant()
    def the_same_histories(self) -> None:
        for (name, alias), moves in self.model.moves.items():
            history = self.registry.history(f"{name}:{alias}")[::-1]
            assert [(h.old, h.new, h.revision) for h in history] == moves
            assert [h.move for h in history] == list(range(1, len(moves) + 1))
            standing = {revision for _, revision in self.model.before[name, alias]}
            undoable = {h.revision for h in history if not h.undone_by and h.revision not in self.model.rollbacks}
            assert undoable == standing - self.model.rollbacks

    @invariant()
    def the_same_state_at_any_time(self) -> None:
        promotions = self.registry.promotions(limit=1000)[::-1]
        assert [p.revision for p in promotions] == list(range(1, self.model.revision + 1))
        assert all(one.at < other.at for one, other in itertools.pairwise(promotions))
        for alias in ALIASES:
            assert self.state(alias, None) == (self.model.revision, self.meant(alias, -1))
        for p in promotions[-3:]:
            alias = p.moves[0].alias
            assert self.state(alias, p.at) == (p.revision, self.meant(alias, p.revision))
            assert self.state(alias, p.at - TICK) == (p.revision - 1, self.meant(alias, p.revision - 1))

    def state(self, alias: str, at: datetime | None) -> tuple[int, dict[str, int]]:
        found = self.registry.state(alias, at=at)
        return found.revision, {name: entry.version.number for name, entry in found.items()}

    def meant(self, alias: str, revision: int) -> dict[str, int]:
        return {n: number for (n, a), number in self.model.states[revision].items() if a == alias}


def prompt(content: int) -> la.Prompt:
    return la.Prompt(f"text {content}", template_format="f-string")


def stories(number: int) -> settings:
    """So many stories of forty steps."""
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(max_examples=number, stateful_step_count=40, deadline=None, suppress_health_check=checks)


TestRegistryAgainstModel = RegistryAgainstModel.TestCase
TestRegistryAgainstModel.settings = stories(15)


@pytest.mark.matrix
class TestRegistryAgainstModelAtLength(RegistryAgainstModel.TestCase):  # type: ignore[misc,name-defined]
    settings = stories(50)
