"""The page on services is executed, and the figures that it names are told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import running
import yaml
from prometheus_client import CollectorRegistry, generate_latest

import llmartifacts as la
from llmartifacts.integrations import prometheus
from llmartifacts.integrations.prometheus import ResolverCollector
from llmartifacts.runtime import notices
from llmartifacts.runtime.state import State, Status

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "service.md"


def test_a_service_is_made_as_its_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with running.opened(PAGE, tmp_path) as page:
        assert page.run() >= 10


def test_the_page_names_every_state() -> None:
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert named == {state.value for state in State}


def test_the_page_says_of_every_code_what_to_do() -> None:
    named = set(re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert named == {*get_args(notices.Code), "not-started", "start-failed", "too-old", "fallback"}
    assert {code for code in named if f"`{code}`" not in (Status.__doc__ or "")} == set()


def test_every_figure_of_the_page_and_of_the_module_is_one_that_is_told(tmp_path: Path) -> None:
    (rules,) = [block.text for block in running.blocks(PAGE) if block.language == "yaml"]
    figures = CollectorRegistry()
    with la.init(tmp_path / "registry") as registry:
        registry.log("agent", la.Prompt("x", template_format="jinja2"), aliases="prod")
        with la.Resolver({"agent": "agent:prod"}, registry=registry) as resolver:
            registry.log("agent", la.Prompt("y", template_format="jinja2"), aliases="prod")
            assert resolver.refresh()
            figures.register(ResolverCollector(support=resolver))
            told = generate_latest(figures).decode()
    samples = {re.match(r"\w+", line)[0] for line in told.splitlines() if line[0] != "#"}  # type: ignore[index]
    assert prometheus.__doc__
    listed = set(re.findall(r"^ +(llmartifacts_resolver_\w+)", prometheus.__doc__, re.MULTILINE))
    assert listed == samples
    assert set(re.findall(r"\bllmartifacts_resolver_[a-z_]+", PAGE.read_text())) <= samples
    for group in yaml.safe_load(rules)["groups"]:
        for rule in group["rules"]:
            assert {"alert", "expr", "for", "annotations"} == rule.keys()
            for state in re.findall(r'state="(\w+)"', rule["expr"]):
                assert f'state="{state}"' in told
            for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
                assert label == "instance" or f"{label}=" in told
