r"""The format of recipes: how a blob is put together from chunks.

    head     8 bytes, `LLMARC1\\n`; length of the header (u32)
    header   canonical JSON: codec, its version, size of the blob, the blob it was encoded against, parameters, and for
             each stream its name, its number of entries and whether they are kept in nodes
    streams  36 bytes for each entry: id of a chunk, bytes of its content (u32). Where a stream has nodes, the entries
             here name chunks that hold the stream's own entries, so that recipes of two versions share those too
    end      BLAKE3 of all that is before (32 bytes)

Everything needed to make the blob is in its own recipe and the chunks; the blob it was encoded against is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import blake3
import numpy as np

from llmartifacts.blobs.chunks.entries import ENTRY, Entries, bytes_of
from llmartifacts.blobs.forms import BadForm
from llmartifacts.errors import LlmartifactsError, NewerFormat, TooLarge
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.digest import Digest, parse_digest

MAX_BYTES = 1 << 28
_HEAD = b"LLMARC1\n"
_SUM = 32
_INLINE = 256
"""Entries up to which a stream is kept in the recipe itself."""
_NODE = 32  # entries of a node, on average
_MAX_STREAMS = 16

Parameters = Mapping[str, int | str]


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What a codec makes of a blob.

    Attributes:
        parameters: What its inverse needs besides the streams.
        streams: Name -> chunks, in order.
        dead: Bytes of rows that are kept in chunks of this blob and belong to it no more.
    """

    parameters: Parameters
    streams: Mapping[str, Entries]
    dead: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """How to make a blob.

    Attributes:
        codec: Name of the codec.
        version: Version of the codec.
        size: Bytes of the blob.
        encoded: What the codec made of it.
        parent: The blob that it was encoded against, as a hint for who has that one at hand.
        nodes: Chunks that hold entries of its streams.
    """

    codec: str
    version: int
    size: int
    encoded: Encoded
    parent: Digest | None = None
    nodes: Entries = field(default_factory=lambda: np.zeros(0, ENTRY))

    def entries(self) -> Entries:
        """Every chunk that it needs, nodes included."""
        return np.concatenate([*self.encoded.streams.values(), self.nodes])


def write(recipe: Recipe, put_nodes: Callable[[Entries, list[int]], Entries]) -> bytes:
    """The file of a recipe.

    Args:
        recipe: The recipe; its `nodes` are not looked at.
        put_nodes: Stores the entries of a stream as chunks that end at the given entries.

    Raises:
        TooLarge: It has more than 7 million chunks: about 100 GB of rows.
    """
    if sum(map(len, recipe.encoded.streams.values())) > MAX_BYTES // ENTRY.itemsize:
        raise TooLarge(
            f"a file of {recipe.size} bytes has more chunks than a recipe can name",
            field="source",
            next_step="Split it into several files.",
        )
    streams, bodies = [], []
    for name, entries in recipe.encoded.streams.items():
        nodes = len(entries) > _INLINE
        body = put_nodes(entries, list(_node_ends(entries))) if nodes else entries
        streams.append({"name": name, "entries": len(entries), "stored": len(body), "nodes": nodes})
        bodies.append(body.tobytes())
    header = canonical_bytes(
        {
            "codec": recipe.codec,
            "version": recipe.version,
            "size": recipe.size,
            "parent": recipe.parent,
            "parameters": dict(recipe.encoded.parameters),
            "dead": recipe.encoded.dead,
            "streams": streams,
        },
        field="recipe",
    )
    made = b"".join([_HEAD, len(header).to_bytes(4, "little"), header, *bodies])
    return made + blake3.blake3(made).digest()


def _node_ends(entries: Entries) -> Iterator[int]:
    """Ends of nodes, found by the content, so that an entry that comes or goes changes one node."""
    marks = np.frombuffer(entries.tobytes(), np.uint8).reshape(-1, ENTRY.itemsize)[:, 0] % _NODE == 0
    last = 0
    for end in (np.flatnonzero(marks) + 1).tolist():
        while end - last > 4 * _NODE:
            last += 4 * _NODE
            yield last
        if end - last >= _NODE // 4:
            yield end
            last = end
    while len(entries) - last > 4 * _NODE:
        last += 4 * _NODE
        yield last
    if last < len(entries):
        yield len(entries)


def read(data: bytes, get_nodes: Callable[[Entries], bytes], *, origin: str = "") -> Recipe:
    """A recipe from its file.

    Args:
        data: The file.
        get_nodes: The joined content of chunks that hold entries.
        origin: Where it lies, for messages.

    Raises:
        BadForm: It is damaged, or not well formed.
        NewerFormat: A newer release wrote it.
    """
    if len(data) < len(_HEAD) + 4 + _SUM:
        raise BadForm("its recipe is cut short")
    if blake3.blake3(data[:-_SUM]).digest() != data[-_SUM:]:
        raise BadForm("its recipe was altered")
    if not data.startswith(_HEAD):  # whole, so somebody meant it
        raise NewerFormat("the recipe has a form that this release does not know", field="recipe", origin=origin)
    length = int.from_bytes(data[len(_HEAD) : len(_HEAD) + 4], "little")
    at = len(_HEAD) + 4 + length
    try:
        header = parse_json(data[len(_HEAD) + 4 : at], field="recipe", origin=origin)
        parent = None if header["parent"] is None else parse_digest(header["parent"], field="parent")
        parameters = {str(k): v for k, v in header["parameters"].items() if isinstance(v, int | str)}
        numbers = [header["version"], header["size"], header["dead"]]
        told = [(str(s["name"]), s["entries"], s["stored"], bool(s["nodes"])) for s in header["streams"]]
        codec = str(header["codec"])
        numbers += [n for _, entries, stored, _ in told for n in (entries, stored)]
        if any(type(n) is not int or not 0 <= n < 1 << 53 for n in numbers) or len(told) > _MAX_STREAMS:
            raise BadForm("its recipe has a number that is none")
        if sum(entries for _, entries, _, _ in told) > MAX_BYTES // ENTRY.itemsize:
            raise BadForm("its recipe has more chunks than any")
    except (LlmartifactsError, KeyError, TypeError, AttributeError) as error:
        raise BadForm(f"its recipe is malformed: {error}") from None
    streams: dict[str, Entries] = {}
    nodes = []
    for name, count, stored, has_nodes in told:
        end = at + stored * ENTRY.itemsize
        if end > len(data) - _SUM:
            raise BadForm("its recipe is cut short")
        body = np.frombuffer(data[at:end], ENTRY)
        at = end
        if has_nodes:
            if bytes_of(body) != count * ENTRY.itemsize:
                raise BadForm("its recipe has nodes of another size than it says")
            nodes.append(body)
            body = np.frombuffer(get_nodes(body), ENTRY)
        if len(body) != count:
            raise BadForm("its recipe has another number of chunks than it says")
        streams[name] = body
    if at != len(data) - _SUM:
        raise BadForm("its recipe goes on after its end")
    return Recipe(
        codec,
        header["version"],
        header["size"],
        Encoded(parameters, streams, header["dead"]),
        parent,
        np.concatenate([*nodes, np.zeros(0, ENTRY)]),
    )
