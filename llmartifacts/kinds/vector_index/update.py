"""The next version of an index: what stayed keeps its vector and its id, what is new is embedded, training is frozen.

Documents first: they are compared and written, and what is wrong is refused before anything is embedded. Then the
new ones are embedded. Then a copy of the index in memory is changed, saved and mapped; that copy is the only one.
"""

from __future__ import annotations

import json
import warnings
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import Damaged, InvalidInput, InvalidValue
from llmartifacts.kinds.vector_index import contents, editing, making, probing
from llmartifacts.kinds.vector_index.build import save_index
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.documents import Document, as_documents
from llmartifacts.kinds.vector_index.guard import MappedIndex, open_index
from llmartifacts.kinds.vector_index.probes import QUERIES, Probes
from llmartifacts.kinds.vector_index.value import EmbedderWarning, VectorIndex
from llmartifacts.records.names import near_names
from llmartifacts.records.wording import counted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]
    Vectors = npt.NDArray[np.float32]

_SHOWN = 3
_LOOKED_AT = 10_000
"""Ids among which near ones are looked for, which takes some microseconds each."""


@dataclass(frozen=True, slots=True)
class Given:
    """Where the vectors of new documents come from.

    Attributes:
        embeddings: A LangChain embedder, or None.
        vectors: One vector for each document that is added, or None.
        batch_size: Texts per call of the embedder.
    """

    embeddings: Any
    vectors: Any
    batch_size: int


@dataclass(slots=True)
class _Plan:
    """What is done to the documents, found out while they are written.

    Attributes:
        added: Documents that were given, by id, in order.
        removed: Ids to remove.
        kept: Rows that keep their vectors.
        gone: Rows whose vectors go.
        fresh: Documents that need a vector.
        fresh_at: Their places among those given.
        rewritten: How many kept rows have other metadata.
    """

    added: dict[str, tuple[int, Document]]
    removed: set[str]
    kept: array[int] = field(default_factory=lambda: array("q"))
    gone: array[int] = field(default_factory=lambda: array("q"))
    fresh: list[Document] = field(default_factory=list)
    fresh_at: list[int] = field(default_factory=list)
    rewritten: int = 0

    def documents(self, before: Iterable[Document]) -> Iterator[Document]:
        """The documents of the next version: those that stay in their order, then the new ones."""
        waiting, missing = dict(self.added), set(self.removed)
        for row, old in enumerate(before):
            missing.discard(old.id)
            place, new = waiting.get(old.id, (-1, None))
            if old.id in self.removed or (new is not None and new.text != old.text):
                self.gone.append(row)
                continue
            self.kept.append(row)
            if new is None:
                yield old
                continue
            del waiting[old.id]
            self.rewritten += _told(new) != _told(old)
            yield new
        if missing:
            self._refuse(missing, before)
        for place, new in waiting.values():
            self.fresh.append(new)
            self.fresh_at.append(place)
            yield new
        if not self.kept and not self.fresh:
            raise InvalidValue(
                "nothing would be left: every document is removed",
                field="remove",
                next_step="Keep or add at least one; to withdraw an index, yank its version.",
            )

    def _refuse(self, missing: set[str], before: Iterable[Document]) -> None:
        first = min(missing)
        near = near_names(first, [d.id for d in islice(before, _LOOKED_AT)])
        more = f", and {len(missing) - 1} more are not there either" if len(missing) > 1 else ""
        raise InvalidValue(
            f"no document has the id {first!r:.80}{more}",
            field="remove",
            next_step=f"Did you mean {' or '.join(near[:_SHOWN])}?" if near else "Ids are those of kb.documents.",
        )


def updated(
    value: VectorIndex,
    add: Any,
    remove: Any,
    ids: Iterable[str] | None,
    given: Given,
    chunking: Mapping[str, Any] | None,
    corpus: Any,
    threads: int,
) -> VectorIndex:
    """See `VectorIndex.updated`."""
    about = making.About.of(value.chunking if chunking is None else chunking, corpus, value.probes.file.tolerance)
    plan = _Plan(_added(add, ids), _removed(remove))
    given = _checked(given, len(plan.added), value)
    if not plan.added and not plan.removed:
        return _same_vectors(value, None, about if corpus is not None else replace(about, corpus=value.corpus))
    with making.private_folder() as folder:
        stored = making.store(plan.documents(value.documents), folder)
        same = not (plan.gone or plan.fresh or plan.rewritten)
        if same and corpus is None:
            about = replace(about, corpus=value.corpus)
        if not (plan.gone or plan.fresh):
            return _same_vectors(value, None if same else stored, about)
        if plan.gone:
            editing.check_removable(value.faiss)
        vectors = _vectors(value, plan, given)
        mapped, row_ids = _index(value, plan, vectors, folder / making.INDEX, threads)
    spec = value.embedding
    made = VectorIndex(
        embedding=spec,
        factory=value.factory,
        documents=stored.documents,
        fields=stored.fields,
        chunking=about.chunking,
        corpus=about.corpus,
        probes=value.probes,
        mapped=mapped,
        row_ids=row_ids,
    )
    known = _text_probes(value, made, plan, vectors, given)
    asked = _queries(value, made)
    file = value.probes.file.model_copy(update={"texts": known.texts, "queries": probing.answers(made, asked, None)})
    return replace(made, probes=Probes(file, known.vectors, asked))


# --- what is given


def _told(document: Document) -> str:
    """Metadata as it is written: 1, 1.0 and true differ."""
    return json.dumps(document.metadata, sort_keys=True)


def _added(add: Any, ids: Iterable[str] | None) -> dict[str, tuple[int, Document]]:
    """The documents to add, by id, with their places."""
    if add is None:
        if ids is not None:
            raise InvalidValue("there are ids and no documents", field="ids", next_step="Give add=documents.")
        return {}
    found: dict[str, tuple[int, Document]] = {}
    try:
        for place, document in enumerate(as_documents(add, ids)):
            if document.id in found:
                raise InvalidValue(
                    f"the id {document.id!r:.80} belongs to document {found[document.id][0]} and to document {place}",
                    field=f"documents[{place}].id",
                    next_step="Give every document an id of its own, such as path#number.",
                )
            found[document.id] = place, document
    except InvalidInput as error:
        if not error.field.startswith("documents"):
            raise
        raise type(error).of(error, field="add" + error.field.removeprefix("documents")) from None
    return found


def _removed(remove: Any) -> set[str]:
    given = [remove] if isinstance(remove, str) else remove
    if given is None:
        return set()
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise InvalidValue(
            f"remove is a {type(remove).__name__}, not a list of ids", field="remove", next_step="Give document ids."
        )
    found = set()
    for place, key in enumerate(given):
        if not isinstance(key, str):
            raise InvalidValue(
                f"{key!r:.80} is no document id",
                field=f"remove[{place}]",
                next_step="Give the ids of documents, such as kb.search(...).ids holds.",
            )
        found.add(key)
    return found


def _checked(given: Given, count: int, value: VectorIndex) -> Given:
    """Vectors that are given, checked before anything is written."""
    if given.vectors is None:
        return given
    if given.embeddings is not None:
        raise InvalidValue("there are vectors and an embedder", field="vectors", next_step="Give one of the two.")
    if not count:
        raise InvalidValue("there are vectors and no documents", field="vectors", next_step="Give add=documents.")
    matrix = contents.as_matrix(given.vectors, field="vectors", dimension=value.dimension)
    making.check_count(count, len(matrix))
    making.check_unit(matrix, value.embedding, 0)
    return replace(given, vectors=matrix)


def _same_vectors(value: VectorIndex, stored: making.Stored | None, about: making.About) -> VectorIndex:
    """The same vectors with other metadata, chunking or corpus; the value itself if nothing differs."""
    if stored is None and (about.chunking, about.corpus) == (value.chunking, value.corpus):
        return value
    made = replace(value, chunking=about.chunking, corpus=about.corpus)
    return made if stored is None else replace(made, documents=stored.documents, fields=stored.fields)


# --- vectors


def _vectors(value: VectorIndex, plan: _Plan, given: Given) -> Vectors | None:
    """The vectors of the new documents, in their order; None if there are none."""
    if not plan.fresh:
        return None
    if given.vectors is not None:
        matrix: Vectors = given.vectors
        return matrix if len(plan.fresh) == len(matrix) else matrix[plan.fresh_at]
    if given.embeddings is None:
        raise InvalidValue(
            f"nothing embeds them: {counted(len(plan.fresh), 'text')} of documents that are new or changed",
            field="embeddings",
            next_step=f"Give embeddings=, the embedder of {value.embedding.model}, or vectors=.",
        )
    making.check_embedder(given.embeddings)
    for warning in value.check_embeddings(given.embeddings):
        warnings.warn(warning, EmbedderWarning, stacklevel=4)

    def check_dimension(dimension: int) -> None:
        if dimension != value.dimension:
            raise InvalidValue(
                f"the embedder gives vectors of dimension {dimension}, the index has {value.dimension}",
                field="embeddings",
                next_step=f"Use the embedder that the index was built with ({value.embedding.model}).",
            )

    vectors = making.embed_all(plan.fresh, given.embeddings, given.batch_size, check_dimension)
    return contents.to_unit(vectors, field="vectors") if value.embedding.normalized else vectors


def _index(
    value: VectorIndex, plan: _Plan, vectors: Vectors | None, path: Any, threads: int
) -> tuple[MappedIndex, Ids | None]:
    """The next index, mapped, and FAISS's id of each of its documents."""
    import numpy as np

    rows = np.arange(value.count, dtype=np.int64)
    before = rows if value.row_ids is None else value.row_ids
    present = contents.faiss_ids(value.mapped.data, value.mapped.layout)
    if not np.array_equal(np.sort(before), rows if present is None else np.sort(present)):
        raise Damaged("the ids of the documents are not those of the index", file=making.INDEX)
    kept, gone, count = before[np.asarray(plan.kept)], before[np.asarray(plan.gone)], len(plan.fresh)
    own = editing.has_own_ids(value.faiss)
    if own:
        new = editing.new_ids(before, count)
    else:  # positions: those after one that goes move up
        stays = np.ones(value.count, dtype=np.bool_)
        stays[gone] = False
        kept = (np.cumsum(stays, dtype=np.int64) - 1)[kept]
        new = np.arange(len(kept), len(kept) + count, dtype=np.int64)
    index = value.writable_copy()
    editing.edit(index, gone, vectors, new, threads)
    save_index(index, path)
    del index  # before the new one is mapped: one copy in memory at a time
    mapped = open_index(path)
    ids = np.concatenate([kept, new])
    if mapped.layout.count != len(ids):
        raise Damaged(f"{mapped.layout.count} vectors are left for {len(ids)} documents", file=making.INDEX)
    return mapped, None if np.array_equal(ids, np.arange(len(ids))) else ids


# --- probes


def _text_probes(
    value: VectorIndex, made: VectorIndex, plan: _Plan, vectors: Vectors | None, given: Given
) -> probing.Known:
    """Text probes stay unless their document went; those are replaced by documents that are there."""
    probes, spec = value.probes, value.embedding
    went = {value.documents[row].text for row in plan.gone} & {probe.text for probe in probes.file.texts}
    if went:
        went -= {document.text for document in made.documents if document.text in went}
    if not went:
        return probing.Known(probes.file.texts, probes.text_vectors)
    stays = [i for i, probe in enumerate(probes.file.texts) if probe.text not in went]
    known = probing.Known(tuple(probes.file.texts[i] for i in stays), probes.text_vectors[stays])
    lost = [probe.side for probe in probes.file.texts if probe.text in went]
    return _replaced(known, lost, made, len(plan.kept), vectors, given, spec)


def _replaced(
    known: probing.Known,
    lost: Sequence[str],
    made: VectorIndex,
    kept: int,
    vectors: Vectors | None,
    given: Given,
    spec: EmbeddingSpec,
) -> probing.Known:
    """As many probes of other documents as were lost, where their vectors are known.

    Args:
        known: The probes that stay.
        lost: The side of each that went.
        made: The next index.
        kept: How many of its documents stayed; those after them are new.
        vectors: The vectors of the new ones.
        given: Where they came from.
        spec: Their space.
    """
    asked = {(probe.text, probe.side) for probe in known.texts}
    rows = [row for row in probing.probe_rows(made.documents) if (made.documents[row].text, "document") not in asked]
    rows = rows[: lost.count("document")]
    found = probing.fetch(made.mapped, made.row_ids, {row for row in rows if row < kept})
    if vectors is not None:
        found |= {row: vectors[row - kept] for row in rows if row >= kept}
    known = known.and_documents(made.documents, {row: found[row] for row in rows if row in found}, spec)
    if given.embeddings is None or vectors is None:
        return known
    texts = [made.documents[row].text for row in probing.probe_rows(made.documents)]
    texts = [text for text in texts if (text, "query") not in asked][: lost.count("query")]
    return known.and_queries(texts, making.embed_queries(texts, given.embeddings), spec)


def _queries(value: VectorIndex, made: VectorIndex) -> Vectors:
    """Queries for the probes: those of the version before, but none that is the vector of a document that went.

    Where an index keeps codes only it cannot tell that of a query, and its queries stay.
    """
    import numpy as np

    before = value.probes.query_vectors
    if made.mapped.layout.vectors is None:
        return before if len(before) else probing.sample_queries(made.mapped, made.embedding, None)
    there = np.zeros(len(before), dtype=np.bool_)
    for _, block in contents.stored_vectors(made.mapped.data, made.mapped.layout):
        for i in np.flatnonzero(~there):
            rows = np.flatnonzero(block[:, 0] == before[i, 0])
            there[i] = bool((block[rows] == before[i]).all(axis=1).any())
    sampled = probing.sample_queries(made.mapped, made.embedding, None)
    wanted = max(len(sampled), min(int(there.sum()), QUERIES))
    kept = before[there][:wanted]
    return np.vstack([kept, sampled[len(kept) : wanted]]).astype(np.float32)
