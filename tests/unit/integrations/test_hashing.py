"""HashingEmbeddings: the same vectors everywhere, near for texts that share words."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from llmartifacts.errors import InvalidValue
from llmartifacts.integrations.hashing import HashingEmbeddings

TEXTS = [
    "shutil.copytree(src, dst)\nRecursively copy a directory tree and return the destination directory.",
    "json.dumps: serialize ``obj`` to a JSON formatted ``str``.",
    "Ångström 東京 camelCase HTTPServer sha256 snake_case_name",
    "",
    "?!",
    "the of and",
    "word " * 70_000,
]
DIGEST = "d08e92de8ae9a1c2ac595ba28cf7354a18eab3f08a2d7db5a144c724bc1e0f83"


def test_the_vectors_are_the_same_bit_for_bit_as_on_every_other_machine() -> None:
    made = HashingEmbeddings(dimension=256).embed_array(TEXTS)

    assert hashlib.sha256(np.ascontiguousarray(made, "<f4").tobytes()).hexdigest() == DIGEST


def test_another_process_with_another_hash_seed_gives_the_same_vectors() -> None:
    code = (
        "import hashlib, sys; from llmartifacts.integrations.hashing import HashingEmbeddings as H;"
        "print(hashlib.sha256(H(64).embed_array(sys.argv[1:]).tobytes()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code, *TEXTS[:3]],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert said == {hashlib.sha256(HashingEmbeddings(64).embed_array(TEXTS[:3]).tobytes()).hexdigest() + "\n"}


def test_it_is_an_embeddings_that_langchain_searches_with() -> None:
    embeddings = HashingEmbeddings()
    store = InMemoryVectorStore.from_texts(TEXTS[:3], embeddings)

    assert isinstance(embeddings, Embeddings)
    assert store.similarity_search("copying directories", k=1)[0].page_content == TEXTS[0]
    assert embeddings.embed_query(TEXTS[1]) == embeddings.embed_documents(TEXTS)[1]


@given(st.lists(st.text(max_size=80), max_size=4), st.integers(16, 300))
def test_every_text_has_a_finite_vector_of_length_one_that_does_not_depend_on_its_neighbours(
    texts: list[str], dimension: int
) -> None:
    made = HashingEmbeddings(dimension).embed_array(texts)

    assert made.dtype == np.float32
    assert made.shape == (len(texts), dimension)
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    for row, text in zip(made, texts, strict=True):
        assert np.array_equal(row, HashingEmbeddings(dimension).embed_array([text])[0])


def test_a_word_in_another_form_is_nearer_than_another_word() -> None:
    query, form, part, other = HashingEmbeddings(1024).embed_array(["copying", "copied", "copytree", "sorting"])

    assert query @ form > query @ other
    assert query @ part > query @ other


def test_case_stop_words_and_punctuation_change_nothing() -> None:
    plain, dressed = HashingEmbeddings().embed_array(["copy file", "How do I COPY a file?"])

    assert np.array_equal(plain, dressed)


def test_an_identifier_is_found_by_its_parts() -> None:
    query, camel, other = HashingEmbeddings().embed_array(["element tree", "ElementTree", "OrderedDict"])

    assert query @ camel > 0.5 > query @ other


@pytest.mark.parametrize("dimension", [0, 15, 65537, 2.0, "64", True, None])
def test_a_dimension_out_of_range_is_refused(dimension: object) -> None:
    with pytest.raises(InvalidValue) as caught:
        HashingEmbeddings(dimension)  # type: ignore[arg-type]

    assert caught.value.field == "dimension"
    assert "16" in caught.value.hint()


def test_what_is_not_a_list_of_texts_is_refused_by_position() -> None:
    with pytest.raises(InvalidValue) as caught:
        HashingEmbeddings().embed_documents(["fine", 3])  # type: ignore[list-item]
    assert caught.value.field == "texts[1]"

    with pytest.raises(InvalidValue) as caught:
        HashingEmbeddings().embed_array("one text")
    assert caught.value.field == "texts"


def test_the_cache_of_words_never_changes_a_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmartifacts.integrations.hashing._MAX_CACHED_WORDS", 2)
    small = HashingEmbeddings(128)
    first = small.embed_array(TEXTS[:3])

    assert np.array_equal(first, small.embed_array(TEXTS[:3]))
    assert np.array_equal(first, HashingEmbeddings(128).embed_array(TEXTS[:3]))
