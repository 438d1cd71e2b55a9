"""A suite on the command line: logged, shown, compared; its faults told with their lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmartifacts import wire

Cli = Callable[..., Any]
SUITE = "name: support\ndataset: questions\nscorers: [recall@5, latency]\nthresholds:\n  recall@5: {margin: 0.05}\n"


def test_a_suite_is_logged_shown_and_compared(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    cli("init")
    assert "questions:latest against prod; latency, recall@5 (margin 0.05, 60 samples)" in (
        cli("log", "eval_suite", "support", "suite.yaml").out
    )
    (tmp_path / "suite.yaml").write_text(SUITE.replace("0.05", "0.02"))
    cli("log", "eval_suite", "support", "suite.yaml")

    assert "thresholds.recall@5.margin: 0.05 -> 0.02" in cli("diff", "support:v1", "support:v2").out
    assert cli("show", "support:v2", "--json").json["version"]["kind"] == "eval_suite"
    assert "recall@5: recall from 0 to 1, more is better" in cli("show", "support:v2").out


def test_a_fault_is_told_with_its_line_and_nothing_is_logged(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE.replace("recall@5,", "recal@5,"))
    cli("init")
    told = cli("log", "eval_suite", "support", "suite.yaml", expect=wire.WRONG_USE).err

    assert "no scorer is called 'recal'" in told
    assert "suite.yaml, line 3" in told
    assert "Did you mean recall?" in told
    assert cli("ls", "--json").json["collections"] == []
