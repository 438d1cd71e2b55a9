"""A stamp of a service that started from a server is turned back into versions and reasons through that server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts import wire
from llmartifacts.cli.main import main
from llmartifacts.testing.server import running_server


@pytest.mark.slow
def test_a_log_line_is_explained_by_the_server_that_the_service_started_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_server(tmp_path / "registry") as server:
        monkeypatch.setenv("LLMARTIFACTS_REGISTRY", server.url)
        monkeypatch.setenv("LLMARTIFACTS_TOKEN", server.token)
        with la.connect() as registry:
            for number in (1, 2):
                prompt = la.Prompt(f"{number} {{{{ q }}}}", template_format="jinja2")
                registry.log("agent", prompt, message=f"draft {number}")
                registry.promote(f"agent:v{number}", to="prod", reason=f"step {number}", ticket="CHG-1")
            with la.Resolver({"agent": "agent:prod"}, registry=registry) as resolver:
                line = resolver.current.stamp()
            registry.rollback("agent:prod", reason="wrong tone")
        assert main(["show", "--stamp", f"served ({line})."]) == wire.DONE
        text = capsys.readouterr().out
        assert "agent  agent:v2@sha256:" in text
        assert "by admin: CHG-1: step 2" in text
        assert "rollback to v1" in text
        assert "wrong tone" in text
        assert main(["show", "--json", "--stamp", line]) == wire.DONE
        found = json.loads(capsys.readouterr().out)
        assert found["set"]["verdict"] == "matches"
        assert found["components"][0]["pointed"][0]["until"]["verb"] == "rollback"
        assert main(["show", "--stamp", line.replace("agent:v2", "agent:v9")]) == wire.NOT_FOUND
