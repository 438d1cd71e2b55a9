"""JUnit XML and Markdown: well formed whatever is in the texts."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.evals.changes import failing_items, losses
from llmartifacts.evals.ci import Case, junit, markdown
from llmartifacts.evals.shorten import shorten
from llmartifacts.kinds.report import ItemScore, Metric, Report
from llmartifacts.records.digest import digest_of
from llmartifacts.records.evidence import Comparison
from llmartifacts.records.policy import Verdict

CASES = [
    Case("recall@5: margin 0.05", Verdict.PASS, "not worse"),
    Case("hit@1: margin 0.05", Verdict.FAIL, "worse", "Mend it.", ("q1: hit@1 1 -> 0", "q2: hit@1 1 -> 0")),
    Case("mrr: at least 0.5", Verdict.INCONCLUSIVE, "too few", "Add 20 items."),
    Case("ndcg: no errors", Verdict.ERROR, "3 items failed"),
]


def report() -> Report:
    values = {"a": 1.0, "b": 0.0, "c": 0.5}
    by = Comparison(-0.1, -0.2, 0.01, 0.02, 3, 0.3)
    return Report(
        "docs",
        {"kb:v2": digest_of(b"t")},
        digest_of(b"d"),
        [
            Metric("recall@5", 0.5, 0.2, 0.8, 3, comparison=by),
            Metric("cost", None, None, None, 0, higher_is_better=False),
        ],
        [ItemScore(i, {"recall@5": v}) for i, v in values.items()] + [ItemScore("d", {}, error="ValueError: no")],
    )


def test_each_condition_is_a_test_case_and_only_a_pass_passes() -> None:
    top = ElementTree.fromstring(junit("docs on kb:v2", CASES, seconds=1.5, timestamp="2026-03-03T09:00:00Z"))
    suite = top.find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "2")
    assert (suite.get("time"), suite.get("timestamp")) == ("1.500", "2026-03-03T09:00:00Z")
    found = {case.get("name"): [(child.tag, child.get("type")) for child in case] for case in suite}
    assert found == {
        "recall@5: margin 0.05": [("system-out", None)],
        "hit@1: margin 0.05": [("failure", "FAIL")],
        "mrr: at least 0.5": [("error", "INCONCLUSIVE")],
        "ndcg: no errors": [("error", "ERROR")],
    }
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.text == "worse\nMend it.\nq1: hit@1 1 -> 0\nq2: hit@1 1 -> 0"


@given(st.text(), st.text())
def test_junit_is_well_formed_whatever_the_texts(name: str, text: str) -> None:
    top = ElementTree.fromstring(junit(name, [Case(text, Verdict.FAIL, text, text, (text,))]))
    assert top.find("testsuite/testcase/failure") is not None


def test_the_summary_says_the_worst_verdict_first_then_the_numbers_then_why() -> None:
    text = markdown(
        "docs on kb:v2", CASES, report=report(), about=[("dataset", "q:v1"), ("none", "")], remarks=["slow"]
    )
    assert text.startswith("### ⚠️ ERROR: docs on kb:v2\n")
    assert "| recall@5 | 0.500 | 0.200 to 0.800 | 3 | -0.100 (-0.200 to +0.010) |" in text
    assert "| cost | not measured |" in text
    assert "| ❌ FAIL | hit@1: margin 0.05 | worse. Mend it. |" in text
    assert "- q1: hit@1 1 -&#62; 0" in text
    assert "- dataset: q:v1" in text
    assert "none:" not in text
    assert text.endswith("- slow\n")
    assert markdown("t", CASES[:1]).startswith("### ✅ PASS")
    assert markdown("t", []).startswith("### ℹ️ measured")


@given(st.text())
def test_foreign_text_makes_neither_rows_nor_markup_nor_mentions(text: str) -> None:
    plain = markdown("t", [Case("name", Verdict.PASS, "why")])
    made = markdown("t", [Case(f"name {text}", Verdict.PASS, "why")])
    assert made.count("\n") == plain.count("\n")
    assert made.count("|") == plain.count("|")
    assert not re.search(r"(?<!\w)[@#]\w", re.sub(r"&#\d+;", " ", made))
    assert "<" not in made.replace("<span>$</span>", "")


@pytest.mark.parametrize("text", ["<script>", "[a](http://x)", "![x](y)", "@octocat", "a | b", "#1", "`x`"])
def test_what_would_be_markup_is_shown_as_text(text: str) -> None:
    assert text not in markdown("t", [Case(text, Verdict.PASS, "why")])


def test_failing_items_are_those_with_errors_then_the_worst() -> None:
    assert failing_items(report()) == ("d: ValueError: no",)
    assert failing_items(report(), "recall@5") == ("d: ValueError: no", "b: recall@5 0", "c: recall@5 0.5")
    assert failing_items(report(), "recall@5", most=1) == ("d: ValueError: no", "and 2 more")
    before = {"a": 1.0, "b": 0.25, "c": 1.0}
    assert failing_items(report(), "recall@5", before)[1:] == ("c: recall@5 1 -> 0.5", "b: recall@5 0.25 -> 0")
    lost, gained = losses(report(), before | {"b": -1.0}, "recall@5")
    assert ([x.id for x in lost], gained) == (["c"], 1)


def test_long_texts_are_cut_to_a_line() -> None:
    assert shorten("a\n  b", 10) == "a b"
    assert shorten("x" * 100, 10) == "x" * 9 + "…"
    assert shorten(None) == ""
