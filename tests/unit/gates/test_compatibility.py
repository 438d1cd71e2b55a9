from datetime import UTC, datetime

import pytest

from llmartifacts import plugins
from llmartifacts.gates.base import Candidate, Moving
from llmartifacts.gates.compatibility import CompatibilityGate
from llmartifacts.records.manifest import Component, Manifest
from llmartifacts.records.policy import Verdict
from llmartifacts.records.version import Version

GATE = CompatibilityGate()
EMBEDDER = {"provider": "hf", "name": "bge", "parameters": {"dimension": 384}}


def index(dimension):
    space = {"model": "bge", "dimension": dimension, "metric": "l2", "normalized": False}
    return Manifest.build("vector_index", {"embedding": space})


def stack(**parts):
    config = {"models": {"embedder": EMBEDDER}, "inputs": [], "parameters": {}}
    return Manifest.build("bundle", config, (), [Component(r, m.kind, m.digest) for r, m in parts.items()])


def moving(name, manifest, alias="prod", **contains):
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Moving(alias, Version("default", name, manifest.kind, 1, manifest.digest, at), manifest, None, contains)


def judge(*moves, parts=()):
    return GATE.judge(Candidate("default", moves, {p.digest: p for p in parts}))


def test_it_is_the_gate_of_that_name():
    assert plugins.load("gates", "compatibility") is CompatibilityGate
    assert GATE.name == "compatibility"


def test_a_set_that_fits_passes():
    part = index(384)
    result = judge(moving("stack", stack(index=part)), parts=[part])
    assert (result.verdict, result.rule, result.next_step) == (Verdict.PASS, "compatibility", "")


def test_a_broken_rule_fails_and_is_named_with_how_to_mend_it():
    part = index(768)
    result = judge(moving("stack", stack(index=part)), parts=[part])
    assert (result.verdict, result.rule) == (Verdict.FAIL, "index-dimension")
    assert "768" in result.message
    assert "Build" in result.next_step


def test_a_part_beside_its_bundle_is_out_of_step():
    part, newer = index(384), Manifest.build("vector_index", {**index(384).config, "chunking": {}})
    result = judge(moving("stack", stack(index=part), index="kb"), moving("kb", newer), parts=[part])
    assert (result.verdict, result.rule) == (Verdict.FAIL, "bundle-in-step")


def test_a_missing_part_fails():
    bundle = stack(index=index(384))
    result = GATE.judge(Candidate("default", (moving("stack", bundle),), {index(384).digest: None}))
    assert (result.verdict, result.rule) == (Verdict.FAIL, "part-missing")


def test_a_kind_that_is_not_installed_is_inconclusive_and_an_installed_one_passes(monkeypatch):
    part = Manifest.build("graph", {})
    result = judge(moving("stack", stack(graph=part)), parts=[part])
    assert (result.verdict, result.rule) == (Verdict.INCONCLUSIVE, "kind-unknown")
    monkeypatch.setitem(plugins.BUILT_IN["kinds"], "graph", "somewhere:GraphKind")
    assert judge(moving("stack", stack(graph=part)), parts=[part]).verdict is Verdict.PASS


def test_an_error_decides_over_what_cannot_be_told():
    parts = [Manifest.build("graph", {}), index(768)]
    result = judge(moving("stack", stack(graph=parts[0], index=parts[1])), parts=parts)
    assert result.verdict is Verdict.FAIL
    assert "kind-unknown" not in result.message


def test_a_warning_passes_and_is_told():
    part = Manifest.build("prompt", {"variables": {"question": {"required": True}}})
    result = judge(moving("stack", stack(prompt=part)), parts=[part])
    assert result.verdict is Verdict.PASS
    assert "prompt-variables" in result.message


def test_one_version_under_two_aliases_is_judged_once():
    part = index(768)
    bundle = stack(index=part)
    result = judge(moving("stack", bundle), moving("stack", bundle, "staging"), parts=[part])
    assert result.message.count("index-dimension") == 1


def test_nothing_that_moves_is_an_error():
    assert judge().verdict is Verdict.ERROR


@pytest.mark.parametrize("config", [{"models": 7}, {"models": {"llm": None}, "inputs": {"a": 1}}, {"inputs": 5}])
def test_a_hostile_config_does_not_crash_the_gate(config):
    part = Manifest.build("prompt", {"variables": ["a"], "model": 3})
    bundle = Manifest.build("bundle", config, (), [Component("p", "prompt", part.digest)])
    assert judge(moving("stack", bundle), moving("agent", part), parts=[part]).verdict in (
        Verdict.PASS,
        Verdict.INCONCLUSIVE,
    )
