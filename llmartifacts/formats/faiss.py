"""The structure walk: reads a FAISS file by its four-character tags and says where everything lies, or refuses it.

FAISS must not see a file that was not walked: a list container of another type than `ilar` names further files, and
FAISS reads the coarse quantizer of an IVF index without the flags that would keep it from opening them. So the walk
is an allow-list. Known index types only; lists in the file only, at every depth; every size bounded by what is left
of the file; sizes, counts and dimensions agree; and the walk ends at the last byte.

Pure: bytes in, `Layout` out. The standard library only, no FAISS, no copy; a few microseconds.

Source of the format: `faiss/impl/index_write.cpp` and `index_read.cpp` (FAISS 1.14 to 1.15).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from llmartifacts.errors import UnsafeContent

Metric = Literal["inner_product", "l2"]
MAX_DIMENSION = 1 << 16
MAX_COUNT = 1 << 40
MAX_DEPTH = 6
MAX_TABLE_BYTES = 1 << 31
"""Largest table that FAISS may compute from a small file: M x 4^bits floats of a product quantizer."""
MAX_PRECOMPUTED_BYTES = 1 << 33
"""The same for the table of an IVF-PQ index: lists x M x 2^bits floats."""

_METRICS: dict[int, Metric] = {0: "inner_product", 1: "l2"}


@dataclass(frozen=True, slots=True)
class Rows:
    """Equal rows, one after another.

    Attributes:
        path: The tags down to them, such as `IxM2/IxF2`.
        offset: Where the first begins, in bytes from the start of the file.
        row_bytes: Bytes of one.
        count: How many.
    """

    path: str
    offset: int
    row_bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class Lists:
    """Inverted lists, one after another; each is its codes, then its ids (int64).

    Attributes:
        path: The tags down to them.
        offset: Where the first begins, in bytes from the start of the file.
        code_bytes: Bytes of one code.
        sizes: Entries of each list.
    """

    path: str
    offset: int
    code_bytes: int
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a FAISS file holds, and where.

    Attributes:
        factory: The structure in the words of FAISS's factory strings, such as `IDMap,IVF256,Flat`.
        types: Every index in the file as its path of tags, outermost first.
        dimension: Components of a vector.
        count: Vectors.
        metric: `inner_product` or `l2`.
        vectors: The vectors as they went in, float32; None where the file keeps codes or transformed vectors only.
        ids: FAISS's ids; None where they are positions.
        nprobe: Lists that a search looks at unless told otherwise; None if there are no lists.
        ef_search: Width of a search in the graph unless told otherwise; None if there is no graph.
        blocks: Every array of equal rows.
        lists: Every set of inverted lists.
    """

    factory: str
    types: tuple[str, ...]
    dimension: int
    count: int
    metric: Metric
    vectors: Rows | Lists | None
    ids: Rows | Lists | None
    nprobe: int | None
    ef_search: int | None
    blocks: tuple[Rows, ...]
    lists: tuple[Lists, ...]


def walk(data: bytes | bytearray | memoryview | Any, *, file: str = "") -> Layout:
    """Walk a FAISS file.

    Args:
        data: The whole file: bytes, or a map of it.
        file: Its name, for the error.

    Returns:
        Where everything lies.

    Raises:
        UnsafeContent: It is no index of a known, self-contained structure.
    """
    with memoryview(data) as view:
        walker = _Walk(view)
        try:
            top = walker.index("", 0, None)
            walker.need(walker.at == walker.size, "bytes are left over after the index")
        except _Misfit as misfit:
            raise UnsafeContent(
                f"not a FAISS index that can be opened safely: {misfit}, at byte {walker.at} of {walker.size}",
                field="index.faiss",
                file=file,
                next_step=f"Use one of these: {', '.join(sorted(set(ALLOWED.values())))}.",
            ) from None
    return Layout(
        factory=top.factory,
        types=tuple(walker.types),
        dimension=top.header.dimension,
        count=top.header.count,
        metric=_METRICS[top.header.metric],
        vectors=top.vectors,
        ids=top.ids,
        nprobe=top.nprobe,
        ef_search=top.ef_search,
        blocks=tuple(walker.blocks),
        lists=tuple(walker.lists),
    )


class _Misfit(Exception):
    """The walk met something it does not allow."""


@dataclass(frozen=True, slots=True)
class _Header:
    dimension: int
    count: int
    metric: int


@dataclass(frozen=True, slots=True)
class _Part:
    """One index inside the file, walked."""

    header: _Header
    factory: str
    vectors: Rows | Lists | None = None
    ids: Rows | Lists | None = None
    nprobe: int | None = None
    ef_search: int | None = None


@dataclass(frozen=True, slots=True)
class _Expect:
    """What the index around it demands of an inner one."""

    dimension: int
    count: int
    tags: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class _Here:
    """Where the walk is."""

    tag: str
    path: str
    depth: int
    header: _Header


class _Walk:
    def __init__(self, view: memoryview) -> None:
        self.view = view.cast("B")
        self.size = len(self.view)
        self.at = 0
        self.types: list[str] = []
        self.blocks: list[Rows] = []
        self.lists: list[Lists] = []

    # --- the smallest pieces

    def need(self, condition: bool, otherwise: str) -> None:
        if not condition:
            raise _Misfit(otherwise)

    def skip(self, size: int) -> int:
        """Pass over some bytes; returns where they began."""
        self.need(0 <= size <= self.size - self.at, "a size runs past the end of the file")
        start = self.at
        self.at += size
        return start

    def numbers(self, form: str) -> tuple[Any, ...]:
        form = "<" + form
        return struct.unpack_from(form, self.view, self.skip(struct.calcsize(form)))

    def number(self, form: str) -> Any:
        return self.numbers(form)[0]

    def boolean(self) -> bool:
        value: int = self.number("B")
        self.need(value < 2, "a truth value is neither 0 nor 1")
        return bool(value)

    def tag(self) -> str:
        start = self.skip(4)
        return bytes(self.view[start : start + 4]).decode("ascii", "backslashreplace")

    def vector(self, width: int, count: int | None, what: str) -> tuple[int, int]:
        """An array with its length before it; returns where it begins and its length."""
        length: int = self.number("Q")
        start = self.skip(length * width)
        self.need(count is None or length == count, f"{what}: {length} entries where {count} belong")
        return start, length

    def rows(self, path: str, row_bytes: int, count: int, width: int, what: str) -> Rows:
        start, _ = self.vector(width, count * row_bytes // width, what)
        made = Rows(path, start, row_bytes, count)
        self.blocks.append(made)
        return made

    # --- an index

    def index(self, path: str, depth: int, expect: _Expect | None) -> _Part:
        self.need(depth < MAX_DEPTH, f"nested deeper than {MAX_DEPTH} levels")
        tag = self.tag()
        reader = _READERS.get(tag)
        if reader is None or (expect and expect.tags is not None and tag not in expect.tags):
            raise _Misfit(f"the index type {tag!r} is not allowed {f'inside {path}' if path else 'here'}")
        path = f"{path}/{tag}" if path else tag
        header = self.header()
        if expect:
            same = (header.dimension, header.count) == (expect.dimension, expect.count)
            self.need(same, f"{path}: its dimension or count is not that of the index around it")
        self.types.append(path)
        return reader(self, _Here(tag, path, depth, header))

    def header(self) -> _Header:
        dimension, count, _, _ = self.numbers("iqqq")
        self.boolean()
        metric = self.number("i")
        self.need(0 < dimension <= MAX_DIMENSION and 0 <= count < MAX_COUNT, "dimension or count is out of range")
        self.need(metric in _METRICS, f"metric {metric} is neither inner product nor L2")
        return _Header(dimension, count, metric)

    def inner(
        self, here: _Here, *, tags: frozenset[str] | None = None, dimension: int = 0, count: int | None = None
    ) -> _Part:
        """The index inside this one, of the same dimension and count unless said otherwise."""
        wanted = here.header.count if count is None else count
        return self.index(here.path, here.depth + 1, _Expect(dimension or here.header.dimension, wanted, tags))

    # --- the index types

    def flat(self, here: _Here) -> _Part:
        rows = self.rows(here.path, 4 * here.header.dimension, here.header.count, 4, "vectors")
        return _Part(here.header, "Flat", vectors=rows)

    def product(self, here: _Here) -> _Part:
        code_bytes, _, name = self.product_quantizer(here.header.dimension)
        self.rows(here.path, code_bytes, here.header.count, 1, "codes")
        self.number("i")
        self.boolean()
        self.number("i")
        return _Part(here.header, name)

    def scalar(self, here: _Here) -> _Part:
        code_bytes, name = self.scalar_quantizer(here.header.dimension)
        self.rows(here.path, code_bytes, here.header.count, 1, "codes")
        return _Part(here.header, name)

    def id_map(self, here: _Here) -> _Part:
        part = self.inner(here)
        ids = self.rows(f"{here.path}/ids", 8, here.header.count, 8, "id map")
        name = "IDMap2" if here.tag == "IxM2" else "IDMap"
        return replace(part, header=here.header, factory=f"{name},{part.factory}", ids=ids)

    def pre_transform(self, here: _Here) -> _Part:
        length = self.number("i")
        self.need(0 < length <= 8, "a chain of transforms has 1 to 8")
        names, dimension = [], here.header.dimension
        for _ in range(length):
            dimension, name = self.transform(dimension)
            names.append(name)
        part = self.inner(here, dimension=dimension)
        return replace(part, header=here.header, factory=",".join([*names, part.factory]), vectors=None)

    def refine(self, here: _Here) -> _Part:
        base = self.inner(here)
        exact = self.inner(here, tags=_FLAT | {"IxSQ", "IxPq"})
        factor = self.number("f")
        self.need(1 <= factor <= 1000, "the refinement factor is not from 1 to 1000")
        name = "RFlat" if exact.factory == "Flat" else f"Refine({exact.factory})"
        return replace(base, factory=f"{base.factory},{name}", vectors=exact.vectors)

    def hnsw(self, here: _Here) -> _Part:
        count = here.header.count
        self.vector(8, None, "level probabilities")
        start, levels = self.vector(4, None, "level table")
        self.need(2 <= levels <= 256, "the level table has not 2 to 256 entries")
        first, second = struct.unpack_from("<ii", self.view, start)
        self.need(first == 0 <= second, "the level table does not begin at 0")
        self.vector(4, count, "levels")
        self.vector(8, count + 1, "link offsets")
        start, links = self.vector(4, None, "links")
        self.blocks.append(Rows(f"{here.path}/links", start, 4, links))
        entry, top, _, search_width, _ = self.numbers("iiiii")
        self.need(-1 <= entry < max(count, 1) and top < levels, "the graph begins at a point that is not there")
        self.need(0 < search_width < 1 << 20, "efSearch is out of range")
        part = self.inner(here, tags=_STORAGE[here.tag])
        storage = "" if part.factory == "Flat" else f",{part.factory}"
        return _Part(here.header, f"HNSW{second // 2}{storage}", vectors=part.vectors, ef_search=search_width)

    def inverted(self, here: _Here) -> _Part:
        dimension, count = here.header.dimension, here.header.count
        lists, probed = self.numbers("QQ")
        self.need(0 < lists < 1 << 31 and 0 < probed < 1 << 31, "the number of lists is out of range")
        coarse = self.inner(here, tags=_FLAT | {"IHNf", "IxSQ"}, count=lists)
        self.direct_map(count)
        if here.tag == "IwFl":
            code_bytes, name = 4 * dimension, "Flat"
        elif here.tag == "IwSq":
            code_bytes, name = self.scalar_quantizer(dimension)
            self.need(self.number("Q") == code_bytes, "the code size is not that of the quantizer")
            self.boolean()
        else:
            self.boolean()
            stated = self.number("Q")
            code_bytes, table, name = self.product_quantizer(dimension)
            self.need(stated == code_bytes, "the code size is not that of the quantizer")
            self.need(lists * table * 4 <= MAX_PRECOMPUTED_BYTES, "the precomputed table would be too large")
        found = self.inverted_lists(here, lists, code_bytes)
        quantizer = "" if coarse.factory == "Flat" else f"_{coarse.factory}"
        vectors = found if here.tag == "IwFl" else None
        return _Part(here.header, f"IVF{lists}{quantizer},{name}", vectors=vectors, ids=found, nprobe=probed)

    # --- parts of indexes

    def product_quantizer(self, dimension: int) -> tuple[int, int, str]:
        """Returns bytes of a code, entries of one lookup table, and the name."""
        stated, parts, bits = self.numbers("QQQ")
        fits = stated == dimension and 0 < parts <= dimension and dimension % parts == 0 and 1 <= bits <= 12
        self.need(fits, "the product quantizer does not fit the dimension")
        self.need(parts << (2 * bits + 2) <= MAX_TABLE_BYTES, "the symmetric table would be too large")
        self.vector(4, dimension << bits, "centroids")
        return (parts * bits + 7) // 8, parts << bits, f"PQ{parts}" + (f"x{bits}" if bits != 8 else "")

    def scalar_quantizer(self, dimension: int) -> tuple[int, str]:
        """Returns bytes of a code and the name."""
        kind, _, _, stated, code_bytes = self.numbers("iifQQ")
        self.need(kind in _SCALARS and stated == dimension, "the scalar quantizer is not known or does not fit")
        name, bits, trained = _SCALARS[kind]
        self.need(code_bytes == (bits * dimension + 7) // 8, "the code size is not that of the scalar quantizer")
        self.vector(4, {"each": 2 * dimension, "all": 2, "none": 0}[trained], "ranges of the scalar quantizer")
        return code_bytes, name

    def transform(self, dimension: int) -> tuple[int, str]:
        """Returns the dimension after it and the name."""
        tag = self.tag()
        self.need(tag in _TRANSFORMS, f"the vector transform {tag!r} is not allowed")
        linear = tag in ("rrot", "LTra", "PcAm", "Pcam")
        matrix = bias = mean = 0
        has_bias = rotated = False
        if tag in ("PcAm", "Pcam"):
            self.numbers("f" if tag == "PcAm" else "ff")
            rotated = self.boolean()
            self.number("i")
            for what in ("mean", "eigenvalues", "PCA matrix"):
                self.vector(4, None, what)
        if linear:
            has_bias = self.boolean()
            _, matrix = self.vector(4, None, "matrix")
            _, bias = self.vector(4, None, "bias")
        elif tag == "VNrm":
            self.number("f")
        else:
            _, mean = self.vector(4, None, "mean")
        before, after = self.numbers("ii")
        self.boolean()
        self.need(before == dimension and 0 < after <= MAX_DIMENSION, "a transform does not fit the dimension")
        if linear:
            fits = matrix == before * after and (bias == after if has_bias else bias in (0, after))
            self.need(fits, "the matrix of a transform has not its dimensions")
        else:
            self.need(before == after, "a transform that keeps the dimension changes it")
            self.need(tag != "VCnt" or mean == before, "the mean has not the dimension of the vectors")
        return after, f"{_TRANSFORMS[tag]}{'R' if rotated else ''}{after if linear else ''}"

    def direct_map(self, count: int) -> None:
        kind = self.number("B")
        self.need(kind < 3, "the direct map is of an unknown type")
        self.vector(8, count if kind == 1 else 0, "direct map")
        if kind == 2:
            self.vector(16, count, "direct map")

    def inverted_lists(self, here: _Here, lists: int, code_bytes: int) -> Lists:
        tag = self.tag()
        self.need(tag == "ilar", f"inverted lists of type {tag!r} are not allowed, only those inside the file")
        self.need(self.numbers("QQ") == (lists, code_bytes), "the lists have another number or code size")
        sizes = self.list_sizes(lists)
        count = here.header.count
        self.need(sum(sizes) == count, "the sizes of the lists do not add up to the count")
        made = Lists(here.path, self.skip(count * (code_bytes + 8)), code_bytes, sizes)
        self.lists.append(made)
        return made

    def list_sizes(self, lists: int) -> tuple[int, ...]:
        form = self.tag()
        self.need(form in ("full", "sprs"), "the sizes of the lists are in an unknown form")
        start, length = self.vector(8, lists if form == "full" else None, "list sizes")
        values = struct.unpack_from(f"<{length}Q", self.view, start)
        if form == "full":
            return values
        # Pairs of list number and size; what is not named is empty. The quantizer has a row for each list, so the
        # number of lists is bounded by the file.
        numbers, given = values[0::2], values[1::2]
        self.need(length % 2 == 0 and len(numbers) <= lists, "sparse list sizes are no pairs")
        self.need(all(n < lists for n in numbers) and len(set(numbers)) == len(numbers), "sparse list sizes repeat")
        sizes = [0] * lists
        for number, size in zip(numbers, given, strict=True):
            sizes[number] = size
        return tuple(sizes)


_FLAT = frozenset({"IxFI", "IxF2", "IxFl"})
_STORAGE = {"IHNf": _FLAT, "IHNs": frozenset({"IxSQ"}), "IHNp": frozenset({"IxPq"})}
_TRANSFORMS = {"rrot": "RR", "LTra": "LT", "PcAm": "PCA", "Pcam": "PCA", "VNrm": "L2norm", "VCnt": "Center"}
_SCALARS = {  # kind -> name, bits of a component, ranges learnt for each component, for all, or not at all
    0: ("SQ8", 8, "each"),
    1: ("SQ4", 4, "each"),
    2: ("SQ8uniform", 8, "all"),
    3: ("SQ4uniform", 4, "all"),
    4: ("SQfp16", 16, "none"),
    5: ("SQ8direct", 8, "none"),
    6: ("SQ6", 6, "each"),
    7: ("SQbf16", 16, "none"),
    8: ("SQ8directsigned", 8, "none"),
}
ALLOWED: dict[str, str] = {
    **dict.fromkeys(_FLAT, "Flat"),
    "IxPq": "PQ",
    "IxSQ": "SQ",
    "IxMp": "IDMap",
    "IxM2": "IDMap2",
    "IxPT": "PCA, OPQ, RR or L2norm before one",
    "IxRF": "RFlat",
    "IHNf": "HNSW,Flat",
    "IHNs": "HNSW,SQ",
    "IHNp": "HNSW,PQ",
    "IwFl": "IVF,Flat",
    "IwSq": "IVF,SQ",
    "IwPQ": "IVF,PQ",
}
"""Tags of the index types that may be opened, with their names."""

_Reader: TypeAlias = Callable[[_Walk, _Here], _Part]
_READERS: dict[str, _Reader] = {
    **dict.fromkeys(_FLAT, _Walk.flat),
    "IxPq": _Walk.product,
    "IxSQ": _Walk.scalar,
    "IxMp": _Walk.id_map,
    "IxM2": _Walk.id_map,
    "IxPT": _Walk.pre_transform,
    "IxRF": _Walk.refine,
    "IHNf": _Walk.hnsw,
    "IHNs": _Walk.hnsw,
    "IHNp": _Walk.hnsw,
    "IwFl": _Walk.inverted,
    "IwSq": _Walk.inverted,
    "IwPQ": _Walk.inverted,
}
