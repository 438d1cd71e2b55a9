"""Probes of an index are run, and what came of it is recorded for the gate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import Damaged, InvalidInput, NotFound, Unreachable, WrongKind
from llmartifacts.evals.probing import run_probes
from llmartifacts.integrations.hashing import HashingEmbeddings
from llmartifacts.records.policy import Verdict

TEXTS = [f"{verb} a {noun}" for verb in ("copy", "delete", "open", "sort") for noun in ("file", "folder", "list")]
POLICY = """
name: guard
aliases:
  prod:
    kinds:
      vector_index:
        - probes: {max_age: 7d}
"""
APP = """
from llmartifacts.integrations.hashing import HashingEmbeddings
one = HashingEmbeddings(32)
def of_index(index):
    return HashingEmbeddings(index.dimension)
def broken(index):
    raise ValueError("no key")
number = 3
"""


class Turned(HashingEmbeddings):
    """Another embedder of the same dimension."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [vector[::-1] for vector in super().embed_documents(texts)]

    def embed_query(self, text: str) -> list[float]:
        return super().embed_query(text)[::-1]


class Down(HashingEmbeddings):
    """An embedder whose host does not answer."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise ConnectionError("no route to host")


def index(*more: str) -> la.VectorIndex:
    embeddings = HashingEmbeddings(32)
    return la.VectorIndex.build([*TEXTS, *more], embeddings=embeddings, model=embeddings.model)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "probing_app.py").write_text(APP)
    with la.init("registry") as made:
        made.log("kb", index())
        made.log("kb", index("close a socket"))
        (tmp_path / "policy.yaml").write_text(POLICY)
        made.set_policy(tmp_path / "policy.yaml", message="guard")
        yield made


def verdict(registry: la.Registry, reference: str) -> tuple[Verdict, str]:
    (result,) = [r for r in registry.gate(reference, to="prod").results if "probes" in r.rule]
    return result.verdict, result.message


def test_every_query_probe_is_an_item_of_a_report_that_is_bound_to_index_and_probes(registry: la.Registry) -> None:
    found = run_probes(registry, "kb:v1")
    manifest = registry.find("kb:v1").manifest
    queries = manifest.config["probes"]["queries"]
    assert str(found.version) == "probes-report:v1"
    assert registry.resolve("probes-report:v1", la.Report) == found.report
    assert found.report.targets == {"kb:v1": manifest.digest}
    assert found.report.dataset == manifest.file("probes.json").digest
    assert [item.id for item in found.report.items] == [f"query:{i}" for i in range(queries)]
    assert (found.report.metric("probes").value, found.report.metric("probes").n) == (1.0, queries)
    assert "kb:v1" in {node.label for node in registry.lineage("probes-report:v1", "up").nodes.values()}


def test_nothing_is_logged_where_nobody_asks_for_it(registry: la.Registry) -> None:
    assert run_probes(registry, "kb:v1", log=False).version is None
    with pytest.raises(NotFound):
        registry.get("probes-report")


def test_a_report_is_logged_in_the_project_of_its_index(registry: la.Registry) -> None:
    registry.create_project("team")
    registry.log("team/kb", index())
    assert run_probes(registry, "team/kb:v1").version.project == "team"


@pytest.mark.parametrize("named", [HashingEmbeddings(32), "probing_app:one", "probing_app:of_index"])
def test_the_right_embedder_changes_nothing_of_what_the_gate_reads(registry: la.Registry, named: Any) -> None:
    found = run_probes(registry, "kb:v1", embeddings=named)
    assert found.texts == registry.find("kb:v1").manifest.config["probes"]["texts"] > 0
    assert found.report.metrics == run_probes(registry, "kb:v1", log=False).report.metrics
    assert verdict(registry, "kb:v1")[0] is Verdict.PASS


@pytest.mark.parametrize("embedder", [Turned(32), HashingEmbeddings(16)])
def test_with_another_embedder_no_query_finds_what_it_should_and_the_gate_refuses(
    registry: la.Registry, embedder: Any
) -> None:
    found = run_probes(registry, "kb:v1", embeddings=embedder)
    assert found.report.metric("probes").value == 0.0
    assert {item.error for item in found.report.items} == {found.report.items[0].error}
    assert "the embedder gives" in found.report.items[0].error
    assert verdict(registry, "kb:v1")[0] is Verdict.FAIL


def test_an_embedder_that_cannot_be_asked_leaves_no_evidence(registry: la.Registry) -> None:
    with pytest.raises(Unreachable, match="no route to host"):
        run_probes(registry, "kb:v1", embeddings=Down(32))
    assert verdict(registry, "kb:v1")[0] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("name", "error", "word"),
    [
        ("probing_app:broken", InvalidInput, "no key"),
        ("probing_app:number", InvalidInput, "embeds nothing"),
        ("probing_app:nowhere", NotFound, "nowhere"),
        ("probing_nowhere:x", NotFound, "no module"),
    ],
)
def test_a_name_that_stands_for_no_embedder_is_refused(
    registry: la.Registry, name: str, error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        run_probes(registry, "kb:v1", embeddings=name)
    assert verdict(registry, "kb:v1")[0] is Verdict.INCONCLUSIVE


def test_only_an_index_has_probes(registry: la.Registry) -> None:
    registry.log("hello", la.Prompt("hello", template_format="jinja2"))
    with pytest.raises(WrongKind, match="hello:v1 is a prompt"):
        run_probes(registry, "hello")
    with pytest.raises(NotFound):
        run_probes(registry, "nowhere")


def test_an_index_without_probes_is_refused(registry: la.Registry) -> None:
    for count, named, word in ((0, None, "query probes"), (0, HashingEmbeddings(32), "query probes")):
        registry.log("bare", without(index(), queries=count, texts=0))
        with pytest.raises(InvalidInput, match=word):
            run_probes(registry, "bare", embeddings=named)


def test_an_embedder_cannot_be_checked_without_text_probes(registry: la.Registry) -> None:
    registry.log("untold", without(index(), queries=8, texts=0))
    assert run_probes(registry, "untold").report.metric("probes").value == 1.0
    with pytest.raises(InvalidInput, match="without text probes"):
        run_probes(registry, "untold", embeddings=HashingEmbeddings(32))


def without(kb: la.VectorIndex, *, queries: int, texts: int) -> la.VectorIndex:
    """The same index with fewer probes."""
    probes = kb.probes
    file = probes.file.model_copy(update={"queries": probes.file.queries[:queries], "texts": probes.file.texts[:texts]})
    fewer = replace(
        probes, file=file, text_vectors=probes.text_vectors[:texts], query_vectors=probes.query_vectors[:queries]
    )
    return replace(kb, probes=fewer)


def test_an_index_that_answers_otherwise_than_its_probes_say_fails_and_is_refused(registry: la.Registry) -> None:
    kb = index()
    first, *others = kb.probes.file.queries
    wrong = first.model_copy(update={"rows": tuple(reversed(first.rows))})
    probes = replace(kb.probes, file=kb.probes.file.model_copy(update={"queries": (wrong, *others)}))
    registry.log("wrong", replace(kb, probes=probes))
    found = run_probes(registry, "wrong", embeddings=HashingEmbeddings(32))
    assert found.report.metric("probes").value == 0.0
    assert "other neighbours" in found.report.items[0].error
    assert verdict(registry, "wrong:v1")[0] is Verdict.FAIL


def test_a_damaged_index_is_no_evidence_at_all(registry: la.Registry, tmp_path: Path) -> None:
    digest = registry.find("kb:v1").manifest.file("index.faiss").digest.partition(":")[2]
    (stored,) = [p for p in (tmp_path / "registry").rglob(f"*{digest[4:]}*") if p.is_file()]
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 255
    stored.chmod(0o600)
    stored.write_bytes(data)
    with pytest.raises(Damaged):
        run_probes(registry, "kb:v1")
    assert verdict(registry, "kb:v1")[0] is Verdict.INCONCLUSIVE


def test_a_report_on_another_version_is_none_on_this_one(registry: la.Registry) -> None:
    run_probes(registry, "kb:v1")
    assert verdict(registry, "kb:v1")[0] is Verdict.PASS
    assert verdict(registry, "kb:v2") == (Verdict.INCONCLUSIVE, "nobody has run the probes of kb:v2")


def test_the_newest_report_counts(registry: la.Registry) -> None:
    run_probes(registry, "kb:v1", embeddings=Turned(32))
    assert verdict(registry, "kb:v1")[0] is Verdict.FAIL
    run_probes(registry, "kb:v1")
    assert verdict(registry, "kb:v1")[0] is Verdict.PASS


def test_a_report_grows_stale(registry: la.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run_probes(registry, "kb:v1", log=False).report
    old = datetime.now(UTC) - timedelta(days=8)
    registry.log("probes-report", replace(made, started=old, ended=old), inputs=["kb:v1"])
    found, told = verdict(registry, "kb:v1")
    assert found is Verdict.INCONCLUSIVE
    assert "stale" in told
