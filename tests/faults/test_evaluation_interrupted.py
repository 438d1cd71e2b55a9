"""An evaluation that dies half-way goes on where it was, in a new process, and asks nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts.evals.evaluate import evaluate_logged
from llmartifacts.evals.outputs import FOLDER
from llmartifacts.kinds.eval_suite import EvalSuite

pytestmark = pytest.mark.slow

ITEMS = 40
RUN = """
import sys
import llmartifacts as la
from llmartifacts.evals.evaluate import evaluate_logged
with la.connect("registry") as registry:
    made = evaluate_logged(registry, "suite.yaml", "answerer:v1", cache=sys.argv[1] != "fresh")
    print(made.asked, made.reused, made.report.metric("equals").value, *made.remarks, sep="|")
"""
# It notes each call in a file before it answers, and is slow only while the file `slow` is there.
APP = """
import os, time
def answer(prompt, item):
    with open("calls.txt", "a") as calls:
        calls.write(item.id + "\\n")
    if os.path.exists("slow"):
        time.sleep(0.05)
    return prompt.format(question=item.input)
"""
SUITE = """
name: echo
dataset: questions
outputs: {runnable: "interrupted_app:answer"}
baseline: none
concurrency: 2
scorers: [equals]
thresholds: {equals: {at_least: 0.5, min_samples: 10}}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "interrupted_app.py").write_text(APP)
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "slow").touch()
    with la.init("registry") as registry:
        registry.log("answerer", la.Prompt("{{ question }}", template_format="jinja2"))
        rows = [{"id": f"q{i}", "input": f"echo {i}", "expected_output": f"echo {i}"} for i in range(ITEMS)]
        registry.log("questions", la.EvalDataset(rows))
    return tmp_path


def start(place: Path, how: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, how], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def calls(place: Path) -> Counter[str]:
    found = place / "calls.txt"
    return Counter(found.read_text().split()) if found.exists() else Counter()


def kept(place: Path) -> int:
    """Whole lines of the cache."""
    files = Path(os.environ["LLMARTIFACTS_CACHE"], FOLDER).rglob("*.jsonl*")
    return sum(p.read_bytes().count(b"\n") for p in files)


def end_half_way(place: Path, with_signal: int, how: str = "") -> int:
    """Let a child do some of the work, end it, and return how many outputs it left."""
    child = start(place, how)
    while kept(place) < 8:
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    child.send_signal(with_signal)
    child.communicate(timeout=60)
    assert child.returncode != 0
    (place / "slow").unlink()
    return kept(place)


@pytest.mark.parametrize(
    ("with_signal", "how"),
    [
        (signal.SIGKILL, ""),
        pytest.param(signal.SIGKILL, "fresh", marks=pytest.mark.matrix),
        pytest.param(signal.SIGINT, "", marks=pytest.mark.matrix),
        (signal.SIGINT, "fresh"),
    ],
)
def test_a_run_that_was_ended_half_way_goes_on_and_asks_no_finished_item_again(
    place: Path, with_signal: int, how: str
) -> None:
    left = end_half_way(place, with_signal, how)
    assert 8 <= left < ITEMS
    before = calls(place)
    child = start(place, how)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    asked, reused, value, *remarks = out.strip().split("|")
    assert (int(asked), int(reused), float(value)) == (ITEMS - left, left, 1.0)
    again = calls(place) - before
    # Two were under way when it was ended: they were asked, and had not answered.
    assert sum(again.values()) == ITEMS - left
    assert sum(before.values()) - left <= 2
    assert max(again.values()) == 1
    assert bool(remarks) == (how == "fresh")


def test_what_a_fresh_run_found_takes_the_place_of_what_was_known(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "slow").unlink()
    monkeypatch.syspath_prepend(place)
    suite = EvalSuite.from_file("suite.yaml")
    for fresh, asked in ((False, ITEMS), (False, 0), (True, ITEMS), (True, ITEMS), (False, 0)):
        with la.connect("registry") as registry:
            made = evaluate_logged(registry, suite, "answerer:v1", cache=not fresh)
        assert (made.asked, made.reused) == (asked, ITEMS - asked), fresh
    sys.modules.pop("interrupted_app")
    assert sum(calls(place).values()) == 3 * ITEMS


def test_two_processes_at_once_share_one_cache(place: Path) -> None:
    (place / "slow").unlink()
    ended = [child.communicate(timeout=60) for child in [start(place), start(place)]]
    assert [out.split("|")[2].strip() for out, _ in ended] == ["1.0", "1.0"], ended
    with la.connect("registry") as registry:
        made = evaluate_logged(registry, EvalSuite.from_file("suite.yaml"), "answerer:v1")
    assert (made.asked, made.reused) == (0, ITEMS)


def test_ctrl_c_on_the_command_line_ends_with_130_and_says_how_to_go_on(place: Path) -> None:
    line = [sys.executable, "-m", "llmartifacts", "--registry", "registry", "eval", "run", "suite.yaml"]
    line += ["--target", "answerer:v1"]
    child = subprocess.Popen(line, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while kept(place) < 8:
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "the same command goes on from there" in err
    assert "interrupted" in err
    left = kept(place)
    (place / "slow").unlink()
    again = subprocess.run(line, cwd=place, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0, again.stderr
    assert f"{ITEMS - left} outputs made, {left} known already" in again.stdout


def test_a_run_that_hangs_for_ever_still_ends_its_process(place: Path) -> None:
    """Threads that hang are left behind, and do not keep the process alive."""
    (place / "interrupted_app.py").write_text(
        "import threading\ndef answer(prompt, item):\n"
        "    if item.id == 'q3':\n        threading.Event().wait()\n    return item.input\n"
    )
    (place / "suite.yaml").write_text(SUITE + "timeout: 0.5\n")
    out, err = start(place).communicate(timeout=60)
    assert out.startswith(f"{ITEMS}|0|1.0"), (out, err)
