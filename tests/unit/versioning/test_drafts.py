"""What a stranger's drafts must be, over each database: leaving packing out lets nothing in that it would refuse."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts import packing, plugins
from llmartifacts.errors import (
    Conflict,
    Incompatible,
    InvalidInput,
    InvalidManifest,
    InvalidReference,
    InvalidValue,
    LlmartifactsError,
    NotAllowed,
    NotFound,
    TooLarge,
)
from llmartifacts.kinds.bundle import BundleKind
from llmartifacts.kinds.prompt.kind import PromptKind
from llmartifacts.records.backend import Draft, Input
from llmartifacts.records.digest import Blob, digest_of
from llmartifacts.records.manifest import INLINE_BYTES, Component, Descriptor, Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.records.version import Version
from llmartifacts.versioning import drafts
from llmartifacts.versioning.drafts import Installed, checked

PROMPT = la.Prompt("Hello {{ name }}", template_format="jinja2")


def prompt(text: str = "Hello {{ name }}") -> Manifest:
    return Manifest.build("prompt", PromptKind().pack(la.Prompt(text, template_format="jinja2"), _Nowhere()))


def bundle(**parts: Version) -> Manifest:
    components = [Component(role, v.kind, v.digest) for role, v in parts.items()]
    config = {"models": {}, "inputs": ["name"], "parameters": {}}
    assert BundleKind().check(config) == []
    return Manifest.build("bundle", config, (), components)


class _Nowhere:
    def add(self, *_: Any) -> None:
        raise AssertionError

    add_external = add


class Server:
    """The backend as strangers get it, in few words."""

    def __init__(self, short: Any) -> None:
        self.open = short.backend
        self.backend = short.backend.guarded()

    def log(self, name: str, manifest: Manifest, *inputs: Any, actor: str = "wendy", **more: Any) -> Version:
        edges = tuple(i if isinstance(i, Input) else Input(Reference.parse(i)) for i in inputs)
        visible = more.pop("visible", None)
        draft = Draft(name, manifest, inputs=edges, **more)
        made: Version = self.backend.commit("default", [draft], actor=actor, visible=visible)[0]
        return made

    def edges(self, reference: str) -> list[tuple[str, str, str, str]]:
        found = self.backend.lineage("default", Reference.parse(reference), "up")
        return [(e.child, e.relation, e.role, e.parent) for e in found.edges]


@pytest.fixture
def server(short: Any) -> Server:
    return Server(short)


def entries(server: Server) -> int:
    return len(list(server.open.audit()))


# --- one draft by itself


GOOD = Draft("a", prompt())
FILE = Descriptor("a.txt", digest_of(b"x"), 1)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"name": "../etc"}, InvalidReference, ""),
        ({"name": "sha256"}, InvalidReference, ""),
        ({"message": "x\x1b[31m"}, InvalidInput, "message"),
        ({"message": "x" * 16_385}, TooLarge, "16384"),
        ({"git_commit": "a\nb"}, InvalidInput, ""),
        ({"run": "x" * 300}, InvalidInput, ""),
        ({"tags": {f"t{i}": "x" for i in range(257)}}, TooLarge, "256"),
        ({"tags": {"a b": "x"}}, InvalidReference, ""),
        ({"tags": {"a": "x" * 1025}}, InvalidReference, ""),
        ({"aliases": ("latest",)}, InvalidReference, "latest"),
        ({"aliases": ("v3",)}, InvalidReference, ""),
        ({"aliases": tuple(f"a{i}" for i in range(65))}, TooLarge, "64"),
        ({"inputs": tuple(Input(Reference(f"n{i}")) for i in range(1001))}, TooLarge, "1,000"),
        ({"inputs": (Input(Reference("b", number=1), "derived_from", "role"),)}, InvalidInput, "role"),
        ({"inputs": (Input(Reference("b")),)}, InvalidReference, "an input wants"),
        ({"manifest": Manifest("prompt", {"template": "no type"})}, InvalidValue, ""),
        ({"manifest": Manifest("prompt", ["no object"])}, InvalidManifest, "object"),  # type: ignore[arg-type]
        ({"manifest": Manifest("prompt", {"x": 2**60})}, InvalidManifest, ""),
        ({"manifest": Manifest("prompt", {"x": "\ud800"})}, InvalidManifest, ""),
        ({"manifest": Manifest("no such/kind", {})}, InvalidReference, ""),
        ({"manifest": Manifest("files", {}, (replace(FILE, path="../x"),))}, InvalidInput, ""),
        ({"manifest": Manifest("files", {}, (FILE, replace(FILE, path="A.txt")))}, InvalidInput, ""),
        ({"manifest": Manifest("strange", {}, (FILE, replace(FILE, path="b.txt", size=2)))}, InvalidManifest, "says 2"),
        ({"manifest": Manifest("strange", {}, (replace(FILE, size=-1),))}, InvalidManifest, "size"),
        ({"manifest": Manifest("strange", {}, (replace(FILE, url="file:///etc/passwd"),))}, InvalidManifest, "place"),
        (
            {"manifest": Manifest("prompt", GOOD.manifest.config, (replace(FILE, url="s3://b/k"),))},
            InvalidManifest,
            "kept",
        ),
        ({"manifest": Manifest("strange", {}, (replace(FILE, url="http://10.0.0.1/"),))}, InvalidManifest, "scheme"),
        (
            {"manifest": replace(prompt(), components=(Component("p", "prompt", digest_of(b"x")),))},
            InvalidManifest,
            "has no components",
        ),
    ],
)
def test_a_draft_that_this_machine_would_not_have_made_is_refused(
    change: dict[str, Any], error: type[LlmartifactsError], told: str
) -> None:
    assert checked(GOOD) == GOOD
    with pytest.raises(error, match=told or "."):
        checked(replace(GOOD, **change))


def test_a_draft_with_a_name_that_is_another_kinds_config_is_refused_with_the_field() -> None:
    with pytest.raises(InvalidValue) as caught:
        checked(replace(GOOD, manifest=Manifest("prompt", {**prompt().config, "template_format": "jinja3"})))
    assert caught.value.field.startswith("config.template_format")


def test_the_relation_to_an_input_is_the_kinds_and_not_the_callers() -> None:
    claimed = Input(Reference("b", number=1), "evaluated_with")
    assert checked(replace(GOOD, inputs=(claimed,))).inputs[0].relation == "derived_from"
    strange = replace(GOOD, manifest=Manifest("strange", {}), inputs=(claimed,))
    assert checked(strange).inputs == (claimed,)
    odd: Any = Input(Reference("b", number=1), "produced_by")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no relation"):
        checked(replace(strange, inputs=(odd,)))


def test_a_plug_ins_check_that_fails_refuses_and_does_not_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(PromptKind):
        def check(self, config: Any) -> list[str]:
            raise ZeroDivisionError("no")

    monkeypatch.setattr(packing, "kind_named", lambda _: Broken())
    with pytest.raises(InvalidManifest, match="cannot be checked: ZeroDivisionError: no"):
        checked(GOOD)


def test_every_kind_is_checked_without_numpy_faiss_and_langchain() -> None:
    code = """
import sys
for name in ("numpy", "faiss", "langchain_core", "pyarrow", "datasets", "scipy"):
    sys.modules[name] = None
from llmartifacts import packing, plugins
from llmartifacts.records.backend import Draft
from llmartifacts.records.manifest import Manifest
from llmartifacts.versioning.drafts import checked
from llmartifacts.errors import InvalidInput
for name in plugins.names("kinds"):
    try:
        checked(Draft("a", Manifest(name, {"odd": 1})))
    except InvalidInput as error:
        print(name, type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split("\n")) >= {f"{kind} InvalidValue" for kind in ("prompt", "vector_index", "report")}
    assert len(done.stdout.splitlines()) >= 7


# --- against what is there


def test_what_is_well_made_is_logged_and_known_content_again(server: Server) -> None:
    made = server.log("a", prompt(), message="hi", tags={"k": "v"}, aliases=("staging",))
    assert (made.number, made.author, made.aliases) == (1, "wendy", ("latest", "staging"))
    assert server.log("a", prompt(), actor="bob").number == 1


def test_nothing_is_kept_of_what_is_refused(server: Server) -> None:
    before = entries(server)
    good, bad = Draft("a", prompt()), Draft("b", Manifest("prompt", {"template": 1}))
    with pytest.raises(InvalidValue):
        server.backend.commit("default", [good, bad], actor="wendy")
    assert entries(server) == before
    assert server.backend.collections("default") == []


def test_a_project_is_not_made_by_logging_into_it(server: Server) -> None:
    for call in (
        lambda: server.backend.commit("acme", [GOOD], actor="wendy"),
        lambda: server.backend.start_run("acme", "r", parameters={}, actor="wendy"),
        lambda: server.backend.set_policy("acme", None, message="", actor="wendy"),
    ):
        with pytest.raises(NotFound, match="no project 'acme'"):
            call()
    assert [p.name for p in server.backend.projects()] == ["default"]


def test_a_kind_that_is_not_installed_is_kept_as_it_is(server: Server) -> None:
    made = server.log("a", Manifest.build("strange", {"any": ["thing"]}))
    assert server.backend.read("default", [made.reference]).items[0].manifest.config == {"any": ["thing"]}


def test_a_large_manifest_is_stored_here_whatever_was_sent_along(server: Server) -> None:
    manifest = prompt("x" * (INLINE_BYTES + 1) + "{{ name }}")
    made = server.log("a", manifest)
    assert server.backend.blobs.read(Blob(made.digest, len(manifest.to_bytes()))) == manifest.to_bytes()
    assert server.backend.verify(read_data=True).problems == ()


def test_a_large_manifest_that_is_refused_leaves_no_blob(server: Server) -> None:
    manifest = Manifest.build("prompt", {"template": "x" * (INLINE_BYTES + 1)})
    with pytest.raises(InvalidValue):
        server.log("a", manifest)
    assert server.backend.stats().blobs == 0
    with pytest.raises(LlmartifactsError):
        server.backend.blobs.read(Blob(manifest.digest, len(manifest.to_bytes())))


def test_a_file_that_the_project_has_cannot_be_given_another_size(server: Server) -> None:
    with server.open.blobs.stage() as staging:
        blob = staging.add(b"hello")
        first = Manifest.build("strange", {}, [Descriptor("a", blob.digest, blob.size)])
        server.open.commit("default", [Draft("a", first)], actor="ann", staging=staging)
    lie = Manifest.build("strange", {"n": 2}, [Descriptor("a", blob.digest, 4)])
    with pytest.raises(InvalidManifest, match="has 5 bytes, and the manifest says 4"):
        server.log("a", lie)
    server.log("a", Manifest.build("strange", {"n": 2}, [Descriptor("b", blob.digest, 5)]))


def test_more_drafts_than_one_call_may_have_are_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "MAX_DRAFTS", 2)
    with pytest.raises(TooLarge, match="3 drafts"):
        server.backend.commit("default", [GOOD] * 3, actor="wendy")


# --- bundles


def test_each_part_of_a_bundle_gets_one_edge_that_the_engine_makes(server: Server) -> None:
    one, two = server.log("p", prompt("1 {{ name }}")), server.log("q", prompt("2 {{ name }}"))
    made = server.log("stack", bundle(x=one, y=two))
    assert server.edges("stack:v1") == [("stack:v1", "contains", "x", "p:v1"), ("stack:v1", "contains", "y", "q:v1")]
    server.log("other", prompt("1 {{ name }}"))
    again = server.log("stack", bundle(x=one, y=two), Input(Reference("other", number=1), "contains", "x"))
    assert (again.number, again.created, made.created) == (1, False, True)
    assert len(server.edges("stack:v1")) == 2


def test_the_version_that_is_named_is_the_part_where_it_has_the_digest(server: Server) -> None:
    server.log("first", prompt())
    named = server.log("second", prompt())
    server.log("stack", bundle(x=named), Input(named.pinned, "contains", "x"))
    assert server.edges("stack:v1") == [("stack:v1", "contains", "x", "second:v1")]


def test_a_bundle_that_lies_about_its_parts_is_refused(server: Server) -> None:
    one, two = server.log("p", prompt("1 {{ name }}")), server.log("q", prompt("2 {{ name }}"))
    before = entries(server)
    gone = Manifest.build("bundle", bundle().config, (), [Component("x", "prompt", digest_of(b"no"))])
    kind = Manifest.build("bundle", bundle().config, (), [Component("x", "vector_index", one.digest)])
    contains = Input(two.pinned, "contains", "x")
    for manifest, inputs, error, told in (
        (gone, (), NotFound, "no version in default has the digest"),
        (kind, (), InvalidManifest, "not the vector_index"),
        (bundle(x=one), (contains,), InvalidManifest, "q:v1 is the prompt"),
        (bundle(x=one), (replace(contains, role="z"),), InvalidManifest, "no part has the role 'z'"),
        (
            bundle(x=one),
            (Input(Reference("p", "acme", number=1), "contains", "x"),),
            InvalidManifest,
            "another project",
        ),
        (prompt("3 {{ name }}"), (contains,), InvalidManifest, "no part has the role 'x'"),
    ):
        with pytest.raises(error, match=told or "."):
            server.log("stack", manifest, *inputs)
    assert entries(server) == before


def test_a_part_lies_in_the_same_project_whatever_digest_is_known(server: Server) -> None:
    server.open.create_project("acme", actor="root")
    away = server.open.commit("acme", [Draft("p", prompt("secret {{ name }}"))], actor="ann")[0]
    with pytest.raises(NotFound, match="no version in default"):
        server.log("stack", bundle(x=away))


def test_a_bundle_holds_no_bundle(server: Server) -> None:
    one = server.log("p", prompt())
    inner = server.log("inner", bundle(x=one))
    with pytest.raises(InvalidValue, match="holds no bundle"):
        server.log("outer", bundle(y=inner))


def test_parts_and_models_share_one_namespace_whatever_the_case(server: Server) -> None:
    one = server.log("p", prompt())
    made = bundle(Llm=one)
    spec = la.ModelSpec(provider="openai", name="gpt-4-turbo").to_config()
    with pytest.raises(InvalidValue, match="'Llm' is taken twice"):
        server.log("stack", replace(made, config={**made.config, "models": {"llm": spec}}))
    with pytest.raises(InvalidValue, match="taken twice"):
        server.log("stack", bundle(x=one, X=one))


def test_parts_that_do_not_fit_each_other_are_refused(server: Server) -> None:
    one = server.log("p", prompt("{{ something_else }}"))
    with pytest.raises(Incompatible, match="something_else"):
        server.log("stack", bundle(x=one))


# --- inputs and runs


def test_an_input_in_a_project_that_is_not_visible_is_not_there(server: Server) -> None:
    server.open.create_project("acme", actor="root")
    server.open.commit("acme", [Draft("p", prompt())], actor="ann")

    def sees(project: str) -> bool:
        return project == "default"

    told = []
    for place in ("acme", "acmf"):
        with pytest.raises(NotFound) as caught:
            server.log("a", prompt(), f"{place}/p:v1", visible=sees)
        told.append((str(caught.value).replace(place, "?"), caught.value.hint()))
    assert told[0] == told[1]
    assert "acme" not in told[1][1]
    made = server.log("a", prompt(), "acme/p:v1", visible=lambda _: True)
    assert server.edges(str(made)) == [("a:v1", "derived_from", "", "acme/p:v1")]


def test_a_run_takes_only_what_the_one_who_began_it_logs(server: Server) -> None:
    run = server.backend.start_run("default", "r", parameters={}, actor="wendy").id
    server.log("a", prompt(), run=run)
    with pytest.raises(NotAllowed, match="is wendy's"):
        server.log("a", prompt("2 {{ name }}"), run=run, actor="bob")
    with pytest.raises(NotAllowed, match="is wendy's"):
        server.backend.use_in_run("default", run, Reference.parse("a:v1"), actor="bob")
    with pytest.raises(NotAllowed, match="is wendy's"):
        server.backend.end_run("default", run, status="failed", error="mine now", actor="bob")
    with pytest.raises(NotFound, match="no run"):
        server.log("a", prompt("2 {{ name }}"), run="0" * 16)
    server.backend.end_run("default", run, status="done", actor="wendy")
    with pytest.raises(Conflict, match="has ended"):
        server.log("a", prompt("2 {{ name }}"), run=run)
    assert [str(v) for v in server.backend.versions("default", "a")] == ["a:v1"]


def test_on_this_machine_a_run_may_be_anybodys(short: Any) -> None:
    run = short.backend.start_run("default", "r", parameters={}, actor="wendy").id
    assert short.log("a", "1", run=run).run == run


def test_kinds_that_are_not_built_in_are_looked_for_once_for_many_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    names = plugins.names

    def counted(socket: str) -> list[str]:
        asked.append(socket)
        return names(socket)

    monkeypatch.setattr(plugins, "names", counted)
    installed = Installed()
    checked(Draft("x", prompt()), installed)
    assert asked == []
    for number in range(3):
        checked(Draft("x", Manifest.build("nobody-has-it", {"number": number})), installed)
    assert asked == ["kinds"]
