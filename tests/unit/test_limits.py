"""Code of others ends as an error, whatever it does, and the next call finds a working process."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmartifacts.errors import InvalidValue
from llmartifacts.limits import MAX_FILE, MAX_FILES, MAX_MESSAGE, Outcome, Worker, Workers, check_function, run_limited

EVIL = """
import ctypes, os, resource, signal, subprocess, sys, threading, time

def echo(*values, **named): return [list(values), named]
def pid(_=None): return os.getpid()
def loop(_):
    while True: pass
def sleep(seconds): time.sleep(seconds); return "slept"
def allocate(count): return len(bytearray(count))
def leave(code): os._exit(code)
def ends(code): sys.exit(code)
def segfault(_): ctypes.string_at(0)
def killed(_): os.kill(os.getpid(), signal.SIGKILL)
def huge(count): return "x" * count
def prints(text):
    print(text, flush=True); sys.stderr.write(text); os.write(1, text.encode()); os.write(2, text.encode())
    subprocess.run(["echo", text], check=False)
    return sys.stdin.read()
def raises(text): raise ValueError(text)
def deep(_): return deep(_)
def nested(count):
    made = []
    for _ in range(count): made = [made]
    return made
def is_set(_): return {1}
def nan(_): return float("nan")
def big(_): return 2**60
def surrogate(_): return "\\udc80"
def environment(_): return dict(os.environ)
def here(_): return os.getcwd()
def limits(_):
    names = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_CPU")
    return {name: resource.getrlimit(getattr(resource, name))[0] for name in names}
def writes(place):
    with open(place, "wb") as out: out.truncate(10**10)
def opens(count): return [open(os.devnull) for _ in range(count)][0].fileno()
def forks(place):
    children = [os.fork() for _ in range(3)]
    with open(place, "a") as out: out.write(f"{os.getpid()}\\n")
    time.sleep(60)
def leaves_a_child(place):
    child = subprocess.Popen(["sleep", "60"])
    with open(place, "w") as out: out.write(str(child.pid))
    return child.pid
def forges(_):
    for handle in range(3, 20):
        try: os.write(handle, (2).to_bytes(8, "big") + b"{}")
        except OSError: pass
    return "mine"
def closes(_):
    os.closerange(0, 30)
    return 1
def number(_):
    class Scalar:
        ndim = 0
        def item(self): return 0.5
    return Scalar()
not_a_function = 3
"""


@pytest.fixture(autouse=True)
def _evil(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "broken.py").write_text("raise RuntimeError('not today')")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def worker():
    with Worker(seconds=2, memory_bytes=500_000_000) as made:
        yield made


def test_a_function_gets_its_arguments_and_gives_json(worker):
    assert worker.call("evil:echo", 1, [None, "größe"], keywords={"a": {"b": 1.5}}) == Outcome(
        [[1, [None, "größe"]], {"a": {"b": 1.5}}]
    )
    assert run_limited("evil:echo", {"n": 1}).value == [[{"n": 1}], {}]
    assert worker.call("evil:number", None).value == 0.5


def test_one_process_serves_many_calls(worker):
    assert len({worker.call("evil:pid").value for _ in range(50)} | {worker.call("os:getpid").value}) == 1


@pytest.mark.parametrize(
    ("function", "argument", "error", "told"),
    [
        ("evil:loop", 1, "timeout", "longer than 0.5 s"),
        ("evil:sleep", 60, "timeout", "longer than 0.5 s"),
        ("evil:allocate", 10 * 10**9, "memory", "more than 500 MB"),
        ("evil:leave", 3, "crash", "ended with code 3"),
        ("evil:leave", 0, "crash", "ended with code 0"),
        ("evil:segfault", 1, "crash", "SIGSEGV"),
        ("evil:killed", 1, "crash", "SIGKILL"),
        ("evil:ends", 3, "exception", "SystemExit: 3"),
        ("evil:raises", "no\n\x1b[2Jscore", "exception", "ValueError: no \\x1b[2Jscore"),
        ("evil:deep", 1, "exception", "RecursionError"),
        ("evil:huge", 5_000_000, "exception", "1,048,576 are allowed"),
        ("evil:is_set", 1, "exception", "set, which is no JSON"),
        ("evil:nan", 1, "exception", "not JSON compliant"),
        ("evil:big", 1, "exception", "beyond 2^53-1"),
        ("evil:nested", 90, "exception", "nested deeper"),
        ("evil:surrogate", 1, "exception", "surrogate"),
        ("evil:writes", "big.bin", "exception", "OSError"),
        ("evil:opens", 1000, "exception", "Too many open files"),
        ("evil:no_such", 1, "exception", "no attribute 'no_such'"),
        ("evil:not_a_function", 1, "exception", "not a function"),
        ("no_such_module_here:f", 1, "exception", "No module named"),
        ("broken:f", 1, "exception", "not today"),
        ("evil:echo.nothing", 1, "exception", "AttributeError"),
    ],
)
def test_whatever_it_does_ends_as_an_error_and_the_next_call_works(function, argument, error, told):
    with Worker(seconds=0.5, memory_bytes=500_000_000) as worker:
        found = worker.call(function, argument)
        assert (found.value, found.error) == (None, error)
        assert told in found.message
        assert found.message.isprintable()
        assert len(found.message) <= MAX_MESSAGE
        assert worker.call("evil:echo", 1).value == [[1], {}]


def test_what_is_printed_does_not_reach_the_answers(worker, capfd):
    assert worker.call("evil:prints", '{"value": 1}') == Outcome("")
    assert worker.call("evil:echo", 1).value == [[1], {}]
    assert capfd.readouterr() == ("", "")


def test_an_answer_that_the_function_wrote_itself_is_none(worker):
    assert worker.call("evil:forges", 1).error == "crash"
    assert worker.call("evil:echo", 1).value == [[1], {}]


def test_a_process_that_closes_its_pipes_has_crashed(worker):
    assert worker.call("evil:closes", 1).error == "crash"
    assert worker.call("evil:echo", 1).value == [[1], {}]


def test_a_module_that_cannot_be_imported_is_tried_once(worker, tmp_path):
    (tmp_path / "slow_to_fail.py").write_text("open('tried', 'a').write('x')\nraise RuntimeError('no')")
    found = [worker.call("slow_to_fail:f") for _ in range(5)]
    assert {f.message for f in found} == {"RuntimeError: no"}
    assert (tmp_path / "tried").read_text() == "x"


def test_every_process_of_the_group_ends_with_it(tmp_path):
    place = tmp_path / "pids"
    with Worker(seconds=0.7) as worker:
        assert worker.call("evil:forks", str(place)).error == "timeout"
    pids = [int(line) for line in place.read_text().split()]
    assert len(pids) > 1
    assert not [pid for pid in pids if runs(pid)]


def test_a_child_that_was_left_behind_ends_when_the_worker_is_closed(tmp_path):
    with Worker() as worker:
        child = worker.call("evil:leaves_a_child", str(tmp_path / "pid")).value
        assert runs(child)
    assert not runs(child)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie, which a container without an init keeps."""
    for _ in range(50):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except (ProcessLookupError, FileNotFoundError):
            return False
        time.sleep(0.01)
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="other systems lack some of the limits")
def test_the_process_has_its_limits(worker):
    found = worker.call("evil:limits", None).value
    assert found["RLIMIT_AS"] == 500_000_000
    assert found["RLIMIT_CORE"] == 0
    assert found["RLIMIT_NOFILE"] == MAX_FILES
    assert found["RLIMIT_FSIZE"] == MAX_FILE
    # A fork bomb ends here; the system does not hold the superuser to it.
    assert 0 < found["RLIMIT_NPROC"] < 1_000_000
    assert 0 < found["RLIMIT_CPU"] < 1000


def test_secrets_of_the_environment_stay_behind(worker, monkeypatch, tmp_path):
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "LLMARTIFACTS_TOKEN", "DATABASE_PASSWORD", "PYTHONTOKEN"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("WHATEVER", "hush")
    monkeypatch.setenv("HF_HOME", "/models")
    found = worker.call("evil:environment", None).value
    assert "hush" not in found.values()
    assert found["HF_HOME"] == "/models"
    assert found["PATH"] == os.environ["PATH"]
    assert worker.call("evil:here", None).value == str(tmp_path)


def test_a_module_is_found_where_the_parent_finds_it(worker, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "there.py").write_text("def f(x): return x + 1")
    assert worker.call("there:f", 1).error == "exception"
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    assert run_limited("there:f", 1).value == 2


def test_threads_get_processes_of_their_own_and_give_them_back():
    with Workers(seconds=5) as workers, ThreadPoolExecutor(3) as threads:
        meet = threading.Barrier(3)

        def both(_):
            meet.wait()
            return workers.call("evil:sleep", 0.2).value, workers.call("evil:pid").value

        first, pids = zip(*threads.map(both, range(3)), strict=True)
        assert set(first) == {"slept"}
        again = {workers.call("evil:pid").value for _ in range(5)}
        assert len(again) == 1
        assert again <= set(pids)


def test_a_worker_that_nobody_holds_leaves_no_process():
    worker = Worker()
    pid = worker.call("evil:pid").value
    assert runs(pid)
    del worker
    gc.collect()
    assert not runs(pid)


def test_a_closed_worker_starts_again(worker):
    first = worker.call("evil:pid").value
    worker.close()
    worker.close()
    assert worker.call("evil:pid").value != first


def test_an_interrupted_call_leaves_no_process(tmp_path):
    code = (
        "import os, signal, sys, threading, json\n"
        "from llmartifacts.limits import Worker\n"
        "w = Worker(seconds=60)\n"
        "pid = w.call('evil:pid').value\n"
        "threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "try: w.call('evil:sleep', 60)\n"
        "except KeyboardInterrupt: print(json.dumps([pid, w.call('evil:echo', 1).value]))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    pid, after = json.loads(ran.stdout)
    assert after == [[1], {}]
    assert not runs(pid)


def test_a_child_whose_parent_is_gone_ends_by_itself(tmp_path):
    code = (
        "import os, signal, threading\n"
        "from llmartifacts.limits import Worker\n"
        "w = Worker(seconds=60)\n"
        "print(w.call('evil:pid').value, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == -signal.SIGKILL
    assert not runs(int(ran.stdout))


def test_a_fork_of_the_parent_does_not_end_its_process():
    code = (
        "import os\n"
        "from llmartifacts.limits import Worker\n"
        "w = Worker()\n"
        "pid = w.call('evil:pid').value\n"
        "fork = os.fork()\n"
        "if not fork: raise SystemExit\n"  # which runs what is left to do at exit
        "os.waitpid(fork, 0)\n"
        "print(w.call('evil:pid').value == pid)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "True\n"


@pytest.mark.parametrize("name", ["", "f", "a:", ":f", "a.b", "a:f()", "a b:f", "a:f\n", "../a:f", "a::f", 3, None])
def test_what_is_no_name_of_a_function_is_refused(name):
    with pytest.raises(InvalidValue) as caught:
        check_function(name)
    assert caught.value.field == "function"


@pytest.mark.parametrize("payload", [object(), float("nan"), {1: 2}, "\udc80", 2**60])
def test_a_payload_that_is_no_json_is_refused(payload):
    with pytest.raises(InvalidValue):
        run_limited("math:sqrt", payload)


@pytest.mark.parametrize(
    "limits", [{"seconds": 0}, {"seconds": 1e9}, {"seconds": float("nan")}, {"memory_bytes": 0}, {"max_output": 0}]
)
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(InvalidValue):
        Worker(**limits)
