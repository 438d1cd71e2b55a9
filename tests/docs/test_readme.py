"""The README is executed: Python blocks in order in one session, console blocks by the shell, their output compared."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import running


@pytest.mark.slow
def test_every_block_of_the_readme_does_what_it_says(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMARTIFACTS_CONFIG", str(tmp_path / "config"))
    (tmp_path / "templates").symlink_to(repository / "templates")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {"LLMARTIFACTS_SERVE_PORT": port}
    with running.opened(repository / "README.md", tmp_path, environment, {"8391": port}) as page:
        assert page.run() >= 5


def test_the_readme_names_the_two_commands_that_need_nothing_but_python_and_make(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


def test_what_is_not_run_is_marked_with_a_reason(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    for block in running.blocks(repository / "README.md"):
        if block.mark == "not-run":
            before = text[: text.index(block.text)].rstrip().splitlines()[-2:]
            assert any("<!--" in line for line in before), (
                f"README line {block.line}: say in a comment why it is not run"
            )
