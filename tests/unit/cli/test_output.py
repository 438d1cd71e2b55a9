from __future__ import annotations

import io
import os
import re
import sys
import threading

import pytest

from llmartifacts.cli.output import BAD, Column, Output, Quiet


class Screen(io.StringIO):
    """A terminal of some width."""

    def isatty(self) -> bool:
        return True


def screen(monkeypatch: pytest.MonkeyPatch, stream: str = "stdout") -> Screen:
    """Put a terminal of 40 columns in place; called in the test, since pytest sets the streams anew after fixtures."""
    made = Screen()
    monkeypatch.setattr(sys, stream, made)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "40"), ("LINES", "25")):
        monkeypatch.setenv(name, value)
    return made


COLUMNS = (Column("name", "bold"), Column("size", right=True), Column("message", shrinks=True))
ROWS = [("kb", "12 kB", "a message that is much too long for a narrow screen"), ("agent", "1 B", "short")]


def test_away_from_a_terminal_a_table_is_complete_and_has_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(COLUMNS, ROWS)
    assert capsys.readouterr().out == (
        "name    size  message\n"
        "kb     12 kB  a message that is much too long for a narrow screen\n"
        "agent    1 B  short\n"
    )


def test_on_a_terminal_a_table_fits_and_the_message_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = screen(monkeypatch)
    Output().table(COLUMNS, ROWS)
    (line,) = [line for line in terminal.getvalue().splitlines() if "kb" in line]
    assert "\x1b[1m" in line
    assert "12 kB" in line
    assert re.sub(r"\x1b\[[0-9;]*m", "", line) == "kb     12 kB  a message that is much to…"


def test_where_there_is_no_room_optional_columns_go_and_others_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = screen(monkeypatch)
    columns = (
        Column("name"),
        Column("since", optional=True),
        Column("by", optional=True),
        Column("why", wraps=True),
    )
    Output().table(columns, [("n" * 10, "s" * 8, "b" * 9, "a reason of many words")])
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert [line.rstrip() for line in plain.splitlines()] == [
        "name        since     why",
        "nnnnnnnnnn  ssssssss  a reason of many",
        "                      words",
    ]


def test_a_column_that_nobody_fills_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table((Column("a"), Column("b")), [("1", ""), ("2", "")])
    assert capsys.readouterr().out == "a\n1\n2\n"


def test_foreign_text_is_neither_markup_nor_an_escape_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = screen(monkeypatch)
    hostile = "[bold red]x[/] [link=file:///etc]y[/link] \x1b[2J :smile:"
    out = Output()
    out.table((Column("t", shrinks=True),), [(hostile,)])
    out.line(hostile)
    out.block(hostile)
    out.fields([("t", hostile)])
    shown = terminal.getvalue()
    assert shown.count("[bold red]x[/] [link=file:///etc]y[/link] \\x1b[2J :smile:") == 3
    assert "[bold red]x[/] [link=file:///etc]y[/lin…" in shown
    assert "\x1b[2J" not in shown


def test_a_line_stays_one_line_and_a_block_keeps_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.line(("a\nb", BAD))
    out.block("c\n\td\n")
    assert capsys.readouterr().out == "a b\nc\n\td\n"


def test_values_of_several_lines_hang_under_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    Output().fields([("message", "one\ntwo"), ("none", ""), ("x", "y")])
    assert capsys.readouterr().out == "  message  one\n           two\n  x        y\n"


def test_with_json_there_is_one_document_and_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(json=True)
    out.result({"a": 1}, lambda: out.line("text"))
    with out.working("long work"):
        pass
    streams = capsys.readouterr()
    assert streams.out == '{\n  "a": 1\n}\n'
    assert streams.err == ""


def test_progress_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Output().working("long work") as say:
        say("longer work")
    assert capsys.readouterr() == ("", "")
    terminal = screen(monkeypatch, "stderr")
    with Output().working("long work") as say:
        say("longer work")
    assert "longer work" in terminal.getvalue()


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stream:
        quiet = Quiet(stream)
        for _ in range(3):
            assert quiet.write("x" * 100_000) == 100_000
            quiet.flush()


def test_a_stream_that_cannot_say_a_character_shows_its_code() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Quiet(stream).write("naïve 🙂")
    stream.flush()
    assert raw.getvalue() == rb"na\xefve \U0001f642"


def test_a_reader_gets_every_line_once() -> None:
    read, write = os.pipe()
    taken: list[str] = []

    def take() -> None:
        with open(read) as lines:
            taken.extend(lines.read().splitlines())

    reader = threading.Thread(target=take)
    reader.start()
    with open(write, "w") as stream:
        quiet = Quiet(stream)
        for i in range(5000):
            quiet.write(f"{i}\n")
        quiet.flush()
    reader.join()
    assert taken == [str(i) for i in range(5000)]
