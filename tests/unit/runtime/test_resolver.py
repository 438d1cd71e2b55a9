from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

import llmartifacts as la
from llmartifacts.errors import (
    BlobMissing,
    DeadlineExceeded,
    DigestMismatch,
    Incompatible,
    InvalidInput,
    InvalidValue,
    NotAllowed,
    NotFound,
    ResolutionError,
    Unreachable,
    WrongKind,
    Yanked,
)
from llmartifacts.records.compatibility import Problem
from llmartifacts.registry import Registry
from llmartifacts.runtime import start
from llmartifacts.runtime.place import Place
from llmartifacts.runtime.resolver import Resolver
from llmartifacts.runtime.stamp import parse_stamp


@dataclass(frozen=True)
class Support:
    agent: Annotated[la.Files, "agent:prod"]
    kb: Annotated[la.Files, "kb:prod"]
    archive: Annotated[la.Files | None, "archive:prod"] = None


BOTH = {"agent": "agent:prod", "kb": "kb:prod"}


def cache_files(cache: Path) -> list[Path]:
    return sorted(p for p in (cache / "sha256").rglob("*") if p.is_file())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(place))
    return place


# --- construction opens nothing and refuses what cannot work


def test_construction_opens_nothing():
    Resolver(Support, registry="/nowhere/at/all")
    Resolver(BOTH, lockfile="/nowhere/at/all", frozen=True)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"startup_timeout": 0}, "startup_timeout"),
        ({"startup_timeout": float("nan")}, "startup_timeout"),
        ({"max_stale": -1}, "max_stale"),
        ({"max_stale": "1 day"}, "max_stale"),
        ({"alias": "PROD"}, "alias"),
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments: dict[str, Any], field: str):
    with pytest.raises(InvalidInput) as caught:
        Resolver(BOTH, **arguments)
    assert caught.value.field == field


def test_current_before_the_start_is_a_typed_error_that_says_what_to_do(registry: Registry):
    resolver = Resolver(Support, registry=registry)
    with pytest.raises(ResolutionError, match="has not started") as caught:
        _ = resolver.current
    assert "start()" in caught.value.hint()


# --- a good start


def test_a_start_gives_the_users_own_frozen_type(registry: Registry):
    with Resolver(Support, registry=registry) as resolver:
        generation = resolver.current
        assert isinstance(generation.value, Support)
        assert generation.value.agent.read("agent.txt").startswith(b"agent 1")
        assert generation.value.archive is None
        assert (generation.number, generation.source, generation.warnings) == (1, "registry", ())
        assert generation.revision == registry.backend.revision("default")
        for frozen in (generation, generation.value):
            with pytest.raises(dataclasses.FrozenInstanceError):
                frozen.value = None  # type: ignore[attr-defined, misc]
        stamp = parse_stamp(generation.stamp())
        assert {n: (c.name, c.number) for n, c in stamp.components.items()} == {"agent": ("agent", 1), "kb": ("kb", 1)}
        assert resolver.start() is generation


def test_a_mapping_starts_from_the_environment(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMARTIFACTS_REGISTRY", registry.backend.location)
    monkeypatch.setenv("LLMARTIFACTS_ALIAS", "prod")
    registry.promote("kb:v2", to="staging")
    generation = Resolver({"kb": "kb", "agent": "agent:v2"}).start()
    assert {n: c.number for n, c in generation.lock.components.items()} == {"kb": 1, "agent": 2}
    assert Resolver({"kb": "kb"}, alias="staging").start().lock.components["kb"].number == 2
    with pytest.raises(TypeError):
        generation.value["kb"] = None  # type: ignore[index]


def test_a_start_sees_what_was_promoted_and_a_closed_resolver_starts_anew(registry: Registry):
    resolver = Resolver(BOTH, registry=registry)
    first = resolver.start()
    registry.promote(["agent:v2", "kb:v2"], to="prod", reason="second")
    assert resolver.start() is first, "a started resolver keeps what it serves"
    resolver.close()
    assert resolver.current is first, "what was loaded stays usable"
    second = resolver.start()
    assert (second.number, second.revision) == (2, first.revision + 1)
    assert second.value["kb"].read("kb.txt").startswith(b"kb 2")
    assert second.stamp() != first.stamp()


def test_however_many_threads_start_it_it_starts_once(gated: Registry, gate):
    resolver = Resolver(BOTH, registry=gated)
    barrier = threading.Barrier(16)
    got: list[Any] = []

    def run() -> None:
        barrier.wait()
        got.append(resolver.start())

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 16
    assert len({id(g) for g in got}) == 1
    assert gate.calls.count("read") == 1


def test_what_two_fields_share_is_loaded_once(registry: Registry):
    value = Resolver({"a": "kb:prod", "b": "kb:v1"}, registry=registry).start().value
    assert value["a"] is value["b"]


def test_the_cache_is_filled_and_the_registry_s_bytes_are_not_asked_for_again(cache: Path, gated: Registry, gate):
    Resolver(BOTH, registry=gated).start()
    assert "blobs.open" in gate.calls
    gate.calls.clear()
    Resolver(BOTH, registry=gated).start()
    assert gate.calls == ["read"]


# --- what keeps it from starting


def test_every_component_that_cannot_be_had_is_named_with_its_own_error(registry: Registry):
    spec = {"agent": "agent:prod", "a": "agnt:prod", "b": "kb:v9", "c": "kb:production"}
    with pytest.raises(ResolutionError) as caught:
        Resolver(spec, registry=registry).start()
    failures = caught.value.failures
    assert list(failures) == ["a", "b", "c"]
    assert all(isinstance(e, NotFound) for e in failures.values())
    assert failures["a"].near == ("agent",)  # type: ignore[attr-defined]
    for name in failures:
        assert f"\n  {name}: " in str(caught.value)


def test_with_no_registry_and_nothing_kept_one_error_names_every_component(tmp_path: Path):
    with pytest.raises(ResolutionError, match="no last-known-good set") as caught:
        Resolver(Support, registry=tmp_path / "gone").start()
    assert list(caught.value.failures) == ["agent", "kb", "archive"]
    assert {e.code for e in caught.value.failures.values()} == {"not_found"}


def test_a_component_of_another_kind_is_refused_before_its_bytes_are_fetched(gated: Registry, gate):
    @dataclass(frozen=True)
    class Wrong:
        agent: Annotated[la.ModelSpec, "agent:prod"]
        kb: Annotated[la.Files, "kb:prod"]

    with pytest.raises(ResolutionError) as caught:
        Resolver(Wrong, registry=gated).start()
    assert list(caught.value.failures) == ["agent"]
    assert isinstance(caught.value.failures["agent"], WrongKind)
    assert "la.Files" in caught.value.hint()
    assert "blobs.open" not in gate.calls


def test_only_an_absent_collection_or_alias_makes_an_optional_field_none(registry: Registry):
    @dataclass(frozen=True)
    class Optional:
        agent: Annotated[la.Files, "agent:prod"]
        no_alias: Annotated[la.Files | None, "kb:nightly"] = None
        no_collection: Annotated[la.Files | None, "archive:prod"] = None

    value = Resolver(Optional, registry=registry).start().value
    assert value.no_alias is None
    assert value.no_collection is None

    @dataclass(frozen=True)
    class Mistaken:
        agent: Annotated[la.Files, "agent:prod"]
        kb: Annotated[la.Files | None, "kb:v9"] = None

    with pytest.raises(ResolutionError) as caught:
        Resolver(Mistaken, registry=registry).start()
    assert list(caught.value.failures) == ["kb"]


def test_a_damaged_optional_component_is_never_taken_for_absent(registry: Registry, flip: Callable[[Path], None]):
    @dataclass(frozen=True)
    class Optional:
        agent: Annotated[la.Files, "agent:prod"]
        kb: Annotated[la.Files | None, "kb:prod"] = None

    damage_store(registry, "kb:v1", flip)
    with pytest.raises(ResolutionError) as caught:
        Resolver(Optional, registry=registry).start()
    assert list(caught.value.failures) == ["kb"]
    assert isinstance(caught.value.failures["kb"], DigestMismatch)


def damage_store(registry: Registry, reference: str, flip: Callable[[Path], None]) -> None:
    hexdigest = registry.find(reference).manifest.files[0].digest[7:]
    (stored,) = [p for p in Path(registry.backend.location).rglob("*") if p.name.startswith(hexdigest)]
    flip(stored)


def test_a_withdrawn_version_is_refused_by_number_and_told_of_by_digest(registry: Registry):
    version = registry.yank("kb:v2", reason="wrong corpus")
    with pytest.raises(ResolutionError) as caught:
        Resolver({"kb": "kb:v2"}, registry=registry).start()
    assert isinstance(caught.value.failures["kb"], Yanked)
    generation = Resolver({"kb": f"kb@{version.digest}"}, registry=registry).start()
    assert [(w.code, w.field) for w in generation.warnings] == [("yanked", "kb")]
    assert "wrong corpus" in generation.warnings[0].message
    assert parse_stamp(generation.stamp()).warnings == (("yanked", "kb"),)


def test_components_that_do_not_fit_are_refused_and_the_ones_concerned_named(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    def rule(severity: str) -> Callable[..., list[Problem]]:
        def check(members, parts, installed):
            (kb,) = [m for m in members if m.collection == "kb"]
            return [Problem("index-dimension", severity, (kb.manifest.digest,), "384 is not 768", "Rebuild it.")]  # type: ignore[arg-type]

        return check

    monkeypatch.setattr("llmartifacts.runtime.load.check_set", rule("error"))
    with pytest.raises(ResolutionError) as caught:
        Resolver(BOTH, registry=registry).start()
    assert list(caught.value.failures) == ["kb"]
    assert isinstance(caught.value.failures["kb"], Incompatible)
    assert caught.value.hint() == "Rebuild it."
    monkeypatch.setattr("llmartifacts.runtime.load.check_set", rule("warning"))
    assert parse_stamp(Resolver(BOTH, registry=registry).start().stamp()).warnings == (("index-dimension", "kb"),)


def test_a_class_that_refuses_its_values_is_a_typed_error(registry: Registry):
    @dataclass(frozen=True)
    class Picky:
        kb: Annotated[la.Files, "kb:prod"]

        def __post_init__(self) -> None:
            raise RuntimeError("not this one")

    with pytest.raises(ResolutionError) as caught:
        Resolver(Picky, registry=registry).start()
    assert isinstance(caught.value.failures["kb"], InvalidValue)
    assert "RuntimeError: not this one" in str(caught.value)


def test_references_in_two_projects_are_refused(registry: Registry):
    with pytest.raises(ResolutionError, match="several projects"):
        Resolver({"agent": "agent:prod", "kb": "acme/kb:prod"}, registry=registry).start()


# --- the last-known-good set


def test_with_the_registry_gone_it_starts_from_what_it_knows(cache: Path, registry: Registry):
    first = Resolver(Support, registry=registry.backend.location).start()
    registry.close()
    shutil.rmtree(registry.backend.location)
    again = Resolver(Support, registry=registry.backend.location).start()
    assert again.source == "last-known-good"
    assert again.lock == first.lock
    assert again.value.kb.read("kb.txt") == b"kb 1 " * 100
    assert again.value.archive is None
    assert [w.code for w in again.warnings] == ["registry-unreachable"]
    assert parse_stamp(again.stamp()).source == "last-known-good"
    assert parse_stamp(again.stamp()).components == parse_stamp(first.stamp()).components


def test_a_registry_found_from_the_working_directory_is_known_when_it_is_gone(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    below = tmp_path / "project" / "src"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    with la.init(tmp_path / "project" / ".llmartifacts") as registry:
        registry.log("kb", la.Files({"a": b"1"}), aliases="prod")
    Resolver({"kb": "kb:prod"}).start()
    (tmp_path / "project" / ".llmartifacts").rename(tmp_path / "away")
    assert Resolver({"kb": "kb:prod"}).start().source == "last-known-good"


def test_a_silent_registry_is_given_up_where_a_set_is_known(gated: Registry, gate, impatient: None):
    Resolver(BOTH, registry=gated).start()
    gate.held.add("read")
    generation = Resolver(BOTH, registry=gated, startup_timeout=30).start()
    assert generation.source == "last-known-good"
    assert "silent" in generation.warnings[0].message
    assert "reading the references" in generation.warnings[0].message


def test_to_import_what_speaks_to_a_registry_is_no_silence_of_the_registry(
    gated: Registry, impatient: None, monkeypatch: pytest.MonkeyPatch
):
    Resolver(BOTH, registry=gated).start()
    monkeypatch.setattr(Place, "prepare", lambda self: time.sleep(3 * start.SILENCE))
    assert Resolver(BOTH, registry=gated).start().source == "registry"


@pytest.mark.parametrize(
    ("location", "module"),
    [("http://127.0.0.1:9", "llmartifacts.client.backend"), ("somewhere", "llmartifacts.versioning.embedded")],
)
def test_what_speaks_to_a_registry_is_imported_before_it_is_asked(location: str, module: str):
    code = "import sys; from llmartifacts.runtime.place import Place; Place(sys.argv[1]).prepare()"
    told = f"{code}; print(*[name for name in sys.modules if name in sys.argv[2:]])"
    both = ["llmartifacts.client.backend", "llmartifacts.versioning.embedded"]
    done = subprocess.run([sys.executable, "-c", told, location, *both], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [module]


def test_a_registry_that_hangs_while_bytes_are_fetched_is_given_up_too(gated: Registry, gate, impatient: None):
    Resolver(BOTH, registry=gated).start()
    gated.promote("kb:v2", to="prod", reason="newer")
    gate.held.add("blobs.open")
    generation = Resolver(BOTH, registry=gated, startup_timeout=30).start()
    assert generation.source == "last-known-good"
    assert generation.lock.components["kb"].number == 1


def test_a_registry_that_hangs_with_nothing_known_ends_inside_the_budget(gated: Registry, gate):
    gate.held.add("read")
    with pytest.raises(ResolutionError) as caught:
        Resolver(BOTH, registry=gated, startup_timeout=0.3).start()
    assert list(caught.value.failures) == ["agent", "kb"]
    assert all(isinstance(e, DeadlineExceeded) for e in caught.value.failures.values())
    assert "reading the references" in str(caught.value)


def test_a_registry_that_hangs_while_it_is_opened_is_given_up_too(
    registry: Registry, gate, impatient: None, monkeypatch: pytest.MonkeyPatch
):
    location = registry.backend.location
    Resolver(BOTH, registry=location).start()
    gate.held.add("connect")
    monkeypatch.setattr("llmartifacts.runtime.place.connect", lambda where: gate.pass_through("connect"))
    generation = Resolver(BOTH, registry=location, startup_timeout=30).start()
    assert generation.source == "last-known-good"
    assert "opening the registry" in generation.warnings[0].message


def test_a_cache_that_hangs_ends_inside_the_budget(registry: Registry, gate, monkeypatch: pytest.MonkeyPatch):
    gate.held.add("recall")
    monkeypatch.setattr("llmartifacts.runtime.known_good.recall", lambda *a: gate.pass_through("recall"))
    with pytest.raises(ResolutionError, match="last-known-good") as caught:
        Resolver(BOTH, registry=registry, startup_timeout=0.2).start()
    assert list(caught.value.failures) == ["agent", "kb"]


def test_many_threads_that_wait_for_a_hanging_start_get_one_and_the_same_error(gated: Registry, gate):
    gate.held.add("read")
    resolver = Resolver(BOTH, registry=gated, startup_timeout=0.4)
    errors: list[BaseException] = []

    def run() -> None:
        with pytest.raises(ResolutionError) as caught:
            resolver.start()
        errors.append(caught.value)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 8
    assert gate.calls.count("read") == 1
    gate.held.clear()
    assert resolver.start().number == 1, "a later start tries anew"


def test_what_was_fetched_before_the_time_ran_out_is_not_fetched_again(cache: Path, gated: Registry, gate, monkeypatch):
    monkeypatch.setattr("llmartifacts.runtime.task.THREADS", 1)
    real, seen = gate.pass_through, []

    def second_open_hangs(name: str) -> None:
        if name == "blobs.open":
            seen.append(name)
            if len(seen) == 2:
                gate.ended.wait(60)
                raise ConnectionError("the test is over")
        real(name)

    gate.pass_through = second_open_hangs
    with pytest.raises(ResolutionError) as caught:
        Resolver(BOTH, registry=gated, startup_timeout=2).start()
    assert "fetching files" in str(caught.value)
    gate.pass_through = real
    gate.calls.clear()
    gate.ended.set()  # the builder that hung lets go of its lock
    Resolver(BOTH, registry=gated).start()
    assert gate.calls.count("blobs.open") == 1


def test_a_registry_that_refuses_the_token_is_told_from_one_that_is_not_there(gated: Registry, gate):
    Resolver(BOTH, registry=gated).start()
    gate.error = NotAllowed("the token is no good: it is mistyped, expired or revoked")
    again = Resolver(BOTH, registry=gated).start()
    (warning,) = again.warnings
    assert (again.source, warning.code) == ("last-known-good", "registry-refused")
    assert "refuses: the token is no good" in warning.message
    assert parse_stamp(again.stamp()).warnings == (("registry-refused", ""),)


def test_an_unreachable_registry_says_why(gated: Registry, gate):
    Resolver(BOTH, registry=gated).start()
    gate.error = Unreachable("connection refused")
    (warning,) = Resolver(BOTH, registry=gated).start().warnings
    assert "connection refused" in warning.message
    gate.error = RuntimeError("a driver's own error")
    assert Resolver(BOTH, registry=gated).start().source == "last-known-good"


def test_an_alias_that_was_removed_is_an_answer_and_nothing_stands_in_for_it(registry: Registry):
    Resolver(BOTH, registry=registry).start()
    registry.remove_alias("kb:prod", reason="withdrawn on purpose")
    with pytest.raises(ResolutionError) as caught:
        Resolver(BOTH, registry=registry).start()
    assert list(caught.value.failures) == ["kb"]
    assert isinstance(caught.value.failures["kb"], NotFound)


def test_a_damaged_new_version_leaves_the_known_set_serving(registry: Registry, flip: Callable[[Path], None]):
    Resolver(BOTH, registry=registry).start()
    registry.promote("kb:v2", to="prod", reason="newer")
    damage_store(registry, "kb:v2", flip)
    generation = Resolver(BOTH, registry=registry).start()
    assert generation.source == "last-known-good"
    assert generation.lock.components["kb"].number == 1
    assert [w.code for w in generation.warnings] == ["newer-set-refused"]
    assert "kb" in generation.warnings[0].message


def test_a_set_that_is_too_old_is_refused_and_its_age_told(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    location = registry.backend.location
    Resolver(BOTH, registry=location).start()
    registry.close()
    Path(location).rename(tmp_path / "away")
    assert Resolver(BOTH, registry=location, max_stale=3600).start().source == "last-known-good"
    monkeypatch.setattr("llmartifacts.runtime.known_good.KnownGood.age", lambda self: 7200.0)
    with pytest.raises(ResolutionError, match="7200 s old, and max_stale is 3600 s") as caught:
        Resolver(BOTH, registry=location, max_stale=3600).start()
    assert list(caught.value.failures) == ["agent", "kb"]


def test_a_tampered_cache_is_never_handed_over(
    cache: Path, registry: Registry, tmp_path: Path, flip: Callable[[Path], None]
):
    location = registry.backend.location
    Resolver(BOTH, registry=location).start()
    registry.close()
    Path(location).rename(tmp_path / "away")
    for file in cache_files(cache):
        good = file.read_bytes()
        flip(file)
        with pytest.raises(ResolutionError) as caught:
            Resolver(BOTH, registry=location).start()
        assert any(isinstance(e, DigestMismatch | BlobMissing) for e in caught.value.failures.values()), file
        file.chmod(0o644)
        file.write_bytes(good)
        file.chmod(0o444)
    assert Resolver(BOTH, registry=location).start().source == "last-known-good"
    (tmp_path / "away").rename(location)
    flip(cache_files(cache)[0])
    assert Resolver(BOTH, registry=location).start().source == "registry", "fetched anew where there is a registry"


def test_a_tampered_record_of_the_known_set_is_refused(cache: Path, registry: Registry, tmp_path: Path):
    location = registry.backend.location
    Resolver(BOTH, registry=location).start()
    registry.close()
    Path(location).rename(tmp_path / "away")
    (record,) = (cache / "known-good").iterdir()
    record.write_text(record.read_text().replace("kb:prod", "kb:pred"))
    with pytest.raises(ResolutionError, match="cannot be used"):
        Resolver(BOTH, registry=location).start()


def test_a_start_leaves_no_part_of_a_set_as_known(cache: Path, registry: Registry, flip: Callable[[Path], None]):
    damage_store(registry, "kb:v1", flip)
    with pytest.raises(ResolutionError):
        Resolver(BOTH, registry=registry).start()
    assert not (cache / "known-good").exists()


def test_a_trickling_registry_wins_over_the_stand_in_if_it_ends_in_time(gated: Registry, gate, monkeypatch):
    Resolver(BOTH, registry=gated).start()
    gated.promote("kb:v2", to="prod", reason="newer")
    real_load = __import__("llmartifacts.runtime.start", fromlist=["load"]).load
    stand_in_ready = threading.Event()

    def load(task, *arguments):
        if task.name == "llmartifacts-registry":
            assert stand_in_ready.wait(30)
            return real_load(task, *arguments)
        made = real_load(task, *arguments)
        stand_in_ready.set()
        return made

    monkeypatch.setattr("llmartifacts.runtime.start.load", load)
    generation = Resolver(BOTH, registry=gated, startup_timeout=4).start()
    assert generation.source == "registry"
    assert generation.lock.components["kb"].number == 2


# --- bundles


@pytest.fixture
def stack(registry: Registry) -> Registry:
    models = {"llm": la.ModelSpec(provider="openai", name="gpt-4-turbo", parameters={"temperature": 0.2})}
    registry.log("stack", la.Bundle({"agent": "agent:v1", "kb": "kb:v2"}, models), aliases="prod")
    return registry


def test_everything_comes_from_one_bundle(stack: Registry, tmp_path: Path):
    @dataclass(frozen=True)
    class Stack:
        agent: la.Files
        llm: la.ModelSpec
        kb: la.Files
        reranker: la.ModelSpec | None = None

    location = stack.backend.location
    first = Resolver(Stack, "stack:prod", registry=location).start()
    assert first.value.kb.read("kb.txt").startswith(b"kb 2")
    assert first.value.llm.name == "gpt-4-turbo"
    assert first.value.reranker is None
    assert list(parse_stamp(first.stamp()).components) == ["bundle"]
    stack.close()
    Path(location).rename(tmp_path / "away")
    again = Resolver(Stack, "stack:prod", registry=location).start()
    assert again.source == "last-known-good"
    assert again.value.llm == first.value.llm


def test_a_role_that_the_bundle_has_not_or_of_another_type_is_named(stack: Registry):
    @dataclass(frozen=True)
    class Wrong:
        agent: la.ModelSpec
        index: la.Files

    with pytest.raises(ResolutionError) as caught:
        Resolver(Wrong, "stack:prod", registry=stack).start()
    assert {n: type(e) for n, e in caught.value.failures.items()} == {"agent": WrongKind, "index": NotFound}


def test_what_is_no_bundle_cannot_fill_the_roles(stack: Registry):
    @dataclass(frozen=True)
    class Stack:
        agent: la.Files

    with pytest.raises(ResolutionError, match="is a files, not a bundle"):
        Resolver(Stack, "kb:prod", registry=stack).start()


def test_a_bundle_beside_another_component_is_one_value(stack: Registry):
    value = Resolver({"stack": "stack:prod", "kb": "kb:v2"}, registry=stack).start().value
    assert value["stack"].component("agent", la.Files).read("agent.txt").startswith(b"agent 1")
    assert value["kb"].read("kb.txt").startswith(b"kb 2")


def test_a_bundle_and_another_version_of_its_part_are_refused_together(stack: Registry):
    with pytest.raises(ResolutionError, match="another version of kb") as caught:
        Resolver({"stack": "stack:prod", "kb": "kb:v1", "agent": "agent:v1"}, registry=stack).start()
    assert {n: type(e) for n, e in caught.value.failures.items()} == {"stack": Incompatible, "kb": Incompatible}


def test_a_damaged_part_names_the_part(stack: Registry, flip: Callable[[Path], None]):
    damage_store(stack, "kb:v2", flip)
    with pytest.raises(ResolutionError) as caught:
        Resolver({"stack": "stack:prod", "agent": "agent:prod"}, registry=stack).start()
    assert list(caught.value.failures) == ["stack"]


def test_a_damaged_manifest_of_a_part_names_the_bundle_when_the_registry_is_gone(
    cache: Path, stack: Registry, tmp_path: Path, flip: Callable[[Path], None]
):
    location = stack.backend.location
    spec = {"stack": "stack:prod", "agent": "agent:v1"}
    Resolver(spec, registry=location).start()
    digest = stack.get("kb:v2").digest
    stack.close()
    Path(location).rename(tmp_path / "away")
    flip(cache / "sha256" / digest[7:9] / digest[7:])
    with pytest.raises(ResolutionError, match="cannot stand in") as caught:
        Resolver(spec, registry=location).start()
    assert isinstance(caught.value.failures["stack"], DigestMismatch)
    assert isinstance(caught.value.failures["agent"], NotFound), "what the registry said, where nothing else is known"
