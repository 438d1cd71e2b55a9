from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Optional

import pytest

import llmartifacts as la
from llmartifacts.errors import InvalidInput, InvalidReference, NotFound
from llmartifacts.runtime.spec import parse_spec, parse_spec_text

if TYPE_CHECKING:
    from somewhere import Unknown

DIGEST = "sha256:" + "ab" * 32


@dataclass(frozen=True)
class Support:
    agent: Annotated[la.Files, "support-agent:prod"]
    kb: Annotated[la.Files, "support-kb:v5"]
    archive: Annotated[la.Files | None, "archive-kb:prod"] = None


def texts(spec: Any) -> dict[str, str]:
    return {name: str(reference) for name, reference in spec.wanted.items()}


def test_a_dataclass_gives_its_fields_with_type_reference_and_whether_they_may_be_absent():
    spec = parse_spec(Support)
    assert texts(spec) == {"agent": "support-agent:prod", "kb": "support-kb:v5", "archive": "archive-kb:prod"}
    assert [(f.name, f.type, f.optional) for f in spec.fields.values()] == [
        ("agent", la.Files, False),
        ("kb", la.Files, False),
        ("archive", la.Files, True),
    ]
    assert spec.title == "Support"
    made = spec.make({"agent": 1, "kb": 2})
    assert made == Support(1, 2, None)  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.agent = 3  # type: ignore[misc, assignment]


def test_a_local_class_may_name_what_only_its_function_knows():
    from llmartifacts.kinds.files import Files as LocalFiles

    where = "support-kb:prod"

    @dataclass(frozen=True)
    class Local:
        kb: Annotated[LocalFiles, where]

    assert texts(parse_spec(Local)) == {"kb": "support-kb:prod"}


def test_a_subclass_in_another_module_keeps_the_names_of_the_class_that_declares_a_field(tmp_path: Path, monkeypatch):
    (tmp_path / "base_spec.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from typing import Annotated as A\n"
        "import llmartifacts as only_here\n"
        "@dataclass(frozen=True)\n"
        "class Base:\n"
        "    agent: A[only_here.Files, 'support-agent:prod']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import base_spec  # type: ignore[import-not-found]

    @dataclass(frozen=True)
    class Derived(base_spec.Base):
        kb: Annotated[la.Files, "support-kb:prod"]

    assert texts(parse_spec(Derived)) == {"agent": "support-agent:prod", "kb": "support-kb:prod"}


def test_an_annotation_that_cannot_be_evaluated_is_an_error_that_names_the_field():
    @dataclass(frozen=True)
    class Broken:
        agent: Annotated[la.Files, "support-agent:prod"]
        kb: Annotated[Unknown, "support-kb:prod"]

    with pytest.raises(InvalidInput, match="'Unknown' is not defined") as caught:
        parse_spec(Broken)
    assert caught.value.field == "kb"
    assert "Broken" in caught.value.origin
    assert "TYPE_CHECKING" in caught.value.hint()


def test_optional_may_stand_inside_annotated_or_outside_and_needs_a_default():
    @dataclass(frozen=True)
    class Forms:
        a: Annotated[Optional[la.Files], "a:prod"] = None  # noqa: UP045
        b: Annotated[la.Files, "b:prod"] | None = None
        c: Annotated[la.Files | None, "c:prod"] = field(default=None)
        d: Annotated[Any, "d:prod"] = None
        e: Annotated[la.Files | None, "e:prod"] = field(default_factory=lambda: None)
        f: Annotated[la.Files | None, "f:prod"] = field(kw_only=True)

    spec = parse_spec(Forms)
    assert {name for name, f in spec.fields.items() if f.optional} == set("abcde")
    assert list(texts(spec).values()) == [f"{name}:prod" for name in "abcdef"]


def test_class_variables_and_fields_that_are_not_given_are_left_alone():
    @dataclass(frozen=True)
    class Mixed:
        agent: Annotated[la.Files, "support-agent:prod"]
        limit: ClassVar[int] = 3
        seen: dict[str, int] = field(init=False, default_factory=dict)

    assert list(parse_spec(Mixed).fields) == ["agent"]


@dataclass(frozen=True)
class NoReference:
    agent: la.Files


@dataclass(frozen=True)
class TwoReferences:
    agent: Annotated[la.Files, "a:prod", "b:prod"]


@dataclass(frozen=True)
class UselessDefault:
    agent: Annotated[la.Files, "a:prod"] = 3  # type: ignore[assignment]


@dataclass(frozen=True)
class NoClass:
    agent: Annotated[la.Files | la.ModelSpec, "a:prod"]


@dataclass(frozen=True)
class BadReference:
    agent: Annotated[la.Files, "a:PROD"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (NoReference, "names no reference"),
        (TwoReferences, "several references"),
        (UselessDefault, "never be used"),
        (NoClass, "not one class"),
        (BadReference, "neither an alias nor a version"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(spec: type, told: str):
    with pytest.raises(InvalidInput, match=told) as caught:
        parse_spec(spec)
    assert caught.value.field == "agent"
    assert caught.value.hint()


def test_a_class_that_is_not_frozen_or_no_dataclass_is_refused():
    @dataclass
    class Loose:
        agent: Annotated[la.Files, "a:prod"]

    with pytest.raises(InvalidInput, match="not frozen"):
        parse_spec(Loose)
    for odd in (int, 3, None, ["a:prod"], Support(1, 2)):  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="neither a dataclass nor a mapping"):
            parse_spec(odd)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Empty:
    pass


@pytest.mark.parametrize("spec", [{}, Empty])
def test_a_spec_without_components_is_refused(spec: Any):
    with pytest.raises(InvalidInput, match="names no component"):
        parse_spec(spec)


# --- mappings, aliases, projects


def test_a_mapping_gives_a_read_only_mapping():
    spec = parse_spec({"kb": "support-kb:prod", "1st-index": f"other@{DIGEST}"})
    assert texts(spec) == {"kb": "support-kb:prod", "1st-index": f"other@{DIGEST}"}
    made = spec.make({"kb": 1})
    assert dict(made) == {"kb": 1}
    with pytest.raises(TypeError):
        made["kb"] = 2  # type: ignore[index]


@pytest.mark.parametrize("name", ["", "a b", "a;b", "a=b", "\n", "x" * 129, 3, None, "a/b", "\ud800"])
def test_a_name_that_no_component_can_have_is_refused(name: Any):
    with pytest.raises(InvalidInput, match="cannot name a component"):
        parse_spec({name: "kb:prod"})


def test_an_alias_fills_in_what_has_no_selector_and_nothing_else():
    spec = {"a": "a", "b": "b:v3", "c": f"c@{DIGEST}", "d": "acme/d"}
    assert list(texts(parse_spec(spec, alias="staging")).values()) == [
        "a:staging",
        "b:v3",
        f"c@{DIGEST}",
        "acme/d:staging",
    ]
    with pytest.raises(InvalidReference, match="no selector") as caught:
        parse_spec(spec)
    assert caught.value.field == "a"
    assert "LLMARTIFACTS_ALIAS" in caught.value.hint()
    with pytest.raises(InvalidReference):
        parse_spec(spec, alias="PROD")


def test_all_references_lie_in_one_project():
    assert parse_spec({"a": "a:prod", "b": "home/b:prod"}).project("home") == "home"
    with pytest.raises(InvalidReference, match="several projects: acme, home"):
        parse_spec({"a": "a:prod", "b": "acme/b:prod"}).project("home")


# --- bundles


def test_the_fields_of_a_bundle_are_its_roles():
    @dataclass(frozen=True)
    class Stack:
        prompt: la.Files
        llm: la.ModelSpec
        reranker: la.ModelSpec | None = None

    spec = parse_spec(Stack, "support-stack", alias="prod")
    assert texts(spec) == {"bundle": "support-stack:prod"}
    assert spec.from_bundle
    assert {n: f.optional for n, f in spec.fields.items()} == {"prompt": False, "llm": False, "reranker": True}


def test_a_bundle_beside_other_references_is_refused():
    with pytest.raises(InvalidInput, match="everything comes from support-stack:prod") as caught:
        parse_spec(Support, "support-stack:prod")
    assert caught.value.field == "agent"
    with pytest.raises(InvalidInput, match="spec is a mapping"):
        parse_spec({"a": "a:prod"}, "support-stack:prod")


# --- the command line


def test_words_name_roles_or_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert parse_spec_text(["agent=support-agent:prod", "kb=kb:v1"]) == {"agent": "support-agent:prod", "kb": "kb:v1"}
    (tmp_path / "service_of_test.py").write_text("class Outer:\n    class Support: pass\nvalue = 3\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert parse_spec_text(["service_of_test:Outer.Support"]).__qualname__ == "Outer.Support"  # type: ignore[union-attr]
    assert sys.path == before
    with pytest.raises(NotFound) as caught:
        parse_spec_text(["service_of_test:Outr"])
    assert caught.value.near == ("Outer",)
    with pytest.raises(InvalidInput, match="not a class"):
        parse_spec_text(["service_of_test:value"])


@pytest.mark.parametrize(
    "words", [[], ["support"], ["a=b:prod", "c"], ["=b:prod"], [":Class"], ["module:"], ["a=x:p", "a=y:p"]]
)
def test_other_words_are_refused(words: list[str]):
    with pytest.raises(InvalidInput) as caught:
        parse_spec_text(words)
    assert caught.value.field


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("import nowhere_at_all", NotFound, "nowhere_at_all"),
        ("1 / 0", InvalidInput, "ZeroDivisionError"),
        ("def", InvalidInput, "SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_typed_error(text, error, told, tmp_path: Path, monkeypatch):
    (tmp_path / "broken_of_test.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("broken_of_test", None)
    with pytest.raises(error, match=told):
        parse_spec_text(["broken_of_test:Class"])
