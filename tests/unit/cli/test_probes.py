"""`eval probes` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import wire
from llmartifacts.integrations.hashing import HashingEmbeddings

Cli = Callable[..., Any]
APP = """
from llmartifacts.integrations.hashing import HashingEmbeddings
right = HashingEmbeddings(32)
wrong = HashingEmbeddings(16)
class Down:
    def embed_documents(self, texts):
        raise ConnectionError("no route to host")
"""
POLICY = "name: guard\naliases:\n  prod:\n    kinds:\n      vector_index: [probes]\n"


@pytest.fixture
def place(cli: Cli, tmp_path: Path) -> Path:
    cli("init")
    (tmp_path / "cli_probes_app.py").write_text(APP + "down = Down()\ndown.embed_query = down.embed_documents\n")
    (tmp_path / "policy.yaml").write_text(POLICY)
    embeddings = HashingEmbeddings(32)
    with la.connect(tmp_path / ".llmartifacts") as registry:
        for texts in (["copy a file", "sort a list"], ["copy a file", "sort a list", "open a socket"]):
            registry.log("kb", la.VectorIndex.build(texts, embeddings=embeddings, model=embeddings.model))
    cli("policy", "set", "policy.yaml")
    return tmp_path


def test_probes_that_come_out_right_end_with_0_and_say_what_was_asked(place: Path, cli: Cli) -> None:
    told = cli("eval", "probes", "kb:v1").out
    assert "kb:v1: 2 of 2 query probes came out right\nlogged probes-report:v1\nPASS\n" in told
    told = cli("eval", "probes", "kb:v1", "--embeddings", "cli_probes_app:right", "--no-log").out
    assert "2 of 2 query probes came out right, and 4 text probes embedded as before\nnot logged\n" in told


def test_as_json_it_names_the_index_the_report_and_the_verdict(place: Path, cli: Cli) -> None:
    found = cli("eval", "probes", "kb:v1", "--json").json
    assert (found["target"]["reference"], found["report"]["reference"]) == ("kb:v1", "probes-report:v1")
    assert (found["verdict"], found["probes"], found["right"], found["texts"]) == ("PASS", 2, 2, 0)
    assert found["failed"] == []


def test_another_embedder_ends_with_1_and_says_why_once(place: Path, cli: Cli) -> None:
    told = cli("eval", "probes", "kb:v1", "--embeddings", "cli_probes_app:wrong", expect=wire.REFUSED).out
    assert "kb:v1: 0 of 2 query probes came out right" in told
    assert told.count("vectors of dimension 16, the index has 32") == 1
    assert told.endswith("FAIL\n")


@pytest.mark.parametrize(
    ("name", "code", "word"),
    [
        ("cli_probes_app:down", wire.UNREACHABLE, "no route to host"),
        ("cli_probes_app:nowhere", wire.NOT_FOUND, "nowhere"),
        ("cli_probes_app", wire.WRONG_USE, "names no object"),
    ],
)
def test_an_embedder_that_cannot_be_asked_leaves_no_report(
    place: Path, cli: Cli, name: str, code: int, word: str
) -> None:
    assert word in cli("eval", "probes", "kb:v1", "--embeddings", name, expect=code).err
    cli("show", "probes-report", expect=wire.NOT_FOUND)


def test_the_gate_asks_for_the_probes_of_exactly_what_moves(place: Path, cli: Cli) -> None:
    told = cli("promote", "kb:v2", "--to", "prod", expect=None)
    assert told.code == wire.INCONCLUSIVE
    assert "llmartifacts eval probes kb:v2" in told.out + told.err
    cli("eval", "probes", "kb:v1")
    cli("promote", "kb:v2", "--to", "prod", expect=wire.INCONCLUSIVE)
    cli("eval", "probes", "kb:v2", "--embeddings", "cli_probes_app:wrong", expect=wire.REFUSED)
    cli("promote", "kb:v2", "--to", "prod", expect=wire.REFUSED)
    cli("eval", "probes", "kb:v2", "--embeddings", "cli_probes_app:right")
    cli("promote", "kb:v2", "--to", "prod")
