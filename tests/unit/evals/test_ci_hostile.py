"""JUnit XML and Markdown as their readers take them: by the rules of the schema, and rendered."""

from __future__ import annotations

import json
import re
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llmartifacts.evals.ci import MAX_MARKDOWN, Case, junit, markdown
from llmartifacts.kinds.report import Metric, Report
from llmartifacts.records.digest import digest_of
from llmartifacts.records.policy import Verdict

HOSTILE = [
    "a | b || c |",
    "\\| \\\\| `|`",
    "`code` ``more`` ```fence",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "</summary></details>",
    "<!-- hidden -->",
    "&lt;b&gt; &#64;octocat &copy;",
    "@octocat @org/team (@x) é@octocat _@octocat",
    "fixes #12, org/repo#12, GH-12",
    "https://example.org/issues/1 www.example.org ftp://x",
    "[text](http://x) ![image](http://x) [ref]: x",
    "**bold** _it_ ~~gone~~ __x__",
    ":+1: :smile: :white_check_mark:",
    "$x$ and $$y$$",
    "- item",
    "+ item",
    "1. item",
    "1) item",
    "# heading",
    "---",
    "===",
    "> quote",
    "two\nlines\r\n\r\nand a paragraph",
    "\ttab\x0bfeed\x0c \x1b[31mred\x00 \ud800 \ufffe",
    "\u202egnp.exe \u2066x",
    "]]> <![CDATA[ x",
    "%0A::set-output name=x::y",
    "../path..",
]
RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
OURS = {"h3", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "p", "details", "summary", "span"}


class Page(HTMLParser):
    """What a reader of the rendered summary sees."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.cells: list[list[str]] = []
        self.items: list[str] = []
        self.summaries: list[str] = []
        self._into: list[str] | None = None
        self.feed(RENDERER.render(text))

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attributes if name != "style"], (tag, attributes)
        if tag == "tr":
            self.cells.append([])
        into = {"td": self.cells[-1] if self.cells else [], "li": self.items, "summary": self.summaries}.get(tag)
        if into is not None:
            into.append("")
            self._into = into

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "li", "summary"):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment hides {data!r}")


def seen(text: str) -> str:
    """A text as it should be read: on one line, without what has no shape."""
    plain = re.sub(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]", "\ufffd", text)
    plain = re.sub("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]", "\ufffd", plain)
    return " ".join(plain.split())


def shown(text: str) -> str:
    return " ".join(text.replace("\u200b", "").split())


def summary_of(text: str) -> Page:
    cases = [Case(f"n {text}", Verdict.FAIL, f"m {text}", f"s {text}", (text, "x"))]
    return Page(markdown(f"t {text}", cases, about=[("dataset", f"v {text}")], remarks=[text]))


def check(text: str) -> None:
    page = summary_of(text)
    assert set(page.tags) <= OURS
    assert page.tags.count("tr") == 2
    assert len(page.cells[1]) == 3
    mark, name, why = page.cells[1]
    assert (mark, shown(name)) == ("❌ FAIL", seen(f"n {text}"))
    assert shown(why).startswith(seen(f"m {text}"))
    assert shown(why).endswith(seen(f"s {text}"))
    assert shown(page.summaries[0]) == seen(f"n {text}: details")
    assert [shown(i) for i in page.items] == [seen(text), "x", seen(f"dataset: v {text}"), seen(text)]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_rendered_as_itself_wherever_it_stands(text: str) -> None:
    check(text)


@given(st.text(st.sampled_from("|`<>&#*_~[]()!\\-+=1.@:/$ \n\tab'\"{}^%"), max_size=30))
def test_any_mixture_of_marks_is_rendered_as_itself(text: str) -> None:
    if seen(text):
        check(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_would_notify_or_link_is_broken_in_the_text_that_a_forge_looks_through(text: str) -> None:
    page = summary_of(text)
    for told in (*page.items, *page.cells[1], *page.summaries):
        # As forges look for them in rendered text: a mention, an issue, an address, a picture.
        assert not re.search(r"(?:^|[^A-Za-z0-9])@[A-Za-z0-9]", told)
        assert not re.search(r"#\d|\bGH-\d", told)
        assert not re.search(r"://|\bwww\.", told)
        assert not re.search(r":[a-z0-9_+-]+:", told)


def test_references_stay_as_they_are_to_be_copied() -> None:
    reference = "acme/support-kb:v5@sha256:" + "0" * 64
    assert reference in markdown(reference, [Case("a", Verdict.PASS, reference)], about=[("report", reference)])
    for text in ("kb:v2: worse", "kb:prod: on kb:v1: x"):  # the break is behind the reference, not in it
        made = markdown("t", [Case("n", Verdict.PASS, text)])
        assert text.partition(": ")[0] in made
    assert "recall@5" in markdown("t", [Case("recall@5: margin 0.05", Verdict.PASS, "fine")])


def test_a_metric_with_a_hostile_name_is_one_row() -> None:
    metric = Metric("a|b `c` <b>", 0.5, 0.25, 0.75, 3)
    report = Report("s", {"kb:v1": digest_of(b"t")}, digest_of(b"d"), [metric])
    page = Page(markdown("t", [], report=report))
    assert page.cells[1] == ["a|b `c` <b>", "0.500", "0.250 to 0.750", "3", ""]


def test_a_sentence_ends_once_and_dots_inside_are_left_alone() -> None:
    why = Page(markdown("t", [Case("n", Verdict.ERROR, "no ../file..", "Look in ../x.")])).cells[1][2]
    assert why == "no ../file.. Look in ../x."
    assert Page(markdown("t", [Case("n", Verdict.PASS, "fine")])).cells[1][2] == "fine."
    assert Page(markdown("t", [Case("n", Verdict.PASS, "was it?", "Yes.")])).cells[1][2] == "was it? Yes."


def test_a_summary_fits_into_a_comment_and_says_what_was_left_out() -> None:
    details = tuple(f"item-{i}: {'x' * 150}" for i in range(100))
    cases = [Case(f"metric-{i}", Verdict.FAIL, "worse", "", details) for i in range(12)]
    text = markdown("t", cases)
    assert len(text) <= MAX_MARKDOWN + 200
    page = Page(text)
    assert page.tags.count("tr") == 13
    assert page.tags.count("details") == len(page.summaries) == 3
    assert shown(page.items[-1]) == "details of 9 more are left out here; the JUnit file has them"
    long = Page(markdown("t", [Case("n", Verdict.FAIL, "x" * 100_000)])).cells[1][2]
    assert len(long) == 1000


# --- JUnit


def junit_problems(text: str) -> list[str]:
    """What the schema of JUnit's XML, as Jenkins and Surefire publish it, finds wrong."""
    top = ElementTree.fromstring(text.encode("utf-8"))
    found = [] if top.tag == "testsuites" else ["no testsuites"]
    allowed = {
        "testsuites": {"name", "tests", "failures", "errors", "skipped", "time"},
        "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
        "testcase": {"name", "classname", "time"},
        "failure": {"type", "message"},
        "error": {"type", "message"},
        "system-out": set(),
    }
    needed = {"testsuites": set(), "testsuite": {"name", "tests"}, "testcase": {"name", "classname"}}
    children = {"testsuites": {"testsuite"}, "testsuite": {"testcase"}, "testcase": {"failure", "error", "system-out"}}
    for one in top.iter():
        found += [f"{one.tag} has {name}" for name in set(one.keys()) - allowed.get(one.tag, set())]
        found += [f"{one.tag} lacks {name}" for name in needed.get(one.tag, set()) - set(one.keys())]
        found += [f"{c.tag} in {one.tag}" for c in one if c.tag not in children.get(one.tag, set())]
        for name in set(one.keys()) & {"tests", "failures", "errors", "skipped"}:
            found += [] if one.get(name, "").isdigit() else [f"{name} is no count"]
        if one.get("time") is not None:
            float(one.get("time", ""))
        if one.get("timestamp"):
            datetime.fromisoformat(one.get("timestamp", ""))
    for suite in top.iter("testsuite"):
        counts = (len(suite), len(suite.findall("testcase/failure")), len(suite.findall("testcase/error")))
        for where in (suite, top):
            if tuple(int(where.get(name, "-1")) for name in ("tests", "failures", "errors")) != counts:
                found.append("the counts do not add up")
        times = [float(case.get("time", "0")) for case in suite]
        if times and abs(sum(times) - float(suite.get("time", "0"))) > 0.001 * len(times):
            found.append("the times do not add up")
    return found


_CASES = st.lists(
    st.builds(
        Case,
        st.text(),
        st.sampled_from(list(Verdict)),
        st.text(),
        st.text(),
        st.lists(st.text(), max_size=3).map(tuple),
    ),
    max_size=6,
)


@given(st.text(), _CASES, st.floats(0, 1e6))
def test_junit_holds_its_schema_whatever_is_told(name: str, cases: list[Case], seconds: float) -> None:
    assert junit_problems(junit(name, cases, seconds=seconds, timestamp="2026-03-03T09:00:00.25Z")) == []


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_comes_back_from_junit_as_itself(text: str, tmp_path: Path) -> None:
    place = tmp_path / "a.xml"
    place.write_text(junit(text, [Case(text, Verdict.FAIL, text)]), encoding="utf-8")
    case = ElementTree.parse(place).find("testsuite/testcase")
    assert case is not None
    failure = case.find("failure")
    assert failure is not None
    expected = re.sub(r"[\x00-\x08\x0b\x0c\x0d\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)
    assert (case.get("name"), case.get("classname"), failure.text) == (expected, expected, expected)
    assert failure.get("message") == f"FAIL: {expected}"


def test_the_check_of_the_schema_finds_what_is_wrong() -> None:
    good = junit("s", [Case("a", Verdict.FAIL, "b"), Case("c", Verdict.PASS, "d")], seconds=1)
    assert junit_problems(good) == []
    for old, new in (('tests="2"', 'tests="3"'), ('failures="1"', 'failures="7"'), ("<failure ", "<failure x='1' ")):
        assert junit_problems(good.replace(old, new))
    assert json.dumps(good)  # it is text that can be sent
