"""A kind of another package: installed, it is like any other; elsewhere its versions are kept, moved and shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts import plugins, wire
from llmartifacts.errors import GateRefused, NotFound
from llmartifacts.testing.kinds import check_kind

MODULE = """
import json
from collections.abc import Mapping
from dataclasses import dataclass

from llmartifacts.kinds.base import Config, Kind


@dataclass(frozen=True)
class Glossary:
    terms: Mapping[str, str]


class GlossaryConfig(Config):
    count: int


class GlossaryKind(Kind[Glossary]):
    name = "glossary"
    value_type = Glossary
    config_model = GlossaryConfig

    def pack(self, value, files):
        files.add("terms.json", json.dumps(dict(value.terms), sort_keys=True).encode())
        return {"count": len(value.terms)}

    def unpack(self, config, files):
        from llmartifacts.errors import InvalidValue
        from llmartifacts.records.canonical import parse_json

        self.parse(config)
        terms = parse_json(files.read("terms.json"))
        if not isinstance(terms, dict) or len(terms) != config["count"]:
            raise InvalidValue("not the terms of this config", field="config.count")
        return Glossary(terms)

    def summary(self, config):
        return f"{self.parse(config).count} terms"

    def read_source(self, paths, options):
        return Glossary(json.loads(paths[0].read_text()))
"""
ALONE = {"LLMARTIFACTS_ACTOR": "tester"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the package as pip lays it out."""
    made = tmp_path / "site"
    info = made / "acme_glossary-1.0.dist-info"
    info.mkdir(parents=True)
    (made / "acme_glossary.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-glossary\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[llmartifacts.kinds]\nglossary = acme_glossary:GlossaryKind\n")
    (info / "RECORD").write_text("acme_glossary.py,,\n")
    return made


@pytest.fixture
def installed(site: Path) -> Callable[[], AbstractContextManager[None]]:
    """Installs the package for as long as a block lasts."""

    @contextmanager
    def block() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plugins, "_LOADED", {})
            patch.syspath_prepend(str(site))
            yield
        sys.modules.pop("acme_glossary", None)

    return block


@pytest.fixture
def registry(tmp_path: Path, installed: Callable[[], AbstractContextManager[None]]) -> Iterator[la.Registry]:
    """`terms` with two glossaries, and `agent`, a prompt: all of it logged where the package is installed."""
    with la.init(tmp_path / ".llmartifacts") as made:
        with installed():
            import acme_glossary  # type: ignore[import-not-found]

            made.log("terms", acme_glossary.Glossary({"alias": "a movable name"}))
            made.log("terms", acme_glossary.Glossary({"alias": "a movable name", "digest": "a SHA-256"}))
        made.log("agent", la.Prompt("{{ question }}", template_format="jinja2"))
        yield made


def test_an_installed_kind_is_logged_compared_promoted_bundled_and_served_like_a_built_in_one(
    registry: la.Registry, installed: Callable[[], AbstractContextManager[None]]
) -> None:
    with installed():
        import acme_glossary

        check_kind(acme_glossary.GlossaryKind(), [acme_glossary.Glossary({"a": "b"})], [acme_glossary.Glossary({})])
        terms = registry.resolve("terms:v2", acme_glossary.Glossary).terms
        assert terms == {"alias": "a movable name", "digest": "a SHA-256"}
        assert not registry.log("terms", acme_glossary.Glossary(terms)).created
        assert "count" in str(registry.diff("terms:v1", "terms:v2"))
        moved = registry.promote(["terms:v2", "agent:v1"], to="prod", reason="both")
        assert [str(r.verdict) for r in moved.results] == ["PASS"]
        registry.log("stack", la.Bundle({"terms": "terms:v2", "prompt": "agent:v1"}, inputs="question"))
        assert registry.resolve("stack:v1", la.Bundle).component("terms", acme_glossary.Glossary).terms == terms
        generation = la.Resolver({"terms": "terms:prod", "agent": "agent:prod"}, registry=registry).start()
        assert generation.value["terms"].terms == terms
        assert generation.warnings == (), "an installed kind is no reason to warn"


def test_a_kind_that_is_not_installed_is_shown_moved_listed_verified_and_pulled(
    registry: la.Registry, tmp_path: Path
) -> None:
    assert [c.kind for c in registry.collections(kind="glossary")] == ["glossary"]
    assert [v.number for v in registry.versions("terms")] == [2, 1]
    registry.promote("terms:v1", to="prod", reason="first")
    registry.promote("terms:v2", to="prod", reason="second")
    registry.rollback("terms:prod", reason="back")
    assert registry.get("terms:prod").number == 1
    registry.tag("terms:v2", set={"checked": "no"})
    assert registry.verify(read_data=True).ok
    assert [c.kind for c in registry.stats().collections] == ["prompt", "glossary"]
    written = registry.pull("terms:v2", tmp_path / "pulled")
    assert [p.name for p in written] == ["manifest.json", "terms.json"]
    assert json.loads(written[1].read_text())["digest"] == "a SHA-256"
    assert "terms:v1" in registry.lineage("terms:v1").nodes


def test_a_kind_that_is_not_installed_is_not_unpacked_and_the_error_says_what_to_install(registry: la.Registry) -> None:
    for ask in (lambda: registry.resolve("terms:v1"), lambda: registry.diff("terms:v1", "terms:v2")):
        with pytest.raises(NotFound, match="no kind is called 'glossary'") as caught:
            ask()
        assert caught.value.what == "kind"
        assert "install the package that brings it" in caught.value.hint()
    registry.promote("terms:v1", to="prod", reason="alone it can be moved")
    with pytest.raises(la.ResolutionError) as failed:
        la.Resolver({"terms": "terms:prod"}, registry=registry).start()
    assert failed.value.failures.keys() == {"terms"}
    assert isinstance(failed.value.failures["terms"], NotFound)


def test_whether_a_kind_that_is_not_installed_fits_is_inconclusive_and_the_alias_stays(registry: la.Registry) -> None:
    with pytest.raises(GateRefused, match="glossary") as caught:
        registry.promote(["terms:v1", "agent:v1"], to="prod", reason="both")
    assert caught.value.verdict == "INCONCLUSIVE"
    assert wire.exit_code(caught.value) == wire.INCONCLUSIVE
    assert "Install the package that brings the kind" in caught.value.hint()
    assert not registry.state("prod")


def test_the_command_line_takes_an_installed_kind_and_shows_one_that_is_gone(site: Path, tmp_path: Path) -> None:
    def run(*arguments: str, code: int = 0, **more: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "llmartifacts.cli.main", *arguments],
            cwd=tmp_path,
            env={**os.environ, **ALONE, **more},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == code, (ended.stdout, ended.stderr)
        assert "Traceback" not in ended.stderr
        return ended.stdout + ended.stderr

    (tmp_path / "terms.json").write_text('{"alias": "a movable name"}')
    run("init")
    assert "1 terms" in run("log", "glossary", "terms", "terms.json", PYTHONPATH=str(site))
    assert "1 terms" in run("show", "terms", PYTHONPATH=str(site))
    assert "(the kind 'glossary' is not installed here)" in run("show", "terms")
    assert "glossary" in run("ls", "--kind", "glossary")
    refused = run("log", "glossary", "terms", "terms.json", code=wire.NOT_FOUND)
    assert "no kind is called 'glossary'" in refused
    assert "install the package" in refused
    # The package is there, and broken: the version is shown all the same.
    (site / "acme_glossary.py").write_text("raise RuntimeError('half installed')")
    assert "half installed" in run("show", "terms", PYTHONPATH=str(site))
