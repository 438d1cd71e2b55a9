import pytest

from llmartifacts.errors import InvalidValue, LlmartifactsError, NotFound, TooLarge
from llmartifacts.kinds.yaml_source import MAX_NODES, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [x, 1.5, true, null]", {"a": 1, "b": ["x", 1.5, True, None]}),
        ("\ufeffa: größe", {"a": "größe"}),
        ("prompt: support-agent:v2", {"prompt": "support-agent:v2"}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
    ],
)
def test_yaml_becomes_plain_json(text, value):
    assert parse_yaml(text.encode()) == value


def test_a_file_is_read_and_a_missing_one_is_not_found(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1}
    with pytest.raises(NotFound):
        read_yaml(tmp_path / "b.yaml")


def test_yaml_acts_on_nothing_and_grows_into_nothing():
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
    )
    for text, error in (
        (bomb, InvalidValue),
        ("a: !!python/object/apply:os.system [echo]", InvalidValue),
        ("a: !Template x", InvalidValue),
        ("[" * 70 + "]" * 70, TooLarge),
        ("[" * 100_000, LlmartifactsError),
        ("- x\n" * (MAX_NODES + 1), TooLarge),
        ("x" * 300_000, TooLarge),
        ("a: 1\na: 2", InvalidValue),
        ("a: {b: 1, b: 2}", InvalidValue),
        ("? [a]\n: b", InvalidValue),
        ("1: a", InvalidValue),
        ("on: a", InvalidValue),
        ("a: 2024-01-01", InvalidValue),
        ("a: 2024-99-99", InvalidValue),
        ("a: .nan", InvalidValue),
        ("a: 99999999999999999999", InvalidValue),
        ("a: 'x", InvalidValue),
        ("\x00", InvalidValue),
        ("{a: b", InvalidValue),
        ("<<: {a: 1}", InvalidValue),
        ("--- a\n--- b", InvalidValue),
    ):
        with pytest.raises(error):
            parse_yaml(text.encode(), origin="x.yaml")
    with pytest.raises(InvalidValue, match="UTF-8"):
        parse_yaml(b"\xff\xfe")


def test_a_yaml_error_names_the_line():
    with pytest.raises(InvalidValue) as caught:
        parse_yaml(b"a: 1\nb: 2\na: 3\n", origin="bundle.yaml")
    assert caught.value.origin == "bundle.yaml, line 3"
