"""An evaluation for others to read: JUnit XML for a build's test page, Markdown for a pull request. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree  # written here, never read

from llmartifacts.evals.shorten import number
from llmartifacts.kinds.report import Metric, Report
from llmartifacts.records.policy import Verdict, all_of

MAX_MARKDOWN = 60_000
"""Characters of a summary: a comment on a pull request takes 65,536. Details beyond that are left out."""
_MAX_CELL = 1_000
_SPECIAL = re.compile(r"[\\`*_\[\]<>|~#&]")
"""What Markdown and HTML see more in than a character, wherever it stands."""
_FIRST = re.compile(r"^(?:[-+=]|\d{1,9}(?=[.)]))")
"""What begins a list or underlines a heading, at the beginning of a line."""
_NOTIFIES = re.compile(
    r"(?<![a-z0-9])@(?=\S)|&#35;(?=\d)|\bGH-(?=\d)|:(?=//)|:(?:[a-z0-9+-]|&#95;)+(?=:)|\bwww(?=\.)",
    re.IGNORECASE | re.ASCII,
)
"""What a forge makes more of in plain text: a mention that notifies somebody, an issue, a link, a picture."""
_BREAK = "\u200b"
"""A space of no width, which no such thing survives."""
_BIDI = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction of the text that follows."""


@dataclass(frozen=True, slots=True)
class Case:
    """One condition and what it came to: a threshold of a suite, or a gate of a policy.

    Attributes:
        name: Such as `recall@5: margin 0.05`.
        verdict: The verdict.
        message: Why, in one line.
        next_step: What would change it; empty if nothing has to.
        details: Further lines, such as the items that failed.
    """

    name: str
    verdict: Verdict
    message: str
    next_step: str = ""
    details: tuple[str, ...] = ()


def junit(name: str, cases: Sequence[Case], *, seconds: float = 0.0, timestamp: str = "") -> str:
    """JUnit XML: one test case for each condition. FAIL is a failure; INCONCLUSIVE, ERROR and TAMPERED are errors.

    Args:
        name: Of the test suite, such as `support-retrieval on support-kb:v5`.
        cases: The conditions.
        seconds: How long it took.
        timestamp: When it began, ISO 8601.

    Example:
        >>> print(junit("s", [Case("recall@5: margin 0.05", Verdict.PASS, "fine")]).splitlines()[0])
        <?xml version="1.0" encoding="UTF-8"?>
    """
    failures = sum(case.verdict is Verdict.FAIL for case in cases)
    errors = sum(case.verdict not in (Verdict.PASS, Verdict.FAIL) for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": str(errors), "time": f"{seconds:.3f}"}
    top = ElementTree.Element("testsuites", {"name": "llmartifacts", **counts})
    about = {"name": _xml(name), **counts, "skipped": "0"}
    if timestamp:
        about["timestamp"] = _xml(timestamp)
    suite = ElementTree.SubElement(top, "testsuite", about)
    for case in cases:
        # They are asked together: the time of all is shared out, so that readers who add it up are right.
        known = {"classname": _xml(name), "name": _xml(case.name), "time": f"{seconds / len(cases):.3f}"}
        one = ElementTree.SubElement(suite, "testcase", known)
        body = "\n".join([case.message, *filter(None, [case.next_step]), *case.details])
        if case.verdict is Verdict.PASS:
            ElementTree.SubElement(one, "system-out").text = _xml(case.message)
            continue
        word = "failure" if case.verdict is Verdict.FAIL else "error"
        told = {"type": str(case.verdict.value), "message": _xml(f"{case.verdict.value}: {case.message}")}
        ElementTree.SubElement(one, word, told).text = _xml(body)
    ElementTree.indent(top)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(top, encoding="unicode")}\n'


def markdown(
    title: str,
    cases: Sequence[Case],
    *,
    report: Report | None = None,
    about: Iterable[tuple[str, str]] = (),
    remarks: Iterable[str] = (),
) -> str:
    """A summary for a pull request: the verdict first, then a table, then what to do and which items failed.

    Args:
        title: Heading, such as `support-retrieval on support-kb:v5`.
        cases: The conditions.
        report: The report, for its metrics.
        about: Names and values, such as the dataset and the baseline.
        remarks: What somebody should know besides.
    """
    verdict = all_of([case.verdict for case in cases]).value if cases else "measured"
    lines = [f"### {_mark(verdict)} {verdict}: {_md(title)}", ""]
    if report is not None:
        lines += ["| metric | value | 90 % interval | n | against the baseline |", "| --- | --: | --- | --: | --- |"]
        lines += [_metric(m) for m in report.metrics]
        lines.append("")
    if cases:
        lines += ["| verdict | condition | why |", "| --- | --- | --- |"]
        for case in cases:
            told = " ".join(filter(None, [_sentence(case.message), case.next_step]))
            lines.append(f"| {_mark(case.verdict.value)} {case.verdict.value} | {_md(case.name)} | {_md(told)} |")
        lines.append("")
    end = [f"- {_line(name)}: {_md(value)}" for name, value in about if value]
    end += [f"- {_line(remark)}" for remark in remarks]
    room = MAX_MARKDOWN - sum(len(line) + 1 for line in (*lines, *end))
    return "\n".join([*lines, *_details(cases, room), *end]).rstrip() + "\n"


def _metric(m: Metric) -> str:
    """One row of the table of metrics."""
    interval = "" if m.value is None else f"{number(m.lower)} to {number(m.upper)}"
    value = "not measured" if m.value is None else number(m.value)
    by = m.comparison
    against = "" if by is None else f"{by.delta:+.3f} ({by.lower:+.3f} to {by.upper:+.3f})"
    errors = f" ({m.errors} errors)" if m.errors else ""
    return f"| {_md(m.name)} | {value}{errors} | {interval} | {m.n} | {against} |"


def _details(cases: Sequence[Case], room: int) -> Iterator[str]:
    """What goes with the cases that did not pass, folded, as long as there is room."""
    left_out = 0
    for case in cases:
        if not case.details or case.verdict is Verdict.PASS:
            continue
        block = [f"<details><summary>{_md(f'{case.name}: details')}</summary>", ""]
        block += [f"- {_line(line)}" for line in case.details]
        block += ["", "</details>", ""]
        room -= sum(len(line) + 1 for line in block)
        if room < 0:
            left_out += 1
        else:
            yield from block
    if left_out:
        yield f"- details of {left_out} more are left out here; the JUnit file has them"


def _sentence(text: str) -> str:
    """A text with a full stop, unless it ends with a mark already."""
    plain = text.rstrip()
    return plain if not plain or plain[-1] in ".!?:…" else f"{plain}."


def _mark(verdict: str) -> str:
    return {"PASS": "✅", "FAIL": "❌", "measured": "ℹ️"}.get(verdict, "⚠️")


def _md(text: str) -> str:
    """Foreign text that stays text, in a table of Markdown and inside HTML alike, and notifies nobody.

    Entities, not backslashes: within HTML a backslash is one, and an entity never begins anything.
    """
    plain = " ".join("".join(map(_visible, str(text))).split())
    plain = plain if len(plain) <= _MAX_CELL else f"{plain[: _MAX_CELL - 1]}…"
    escaped = _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", plain)
    broken = _NOTIFIES.sub(lambda found: f"{found[0]}{_BREAK}", escaped)
    return broken.replace("$", "<span>$</span>")  # between two of them would be a formula


def _line(text: str) -> str:
    """Foreign text as the whole of a list's item."""
    return _FIRST.sub(lambda found: _md_first(found[0]), _md(text))


def _md_first(begin: str) -> str:
    return f"{begin}{_BREAK}" if begin.isdigit() else f"&#{ord(begin)};"


def _visible(char: str) -> str:
    """A character, unless it is none that can be seen or stored: a control, half of a surrogate pair."""
    if char.isspace():
        return " "
    return "\ufffd" if char in _BIDI or unicodedata.category(char) in ("Cc", "Cs") else char


def _xml(text: str) -> str:
    """Text without what XML 1.0 cannot hold."""
    return "".join(
        c if c in "\t\n" or 0x20 <= ord(c) < 0xD800 or 0xE000 <= ord(c) < 0xFFFE or ord(c) >= 0x10000 else "\ufffd"
        for c in text
    )
