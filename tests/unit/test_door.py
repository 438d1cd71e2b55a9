"""The public door: exactly `__all__`, and nothing heavy behind it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llmartifacts as la

HEAVY = (
    "faiss",
    "numpy",
    "langchain_core",
    "pydantic",
    "jinja2",
    "apsw",
    "yaml",
    "requests",
    "typer",
    "rich",
    "pyarrow",
)


def _modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def test_every_public_name_can_be_had() -> None:
    for name in la.__all__:
        assert getattr(la, name) is not None


def test_the_door_shows_exactly_its_public_names() -> None:
    assert dir(la) == sorted(la.__all__)
    with pytest.raises(AttributeError):
        la.nonsense  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not _modules_after("import llmartifacts") & set(HEAVY)


def test_the_values_that_annotations_name_need_neither_numpy_nor_faiss_nor_langchain() -> None:
    names = "Prompt, VectorIndex, EvalDataset, Bundle, Report, Files, ModelSpec, EmbeddingSpec, Resolver"
    assert not _modules_after(f"from llmartifacts import {names}") & {"faiss", "numpy", "langchain_core", "pyarrow"}


def test_resolving_a_prompt_needs_neither_numpy_nor_faiss_nor_langchain(tmp_path: object) -> None:
    code = (
        f"import llmartifacts as la; r = la.init(r'{tmp_path}/r')\n"
        "r.log('p', la.Prompt('Hi {{ name }}', template_format='jinja2'), aliases='prod')\n"
        "assert r.resolve('p:prod', la.Prompt).format(name='Ada') == 'Hi Ada'"
    )
    assert not _modules_after(code) & {"faiss", "numpy", "langchain_core", "pyarrow", "requests", "typer"}
