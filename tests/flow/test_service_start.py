"""A service starts: over real registries, in real processes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

import llmartifacts as la
from llmartifacts.errors import NotAllowed, ResolutionError
from llmartifacts.registry import Registry
from llmartifacts.runtime import lockfile as lockfiles
from llmartifacts.runtime.stamp import parse_stamp


@dataclass(frozen=True)
class Support:
    agent: Annotated[la.Prompt, "support-agent:prod"]
    docs: Annotated[la.Files, "support-docs:prod"]
    archive: Annotated[la.Files | None, "archive:prod"] = None


def prompt(text: str) -> la.Prompt:
    return la.Prompt(text, template_format="jinja2")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(place))
    return place


@pytest.fixture
def registry(tmp_path: Path, cache: Path) -> Iterator[Registry]:
    """Two versions of a prompt and of some documents; `prod` is the first of each."""
    with la.init(tmp_path / "registry") as made:
        for number in (1, 2):
            made.log("support-agent", prompt(f"Version {number}. Answer {{{{ question }}}}"))
            made.log("support-docs", la.Files({"a.md": f"docs {number} ".encode() * 5000, "b.md": b"same"}))
        made.promote(["support-agent:v1", "support-docs:v1"], to="prod", reason="first")
        yield made


def in_process(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def answer(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def test_prod_of_last_tuesday_is_rolled_back_without_touching_the_service(registry: Registry, tmp_path: Path):
    location = registry.backend.location

    def served() -> tuple[str, str]:
        generation = la.Resolver(Support, registry=location).start()
        return generation.value.agent.format(question="why?"), generation.stamp()

    good, stamp = served()
    assert good == "Version 1. Answer why?"
    registry.promote(["support-agent:v2", "support-docs:v2"], to="prod", reason="by mistake")
    worse, _ = served()
    assert worse == "Version 2. Answer why?"
    registry.rollback("support-agent:prod", whole=True, reason="answers got worse")
    again, after = served()
    assert again == good
    assert parse_stamp(after).components == parse_stamp(stamp).components
    assert parse_stamp(after).revision == parse_stamp(stamp).revision + 2
    registry.close()
    Path(location).rename(tmp_path / "away")
    assert served()[0] == good
    assert parse_stamp(served()[1]).source == "last-known-good"


START = """
    import sys, json
    from dataclasses import dataclass
    from typing import Annotated
    import llmartifacts as la

    @dataclass(frozen=True)
    class Support:
        agent: Annotated[la.Prompt, "support-agent:prod"]
        docs: Annotated[la.Files, "support-docs:prod"]

    resolver = la.Resolver(Support, registry=sys.argv[1], startup_timeout=60)
"""


def test_processes_that_start_at_once_with_a_cold_cache_all_get_the_set(registry: Registry, cache: Path):
    script = START + "    print(resolver.start().stamp())\n"
    started = [in_process(script, registry.backend.location) for _ in range(4)]
    stamps = {answer(process) for process in started}
    assert len(stamps) == 1
    left = [p for p in (cache / "sha256").rglob("*") if p.is_file() and len(p.name.removesuffix(".ok")) != 64]
    assert not left, "nothing half-built"


def test_a_pair_that_moves_together_is_never_read_torn(registry: Registry):
    location = registry.backend.location
    mover = in_process(
        """
        import sys
        import llmartifacts as la

        registry = la.connect(sys.argv[1])
        print("moving", flush=True)
        for n in range(1_000_000):
            v = n % 2 + 1
            registry.promote([f"support-agent:v{v}", f"support-docs:v{v}"], to="prod", reason="back and forth")
        """,
        location,
    )
    assert mover.stdout is not None
    assert mover.stdout.readline().strip() == "moving"
    pairs: list[tuple[int, int, str, bytes]] = []

    def read() -> None:
        for _ in range(40):
            generation = la.Resolver(Support, registry=location).start()
            assert generation.source == "registry"
            numbers = [c.number for c in generation.lock.components.values()]
            text = generation.value.agent.format(question="")
            pairs.append((numbers[0], numbers[1], text[8], generation.value.docs.read("a.md")[5:6]))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    still_moving = mover.poll() is None
    mover.kill()
    mover.communicate()
    assert still_moving, "the aliases moved all the while"
    assert len(pairs) == 160
    assert {p[0] for p in pairs} == {1, 2}, "both states were seen"
    for first, second, text, data in pairs:
        assert (second, int(text), int(data)) == (first, first, first)


def test_a_process_killed_while_it_starts_leaves_nothing_that_harms_the_next(
    registry: Registry, cache: Path, tmp_path: Path
):
    registry.log("support-docs", la.Files({"a.md": os.urandom(8_000_000), "b.md": b"same"}), aliases="prod")
    wanted = la.Resolver(Support, registry=registry).start().lock
    script = START + "    print('go', flush=True)\n    resolver.start()\n    print('done', flush=True)\n"
    for delay in (0.0, 0.005, 0.02, 0.05):
        shutil.rmtree(cache, ignore_errors=True)
        process = in_process(script, registry.backend.location)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.communicate(timeout=delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        generation = la.Resolver(Support, registry=registry).start()
        assert (generation.source, generation.lock) == ("registry", wanted)
        assert len(generation.value.docs.read("a.md")) == 8_000_000


def test_a_frozen_start_opens_nothing_of_the_registry_and_no_network(registry: Registry, tmp_path: Path):
    spec = {"agent": "support-agent:prod", "docs": "support-docs:prod"}
    lockfiles.install(lockfiles.lock(spec, registry), registry, tmp_path / "to")
    script = """
        import json, os, sys

        registry, folder = sys.argv[1:]
        seen = []

        def hook(event, arguments):
            if event.split(".")[0] in ("open", "os", "socket", "subprocess", "shutil"):
                seen.append((event, [os.fsdecode(a) if isinstance(a, bytes) else str(a) for a in arguments]))

        import llmartifacts as la
        sys.addaudithook(hook)
        generation = la.Resolver(json.loads(sys.stdin.read()), registry=registry, lockfile=folder, frozen=True).start()
        text = generation.value["agent"].format(question="why?") + generation.value["docs"].read("a.md")[:6].decode()
        events = list(seen)
        print(json.dumps({
            "text": text,
            "source": generation.source,
            "registry": [e for e in events if any(registry in a for a in e[1])],
            "network": [e for e in events if e[0].startswith(("socket", "subprocess"))],
            "folder": sum(folder in a for e in events for a in e[1]),
            "modules": sorted(m for m in ("apsw", "sqlite3", "requests", "llmartifacts.versioning.embedded",
                                          "llmartifacts.metadata.sqlite") if m in sys.modules),
        }))
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), registry.backend.location, str(tmp_path / "to")],
        input=json.dumps(spec),
        capture_output=True,
        text=True,
        env={**os.environ, "LLMARTIFACTS_CACHE": str(tmp_path / "no-cache")},
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    told = json.loads(process.stdout)
    assert told["text"] == "Version 1. Answer why?docs 1"
    assert told["source"] == "lockfile"
    assert told["registry"] == []
    assert told["network"] == []
    assert told["modules"] == []
    assert told["folder"] > 0, "the hook sees what is opened"


def test_a_start_imports_nothing_heavy():
    script = """
        import sys
        import llmartifacts as la
        la.Resolver({"kb": "kb:prod"})
        print([m for m in ("numpy", "faiss", "langchain_core", "apsw", "requests") if m in sys.modules])
    """
    assert answer(in_process(script)).strip() == "[]"


def test_a_read_only_cache_is_used_and_what_is_not_in_it_goes_aside(
    registry: Registry, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    location = registry.backend.location
    la.Resolver({"agent": "support-agent:prod"}, registry=location).start()
    before = sorted(p for p in cache.rglob("*"))
    deny_writing_below(cache, monkeypatch)
    generation = la.Resolver(Support, registry=location).start()
    assert generation.source == "registry"
    assert generation.value.docs.read("a.md").startswith(b"docs 1")
    assert sorted(p for p in cache.rglob("*")) == before, "no record of a set whose bytes are not kept"
    registry.close()
    Path(location).rename(tmp_path / "away")
    assert generation.value.docs.read("b.md") == b"same", "what goes aside lives as long as the value"
    again = la.Resolver({"agent": "support-agent:prod"}, registry=location).start()
    assert again.source == "last-known-good"
    with pytest.raises(ResolutionError):
        la.Resolver(Support, registry=location).start()


def test_an_install_into_a_read_only_cache_is_refused_unless_all_is_there(
    registry: Registry, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    there = lockfiles.lock({"agent": "support-agent:prod"}, registry)
    both = lockfiles.lock({"agent": "support-agent:prod", "docs": "support-docs:prod"}, registry)
    assert lockfiles.install(there, registry) > 0
    deny_writing_below(cache, monkeypatch)
    assert lockfiles.install(there, registry) > 0
    with pytest.raises(NotAllowed, match="nothing would be there at the next start") as caught:
        lockfiles.install(both, registry)
    assert "LLMARTIFACTS_CACHE" in caught.value.hint()


def deny_writing_below(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a read-only mount does; file modes would not stop root."""
    real_open, real_mkdir, real_rename, real_unlink = os.open, os.mkdir, os.rename, os.unlink
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def refusing(real: Callable[..., object], writes: Callable[..., bool]) -> Callable[..., object]:
        def call(path: object, *arguments: object, **named: object) -> object:
            if str(path).startswith(str(place)) and writes(*arguments):
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            return real(path, *arguments, **named)

        return call

    monkeypatch.setattr(os, "open", refusing(real_open, lambda flags, *rest: bool(flags & writing)))
    for name, real in (("mkdir", real_mkdir), ("rename", real_rename), ("unlink", real_unlink)):
        monkeypatch.setattr(os, name, refusing(real, lambda *rest: True))


def test_a_large_text_file_that_the_store_keeps_compressed_is_fetched(tmp_path: Path) -> None:
    registry = la.init(tmp_path / "large")
    text = b"a line of a corpus that compresses well\n" * 400_000  # past what the store reads in memory
    registry.log("corpus", la.Files({"corpus.txt": text}), aliases="prod")
    with la.Resolver({"corpus": "corpus:prod"}, registry=registry, startup_timeout=30) as resolver:
        assert resolver.current.value["corpus"].read("corpus.txt") == text
