"""`python -m benchmarks`: measure, and print one table. Nothing here asserts a time."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import (
    audit,
    gate_statistics,
    index_start,
    large_file,
    logging_rate,
    moving,
    object_store,
    prompts,
    resolving,
    scale,
    server_moves,
    server_refusals,
    server_resolve,
    server_scale,
    server_starts,
    server_transfer,
    service_start,
    startup,
    storage,
    swapping,
    table,
    verifying,
    watching,
    writers,
)
from benchmarks.measure import Absent, Bench, Line, Subject

SUBJECTS: dict[str, Subject] = {
    module.SUBJECT.name: module.SUBJECT
    for module in (
        startup,
        resolving,
        prompts,
        logging_rate,
        large_file,
        writers,
        moving,
        scale,
        verifying,
        service_start,
        watching,
        swapping,
        index_start,
        storage,
        object_store,
        gate_statistics,
        audit,
        server_resolve,
        server_starts,
        server_scale,
        server_moves,
        server_refusals,
        server_transfer,
    )
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    listed = "\n".join(f"  {s.name:14} {s.about}\n  {'':14} beside {s.floor}" for s in SUBJECTS.values())
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure what the design has budgets for, each beside its floor in the same run.",
        epilog=f"subjects:\n{listed}\n\nIt works in a new folder below $TMPDIR: that file system is measured.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("names", nargs="*", metavar="NAME", help="subjects; without any, all of them")
    made.add_argument(
        "--scale",
        choices=("small", "full"),
        default="small",
        help="small: about a minute; full: a million versions, a 768 MB index, 20 GB of disk, half an hour",
    )
    made.add_argument("--runs", type=int, default=3, help="how often each figure is taken (default 3)")
    made.add_argument(
        "--peers",
        action="store_true",
        help="storage, server_resolve, service_start: others too; pip installs some, in a venv",
    )
    made.add_argument("--peers-in", type=Path, metavar="FOLDER", help="that venv (default: in the user's cache folder)")
    made.add_argument("--inputs", type=Path, metavar="FOLDER", help="storage: keep the FAISS files there, to use again")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every sample there too")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns 0 whatever the figures are, and 1 if something could not be measured."""
    commands = parser()
    given = commands.parse_args(arguments)
    unknown = [name for name in given.names if name not in SUBJECTS]
    if unknown:
        commands.error(f"there is no subject {unknown[0]!r}; there are: {', '.join(SUBJECTS)}")
    if given.runs < 1:
        commands.error("--runs is at least 1")
    chosen = [SUBJECTS[name] for name in dict.fromkeys(given.names or SUBJECTS)]
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="llmartifacts-benchmarks-") as folder:
        machine = table.facts(Path(folder))
        for name, told in machine.items():
            print(f"{name + ':':13}{told}")
        print(f"{'scale:':13}{given.scale}, {given.runs} run{'s' * (given.runs != 1)} of each figure\n")
        print(*table.header(), sep="\n", flush=True)
        bench = Bench(Path(folder), given.scale, given.runs, _say, given.peers, given.peers_in, given.inputs)
        measured: dict[str, list[Line | Absent]] = {subject.name: [] for subject in chosen}
        failed: dict[str, str] = {}
        for subject in chosen:
            try:
                for text in table.group(subject, _kept(subject.measure(bench), measured[subject.name])):
                    print(text, flush=True)
            except Exception as error:  # noqa: BLE001 - one that cannot be measured does not stop the others
                failed[subject.name] = f"{type(error).__name__}: {error}"
                print(*table.failure(failed[subject.name]), sep="\n", flush=True)
        machine["load"] += f", {os.getloadavg()[0]:.1f} when it ended"
    print(table.LEGEND.rstrip())
    print(f"\nload: {machine['load']}")
    _say(f"{time.perf_counter() - begin:.0f} s in all")
    if given.json:
        document = {
            "machine": machine,
            "scale": given.scale,
            "subjects": {name: _plain(lines) for name, lines in measured.items()},
            "failed": failed,
        }
        given.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if failed else 0


def _kept(lines: Iterator[Line | Absent], into: list[Line | Absent]) -> Iterator[Line | Absent]:
    for line in lines:
        into.append(line)
        yield line


def _plain(lines: Sequence[Line | Absent]) -> list[dict[str, Any]]:
    return [
        {
            "name": line.name,
            "ours": asdict(line.ours),
            "floor": asdict(line.floor),
            "floor_is": line.beside,
            "ratio": line.ratio,
            "budget": line.budget.text if line.budget else None,
            "met": line.met,
            "note": line.note,
        }
        if isinstance(line, Line)
        else {"name": line.name, "absent": line.why}
        for line in lines
    ]


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
