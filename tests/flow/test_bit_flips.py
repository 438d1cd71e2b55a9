"""One flipped bit in any stored file is refused before anyone parses it, and everything concerned is named."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts import errors


@pytest.fixture
def registry(tmp_path: Path) -> la.Registry:
    made = la.init(tmp_path / "r")
    documents = [{"id": f"d{i}", "text": f"passage number {i} " * 20} for i in range(64)]
    vectors = [[float((i >> b) & 1) * 2 - 1 for b in range(8)] for i in range(64)]
    spec = la.EmbeddingSpec("eight-bits", dimension=8, metric="l2")
    made.log("kb", la.VectorIndex.from_vectors(vectors, documents, embedding=spec))
    made.log("questions", la.EvalDataset.from_jsonl([f'{{"id": "q{i}", "input": "x{i}"}}' for i in range(200)]))
    made.log("files", la.Files({"text.txt": b"word " * 5000, "binary.bin": random.Random(1).randbytes(50_000)}))
    made.log("large", la.Files({"noise.bin": random.Random(2).randbytes(2_000_000)}))
    made.log(
        "large-questions", la.EvalDataset.from_jsonl([f'{{"id": "q{i}", "input": "x{i * i}"}}' for i in range(50_000)])
    )
    return made


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
