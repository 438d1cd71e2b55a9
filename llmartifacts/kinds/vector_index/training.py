"""What an index learnt from vectors: its digest, and taking it over into a new index instead of training anew.

Trained are the coarse centroids of an IVF index, the tables of product and scalar quantizers, and the matrices of
transforms. Two indexes of one structure with the same trained parts encode a vector to the same bytes, so that what
two versions share is stored once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llmartifacts import plugins
from llmartifacts.errors import Incompatible, InvalidValue
from llmartifacts.kinds.vector_index.guard import INNER, MappedIndex
from llmartifacts.records.digest import Digest, digest_from_hex

if TYPE_CHECKING:
    from llmartifacts.kinds.vector_index.value import VectorIndex

FIELD = "train_from"


# --- what was learnt


def trained_digest(index: Any) -> Digest | None:
    """SHA-256 over the trained parts of a FAISS index, in the order of its structure; None where nothing is trained.

    Counts, lists and vectors are no part of it.
    """
    seen = hashlib.sha256()
    learnt = False
    for name, numbers in _trained(index, ""):
        learnt = True
        seen.update(f"{name} {numbers.dtype.str} {numbers.size}\n".encode())
        seen.update(numbers.data)
    return digest_from_hex(seen.hexdigest()) if learnt else None


def _trained(index: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Trained arrays with their places."""
    import faiss

    index = faiss.downcast_index(index) if type(index) is faiss.Index else index
    if isinstance(index, faiss.IndexPreTransform):
        for i in range(index.chain.size()):
            step = faiss.downcast_VectorTransform(index.chain.at(i))
            for name in ("A", "b", "mean"):
                if hasattr(step, name) and (numbers := faiss.vector_to_array(getattr(step, name))).size:
                    yield f"{path}chain[{i}].{name}", numbers
    for name in ("index", "base_index", "refine_index", "storage"):
        inner = getattr(index, name, None)
        if isinstance(inner, faiss.Index):
            yield from _trained(inner, f"{path}{name}.")
    if isinstance(index, faiss.IndexIVF):
        yield from _centroids(index.quantizer, f"{path}quantizer.")
    for name, table in (("pq", "centroids"), ("sq", "trained")):
        quantizer = getattr(index, name, None)
        if quantizer is not None and (numbers := faiss.vector_to_array(getattr(quantizer, table))).size:
            yield f"{path}{name}.{table}", numbers


def _centroids(quantizer: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The vectors of a coarse quantizer: flat, behind a graph, or as codes."""
    import faiss

    quantizer = faiss.downcast_index(quantizer) if type(quantizer) is faiss.Index else quantizer
    if isinstance(quantizer, faiss.IndexHNSW):
        yield from _centroids(quantizer.storage, f"{path}storage.")
        return
    yield from _trained(quantizer, path)
    size = quantizer.ntotal * quantizer.code_size
    if size:
        yield f"{path}codes", faiss.rev_swig_ptr(quantizer.codes.data(), size)


# --- taking it over


def source_of(train_from: Any) -> VectorIndex | None:
    """The index whose training is wanted: given as itself, or as a reference in the registry that `connect()` finds.

    Raises:
        InvalidValue: It is something else.
        NotFound: There is no such version, or no registry.
        WrongKind: The reference names something else than an index.
    """
    from llmartifacts.kinds.vector_index.value import VectorIndex

    if train_from is None or isinstance(train_from, VectorIndex):
        return train_from
    if not isinstance(train_from, str):
        raise InvalidValue(
            f"train_from is a {type(train_from).__name__}, neither an index nor a reference",
            field=FIELD,
            next_step='Give a VectorIndex, or a reference such as "support-kb:prod".',
        )
    found: VectorIndex = plugins.load("references", "registry")(train_from, VectorIndex)
    return found


def check_space(source: VectorIndex, model: str, metric: str, dimension: int | None = None) -> None:
    """Refuse the training of another space: its centroids would say nothing about these vectors.

    Args:
        source: The index whose training is wanted.
        model: Of the new index.
        metric: Of the new index.
        dimension: Of the new index; None while it is not known.

    Raises:
        Incompatible: One of them differs.
    """
    was = source.embedding
    for rule, before, now in (
        ("index-model", was.model, model),
        ("index-metric", was.metric, metric),
        ("index-dimension", was.dimension, was.dimension if dimension is None else dimension),
    ):
        if before != now:
            what = rule.removeprefix("index-")
            raise _misfit(rule, f"the index to train from has the {what} {before!r:.80}, the new one {now!r:.80}")


def begin(fresh: Any, source: MappedIndex) -> Any:
    """An index with nothing in it, and everything that another one has learnt.

    Args:
        fresh: What the recipe makes, untrained; the parameters of its search are kept.
        source: The index that was trained.

    Raises:
        Incompatible: They are not of one structure.
    """
    check_structure(fresh, source.index)
    if trained_digest(source.index) is None:
        return fresh
    index = source.writable_copy()
    index.reset()
    _take_parameters(index, fresh)
    return index


def check_structure(fresh: Any, trained: Any) -> None:
    """Refuse an index of another structure.

    Raises:
        Incompatible: They differ in types, sizes of their quantizers, or lists.
    """
    ours, theirs = list(structure(fresh)), list(structure(trained))
    if ours != theirs:
        made, found = next(
            ((a, b) for a, b in zip([*ours, "nothing"], [*theirs, "nothing"], strict=False) if a != b),
            (ours[-1], theirs[-1]),
        )
        raise _misfit("index-structure", f"the index to train from has {found}, where the new one has {made}")


def structure(index: Any) -> Iterator[str]:
    """The structure of an index, whatever is in it: a line for each part, outermost first."""
    import faiss

    index = faiss.downcast_index(index) if type(index) is faiss.Index else index
    # What FAISS makes and what it reads back go by different names.
    family = next((f for f in (faiss.IndexFlat, faiss.IndexRefine) if isinstance(index, f)), type(index))
    line = f"{family.__name__}({index.d})"
    if isinstance(index, faiss.IndexIVF):
        line += f" with {index.nlist} lists, by_residual={bool(index.by_residual)}"
    if isinstance(index, faiss.IndexHNSW):
        line += f" with {index.hnsw.nb_neighbors(0)} links"
    for name, sizes in (("pq", ("M", "nbits")), ("sq", ("qtype",))):
        quantizer = getattr(index, name, None)
        if quantizer is not None:
            line += "".join(f" {name}.{size}={getattr(quantizer, size)}" for size in sizes)
    yield line
    if isinstance(index, faiss.IndexPreTransform):
        for i in range(index.chain.size()):
            step = faiss.downcast_VectorTransform(index.chain.at(i))
            # OPQ is written as the plain linear transform that it learnt.
            name = "LinearTransform" if isinstance(step, faiss.OPQMatrix) else type(step).__name__
            yield f"{name}({step.d_in} to {step.d_out})"
    for name in INNER:
        inner = getattr(index, name, None)
        if isinstance(inner, faiss.Index):
            yield from (f"{name}: {told}" for told in structure(inner))


def _take_parameters(index: Any, fresh: Any) -> None:
    """What is not learnt comes from the recipe: how wide a search looks."""
    import faiss

    from llmartifacts.kinds.vector_index.build import parts

    for ours, theirs in zip(parts(index), parts(fresh), strict=True):
        if isinstance(ours, faiss.IndexIVF):
            ours.nprobe = theirs.nprobe
            ours.set_direct_map_type(faiss.DirectMap.NoMap)
        if isinstance(ours, faiss.IndexHNSW):
            ours.hnsw.efSearch, ours.hnsw.efConstruction = theirs.hnsw.efSearch, theirs.hnsw.efConstruction
        if isinstance(ours, faiss.IndexRefine):
            ours.k_factor = theirs.k_factor


def _misfit(rule: str, message: str) -> Incompatible:
    return Incompatible(
        message,
        field=FIELD,
        problems=(f"{rule}: {message}",),
        next_step="Give the same factory string, model, dimension and metric, or leave train_from out.",
    )
