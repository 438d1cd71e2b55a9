"""The verbs that write, each with what it starts from, and how to tell that it was done, wholly or not at all."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import llmartifacts as la
from llmartifacts.blobs.forms import RAW, RECIPE, ZSTD, encode, key_of
from llmartifacts.errors import Conflict

Tell = Callable[..., None]
State = dict[str, Any]

NOISE = random.Random(1).randbytes(1_300_000)
TEXT = b"".join(b'{"id": %d, "text": "where is order %d"}\n' % (i, i * i) for i in range(28_000))
FOLDER = {"text.txt": b"words and words " * 1000, "binary.bin": bytes(range(256)) * 400}


class Operation:
    """One verb.

    A place is a folder: `registry` in it, `cache` beside that, and whatever the verb writes elsewhere.

    Attributes:
        name: As tables call it.
        small: Whether it is tried, a little, by the short form too.
    """

    name = ""
    small = True

    def prepare(self, place: Path) -> None:
        """Make what the verb starts from."""
        with la.init(place / "registry") as registry:
            registry.log("source", la.Files({"a": b"1"}))
            registry.log("source", la.Files({"a": b"2"}), aliases="staging")
            registry.promote("source:v1", to="prod")

    def work(self, place: Path, tell: Tell) -> None:
        """Do it, then tell that it is done."""
        with la.connect(place / "registry") as registry:
            self.do(registry, place)
            tell(self.name)

    def do(self, registry: Any, place: Path) -> None:
        """The verb itself."""
        raise NotImplementedError

    def again(self, place: Path) -> None:
        """The same once more, by somebody who does not know how far the first one came."""
        self.work(place, lambda *words: None)

    def state(self, place: Path) -> State:
        """All that a user can see and that does not depend on the time."""
        with la.connect(place / "registry") as registry:
            return seen(registry)

    def whole(self, place: Path) -> None:
        """What must hold at any moment besides what every registry promises."""

    def finished(self, place: Path) -> None:
        """What must hold in the end besides the state."""

    def sound(self, before: list[str], found: list[str], *, ended: bool) -> bool:
        """Whether what `verify` finds is what it may find."""
        return found == before


def seen(registry: Any) -> State:
    """What a registry shows, and that all of it can be read."""
    versions: dict[str, list[tuple[int, str, bool]]] = {}
    for collection in registry.collections():
        found = registry.versions(collection.name)
        versions[collection.name] = [(v.number, v.digest, v.removed_at is not None) for v in found]
        for version in found:
            if version.removed_at is not None:
                continue
            value = registry.resolve(version.pinned)
            if isinstance(value, la.Files):
                for path in value.paths():
                    value.read(path)
    aliases = {
        alias: {name: entry.version.number for name, entry in registry.state(alias).items()}
        for alias in ("prod", "staging")
    }
    events = [entry.event for entry in registry.audit_log()]
    verbs = [event.verb for event in events if event.body.get("created", True)]  # known content: nothing new
    return {"versions": versions, "aliases": aliases, "verbs": verbs}


class LogSmall(Operation):
    """A prompt: one transaction, no file."""

    name = "log a prompt"

    def do(self, registry: Any, place: Path) -> None:
        registry.log("agent", prompt("Answer {{ question }}."), aliases="staging", inputs="source:v1", tags={"a": "b"})


class LogLarge(Operation):
    """Files, of which two are cut into chunks and packed."""

    name = "log large files"

    def do(self, registry: Any, place: Path) -> None:
        content = la.Files({**FOLDER, "large.bin": NOISE, "large.jsonl": TEXT})
        registry.log("docs", content, aliases="staging", inputs="source:v1")

    def finished(self, place: Path) -> None:
        with la.connect(place / "registry") as registry:
            files = registry.resolve("docs:staging", la.Files)
            assert {p: files.read(p) for p in files.paths()} == {**FOLDER, "large.bin": NOISE, "large.jsonl": TEXT}


class LogBatch(Operation):
    """Prompts and files of several collections in one transaction."""

    name = "log a batch"

    def do(self, registry: Any, place: Path) -> None:
        pairs: list[tuple[str, Any]] = [(f"agent-{i}", prompt(f"Answer {i}: {{{{ question }}}}")) for i in range(12)]
        pairs += [
            (f"docs-{i}", la.Files({"text": b"text %d " % i * 400, "bin": bytes([i]) * 70_000})) for i in range(4)
        ]
        registry.log_many(pairs, aliases="staging", message="at once")


class Promote(Operation):
    """Two collections to one alias."""

    name = "promote"

    def prepare(self, place: Path) -> None:
        super().prepare(place)
        with la.connect(place / "registry") as registry:
            registry.log("docs", la.Files(FOLDER))

    def do(self, registry: Any, place: Path) -> None:
        registry.promote(["docs:v1", "source:v2"], to="prod", reason="go", ticket="CHG-1")


class Rollback(Promote):
    """The set goes back."""

    name = "rollback"

    def prepare(self, place: Path) -> None:
        super().prepare(place)
        with la.connect(place / "registry") as registry:
            made = registry.promote(["docs:v1", "source:v2"], to="prod", reason="go")
        (place / "promotion").write_text(made.id)

    def do(self, registry: Any, place: Path) -> None:
        registry.rollback((place / "promotion").read_text(), reason="back")

    def again(self, place: Path) -> None:
        before = self.state(place)
        try:
            super().again(place)
        except Conflict:  # it is undone: the first one came that far
            assert self.state(place) == before
            assert before["aliases"]["prod"] == {"source": 1}


class Gc(Operation):
    """Versions to remove, objects and chunks to free, packs to rewrite, removed rows to erase."""

    name = "gc"

    def prepare(self, place: Path) -> None:
        with la.init(place / "registry") as registry:
            for number in range(4):
                registry.log("kb", la.Files({"index.faiss": ivf(number * 3)}), aliases="prod" if number == 3 else ())
            registry.log("text", la.Files({"text": b"some text " * 1000}))
            registry.log("text", la.Files({"text": b"other text " * 1000}))

    def do(self, registry: Any, place: Path) -> None:
        names = ["kb", "text"]
        registry.gc(compact=True, keep_last=1, collections=names, history=timedelta(0), reason="no longer used")

    def state(self, place: Path) -> State:
        with la.connect(place / "registry") as registry:
            found = seen(registry)
            del found["verbs"]  # a gc that comes after one that was killed is one more
            return found

    def finished(self, place: Path) -> None:
        with la.connect(place / "registry") as registry:
            assert registry.stats().unused == 0
            left = registry.gc(dry_run=True, compact=True)
            assert (left.objects, left.packs, left.freed) == (0, 0, 0)


class GcLean(Operation):
    """A version goes whose packs nobody else needs; other packs would be put together, if there were room."""

    name = "gc of whole packs"

    def prepare(self, place: Path) -> None:
        with la.init(place / "registry") as registry:
            for seed in range(3):
                registry.log("data", la.Files({"large": random.Random(seed).randbytes(1_300_000)}))
            registry.log("kept", la.Files({"large": NOISE}))

    def do(self, registry: Any, place: Path) -> None:
        registry.gc(keep_last=2, collections=["data"], history=timedelta(0), reason="no longer used")

    def state(self, place: Path) -> State:
        with la.connect(place / "registry") as registry:
            found = seen(registry)
            del found["verbs"]
            return found

    def finished(self, place: Path) -> None:
        with la.connect(place / "registry") as registry:
            assert registry.stats().unused == 0


class Pull(Operation):
    """A version's files into a directory, nothing of them cached."""

    name = "pull"

    def prepare(self, place: Path) -> None:
        with la.init(place / "registry") as registry:
            registry.log("docs", la.Files({**FOLDER, "large.bin": NOISE, "large.jsonl": TEXT}))
        shutil.rmtree(place / "cache", ignore_errors=True)

    def do(self, registry: Any, place: Path) -> None:
        registry.pull("docs:v1", place / "out")

    def again(self, place: Path) -> None:
        with contextlib.suppress(Conflict):  # it is there: the first one came that far
            super().again(place)

    def state(self, place: Path) -> State:
        out = place / "out"
        return {"out": sorted(p.relative_to(out).as_posix() for p in out.rglob("*"))} if out.exists() else {"out": None}

    def whole(self, place: Path) -> None:
        for path, content in {**FOLDER, "large.bin": NOISE, "large.jsonl": TEXT}.items():
            if (place / "out").exists():
                assert (place / "out" / path).read_bytes() == content

    def finished(self, place: Path) -> None:
        aside = [p.name for p in place.iterdir() if p.name.startswith(".out.")]
        assert aside == [], f"{aside} lies beside what was pulled"


class CacheBuild(Operation):
    """Files are made of chunks, for a library that maps them."""

    name = "build a cached file"

    def prepare(self, place: Path) -> None:
        with la.init(place / "registry") as registry:
            registry.log("docs", la.Files({"large.bin": NOISE, "large.jsonl": TEXT, "text.txt": FOLDER["text.txt"]}))
        shutil.rmtree(place / "cache", ignore_errors=True)

    def do(self, registry: Any, place: Path) -> None:
        for file in registry.find("docs:v1").manifest.files:
            assert registry.backend.blobs.path(file.blob).stat().st_size == file.size

    def state(self, place: Path) -> State:
        return {}

    def whole(self, place: Path) -> None:
        named = [p for p in (place / "cache").rglob("*") if p.is_file() and len(p.name) == 62]
        for path in named:
            assert path.read_bytes() in (NOISE, TEXT, FOLDER["text.txt"])

    def finished(self, place: Path) -> None:
        assert not list((place / "cache").rglob("*.part"))


class Migrate(Operation):
    """Large files that an earlier release stored whole are cut and packed."""

    name = "migrate"

    def prepare(self, place: Path) -> None:
        with la.init(place / "registry") as registry:
            for number in range(2):
                registry.log("kb", la.Files({"index": NOISE + b"%d" % number, "lines": TEXT + b"one more\n" * number}))
            as_it_was(registry)

    def do(self, registry: Any, place: Path) -> None:
        done = registry.migrate()
        for problem in done.problems:
            raise problem

    def state(self, place: Path) -> State:
        with la.connect(place / "registry") as registry:
            found = seen(registry)
            del found["verbs"]  # one entry for each file
            return found

    def finished(self, place: Path) -> None:
        with la.connect(place / "registry") as registry:
            assert registry.migrate(dry_run=True).files == 0
            keys = [key for key, _ in registry.backend.parts.blobs.driver.list("sha256/")]
            assert all(key.endswith(RECIPE) for key in keys), keys


class Init(Operation):
    """A new registry."""

    name = "init"

    def prepare(self, place: Path) -> None:
        place.mkdir(exist_ok=True)

    def work(self, place: Path, tell: Tell) -> None:
        with la.init(place / "registry"):
            tell(self.name)

    def again(self, place: Path) -> None:
        with contextlib.suppress(Conflict):
            super().again(place)

    def state(self, place: Path) -> State:
        if not (place / "registry").exists():
            return {"there": False}
        with la.connect(place / "registry") as registry:
            return {"there": True, **seen(registry)}


PAIR = ("left", "right")


def pair_content(number: int) -> dict[str, bytes]:
    """What both of a pair hold at a version."""
    return {"number": b"%d" % number, "large": random.Random(number).randbytes(1_100_000)}


class Pair(Operation):
    """The next version of two collections, and one alias moved to both, in one transaction."""

    name = "log a pair"

    def prepare(self, place: Path) -> None:
        with la.init(place / "registry") as registry:
            self.do(registry, place)

    def do(self, registry: Any, place: Path) -> None:
        known = [c.name for c in registry.collections()]
        number = registry.get(f"{PAIR[0]}:prod").number + 1 if known else 1
        registry.log_many([(name, la.Files(pair_content(number))) for name in PAIR], aliases="prod")


# --- starting points


def prompt(template: str) -> Any:
    """A small prompt."""
    return la.Prompt(template, template_format="jinja2")


def ivf(removed: int) -> bytes:
    """An index file, some of whose rows were removed."""
    import faiss
    import numpy as np

    vectors = np.random.default_rng(1).normal(size=(3000, 100)).astype("f4")
    quantizer = faiss.IndexFlatL2(100)
    index = faiss.IndexIVFFlat(quantizer, 100, 8)
    index.train(vectors[:500])
    index.add_with_ids(vectors, np.arange(3000))
    if removed:
        index.remove_ids(np.arange(0, removed * 50, 50))
    return bytes(faiss.serialize_index(index))


def as_it_was(registry: Any) -> None:
    """Store large files whole, as the first release did."""
    from llmartifacts.metadata import versions

    parts = registry.backend.parts
    with parts.metadata.reading() as s:
        needed = versions.all_blobs(s)
    for blob in needed:
        if blob.size > 1 << 20:
            data = parts.blobs.read(blob)
            form = RAW if b"\0" in data[:65536] else ZSTD
            parts.blobs.driver.delete(key_of(blob.digest, RECIPE))
            parts.blobs.driver.put_if_absent(key_of(blob.digest, form), encode(form, data))
    for key, _ in list(parts.blobs.driver.list("packs/")):
        parts.blobs.driver.delete(key)
    with parts.metadata.writing() as s:
        s.run("delete from chunk")
        s.run("delete from pack")


def surroundings(place: Path) -> dict[str, str]:
    """The environment of work in a place."""
    return {"LLMARTIFACTS_CACHE": str(place / "cache"), "LLMARTIFACTS_ACTOR": "tester", "HOME": str(place)}


VERBS = (
    LogSmall(),
    LogLarge(),
    LogBatch(),
    Promote(),
    Rollback(),
    Gc(),
    Pull(),
    CacheBuild(),
    Migrate(),
    Init(),
)
