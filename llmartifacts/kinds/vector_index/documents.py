"""Documents: JSON lines, written once, read line by line when a hit names them. Never a pickle.

`documents.jsonl` has one object a line (`id`, `metadata`, `text`), in the order of the vectors.
`documents.lengths` has the length of each line in bytes as a little-endian uint32, so that line i is found without
reading the rest: an index with half a million documents starts without parsing one.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

from llmartifacts.errors import InvalidInput, InvalidManifest, InvalidValue, TooLarge, UnsafeContent
from llmartifacts.kinds.vector_index.config import MAX_FIELDS
from llmartifacts.kinds.vector_index.mapped import map_file, reader
from llmartifacts.records.canonical import parse_json, plain_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

JSONL, LENGTHS = "documents.jsonl", "documents.lengths"
_BLOCK = 512
"""Documents whose lengths are added up together: opening adds up a few numbers, not one for each document."""
MAX_LINE = 1 << 24
MAX_ID = 1024
JSONL_HINT = (
    'Give the documents as JSONL, one {"id": "…", "text": "…", "metadata": {…}} a line, in the order of the vectors. '
    "From a LangChain store that you trust, in a process of your own: "
    "for i in range(store.index.ntotal): d = store.docstore.search(store.index_to_docstore_id[i]); "
    'print(json.dumps({"id": store.index_to_docstore_id[i], "text": d.page_content, "metadata": d.metadata}))'
)


@dataclass(frozen=True, slots=True)
class Document:
    """One document of an index.

    Attributes:
        id: Its id, unique in the index.
        text: The text that was embedded.
        metadata: JSON object; treat as read-only.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        count: How many documents.
        fields: Names of metadata fields that occur, sorted, at most 256.
    """

    count: int
    fields: tuple[str, ...]


class Documents(Sequence[Document]):
    """The documents of an index, in the order of its vectors, read when they are asked for.

    Raises:
        InvalidValue: The two files do not fit each other, or a line is no document.
    """

    def __init__(self, jsonl: Path, lengths: Path) -> None:
        import numpy as np

        self._data: mmap.mmap = map_file(jsonl, field=JSONL)
        self._lengths: mmap.mmap = map_file(lengths, field=LENGTHS)
        if len(self._lengths) % 4:
            raise InvalidValue(f"{LENGTHS} has {len(self._lengths)} bytes, no multiple of 4", field=LENGTHS)
        self._sizes: npt.NDArray[np.uint32] = np.frombuffer(self._lengths, "<u4")
        whole = len(self._sizes) // _BLOCK * _BLOCK
        blocks = self._sizes[:whole].reshape(-1, _BLOCK).sum(axis=1, dtype=np.uint64)
        rest = [self._sizes[whole:].sum(dtype=np.uint64)] if whole < len(self._sizes) else []
        self._ends: npt.NDArray[np.uint64] = np.cumsum([*blocks, *rest], dtype=np.uint64)
        if int(self._ends[-1]) != len(self._data):
            raise InvalidValue(f"{LENGTHS} does not add up to the size of {JSONL}", field=LENGTHS)

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Document, ...]: ...
    def __getitem__(self, index: int | slice) -> Document | tuple[Document, ...]:
        if isinstance(index, slice):
            return tuple(self._at(i) for i in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._at(index % len(self))

    def __iter__(self) -> Iterator[Document]:
        return (self._at(i) for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Documents({len(self)})"

    def _at(self, row: int) -> Document:
        block, within = divmod(row, _BLOCK)
        start = int(self._ends[block - 1]) if block else 0
        start += int(self._sizes[row - within : row].sum(dtype="u8"))
        line = self._data[start : start + int(self._sizes[row])]
        where = f"{JSONL}, line {row + 1}"
        if line.find(b"\n") != len(line) - 1:
            raise InvalidValue(f"{LENGTHS} does not name whole lines", field=f"documents[{row}]", origin=where)
        try:
            body = parse_json(line, field=f"documents[{row}]", origin=where, max_bytes=MAX_LINE)
        except InvalidManifest as error:
            raise InvalidValue(error.message, field=error.field, origin=where) from None
        if (
            not isinstance(body, dict)
            or body.keys() != {"id", "metadata", "text"}
            or not (isinstance(body["id"], str) and isinstance(body["text"], str))
            or not isinstance(body["metadata"], dict)
        ):
            raise InvalidValue("not a document: id, text and metadata", field=f"documents[{row}]", origin=where)
        return Document(body["id"], body["text"], body["metadata"])

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Row of each id; reads every document, once."""
        return {document.id: row for row, document in enumerate(self)}

    def streams(self) -> Iterator[tuple[str, BinaryIO]]:
        """The files as an artifact keeps them: path and bytes."""
        yield JSONL, reader(self._data)
        yield LENGTHS, reader(self._lengths)


def write_documents(documents: Iterable[Document], folder: Path) -> Written:
    """Write both files into a folder.

    Raises:
        InvalidValue: There are none, or an id appears twice; the second is named.
    """
    seen: dict[str, int] = {}
    fields: set[str] = set()
    with (folder / JSONL).open("xb") as lines, (folder / LENGTHS).open("xb") as lengths:
        for row, document in enumerate(documents):
            if document.id in seen:
                raise InvalidValue(
                    f"the id {document.id!r:.80} belongs to document {seen[document.id]} and to document {row}",
                    field=f"documents[{row}].id",
                    next_step="Give every document an id of its own, such as path#number.",
                )
            seen[document.id] = row
            fields.update(document.metadata)
            body = {"id": document.id, "metadata": document.metadata, "text": document.text}
            text = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
            line = text.encode() + b"\n"
            if len(line) > MAX_LINE:
                raise TooLarge(
                    f"document {row} takes {len(line)} bytes, the limit is {MAX_LINE}", field=f"documents[{row}]"
                )
            lines.write(line)
            lengths.write(len(line).to_bytes(4, "little"))
    if not seen:
        raise InvalidValue("there are no documents", field="documents", next_step="Give at least one document.")
    return Written(len(seen), tuple(sorted(fields)[:MAX_FIELDS]))


def read_ids(stream: BinaryIO) -> Iterator[str]:
    """The id of each document of a `documents.jsonl`. Raises `InvalidValue` where it is none."""
    row = 0
    while line := stream.readline(MAX_LINE + 1):
        where = f"{JSONL}, line {row + 1}"
        try:
            body = parse_json(line, field=f"documents[{row}]", origin=where, max_bytes=MAX_LINE)
        except (InvalidManifest, TooLarge) as error:
            raise InvalidValue.of(error, origin=where) from None
        key = body.get("id") if isinstance(body, dict) else None
        if not isinstance(key, str):
            raise InvalidValue("a document has no id", field=f"documents[{row}]", origin=where)
        yield key
        row += 1


def as_documents(documents: Any, ids: Iterable[str] | None = None) -> Iterator[Document]:
    """Read documents as users have them.

    Args:
        documents: Texts, mappings (`text` or `page_content`; `id`, `metadata`; other keys go to the metadata),
            LangChain documents, `Document`s, or the path of a JSONL file of such mappings.
        ids: Their ids, in order; they win over the documents' own. Where neither is given, the id is made of the
            text's SHA-256, with `-2`, `-3` for a text that comes again.

    Raises:
        InvalidValue: One is no document; its index is named, and its line where it came from a file.
        UnsafeContent: The file is a pickle.
    """
    if isinstance(documents, Path):
        source: Iterator[tuple[str, Any]] = _lines(documents)
    elif isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        raise InvalidValue(
            f"documents is one {type(documents).__name__}, not a list",
            field="documents",
            next_step="Give a list of texts, mappings or LangChain documents, or a pathlib.Path of a JSONL file.",
        )
    else:
        source = (("", document) for document in documents)
    given = iter(ids) if ids is not None else None
    times: dict[str, int] = {}
    row = -1
    for row, (origin, raw) in enumerate(source):
        where = f"documents[{row}]"
        try:
            key, text, metadata = _parts(raw, where)
            if given is not None:
                key = next(given, None)
                if key is None:
                    raise InvalidValue("there are fewer ids than documents", field=f"ids[{row}]")
            if key is None:
                name = hashlib.sha256(text.encode()).hexdigest()[:16]
                times[name] = times.get(name, 0) + 1
                key = name if times[name] == 1 else f"{name}-{times[name]}"
            yield Document(_check_id(key, f"{where}.id"), text, metadata)
        except InvalidInput as error:
            raise type(error)(
                error.message, field=error.field, origin=error.origin or origin, next_step=error.next_step
            ) from None
    if given is not None and next(given, None) is not None:
        raise InvalidValue("there are more ids than documents", field=f"ids[{row + 1}]")


def refuse_pickle(path: Path) -> None:
    """Refuse a file that is, or says it is, a pickle; nothing of it is unpickled.

    Raises:
        UnsafeContent: It is one.
    """
    named = path.suffix.lower() in (".pkl", ".pickle", ".joblib", ".pt", ".pth")
    if not named:
        with path.open("rb") as file:
            head = file.read(2)
        named = len(head) == 2 and head[0] == 0x80 and head[1] <= 5  # PROTO, the first opcode since protocol 2
    if named:
        raise UnsafeContent(
            f"{path.name} is a pickle, and loading one runs whatever it says",
            field="documents",
            file=str(path),
            next_step=JSONL_HINT,
        )


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        refuse_pickle(path)
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                where = f"{path.name}, line {number}"
                if len(line) > MAX_LINE:
                    raise TooLarge(f"a line is longer than {MAX_LINE} bytes", field="documents", origin=where)
                if line.strip():
                    try:
                        yield where, parse_json(line, field="documents", origin=where)
                    except InvalidManifest as error:
                        raise InvalidValue(error.message, field=error.field, origin=where) from None
    except OSError as error:
        raise InvalidValue(
            f"the documents cannot be read: {error.strerror or error}", field="documents", origin=str(path)
        ) from None


def _parts(raw: Any, where: str) -> tuple[str | None, str, dict[str, Any]]:
    key: Any = None
    metadata: Any = {}
    rest: dict[str, Any] = {}
    if isinstance(raw, str):
        text: Any = raw
    elif isinstance(raw, Mapping):
        rest = dict(raw)
        name = "text" if "text" in rest else "page_content"
        text, key, metadata = rest.pop(name, None), rest.pop("id", None), rest.pop("metadata", None)
        if name == "page_content" and rest.get("type") == "Document":
            del rest["type"]  # LangChain's own mark in a dumped document
    else:
        text = getattr(raw, "page_content", getattr(raw, "text", None))
        key, metadata = getattr(raw, "id", None), getattr(raw, "metadata", {})
    if not isinstance(text, str):
        raise InvalidValue(
            f"a {type(raw).__name__} without a text is no document",
            field=f"{where}.text",
            next_step="A document is a text, a mapping with 'text', or has page_content as LangChain's.",
        )
    if not isinstance(metadata if metadata is not None else {}, Mapping):
        raise InvalidValue("the metadata is not an object", field=f"{where}.metadata")
    both = rest.keys() & (metadata or {}).keys()
    if both:
        raise InvalidValue(f"{min(both)!r} is given twice, beside the metadata and in it", field=f"{where}.{min(both)}")
    try:
        plain_json(text, field=f"{where}.text")
        return key, text, plain_json({**(metadata or {}), **rest}, field=f"{where}.metadata")
    except InvalidManifest as error:
        raise InvalidValue(error.message, field=error.field, next_step=error.next_step) from None


def _check_id(key: Any, where: str) -> str:
    if not isinstance(key, str) or not key or len(key) > MAX_ID or not key.isprintable():
        raise InvalidValue(
            f"the id {key!r:.80} is not printable text of 1 to {MAX_ID} characters",
            field=where,
            next_step="Ids are text, such as 'guide.md#3'.",
        )
    return key
