"""Figures for Prometheus: counts and durations by route template, never a name of a user, project or reference.

The text format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/
Several workers share one port, so each writes its figures to a file of the run directory, and whoever is asked adds up
those of all.
"""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper ends of the durations that are told apart, in seconds."""
FRESH_SECONDS = 1.0
"""How old the figures of another worker may be."""

_HELP = {
    "llmartifacts_requests_total": ("counter", "Requests answered, by method, route and status."),
    "llmartifacts_request_seconds": ("histogram", "Time from the first byte of a request to the last of its answer."),
    "llmartifacts_request_bytes_total": ("counter", "Bytes of bodies of requests."),
    "llmartifacts_response_bytes_total": ("counter", "Bytes of bodies of answers."),
    "llmartifacts_refused_total": ("counter", "Requests turned away before any work, by reason."),
    "llmartifacts_read_cache_total": ("counter", "Readings answered from memory, or computed."),
    "llmartifacts_in_progress": ("gauge", "Requests being answered."),
    "llmartifacts_workers": ("gauge", "Processes whose figures these are."),
    "llmartifacts_start_time_seconds": ("gauge", "When the oldest of them began, in seconds since 1970."),
}


class Metrics:
    """The figures of this process.

    Args:
        folder: Where the workers of one server leave theirs for each other; None for a single process.
        clock: The time in seconds since 1970.
    """

    def __init__(self, folder: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.started = clock()
        self.in_progress = 0
        self._clock = clock
        self._folder = folder
        self._written = 0.0
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._times: dict[str, list[float]] = {}

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add to a counter."""
        self._counts[_series(name, labels)] += amount

    def answered(self, method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Count one request."""
        counts = self._counts
        counts[f'llmartifacts_requests_total{{method="{method}",route="{route}",status="{status}"}}'] += 1
        counts["llmartifacts_request_bytes_total"] += received
        counts["llmartifacts_response_bytes_total"] += sent
        key = f'route="{route}"'
        times = self._times.get(key)
        if times is None:
            times = self._times[key] = [0.0] * (len(BUCKETS) + 2)
        times[bisect_left(BUCKETS, seconds)] += 1
        times[-1] += seconds

    def publish(self) -> None:
        """Leave this process's figures for the other workers, if it is time; called about once a second."""
        if self._folder is None or self._clock() - self._written < FRESH_SECONDS:
            return
        self._written = self._clock()
        aside = self._folder / f".{os.getpid()}.new"
        aside.write_text(json.dumps(self._plain()))
        aside.rename(self._folder / f"{os.getpid()}.json")

    def text(self) -> str:
        """The figures of all workers, added up, as Prometheus reads them."""
        every = [self._plain(), *self._others()]
        counts: defaultdict[str, int] = defaultdict(int)
        times: dict[str, list[float]] = {}
        for one in every:
            for key, value in one["counts"].items():
                counts[key] += value
            for key, values in one["times"].items():
                had = times.setdefault(key, [0.0] * len(values))
                times[key] = [a + b for a, b in zip(had, values, strict=True)]
        lines: dict[str, list[str]] = {name: [] for name in _HELP}
        for key in sorted(counts):
            lines[key.partition("{")[0]].append(f"{key} {counts[key]}")
        for key in sorted(times):
            lines["llmartifacts_request_seconds"] += _histogram(key, times[key])
        lines["llmartifacts_in_progress"] = [f"llmartifacts_in_progress {sum(o['in_progress'] for o in every)}"]
        lines["llmartifacts_workers"] = [f"llmartifacts_workers {len(every)}"]
        started = min(o["started"] for o in every)
        lines["llmartifacts_start_time_seconds"] = [f"llmartifacts_start_time_seconds {started:.3f}"]
        made = []
        for name, (kind, text) in _HELP.items():
            if lines[name]:
                made += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines[name]]
        return "\n".join(made) + "\n"

    def _plain(self) -> dict[str, Any]:
        return {
            "started": self.started,
            "in_progress": self.in_progress,
            "counts": dict(self._counts),
            "times": {key: list(values) for key, values in self._times.items()},
        }

    def _others(self) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        if self._folder is None:
            return made
        for path in sorted(self._folder.glob("*.json")):
            if path.stem != str(os.getpid()):
                try:
                    made.append(json.loads(path.read_bytes()))
                except (
                    OSError,
                    ValueError,
                ):  # it ended this moment; its figures are back with the next scrape, or gone
                    continue
        return made


def _series(name: str, labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{inner}}}" if inner else name


def _histogram(labels: str, values: list[float]) -> list[str]:
    total, lines = 0, []
    for end, count in zip((*map(str, BUCKETS), "+Inf"), values[:-1], strict=True):
        total += int(count)
        lines.append(f'llmartifacts_request_seconds_bucket{{{labels},le="{end}"}} {total}')
    lines.append(f"llmartifacts_request_seconds_sum{{{labels}}} {values[-1]:.6f}")
    lines.append(f"llmartifacts_request_seconds_count{{{labels}}} {total}")
    return lines
