"""Figures as Prometheus reads them."""

from __future__ import annotations

import re
from pathlib import Path

from llmartifacts.server import metrics as module
from llmartifacts.server.metrics import BUCKETS, Metrics

LINE = re.compile(r'[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? [0-9.]+')


def test_every_line_is_of_the_format_and_buckets_grow() -> None:
    metrics = Metrics()
    for seconds in (0.0001, 0.003, 0.3, 100.0):
        metrics.answered("GET", "/a/{b}", 200, seconds, 1, 2)
    metrics.count("llmartifacts_refused_total", reason="host")
    lines = metrics.text().splitlines()
    assert all(LINE.fullmatch(line) for line in lines if not line.startswith("#"))
    buckets = [int(line.rpartition(" ")[2]) for line in lines if "_bucket{" in line]
    assert len(buckets) == len(BUCKETS) + 1
    assert buckets == sorted(buckets)
    assert buckets[-1] == 4
    assert 'llmartifacts_requests_total{method="GET",route="/a/{b}",status="200"} 4' in lines
    assert 'llmartifacts_request_seconds_count{route="/a/{b}"} 4' in lines
    assert "llmartifacts_response_bytes_total 8" in lines


def test_the_figures_of_other_processes_are_added(tmp_path: Path, monkeypatch: object) -> None:
    mine, other = Metrics(tmp_path), Metrics(tmp_path)
    for one in (mine, other):
        one.answered("GET", "/x", 200, 0.01, 0, 0)
    other.publish()
    (tmp_path / next(tmp_path.glob("*.json")).name).rename(tmp_path / "1.json")
    (tmp_path / "2.json").write_text("half a file")
    text = mine.text()
    assert 'route="/x",status="200"} 2' in text
    assert "llmartifacts_workers 2" in text


def test_figures_are_left_for_others_once_a_second(tmp_path: Path) -> None:
    now = [100.0]
    metrics = Metrics(tmp_path, clock=lambda: now[0])
    metrics.publish()
    file = next(tmp_path.glob("*.json"))
    file.unlink()
    metrics.publish()
    assert not file.exists()
    now[0] += module.FRESH_SECONDS
    metrics.publish()
    assert file.exists()
