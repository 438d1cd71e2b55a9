"""Documents: any text comes back as it was, one line at a time, and files that lie are found out."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmartifacts.errors import InvalidValue, LlmartifactsError
from llmartifacts.kinds.vector_index.documents import (
    JSONL,
    LENGTHS,
    Document,
    Documents,
    as_documents,
    write_documents,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
ID = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Zs", "Co", "Cn"]), min_size=1, max_size=20
)
PLAIN = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15) | TEXT
METADATA = st.dictionaries(
    TEXT, PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(TEXT, PLAIN, max_size=2), max_size=4
)
RECORDS = st.lists(st.builds(Document, ID, TEXT, METADATA), min_size=1, max_size=12, unique_by=lambda d: d.id)


def stored(folder, documents):
    write_documents(documents, folder)
    return Documents(folder / JSONL, folder / LENGTHS)


@settings(max_examples=150, deadline=None)
@given(RECORDS)
def test_what_is_written_is_what_is_read(tmp_path_factory, records):
    records = [r for r in records if r.id.isprintable()]
    if not records:
        return
    folder = tmp_path_factory.mktemp("d")
    found = stored(folder, as_documents(records))
    assert list(found) == records
    assert [found[i] for i in range(len(records))] == records
    assert found[-1] == records[-1]
    assert found[0:2] == tuple(records[:2])
    assert found.row_of == {r.id: i for i, r in enumerate(records)}
    written = (folder / JSONL).read_bytes()
    again = tmp_path_factory.mktemp("d")
    stored(again, as_documents(folder / JSONL))
    assert (again / JSONL).read_bytes() == written, "reading the file and writing it again changes nothing"


def test_a_line_is_read_only_when_it_is_asked_for(tmp_path):
    """A damaged line far away does not keep others from being read; it is found when it is read, with its number."""
    stored(tmp_path, as_documents([{"id": str(i), "text": "x" * 50} for i in range(100)]))
    body = (tmp_path / JSONL).read_bytes().splitlines(keepends=True)
    body[70] = b"#" * (len(body[70]) - 1) + b"\n"
    (tmp_path / JSONL).write_bytes(b"".join(body))
    found = Documents(tmp_path / JSONL, tmp_path / LENGTHS)
    assert found[69].id == "69"
    with pytest.raises(InvalidValue, match="not JSON") as caught:
        found[70]
    assert caught.value.origin == "documents.jsonl, line 71"


def test_out_of_range_is_an_index_error(tmp_path):
    found = stored(tmp_path, as_documents(["a", "b"]))
    for index in (2, -3):
        with pytest.raises(IndexError):
            found[index]


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"{}",
        b'{"id":"a","metadata":{},"text":1}',
        b'{"id":1,"metadata":{},"text":"x"}',
        b'{"id":"a","metadata":[],"text":"x"}',
        b'{"id":"a","metadata":{},"text":"x","more":1}',
        b'{"id":"a","id":"b","metadata":{},"text":"x"}',
        b'{"id":"a","metadata":{"n":NaN},"text":"x"}',
        b'{"id":"a","metadata":' + b"[" * 5000,
        b'{"id":"a",\n"metadata":{},"text":"x"}',
        b"\xff\xfe",
    ],
)
def test_a_line_that_nobody_wrote_is_refused(tmp_path, line):
    (tmp_path / JSONL).write_bytes(line + b"\n")
    (tmp_path / LENGTHS).write_bytes((len(line) + 1).to_bytes(4, "little"))
    with pytest.raises(LlmartifactsError):
        list(Documents(tmp_path / JSONL, tmp_path / LENGTHS))


def test_lengths_that_do_not_name_the_lines_are_refused(tmp_path):
    stored(tmp_path, as_documents(["first", "second"]))
    one, two = (len(line) for line in (tmp_path / JSONL).read_bytes().splitlines(keepends=True))

    def with_lengths(*lengths, tail=b""):
        (tmp_path / LENGTHS).write_bytes(b"".join(n.to_bytes(4, "little") for n in lengths) + tail)
        return Documents(tmp_path / JSONL, tmp_path / LENGTHS)

    assert len(with_lengths(one, two)) == 2
    for lengths in ((one,), (one, two, 1), (one - 1, two), (2**32 - 1, 2**32 - 1)):
        with pytest.raises(InvalidValue, match="add up"):
            with_lengths(*lengths)
    with pytest.raises(InvalidValue, match="multiple of 4"):
        with_lengths(one, two, tail=b"x")
    for lengths in ((one - 1, two + 1), (one + two,), (one + two, 0)):
        with pytest.raises(InvalidValue, match="whole lines"):
            list(with_lengths(*lengths))


def test_many_threads_read_one_file(tmp_path):
    found = stored(tmp_path, as_documents([{"id": f"d{i}", "text": f"text {i}"} for i in range(300)]))
    wrong = []

    def read(start):
        wrong.extend(i for i in range(start, 300, 3) if found[i].id != f"d{i}")

    threads = [threading.Thread(target=read, args=(i % 3,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_more_metadata_fields_than_a_config_names_are_cut_and_the_documents_are_whole(tmp_path):
    many = {f"f{i:04}": i for i in range(400)}
    written = write_documents(as_documents([{"text": "a", "metadata": many}]), tmp_path)
    assert written.fields == tuple(sorted(many)[:256])
    assert Documents(tmp_path / JSONL, tmp_path / LENGTHS)[0].metadata == many
