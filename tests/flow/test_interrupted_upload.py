"""Ctrl-C while a large file goes to a server: what was sent is kept, and the same command goes on from there."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from llmartifacts import wire
from llmartifacts.cli.main import main
from llmartifacts.client.session import HttpSession
from llmartifacts.testing.server import running_server


def test_an_interrupted_log_says_that_the_same_command_goes_on_and_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(random.Random(7).randbytes(40_000_000))
    sent: list[str] = []
    real, stops = HttpSession.send, [True]

    def send(self: HttpSession, route: Any, data: bytes, **given: Any) -> Any:
        if stops[0] and len(sent) >= 2:
            raise KeyboardInterrupt
        done = real(self, route, data, **given)
        sent.append(given["path"]["sha256"])
        return done

    monkeypatch.setattr(HttpSession, "send", send)
    with running_server(tmp_path / "registry") as server:
        monkeypatch.setenv("LLMARTIFACTS_TOKEN", server.token)
        line = ["--registry", server.url, "log", "files", "big", str(source)]
        assert main(line) == wire.INTERRUPTED
        told = capsys.readouterr().err.splitlines()
        assert "interrupted" in told
        assert told[-1] == "What was sent is kept: the same command goes on where this one was."
        before, stops[0] = set(sent), False
        assert before
        sent.clear()
        assert main(line) == wire.DONE
        assert sent
        assert not before & set(sent)


def test_an_interrupted_command_that_sends_nothing_says_no_more_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(self: HttpSession, *_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(HttpSession, "call", stop)
    monkeypatch.setenv("LLMARTIFACTS_TOKEN", "")
    assert main(["--registry", "http://127.0.0.1:1", "ls"]) == wire.INTERRUPTED
    assert capsys.readouterr().err.strip() == "interrupted"
