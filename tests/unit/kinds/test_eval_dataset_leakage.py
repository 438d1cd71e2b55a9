"""Test items in training sets: what counts as a leak, and what does not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue, NotFound, TooLarge
from llmartifacts.kinds.eval_dataset import texts
from llmartifacts.kinds.eval_dataset.leakage import Leak, Leakage
from llmartifacts.kinds.eval_dataset.sources import Limits
from llmartifacts.kinds.eval_dataset.value import EvalDataset

QUESTION = "How many eggs do the ducks of Janet lay in one week of seven days?"
ANSWER = "They lay sixteen a day, so that makes one hundred and twelve in a week of seven days."


def one(question: Any = QUESTION, **columns: Any) -> EvalDataset:
    return EvalDataset([{"id": "q", "question": question, **columns}])


def ways(found: Leakage) -> list[tuple[str, str]]:
    return [(leak.column, leak.way) for leak in found.leaks]


# --- the same text


@pytest.mark.parametrize(
    "there",
    [
        QUESTION,
        QUESTION.upper(),
        f"  {QUESTION.replace(' ', chr(10) + chr(9))}  ",
        QUESTION.replace(" ", "\u00a0"),
    ],
)
def test_a_text_is_the_same_whatever_its_case_and_white_space(there: str) -> None:
    (leak,) = one().leakage([{"prompt": "x"}, {"prompt": there}]).leaks
    assert leak == Leak("q", "question", "same_text", 1.0, "item 2", "prompt", 1)


def test_a_text_is_the_same_in_another_unicode_form() -> None:
    assert one("Cafe\u0301 Stra\u00dfe").leakage([{"text": "CAFÉ STRASSE"}])


def test_texts_too_short_to_look_for_inside_others_are_still_found_as_a_whole() -> None:
    found = one("2 + 2?").leakage([{"prompt": "what is 2 + 2?"}, {"prompt": "2  + 2?"}])
    assert [(leak.way, leak.train) for leak in found.leaks] == [("same_text", "item 2")]
    assert found.short == 1


def test_the_same_text_is_told_before_a_contained_one_and_the_first_of_equals() -> None:
    train = [{"p": f"Question: {QUESTION}"}, {"p": QUESTION}, {"p": QUESTION}]
    (leak,) = one().leakage(train).leaks
    assert (leak.way, leak.train, leak.times) == ("same_text", "item 2", 3)


# --- contained


def test_a_question_inside_a_prompt_is_found_with_its_place() -> None:
    chat = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Q: {QUESTION} A:"}]}
    (leak,) = one().leakage([{"messages": []}, chat]).leaks
    assert leak == Leak("q", "question", "contained", 1.0, "item 2", "messages[1].content", 1)
    assert str(leak) == "q (question): 100% contained in item 2 (messages[1].content)"


def test_a_short_question_inside_a_prompt_is_found_as_one_run_of_words() -> None:
    short = "What happens after eating watermelon seeds?"
    assert one(short).leakage([{"prompt": f"Q: {short.lower()}\nA:"}])
    assert not one(short).leakage([{"prompt": "What happens after eating many watermelon seeds?"}])


def test_the_share_of_shingles_decides() -> None:
    words = [f"w{i}" for i in range(27)]  # twenty shingles of eight
    cut = [*words[:21], "other", *words[22:]]  # fourteen of them are left
    test, train = one(" ".join(words)), [{"p": " ".join(cut)}]
    (leak,) = test.leakage(train).leaks
    assert leak.share == pytest.approx(0.7)
    assert not test.leakage(train, share=0.71)
    assert not test.leakage(train, words=20, share=0.3)
    assert test.leakage([{"p": " ".join(words[:21])}], share=0.5)


def test_the_closest_training_item_is_told() -> None:
    words = [f"w{i}" for i in range(30)]
    train = [{"p": " ".join(words[:25])}, {"p": " ".join([*words, "more"])}, {"p": " ".join(words[2:])}]
    (leak,) = one(" ".join(words)).leakage(train).leaks
    assert (leak.train, leak.share, leak.times) == ("item 2", 1.0, 3)


def test_punctuation_and_markup_do_not_hide_a_text() -> None:
    assert one().leakage([{"p": "**" + QUESTION.replace(" ", " -- ").replace("?", "!") + "**"}])


def test_chinese_is_compared_sign_by_sign() -> None:
    asked = "珍妮特的鸭子每天下十六个蛋她早餐吃三个"
    assert one(asked).leakage([{"p": f"问题：{asked}。答案：九"}])
    assert not one(asked).leakage([{"p": "问题：她的鸭子今天没有下蛋"}])


# --- answers


def test_an_answer_alone_is_found_where_it_is_long_enough() -> None:
    test = one(answer=ANSWER)
    found = test.leakage([{"prompt": "Something else entirely", "completion": f"Well. {ANSWER}"}])
    assert ways(found) == [("answer", "contained")]
    assert not test.leakage([{"completion": ANSWER}], answer_words=40)
    assert not test.leakage([{"completion": ANSWER}], fields=["input"])


def test_short_answers_are_equal_by_nature_and_no_leak() -> None:
    test = EvalDataset([{"id": "q", "question": QUESTION, "answer": "yes"}])
    assert not test.leakage([{"prompt": "Is it so?", "completion": "yes"}])


# --- ids


def test_an_equal_id_counts_unless_it_is_a_number() -> None:
    test = EvalDataset([{"id": "HumanEval/3", "input": "a"}, {"id": "7", "input": "b"}])
    train = [{"task_id": "HumanEval/3", "prompt": "reworded"}, {"task_id": 7, "prompt": "other"}]
    found = test.leakage(train)
    assert found.leaks == (Leak("HumanEval/3", "id", "same_id", 1.0, "item 1", "task_id", 1),)
    assert not test.leakage(train, ids=False)


def test_an_id_is_told_only_where_no_text_leaks() -> None:
    found = one().leakage(one())
    assert ways(found) == [("question", "same_text")]
    assert found.leaks[0].train == "q"


# --- what is read


def test_messages_are_compared_without_the_instructions_that_a_test_set_shares() -> None:
    system = {"role": "system", "content": "You are a helpful assistant. " * 20}
    test = EvalDataset([{"id": "q", "input": [system, {"role": "user", "content": QUESTION}]}])
    assert not test.leakage([{"messages": [system, {"role": "user", "content": "Hello there"}]}])
    (leak,) = test.leakage([{"messages": [{"role": "user", "content": QUESTION}]}]).leaks
    assert leak.way == "same_text"
    (leak,) = test.leakage([{"messages": [system, {"role": "user", "content": QUESTION.upper()}]}]).leaks
    assert (leak.way, leak.place) == ("same_text", "messages[1].content")


def test_a_conversation_of_several_turns_is_the_same_as_a_whole() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    system = {"role": "system", "content": "Be brief."}
    test = EvalDataset([{"id": "q", "input": turns}])
    (leak,) = test.leakage([{"messages": [system, *turns]}]).leaks
    assert (leak.way, leak.place) == ("same_text", "messages")


@pytest.mark.parametrize(
    "item",
    [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]},
        {"conversations": [{"from": "human", "value": QUESTION}]},
        {"instruction": "Answer.", "input": QUESTION, "output": "112"},
        {"prompt": "x", "chosen": [{"role": "user", "content": QUESTION}], "rejected": []},
        {"question": {"text": {"en": QUESTION}}},
    ],
)
def test_every_usual_form_of_a_training_item_is_read(item: dict[str, Any]) -> None:
    assert ways(one().leakage([item])) == [("question", "same_text")]


def test_roles_and_the_data_of_images_are_no_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    found = list(texts.leaves([{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]))
    assert found == [("[0].content[1].text", "What is it?")]
    assert texts.text_of({"a": ["x", 3, None, {"b": "y"}]}) == "x\ny"
    assert texts.text_of([{"role": "system", "content": "only"}], instructions=False) == "only"


def test_a_file_is_read_line_by_line_plain_or_packed(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"prompt": p, "completion": "c"}) + "\n" for p in ("a", f"Q: {QUESTION}"))
    plain, packed = tmp_path / "train.jsonl", tmp_path / "more.jsonl.gz"
    plain.write_text(lines)
    packed.write_bytes(gzip.compress(lines.encode()))
    (leak,) = one().leakage(plain).leaks
    assert (leak.train, leak.place) == (f"{plain}, line 2", "prompt")
    found = one().leakage([str(plain), packed])
    assert (found.train, found.leaks[0].times) == (4, 2)


def test_only_the_columns_that_are_asked_for_are_read() -> None:
    train = EvalDataset([{"input": "x", "context": QUESTION, "metadata": {"note": QUESTION}, "split": "train"}])
    assert [leak.place for leak in one().leakage(train).leaks] == ["context"]
    assert not one().leakage(train, train_columns=["input"])
    assert one(hint="The ducks of Janet lay sixteen eggs each day").leakage(
        [{"p": "the ducks of janet lay sixteen eggs each day"}], fields=["hint"]
    )


def test_splits_of_one_dataset_are_checked_against_each_other() -> None:
    rows = [{"id": f"i{i}", "input": f"number {i}: {QUESTION if i % 40 == 0 else i}"} for i in range(200)]
    parts = EvalDataset(rows).with_splits({"train": 0.5, "test": 0.5})
    found = parts.split("test").leakage(parts.split("train"), share=0.7)
    in_test = [i.id for i in parts.split("test") if QUESTION in i.input]
    assert 0 < len(in_test) < 5
    assert list(found.leaked) == in_test
    assert not parts.split("test").leakage(parts.split("train"), share=1.0)


# --- the report


def test_the_report_counts_each_item_once_by_its_strongest_way() -> None:
    test = EvalDataset(
        [
            {"id": "a", "question": QUESTION, "answer": ANSWER},
            {"id": "b", "question": "Who was it?", "answer": "Ada"},
            {"id": "c", "question": "And then what?", "answer": "Nothing"},
            {"id": "d", "question": f"Twice: {QUESTION}", "answer": "x"},
        ]
    )
    found = test.leakage([{"p": f"{QUESTION}", "c": f"So: {ANSWER}"}, {"id": "b", "p": "reworded"}])
    assert ways(found) == [
        ("question", "same_text"),
        ("answer", "contained"),
        ("id", "same_id"),
        ("question", "contained"),
    ]
    assert found.leaked == ("a", "b", "d")
    assert found.rate == 0.75
    assert dict(found.ways) == {"same_text": 1, "contained": 1, "same_id": 1}
    assert found.headline == (
        "3 of 4 test items (75.0%) are among 2 training items: 1 same text, 1 contained, 1 same id"
    )
    assert len(str(found).splitlines()) == 5
    assert list(test.select(i for i in test.ids if i not in found.leaked).ids) == ["c"]


def test_disjoint_sets_leak_nothing_and_the_report_is_false() -> None:
    found = one().leakage([{"p": "Something else that nobody would ask of ducks at all"}])
    assert not found
    assert (found.leaks, found.rate, dict(found.ways)) == ((), 0.0, {})
    assert str(found) == "0 of 1 test item (0.0%) are among 1 training item"


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=30).filter(str.strip), min_size=1, max_size=20, unique=True))
def test_every_set_leaks_whole_into_itself(inputs: list[str]) -> None:
    test = EvalDataset([{"input": t} for t in inputs])
    assert test.leakage(test).leaked == test.ids


# --- refusals


def test_numbers_out_of_range_and_unknown_columns_are_refused() -> None:
    for given_, field in (
        ({"words": 0}, "words"),
        ({"words": True}, "words"),
        ({"share": 0}, "share"),
        ({"share": 1.1}, "share"),
        ({"share": float("nan")}, "share"),
        ({"answer_words": 0}, "answer_words"),
        ({"fields": ["qestion"]}, "fields"),
        ({"fields": []}, "fields"),
        ({"fields": ["id"]}, "fields"),
        ({"train_columns": ["nowhere"]}, "train_columns"),
    ):
        with pytest.raises(InvalidValue) as caught:
            one().leakage([{"p": "x"}], **given_)  # type: ignore[arg-type]
        assert caught.value.field == field
    with pytest.raises(InvalidValue, match="question"):
        one().leakage([{"p": "x"}], fields=["qestion"])


@pytest.mark.parametrize("train", [[], None, 3, {"train": []}, b"abc", [3], [{"a": float("nan")}], [{"a": object()}]])
def test_what_is_no_training_set_is_refused(train: Any) -> None:
    with pytest.raises(InvalidValue):
        one().leakage(train)


def test_a_file_that_is_missing_broken_or_too_large_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        one().leakage(tmp_path / "nothing.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"p": "x"}\n{"p": ')
    with pytest.raises(InvalidValue) as caught:
        one().leakage(broken)
    assert caught.value.origin == f"{broken}, line 2"
    broken.write_text('{"p": "' + "x" * 200 + '"}\n')
    with pytest.raises(TooLarge):
        one().leakage(broken, limits=Limits(item_bytes=100))
    deep = tmp_path / "deep.jsonl"
    deep.write_text('{"p": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(InvalidValue):
        one().leakage(deep)
