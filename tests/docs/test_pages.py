"""The pages on running a server are executed, and what they name is there."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import running
import typer
import yaml

from llmartifacts.cli.main import build
from llmartifacts.server.config import VARIABLES, Settings
from llmartifacts.server.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
PROGRAM: Any = typer.main.get_command(build())


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.matrix
def test_a_team_is_set_up_as_its_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    environment = {"LLMARTIFACTS_CONFIG": str(tmp_path / "config"), "LLMARTIFACTS_SERVE_PORT": port}
    monkeypatch.setenv("LLMARTIFACTS_CONFIG", environment["LLMARTIFACTS_CONFIG"])
    monkeypatch.chdir(tmp_path)
    with running.opened(ROOT / "docs" / "team.md", tmp_path, environment, {"8391": port}) as page:
        assert page.run() >= 8


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pg_dump"), reason="PG_DUMP MISSING: no backup of PostgreSQL is tried")
def test_operations_are_done_as_their_page_says(
    postgres_server: Any, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmartifacts.registry import Registry
    from llmartifacts.versioning.admission import bootstrap
    from llmartifacts.versioning.team import open_team

    backend = open_team(postgres_url, str(tmp_path / "blobs"))
    with Registry(backend, project="default", actor="tester") as registry:
        (tmp_path / "note.txt").write_text("kept")
        import llmartifacts as la

        registry.log("note", la.Files({"note.txt": tmp_path / "note.txt"}), aliases="prod")
        made = bootstrap(backend.parts)
        assert made is not None
    monkeypatch.chdir(tmp_path)
    port, name = free_port(), f"r{postgres_url.rpartition('/t')[2]}"
    environment = {
        "LLMARTIFACTS_SERVE_DATABASE": postgres_url,
        "LLMARTIFACTS_SERVE_BLOBS": str(tmp_path / "blobs"),
        "LLMARTIFACTS_TOKEN": made.text,
    }
    replaced = {"8392": port, "database restored": f"database {name}", "/restored": f"/{name}"}
    try:
        with running.opened(ROOT / "docs" / "operations.md", tmp_path, environment, replaced) as page:
            assert page.run() >= 4
    finally:
        postgres_server.drop(postgres_server.url_of(name))


def parse(line: str) -> None:
    """Read a command line as the program would, without doing anything. Raises if it would be refused."""
    words = shlex.split(line)
    group, parent = PROGRAM, PROGRAM.make_context("llmartifacts", words, resilient_parsing=True)
    while hasattr(group, "commands"):
        words = words[next(i for i, w in enumerate(words) if not w.startswith("-") and "://" not in w) :]
        name, group, words = group.resolve_command(parent, words)
        if hasattr(group, "commands"):
            parent = group.make_context(name, list(words), parent=parent, resilient_parsing=True)
    group.make_context(name, words, parent=parent, resilient_parsing=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_one_that_the_program_takes(page: Path) -> None:
    text = page.read_text()
    lines = [
        command
        for block in running.blocks(page)
        if block.language == "console"
        for command, _ in running.commands(block)
    ]
    lines += [text for text in re.findall(r"`([^`\n]*)`", text) if text.startswith("llmartifacts ")]
    parts = [part.strip() for line in lines for part in re.split(r"[|;>]|\$\([^)]*\)", line)]
    taken = [found[1] for part in parts if (found := re.fullmatch(r"(?:\w+=\S* )*llmartifacts (.+)", part))]
    assert taken or page.name in ("capacity.md", "environment.md")
    for line in taken:
        parse(line.replace("…", "x"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_and_option_of_the_server_that_a_page_names_is_there(page: Path) -> None:
    known = {VARIABLES + name.upper() for name in Settings.__dataclass_fields__}
    text = page.read_text()
    assert set(re.findall(rf"{VARIABLES}\w+", text)) <= known
    options = {option for param in PROGRAM.commands["serve"].params for option in param.opts}
    for command in re.findall(r"llmartifacts serve ([^`\n]*)", text):
        assert set(re.findall(r"(?<!\S)--[a-z-]+", command)) <= options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_says_why_and_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    for block in running.blocks(page):
        if block.mark == "not-run":
            before = text[: text.index(block.text)].rstrip().splitlines()[-2:]
            assert any("<!--" in line for line in before), f"{page.name} line {block.line}"
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target


def test_every_figure_that_operations_name_is_one_that_the_server_tells() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (rules,) = [block.text for block in running.blocks(ROOT / "docs" / "operations.md") if block.language == "yaml"]
    metrics = Metrics()
    metrics.answered("GET", "/api/v1/projects/{project}/read", 200, 0.001, 0, 10)
    metrics.count("llmartifacts_refused_total", reason="rate")
    metrics.count("llmartifacts_read_cache_total", result="hit")
    told = metrics.text()
    named = set(re.findall(r"\bllmartifacts_[a-z_]+", text))
    assert len(named) >= 8
    for name in named:
        assert re.search(rf"^(# TYPE )?{name}\b", told, re.MULTILINE), name
    for group in yaml.safe_load(rules)["groups"]:
        for rule in group["rules"]:
            assert {"alert", "expr", "for", "annotations"} <= rule.keys()
    route = re.findall(r'route="([^"]+)"', rules)
    assert route == ["/api/v1/projects/{project}/read"]


def test_the_providers_that_the_page_shows_are_ones_that_the_server_takes(tmp_path: Path) -> None:
    from llmartifacts.server import oidc_config

    (shown,) = [block.text for block in running.blocks(ROOT / "docs" / "team.md") if block.language == "yaml"]
    (tmp_path / "login.yaml").write_text(shown)
    assert [one.name for one in oidc_config.load(tmp_path / "login.yaml").providers] == ["corp", "github"]


def test_every_variable_of_the_source_is_in_the_table_and_the_other_way_round() -> None:
    sources = [*(ROOT / "llmartifacts").rglob("*.py"), ROOT / "action.yml"]
    named = {name for path in sources for name in re.findall(r"\bLLMARTIFACTS_[A-Z_]*[A-Z]\b", path.read_text())}
    named |= {VARIABLES + name.upper() for name in Settings.__dataclass_fields__}
    rows = re.findall(r"^\| (`.*?`) \|", (ROOT / "docs" / "environment.md").read_text(), re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(set(listed)) == len(listed)
    assert set(listed) == named - {VARIABLES.rstrip("_")}


def test_the_table_tells_the_defaults_of_the_server() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (\S+) \|$", (ROOT / "docs" / "environment.md").read_text(), re.MULTILINE)
    told = {
        name.removeprefix(VARIABLES).lower(): value.strip("`") for name, value in rows if name.startswith(VARIABLES)
    }
    defaults = {name: field.default for name, field in Settings.__dataclass_fields__.items()}
    numbers = {name: value for name, value in defaults.items() if isinstance(value, int | float)}
    assert numbers.keys() <= told.keys()
    assert {name: float(told[name]) for name in numbers} == {name: float(value) for name, value in numbers.items()}
