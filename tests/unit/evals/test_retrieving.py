"""Outputs of an index: what a search finds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import Incompatible, InvalidInput, InvalidValue, WrongKind
from llmartifacts.evals.retrieving import Retrieved
from llmartifacts.integrations.hashing import HashingEmbeddings
from llmartifacts.kinds.eval_dataset.value import EvalDataset, Item

NAME = "llmartifacts.integrations.hashing:HashingEmbeddings"
TEXTS = ["copy a file", "delete a folder", "sort a list", "open a socket"]
APP = """
from llmartifacts.integrations.hashing import HashingEmbeddings
one = HashingEmbeddings(64)
calls = []
class Counting(HashingEmbeddings):
    def embed_query(self, text):
        calls.append(text)
        if text == "break":
            raise RuntimeError("no")
        return super().embed_query(text)
def of_index(index):
    return HashingEmbeddings(index.dimension)
def broken(index):
    raise ValueError("no")
def nothing(index):
    return 3
number = 3
"""


@pytest.fixture(autouse=True)
def _app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "retrieving_app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)


def index(dimension: int = 64) -> la.VectorIndex:
    embeddings = HashingEmbeddings(dimension)
    return la.VectorIndex.build(TEXTS, embeddings=embeddings, model=embeddings.model, ids=["copy", "rm", "sort", "net"])


def items(*inputs: Any, **columns: Any) -> list[Item]:
    return list(EvalDataset([{"id": f"q{i}", "input": x, **columns} for i, x in enumerate(inputs)]))


def found(made: Retrieved, kb: la.VectorIndex, asked: list[Item]) -> list[Any]:
    made.prepare(kb, asked)
    return [a.error or a.output for a in made.answer(kb, asked, 0, 0)]


@pytest.mark.parametrize("name", [NAME, "retrieving_app:one", "retrieving_app:Counting", "retrieving_app:of_index"])
def test_the_ids_found_are_the_output_best_first(name: str) -> None:
    made = Retrieved(name, k=2)
    assert [ids[0] for ids in found(made, index(), items("copy a file", "sort a list"))] == ["copy", "sort"]
    assert len(found(made, index(), items("sort a list"))[0]) == 2


def test_each_index_is_asked_with_its_own_dimension() -> None:
    for name in (NAME, "retrieving_app:of_index"):
        made = Retrieved(name, k=1)
        small, large = index(64), index(128)
        made.prepare(small, items("sort a list"))
        assert found(made, large, items("sort a list")) == [["sort"]]
        assert made.answer(small, items("sort a list"), 0, 0)[0].output == ["sort"]


def test_a_missing_neighbour_is_none() -> None:
    assert found(Retrieved(NAME, k=6), index(), items("sort a list"))[0][4:] == [None, None]


def test_a_query_is_embedded_once_for_target_and_baseline() -> None:
    made = Retrieved("retrieving_app:Counting", k=1)
    first, second = index(), index()
    for kb in (first, second):
        made.prepare(kb, items("x"))
    calls = sys.modules["retrieving_app"].calls
    calls.clear()
    answers = [made.answer(kb, items("open a socket now"), 0, 0)[0] for kb in (first, second)]
    assert calls == ["open a socket now"]
    assert all(a.output == ["net"] and a.seconds > 0 for a in answers)


def test_an_input_that_cannot_be_embedded_is_the_error_of_its_item_alone() -> None:
    made = Retrieved("retrieving_app:Counting", k=1)
    assert found(made, index(), items("sort a list", "break", {"a": 1}, "copy a file")) == [
        ["sort"],
        "RuntimeError: no",
        "InvalidValue: the input is no text (field input)",
        ["copy"],
    ]
    assert found(made, index(), items("break")) == ["RuntimeError: no"]


def test_query_vectors_may_come_from_a_column() -> None:
    vector = HashingEmbeddings(64).embed_query("delete a folder")
    made = Retrieved(column="vector", k=1)
    assert found(made, index(), items("anything", vector=vector)) == [["rm"]]
    assert made.identity == {"retrieve": {"column": "vector", "k": 1}}


@pytest.mark.parametrize(
    ("columns", "word"),
    [({}, "no column 'vector'"), ({"vector": "text"}, "no list of numbers"), ({"vector": [1.0, 2.0]}, "dimension 64")],
)
def test_a_column_without_fitting_vectors_is_refused_before_anything_runs(columns: Any, word: str) -> None:
    with pytest.raises(InvalidValue, match=word) as caught:
        Retrieved(column="vector").prepare(index(), items("a", **columns))
    assert caught.value.origin == "item q0"


def test_another_embedder_than_the_indexs_is_refused_before_anything_runs() -> None:
    with pytest.raises(Incompatible):
        Retrieved("retrieving_app:one").prepare(index(128), items("a"))


@pytest.mark.parametrize(
    ("name", "word"),
    [("broken", "ValueError: no"), ("nothing", "gave a int"), ("number", "embeds nothing")],
)
def test_what_gives_no_embedder_is_refused(name: str, word: str) -> None:
    with pytest.raises(InvalidValue, match=word):
        Retrieved(f"retrieving_app:{name}").prepare(index(), items("a"))


def test_only_an_index_is_searched() -> None:
    with pytest.raises(WrongKind):
        Retrieved(NAME).prepare(la.Prompt("x", template_format="jinja2"), items("a"))
    with pytest.raises(InvalidInput):
        Retrieved()
    with pytest.raises(InvalidInput):
        Retrieved(NAME, column="vector")


def test_the_source_of_the_embedder_is_part_of_what_outputs_depend_on(tmp_path: Path) -> None:
    made = Retrieved("retrieving_app:of_index", k=3)
    assert made.identity is not None
    told = made.identity["retrieve"]
    assert told["embeddings"] == "retrieving_app:of_index"
    assert told["k"] == 3
    assert len(told["source"]) == 64
