"""One flipped bit in any stored file is refused before anyone parses it, and everything concerned is named.

`make test` flips a few bits in each sort of file; `make matrix` flips 64 in each.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts import errors


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with every sort of stored file, closed; tests work on copies."""
    place = tmp_path_factory.mktemp("filled") / "r"
    made = la.init(place)
    documents = [{"id": f"d{i}", "text": f"passage number {i} " * 20} for i in range(64)]
    vectors = [[float((i >> b) & 1) * 2 - 1 for b in range(8)] for i in range(64)]
    spec = la.EmbeddingSpec("eight-bits", dimension=8, metric="l2")
    made.log("kb", la.VectorIndex.from_vectors(vectors, documents, embedding=spec))
    made.log("questions", la.EvalDataset.from_jsonl([f'{{"id": "q{i}", "input": "x{i}"}}' for i in range(200)]))
    made.log("files", la.Files({"text.txt": b"word " * 5000, "binary.bin": random.Random(1).randbytes(50_000)}))
    made.log("large", la.Files({"noise.bin": random.Random(2).randbytes(2_000_000)}))
    made.log(
        "large-questions", la.EvalDataset.from_jsonl([f'{{"id": "q{i}", "input": "x{i**30}"}}' for i in range(12_000)])
    )
    made.close()
    return place


@pytest.fixture
def registry(filled: Path, tmp_path: Path) -> la.Registry:
    return la.connect(shutil.copytree(filled, tmp_path / "r"))


NAMES = ("kb", "questions", "files", "large", "large-questions")


def _stored(registry: la.Registry) -> list[Path]:
    return sorted(p for p in Path(registry.backend.location, "blobs").rglob("*") if p.is_file())


def test_a_flipped_bit_in_any_stored_file_is_refused_and_named(
    registry: la.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    stored = _stored(registry)
    assert len(stored) >= 9
    assert {p.suffix for p in stored} == {"", ".zst", ".recipe", ".pack"}
    for file in stored:
        good = file.read_bytes()
        where = chance.randrange(len(good) * 8)
        bad = bytearray(good)
        bad[where // 8] ^= 1 << where % 8
        file.chmod(0o644)
        file.write_bytes(bad)
        monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache" / file.name))  # which holds good bytes else
        with la.connect(registry.backend.location) as fresh:
            refused = []
            for name in NAMES:
                try:
                    value = fresh.resolve(f"{name}:v1")
                    if isinstance(value, la.Files):
                        for path in value.paths():
                            value.read(path)
                    elif isinstance(value, la.EvalDataset):
                        list(value)
                except errors.Damaged as error:
                    refused.append((name, error))
            found = [p for p in fresh.verify(read_data=True).problems if isinstance(p, errors.Damaged)]
            if file.suffix == ".pack" and not refused:  # nothing that is needed to read it, such as its footer
                assert [p.file for p in found] == [str(file)]
            else:
                assert len(refused) == 1, f"{file.name}: {refused}"
                name, error = refused[0]
                assert error.versions == (f"{name}:v1",)
                assert error.digest.startswith("sha256:")
                assert error.file == str(file)
                assert file.suffix == ".pack" or file.name.split(".")[0] in error.digest
                assert {p.versions for p in found} == {(f"{name}:v1",)}
        file.write_bytes(good)
    assert la.connect(registry.backend.location).verify(read_data=True).ok


def test_a_missing_file_is_named_with_its_versions(registry: la.Registry) -> None:
    for file in _stored(registry):
        good = file.read_bytes()
        file.unlink()
        with la.connect(registry.backend.location) as fresh:
            problems = fresh.verify().problems
            assert isinstance(problems[0], errors.BlobMissing)
            assert problems[0].versions
            assert file.suffix in (".pack", ".recipe") or len(problems) == 1
            assert all(isinstance(p, errors.Damaged) and file.stem in f"{p.file} {p.digest}" for p in problems)
        file.write_bytes(good)


def test_logging_the_same_content_again_heals_a_damaged_file(registry: la.Registry) -> None:
    content = la.Files({"text.txt": b"word " * 5000, "binary.bin": random.Random(1).randbytes(50_000)})
    for file in _stored(registry):
        file.chmod(0o644)
        file.write_bytes(b"damaged")
    assert registry.log("files", content).created is False
    with la.connect(registry.backend.location) as fresh:
        assert fresh.resolve("files:v1", la.Files).read("text.txt") == b"word " * 5000


# --- many flips in each sort of file

FEW, MANY = 3, 64
SORTS = ("plain object", "compressed object", "recipe", "pack's header", "pack's chunks", "pack's footer")
COUNTS = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.matrix)]


@pytest.fixture
def closed(registry: la.Registry) -> Path:
    """The registry's directory, nothing of which is open."""
    registry.close()
    return Path(registry.backend.location)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("sort", SORTS)
def test_every_flip_in_stored_bytes_is_found_and_none_is_handed_over(
    closed: Path, tmp_path: Path, sort: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(SORTS.index(sort))
    right = _contents(closed, tmp_path / "cache", monkeypatch)
    for number in range(count):
        file, bits = chance.choice(list(_of_sort(closed, sort)))
        bit = chance.choice(bits)
        with _flipped(file, bit):
            handed = _contents(closed, tmp_path / f"cache-{number}", monkeypatch)
            assert {name: content for name, content in handed.items() if content != right[name]} == {}
            with la.connect(closed) as fresh:
                found = fresh.verify(read_data=True).problems
            assert found, f"{sort}: bit {bit} of {file.name} was not found"
            assert any(isinstance(p, errors.Damaged) and p.versions and p.needed_by for p in found)
            assert all(str(file) in str(getattr(p, "file", "")) for p in found)
        shutil.rmtree(tmp_path / f"cache-{number}", ignore_errors=True)
    with la.connect(closed) as fresh:
        assert fresh.verify(read_data=True).ok


@pytest.mark.parametrize("count", COUNTS)
def test_every_flip_in_the_database_is_found_and_nothing_of_it_is_told(
    closed: Path, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer is the one from before or a refusal: no other target of an alias, no other message or tag."""
    chance = random.Random(11)
    _busy_life(closed)
    before = _answers(closed)
    right = _contents(closed, tmp_path / "cache", monkeypatch)
    data = (closed / "registry.db").read_bytes()
    refused = 0
    for _ in range(count):
        bit = chance.randrange(8 * len(data))
        where = f"bit {bit % 8} of byte {bit // 8}"
        _put_database(closed, _with_flip(data, bit))
        assert _found(closed), f"{where} was not found"
        after = _answers(closed)
        wrong = {ask: told for ask, told in after.items() if told not in (before.get(ask), "Damaged", "NotAllowed")}
        assert wrong == {}, where
        handed = _contents(closed, tmp_path / "cache", monkeypatch)
        assert {name for name, content in handed.items() if content != right[name]} == set(), where
        refused += after != before
    assert refused or count == FEW


def test_verify_names_the_pages_that_rotted(closed: Path) -> None:
    _busy_life(closed)
    data = (closed / "registry.db").read_bytes()
    first, last = data.index(b"number 4"), data.rindex(b"number 4")  # the version's row, and the audit's entry
    bad = _with_flip(_with_flip(data, 8 * first), 8 * last)
    _put_database(closed, bad)
    with la.connect(closed) as registry:
        told = [str(problem) for problem in registry.verify().problems]
    assert any(f"{first // 4096 + 1}" in line and "not what was written there" in line for line in told), told


@pytest.mark.parametrize("count", COUNTS)
def test_every_flip_in_the_log_beside_the_database_is_refused(closed: Path, tmp_path: Path, count: int) -> None:
    """Also one that makes SQLite forget the last commits: nothing else tells that there were any."""
    aside = tmp_path / "aside"
    with la.connect(closed) as writer:
        for number in range(5):
            writer.log("later", la.Prompt(f"{number}: {{{{ question }}}}", template_format="jinja2"))
        shutil.copytree(closed, aside)  # as a process leaves it that is killed
    log = aside / "registry.db-wal"
    good, database = log.read_bytes(), (aside / "registry.db").read_bytes()
    with la.connect(aside) as fresh:
        assert fresh.verify().ok
    chance = random.Random(13)
    for _ in range(count):
        (aside / "registry.db").write_bytes(database)
        (aside / "registry.db-shm").unlink(missing_ok=True)
        log.write_bytes(_with_flip(good, chance.randrange(8 * len(good))))
        with pytest.raises(errors.Damaged, match="log is damaged"):
            la.connect(aside)


# --- what the tests do


def _of_sort(place: Path, sort: str) -> Iterator[tuple[Path, range]]:
    """Each file of a sort, and which of its bits belong to it."""
    from llmartifacts.blobs.chunks.pack import FOOTER, HEADER, TRAILER

    suffix = {"plain object": "", "compressed object": ".zst", "recipe": ".recipe"}.get(sort, ".pack")
    for file in sorted(p for p in (place / "blobs").rglob("*") if p.is_file() and p.suffix == suffix):
        size = file.stat().st_size
        begin, end = 0, size
        if suffix == ".pack":
            with file.open("rb") as opened:
                opened.seek(size - TRAILER)
                footer = size - TRAILER - FOOTER.itemsize * int.from_bytes(opened.read(4), "little")
            bounds = {"pack's header": (0, len(HEADER)), "pack's chunks": (len(HEADER), footer)}
            begin, end = bounds.get(sort, (footer, size))
        yield file, range(8 * begin, 8 * end)


class _flipped:
    """One bit of a file is another meanwhile."""

    def __init__(self, file: Path, bit: int) -> None:
        self._file = file
        self._bit = bit

    def __enter__(self) -> None:
        self._good = self._file.read_bytes()
        self._file.chmod(0o644)
        self._file.write_bytes(_with_flip(self._good, self._bit))

    def __exit__(self, *_: object) -> None:
        self._file.write_bytes(self._good)


def _with_flip(data: bytes, bit: int) -> bytes:
    bad = bytearray(data)
    bad[bit // 8] ^= 1 << bit % 8
    return bytes(bad)


def _put_database(place: Path, data: bytes) -> None:
    for beside in ("-wal", "-shm"):
        Path(place, f"registry.db{beside}").unlink(missing_ok=True)
    (place / "registry.db").write_bytes(data)


def _found(place: Path) -> bool:
    """Whether verify finds anything; that it cannot even begin counts."""
    try:
        with la.connect(place) as fresh:
            return not fresh.verify().ok
    except errors.LlmartifactsError:
        return True


def _contents(place: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Everything that is handed over, by what it was asked for; what is refused is left out."""
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(cache))  # an own one: another may hold the right bytes
    found: dict[str, object] = {}
    try:
        with la.connect(place) as fresh:
            for name in NAMES:
                try:
                    version = fresh.get(f"{name}:v1")
                    for file in fresh.backend.manifests([version.digest])[version.digest].files:
                        found[f"{name}/{file.path}"] = fresh.backend.blobs.read(file.blob)
                except errors.LlmartifactsError:
                    continue
    except errors.LlmartifactsError:
        pass
    return found


def _busy_life(place: Path) -> None:
    """Aliases, tags, runs, a rollback and a withdrawal, so that every sort of row is there."""
    with la.connect(place) as registry:
        for number in range(6):
            prompt = la.Prompt(f"{number}: {{{{ question }}}}", template_format="jinja2")
            registry.log("agent", prompt, message=f"number {number}", tags={"n": str(number)}, inputs=["kb:v1"])
        for number in (2, 4, 3):
            registry.promote(f"agent:v{number}", to="prod", reason="better")
        registry.rollback("agent:prod", reason="worse")
        registry.tag("agent:v2", set={"ticket": "CHG-1042"})
        with registry.run("train", parameters={"rate": 0.1}) as run:
            run.use("agent:v1")
            run.log("agent", la.Prompt("from a run {{ question }}", template_format="jinja2"))
        registry.yank("agent:v1", reason="wrong")


def _answers(place: Path) -> dict[str, str]:
    """What callers are told of records, by what they asked."""
    told: dict[str, str] = {}

    def ask(name: str, question: Callable[[], object]) -> None:
        try:
            told[name] = repr(question())
        except errors.LlmartifactsError as error:
            told[name] = type(error).__name__

    try:
        with la.connect(place) as registry:
            ask("collections", registry.collections)
            for name in (*NAMES, "agent"):
                ask(f"versions of {name}", lambda name=name: registry.versions(name))  # type: ignore[misc]
                ask(f"history of {name}", lambda name=name: registry.history(f"{name}:latest"))  # type: ignore[misc]
                ask(f"lineage of {name}", lambda name=name: registry.lineage(f"{name}:latest"))  # type: ignore[misc]
            ask("prod", lambda: registry.get("agent:prod"))
            ask("history of prod", lambda: registry.history("agent:prod"))
            ask("state", lambda: registry.state("prod"))
            ask("audit", lambda: list(registry.backend.audit()))
            ask("log of the audit", lambda: registry.audit_log(limit=1000))
    except errors.LlmartifactsError as error:
        told["open"] = type(error).__name__
    return told


def test_flips_are_made_as_they_are_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    with _flipped(file, 8):
        assert file.read_bytes() == b"acc"
    assert (file.read_bytes(), os.path.getsize(file)) == (b"abc", 3)
