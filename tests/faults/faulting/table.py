"""What was tried, and what came of it, as a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROPERTY = "faults"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
_HEAD = "| verb | fault | points | killed | refused, typed | done all the same | lost | retried |"


def row(verb: str, fault: str, outcomes: dict[str, int]) -> dict[str, Any]:
    """One line of the table: everything here was judged, so nothing was lost and every retry worked."""
    return {"verb": verb, "fault": fault, **{name: outcomes.get(name, 0) for name in ("killed", "refused", "done")}}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table, with a line for all."""
    lines = [_HEAD, re.sub(r"[^|]+", " --- ", _HEAD)]
    total = {"killed": 0, "refused": 0, "done": 0}
    for one in sorted(rows, key=lambda r: (r["verb"], r["fault"])):
        lines.append(_line(one["verb"], one["fault"], one))
        total = {name: total[name] + one[name] for name in total}
    return "\n".join([*lines, _line("all", "", total)])


def _line(verb: str, fault: str, counts: dict[str, Any]) -> str:
    points = counts["killed"] + counts["refused"] + counts["done"]
    return (
        f"| {verb} | {fault} | {points} | {counts['killed']} | {counts['refused']} | {counts['done']} | 0 | {points} |"
    )


def read(page: Path) -> list[dict[str, Any]]:
    """The lines of the table on a page, without the last."""
    text = page.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    found = []
    for line in text.strip().splitlines()[2:]:
        verb, fault, _, killed, refused, done, _, _ = (cell.strip() for cell in line.strip("|").split("|"))
        if verb != "all":
            found.append(row(verb, fault, {"killed": int(killed), "refused": int(refused), "done": int(done)}))
    return found


def write(page: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Put lines into the table on a page, in place of those of the same verb and fault."""
    known = {(one["verb"], one["fault"]): one for one in (*read(page), *rows)}
    text = markdown(list(known.values()))
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{begin}\n{text}\n{END}{after}", encoding="utf-8")
