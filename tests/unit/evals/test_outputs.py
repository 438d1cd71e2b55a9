"""The cache of outputs: what is in it is what was put in it, whatever happened to the file."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.evals import outputs
from llmartifacts.evals.outputs import OutputCache, key_of
from llmartifacts.evals.scorers.base import Answer

ABOUT = {"target": "sha256:" + "0" * 64, "maker": {"runnable": "app:f"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e6, 1e6) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def cache(root: Path, **more: object) -> OutputCache:
    return OutputCache(ABOUT, root=root, **more)  # type: ignore[arg-type]


def filled(root: Path, n: int = 5) -> OutputCache:
    made = cache(root)
    for i in range(n):
        made.put(key_of(b"%d" % i, 0, 0), f"q{i}", 0, Answer(f"answer {i}", 0.5))
    return made


def known(root: Path, n: int = 5) -> list[object]:
    found = cache(root)
    return [(a.output if (a := found.get(key_of(b"%d" % i, 0, 0))) else None) for i in range(n)]


@given(st.lists(st.tuples(st.binary(max_size=20), JSON, st.floats(0, 100)), max_size=8))
@settings(max_examples=30)
def test_outputs_come_back_as_they_were_put(tmp_path_factory: pytest.TempPathFactory, entries: list[object]) -> None:
    root = tmp_path_factory.mktemp("root")
    made, expected = cache(root), {}
    for line, output, seconds in entries:  # type: ignore[misc]
        key = key_of(line, 0, 0)
        made.put(key, "q", 0, Answer(output, seconds))
        expected[key] = Answer(output, seconds)
    again = cache(root)
    assert len(again) == len(expected)
    for key, answer in expected.items():
        assert again.get(key) == answer


def test_an_error_is_not_kept(tmp_path: Path) -> None:
    made = cache(tmp_path)
    made.put("k", "q", 0, Answer(error="no"))
    assert made.get("k") is None
    assert cache(tmp_path).get("k") is None


def test_what_is_no_json_is_not_kept(tmp_path: Path) -> None:
    made = cache(tmp_path)
    made.put("k", "q", 0, Answer(float("nan")))
    made.put("l", "q", 0, Answer(object()))
    assert len(cache(tmp_path)) == 0


def test_item_seed_and_repeat_are_told_apart_and_so_are_targets_and_makers(tmp_path: Path) -> None:
    keys = {key_of(line, seed, repeat) for line in (b"a", b"b") for seed in (0, 1) for repeat in (0, 1)}
    assert len(keys) == 8
    filled(tmp_path)
    other = OutputCache({**ABOUT, "target": "sha256:" + "1" * 64}, root=tmp_path)
    assert len(other) == 0
    assert len(OutputCache({**ABOUT, "maker": {"runnable": "app:g"}}, root=tmp_path)) == 0


def test_a_torn_last_line_costs_its_own_output_only_and_what_comes_later_is_kept(tmp_path: Path) -> None:
    made = filled(tmp_path)
    made.path.write_bytes(made.path.read_bytes()[:-20])
    assert known(tmp_path) == ["answer 0", "answer 1", "answer 2", "answer 3", None]
    cache(tmp_path).put(key_of(b"4", 0, 0), "q4", 0, Answer("again"))
    assert known(tmp_path) == ["answer 0", "answer 1", "answer 2", "answer 3", "again"]


def test_a_line_that_was_edited_is_dropped(tmp_path: Path) -> None:
    made = filled(tmp_path)
    made.path.write_bytes(made.path.read_bytes().replace(b"answer 2", b"better 2"))
    assert known(tmp_path) == ["answer 0", "answer 1", None, "answer 3", "answer 4"]


@pytest.mark.parametrize(
    "junk", [b"{}\n", b"null\n", b"[1,2]\n", b"\xff\xfe\n", b"{" * 1000 + b"\n", b'{"key":1,"key":2}\n', b"\n\n"]
)
def test_lines_that_are_no_outputs_are_nothing(tmp_path: Path, junk: bytes) -> None:
    made = filled(tmp_path)
    made.path.write_bytes(junk + made.path.read_bytes() + junk)
    assert known(tmp_path) == [f"answer {i}" for i in range(5)]


def test_a_line_without_an_end_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "MAX_LINE", 1000)
    made = filled(tmp_path)
    made.path.write_bytes(b"x" * 5000 + b"\n" + made.path.read_bytes())
    assert known(tmp_path)[0] == "answer 0"
    made.put("large", "q", 0, Answer("y" * 2000))  # would be passed over too, so it is not written
    assert b"yyy" not in made.path.read_bytes()


def test_of_two_outputs_with_one_key_the_later_counts(tmp_path: Path) -> None:
    made = cache(tmp_path)
    made.put("k", "q", 0, Answer("first"))
    made.put("k", "q", 0, Answer("second"))
    found = cache(tmp_path).get("k")
    assert found is not None
    assert found.output == "second"


def test_outputs_are_for_their_user_only(tmp_path: Path) -> None:
    made = filled(tmp_path / "cache")
    for place in (made.path, made.path.parent, made.path.parent.parent):
        assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    made = cache(tmp_path)
    made.path.parent.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    made.path.symlink_to(victim)
    made.put("k", "q", 0, Answer("x"))
    assert victim.read_text() == "mine\n"
    assert "not kept" in made.problem
    assert made.get("k") is not None  # the evaluation goes on


def test_where_nothing_can_be_written_the_run_goes_on_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file in the way")
    made = cache(tmp_path)
    made.put("k", "q", 0, Answer("x"))
    assert made.get("k") == Answer("x")
    assert "not kept" in made.problem


def test_threads_lose_nothing(tmp_path: Path) -> None:
    made = cache(tmp_path)

    def work(thread: int) -> None:
        for i in range(50):
            made.put(f"{thread}.{i}", "q", 0, Answer([thread, i]))

    threads = [threading.Thread(target=work, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache(tmp_path)) == 200


# --- a fresh run


def test_a_fresh_run_takes_nothing_from_the_cache_until_it_ended(tmp_path: Path) -> None:
    filled(tmp_path)
    fresh = cache(tmp_path, fresh=True)
    assert len(fresh) == 0
    fresh.put(key_of(b"0", 0, 0), "q0", 0, Answer("new"))
    assert known(tmp_path)[0] == "answer 0"
    fresh.done()
    fresh.close()
    assert known(tmp_path) == ["new", "answer 1", "answer 2", "answer 3", "answer 4"]
    assert [p.name for p in fresh.path.parent.iterdir()] == [fresh.path.name]


def test_a_fresh_run_that_was_interrupted_is_gone_on_with_by_the_next_one(tmp_path: Path) -> None:
    first = cache(tmp_path, fresh=True)
    first.put("k", "q", 0, Answer("x"))
    first.close()
    second = cache(tmp_path, fresh=True)
    assert (len(second), second.resumed) == (1, 1)
    second.done()
    second.close()
    third = cache(tmp_path, fresh=True)
    assert (len(third), third.resumed) == (0, 0)
    third.close()


def test_an_interrupted_fresh_run_of_yesterday_is_begun_anew(tmp_path: Path) -> None:
    first = cache(tmp_path, fresh=True)
    first.put("k", "q", 0, Answer("x"))
    first.close()
    (journal,) = first.path.parent.glob("*.run.jsonl")
    long_ago = time.time() - outputs.RESUMED_FOR - 60
    os.utime(journal, (long_ago, long_ago))
    second = cache(tmp_path, fresh=True)
    assert len(second) == 0
    second.close()


def test_two_fresh_runs_at_once_do_not_mix(tmp_path: Path) -> None:
    first = cache(tmp_path, fresh=True)
    first.put("k", "q", 0, Answer("first"))
    second = cache(tmp_path, fresh=True)  # as another process would: the lock belongs to the open file
    assert len(second) == 0
    second.put("k", "q", 0, Answer("second"))
    assert first.get("k") == Answer("first")
    for one in (first, second):
        one.done()
        one.close()
    assert [json.loads(line)["output"] for line in first.path.read_text().splitlines()] == ["first", "second"]
