"""Lines of the log."""

from __future__ import annotations

import io
import json
import logging

import pytest

from llmartifacts.records.rights import make_token
from llmartifacts.server.logs import Handler, Log, without_tokens


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_a_stranger_sends_stays_on_its_line(form: str) -> None:
    stream = io.StringIO()
    Log(form, stream).event("request", route='a\nb"c = d\u2028', account="")
    (line,) = stream.getvalue().splitlines()
    assert "account" not in line
    if form == "json":
        assert json.loads(line)["route"] == 'a\nb"c = d\u2028'


def test_no_library_logs_a_token() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("test.library")
    logger.addHandler(Handler(Log("json", stream)))
    token = make_token()[1]
    logger.propagate = False
    try:
        raise ValueError(f"bad {token}")
    except ValueError:
        logger.exception("it was %s", token)
    told = json.loads(stream.getvalue())
    assert token not in stream.getvalue()
    assert "lla_…" in told["message"]
    assert "ValueError" in told["traceback"]
    assert without_tokens(f"x{token}y") == "xlla_…y"


def test_nobody_reading_the_log_is_no_reason_to_stop() -> None:
    stream = io.StringIO()
    stream.close()
    Log("text", stream).event("request")
