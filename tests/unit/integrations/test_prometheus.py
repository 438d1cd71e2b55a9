"""Metrics of resolvers, read as Prometheus reads them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

import llmartifacts as la
from llmartifacts.errors import InvalidInput, LlmartifactsError
from llmartifacts.integrations.prometheus import ResolverCollector

WANTED = {"agent": "agent:prod"}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[la.Registry]:
    monkeypatch.setenv("LLMARTIFACTS_CACHE", str(tmp_path / "cache"))
    with la.init(tmp_path / "registry") as made:
        made.log("agent", la.Prompt("old", template_format="jinja2"), aliases="prod")
        yield made


def exposed(**resolvers: la.Resolver[Any]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a scrape: (name, labels) -> value."""
    figures = CollectorRegistry()
    figures.register(ResolverCollector(**resolvers))
    families = list(text_string_to_metric_families(generate_latest(figures).decode()))
    samples = [sample for family in families for sample in family.samples]
    made = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
    assert len(made) == len(samples), "no sample is there twice"
    return made


def value(samples: dict[Any, float], name: str, /, **labels: str) -> float | None:
    return samples.get((f"llmartifacts_resolver_{name}", frozenset({"resolver": "support", **labels}.items())))


def test_it_tells_what_is_served_and_what_came_of_the_looks(registry: la.Registry) -> None:
    with la.Resolver(WANTED, registry=registry) as resolver:
        assert not resolver.refresh()
        before = exposed(support=resolver)
        registry.log("agent", la.Prompt("new", template_format="jinja2"), aliases="prod")
        assert resolver.refresh()
        after = exposed(support=resolver)
        status = resolver.status()

    assert value(before, "state", state="READY") == 1
    assert value(before, "state", state="ERROR") == 0
    assert value(before, "ready") == 1
    assert (value(before, "generation"), value(after, "generation")) == (1, 2)
    assert (value(before, "revision"), value(after, "revision")) == (1, 2)
    assert value(before, "last_swap_duration_seconds") is None
    assert value(after, "last_swap_duration_seconds") == pytest.approx(status.checks.last_swap_seconds)
    assert value(before, "checks_total", result="unchanged") == 1
    assert value(before, "checks_total", result="swapped") == 0
    assert value(after, "checks_total", result="swapped") == 1
    assert value(after, "checks_total", result="failed") == 0
    assert value(after, "looks_total") == status.checks.made
    assert value(after, "blobs_total", place="registry") == status.checks.fetched
    assert value(after, "blobs_total", place="cache") == status.checks.cached
    assert value(after, "stale_seconds_total") == 0
    age = value(after, "age_seconds")
    assert age is not None
    assert 0 <= age < 60
    assert value(before, "component_info", component="agent", name="agent", version="v1") == 1
    assert value(after, "component_info", component="agent", name="agent", version="v2") == 1
    assert value(after, "component_info", component="agent", name="agent", version="v1") is None
    short = str(resolver.current.lock.set_digest)[7:19]
    assert value(after, "set_info", project="default", set=short, source="registry") == 1


def test_a_look_that_fails_is_counted_and_the_state_says_stale(
    registry: la.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with la.Resolver(WANTED, registry=tmp_path / "registry") as resolver:
        registry.close()
        shutil.rmtree(tmp_path / "registry")
        resolver.watch(3600)
        for _ in range(2):
            with pytest.raises(LlmartifactsError):
                resolver.refresh()
        samples = exposed(support=resolver)

    assert value(samples, "state", state="STALE") == 1
    assert value(samples, "state", state="READY") == 0
    assert value(samples, "ready") == 1
    failed = value(samples, "checks_total", result="failed")
    assert failed is not None
    assert failed >= 1
    stale = value(samples, "stale_seconds_total")
    assert stale is not None
    assert stale > 0


def test_a_resolver_that_has_not_started_has_a_state_and_no_versions(registry: la.Registry) -> None:
    samples = exposed(support=la.Resolver(WANTED, registry=registry))

    assert value(samples, "state", state="NOT_READY") == 1
    assert value(samples, "ready") == 0
    assert value(samples, "generation") == 0
    assert not [name for name, _ in samples if name.endswith(("_info", "_revision", "age_seconds"))]


def test_several_resolvers_are_told_apart_by_their_label(registry: la.Registry) -> None:
    with la.Resolver(WANTED, registry=registry) as one, la.Resolver(WANTED, registry=registry) as two:
        samples = exposed(support=one, search=two)
    labels = {dict(labels)["resolver"] for _, labels in samples}

    assert labels == {"support", "search"}
    assert value(samples, "generation") == 1


def test_names_and_units_are_as_prometheus_wants_them(registry: la.Registry) -> None:
    figures = CollectorRegistry()
    with la.Resolver(WANTED, registry=registry) as resolver:
        figures.register(ResolverCollector(support=resolver))
        families = list(parse_openmetrics(generate_openmetrics(figures).decode()))  # which is strict on both

    for family in families:
        assert family.name.startswith("llmartifacts_resolver_")
        assert family.documentation
        assert not family.name.endswith("_total")
        assert family.type == ("counter" if {s.name for s in family.samples} == {f"{family.name}_total"} else "gauge")
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        figures.register(ResolverCollector(other=resolver))


def test_what_is_no_resolver_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no resolver was given"):
        ResolverCollector()
    with pytest.raises(InvalidInput, match="support is a str"):
        ResolverCollector(support="resolver")  # type: ignore[arg-type]
