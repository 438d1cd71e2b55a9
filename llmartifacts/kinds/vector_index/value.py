"""START HERE: `VectorIndex`, a FAISS index with its documents and how it was made, and what a search gives."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from llmartifacts.errors import Damaged, Incompatible, InvalidInput, InvalidValue, TooLarge
from llmartifacts.formats.faiss import Metric
from llmartifacts.kinds.vector_index.config import PROBE_TOLERANCE, EmbeddingSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever

    from llmartifacts.kinds.vector_index.documents import Document, Documents
    from llmartifacts.kinds.vector_index.guard import MappedIndex
    from llmartifacts.kinds.vector_index.langchain import IndexVectorStore
    from llmartifacts.kinds.vector_index.probes import Probes

TextProbes = Literal["documents"] | Mapping[str, Sequence[float]] | None
MAX_ANSWERS = 1 << 24
"""Limit of queries times k in one search."""


class EmbedderWarning(UserWarning):
    """An embedder could not be checked against the probes of an index."""


@dataclass(frozen=True, eq=False)
class SearchHits:
    """What a search found: n queries, the k nearest of each, nearest first.

    Attributes:
        ids: (n, k) object array of document ids; None where there is no k-th neighbour.
        scores: (n, k) float32 as FAISS gives them: inner products, or squared L2 distances. Where the id is None,
            the worst float32 there is.
        documents: n tuples of k documents; None where the id is None.
    """

    ids: npt.NDArray[np.object_]
    scores: npt.NDArray[np.float32]
    documents: tuple[tuple[Document | None, ...], ...]

    def __len__(self) -> int:
        return len(self.documents)


@dataclass(frozen=True, eq=False, repr=False)
class VectorIndex:
    """A FAISS index, its documents, and how it was made. Frozen; several threads may search it at once.

    Make one with `build`, `from_vectors` or `from_faiss`, and the next version of it with `updated`. From then on it
    reads a file mapped read-only, the same way whether it was just made or resolved from a registry.

    Attributes:
        embedding: The space of its vectors.
        factory: How the index was made, as FAISS's factory string.
        documents: Its documents in the order of the vectors, each read when it is asked for.
        fields: Names of metadata fields that occur.
        chunking: How the documents were cut into passages; None if unknown.
        corpus: Manifest digest of what they were made from; None if unknown.
        probes: Texts and queries whose answers are known.
        mapped: The index file, opened.
        row_ids: FAISS's id of each document; None if they are the rows.
    """

    embedding: EmbeddingSpec
    factory: str
    documents: Documents
    fields: tuple[str, ...]
    chunking: Mapping[str, Any] | None
    corpus: str | None
    probes: Probes = field(repr=False)
    mapped: MappedIndex = field(repr=False)
    row_ids: npt.NDArray[np.int64] | None = field(repr=False)

    kind: ClassVar[str] = "vector_index"

    # --- making one

    @classmethod
    def build(
        cls,
        documents: Iterable[Any] | Path,
        *,
        embeddings: Embeddings,
        model: str,
        index: str = "Flat",
        metric: Metric = "inner_product",
        normalize: bool | None = None,
        ids: Iterable[str] | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
        train_from: VectorIndex | str | None = None,
        chunking: Mapping[str, Any] | None = None,
        corpus: Any = None,
        seed: int = 1234,
        threads: int = 1,
        batch_size: int = 256,
        probe_tolerance: float = PROBE_TOLERANCE,
    ) -> VectorIndex:
        """Embed documents and index them.

        Some of the documents become text probes: later, another embedder of the same dimension is refused.

        Args:
            documents: Texts, mappings with `text` (and `id`, `metadata`), LangChain documents, or the path of a JSONL
                file of such mappings. Other keys of a mapping go to the metadata.
            embeddings: A LangChain embedder.
            model: Its name, such as `BAAI/bge-small-en-v1.5`.
            index: FAISS factory string: `Flat`, `IVF256,Flat`, `IVF256,SQ8`, `IVF256,PQ48`, `HNSW32`, …
            metric: `inner_product` or `l2`.
            normalize: True scales the vectors to unit length; None takes them as they are and notes whether they
                have it; False takes them as they are.
            ids: Document ids, in order; else the documents' own, else made of the text.
            nprobe: Lists that a search of an IVF index looks at, unless told otherwise.
            ef_search: Width of a search in an HNSW graph, unless told otherwise.
            train_from: An index, or a reference such as `support-kb:prod` in the registry that `connect()` finds,
                whose trained parts are taken over: coarse centroids, quantizer tables, matrices. What did not change
                then has the same bytes as there, and is stored once. None trains anew. It must have the same factory
                structure, model, dimension and metric; where nothing is trained (Flat, HNSW) nothing is taken over.
            chunking: How the documents were cut into passages; JSON, such as `{"size": 800, "overlap": 100}`.
            corpus: Digest of what they were made from, or a `Version`.
            seed: Of the training.
            threads: With one, the same input gives the same bytes; more are faster.
            batch_size: Texts per call of the embedder.
            probe_tolerance: How far an embedder's vectors may later be from the probes', relative to their length.

        Raises:
            InvalidValue: Empty, duplicate ids, NaN vectors, a factory string that cannot be made, …
            Incompatible: The index to train from is of another structure or space.
            NotFound: `train_from` names no version, or there is no registry.
            Unreachable: The embedder raised.

        Example:
            >>> from langchain_core.embeddings import DeterministicFakeEmbedding
            >>> embedder = DeterministicFakeEmbedding(size=8)
            >>> kb = VectorIndex.build(["red", "green"], embeddings=embedder, model="fake", ids=["r", "g"])
            >>> kb.search(embedder.embed_query("green"), k=1).ids.tolist()
            [['g']]
        """
        from llmartifacts.kinds.vector_index import making, training
        from llmartifacts.kinds.vector_index.build import Recipe

        recipe = Recipe(index, nprobe, ef_search, seed, threads, training.source_of(train_from))
        about = making.About.of(chunking, corpus, probe_tolerance)
        return making.build(documents, embeddings, model, metric, normalize, ids, recipe, about, batch_size)

    @classmethod
    def from_vectors(
        cls,
        vectors: Any,
        documents: Iterable[Any] | Path,
        *,
        embedding: EmbeddingSpec,
        index: str = "Flat",
        ids: Iterable[str] | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
        train_from: VectorIndex | str | None = None,
        probes: TextProbes = None,
        probe_tolerance: float = PROBE_TOLERANCE,
        chunking: Mapping[str, Any] | None = None,
        corpus: Any = None,
        seed: int = 1234,
        threads: int = 1,
    ) -> VectorIndex:
        """Index vectors that are there already.

        Args:
            vectors: (n, d) float32, row i for document i: array, memory map, or lists of numbers.
            documents: As `build` takes them, n of them.
            embedding: The space of the vectors.
            index: FAISS factory string.
            ids: As in `build`.
            nprobe: As in `build`.
            ef_search: As in `build`.
            train_from: As in `build`.
            probes: What to check embedders by: `"documents"` says that each vector is the embedding of its document's
                text; or texts with their vectors; None for nothing.
            probe_tolerance: As in `build`.
            chunking: As in `build`.
            corpus: As in `build`.
            seed: As in `build`.
            threads: As in `build`.

        Raises:
            InvalidValue: NaN, another shape or number, not of unit length where the spec says so, duplicate ids, …;
                the first bad row is named.
            Incompatible: As in `build`.
            NotFound: As in `build`.
        """
        from llmartifacts.kinds.vector_index import making, training
        from llmartifacts.kinds.vector_index.build import Recipe

        recipe = Recipe(index, nprobe, ef_search, seed, threads, training.source_of(train_from))
        about = making.About.of(chunking, corpus, probe_tolerance)
        return making.from_vectors(vectors, documents, embedding, ids, recipe, about, probes)

    @classmethod
    def from_faiss(
        cls,
        index: Any,
        documents: Iterable[Any] | Path | None = None,
        *,
        embedding: EmbeddingSpec,
        ids: Iterable[str] | None = None,
        faiss_ids: Sequence[int] | None = None,
        probes: TextProbes = None,
        probe_tolerance: float = PROBE_TOLERANCE,
        chunking: Mapping[str, Any] | None = None,
        corpus: Any = None,
    ) -> VectorIndex:
        """Take an index that FAISS made. It is copied, so the caller's may change or go.

        Args:
            index: A FAISS index, a file that `faiss.write_index` wrote, or a folder with `index.faiss`.
            documents: As `build` takes them, in the order of the vectors; None reads `documents.jsonl` of the folder.
                The pickle that LangChain's `save_local` writes beside an index is never read.
            embedding: The space of the vectors; its metric must be the index's.
            ids: As in `build`.
            faiss_ids: FAISS's id of each document, where the index has ids of its own. Default: the positions, or
                the order of its id map.
            probes: As in `from_vectors`; `"documents"` needs an index that keeps the vectors themselves.
            probe_tolerance: As in `build`.
            chunking: As in `build`.
            corpus: As in `build`.

        Raises:
            InvalidValue: As `from_vectors`; or the ids do not fit.
            UnsafeContent: The file has a structure that is not opened; or only a pickle holds the documents.
        """
        from llmartifacts.kinds.vector_index import making

        about = making.About.of(chunking, corpus, probe_tolerance)
        return making.from_faiss(index, documents, embedding, ids, faiss_ids, about, probes)

    def updated(
        self,
        *,
        add: Iterable[Any] | Path | None = None,
        remove: str | Iterable[str] = (),
        embeddings: Embeddings | None = None,
        vectors: Any = None,
        ids: Iterable[str] | None = None,
        chunking: Mapping[str, Any] | None = None,
        corpus: Any = None,
        batch_size: int = 256,
        threads: int = 1,
    ) -> VectorIndex:
        """The next version: documents go and come, and what stayed is not embedded again.

        The trained parts stay as they are, and what stayed keeps its code, so that a registry stores little more than
        what is new. Documents that stay keep their order and come first. Where the index has ids of its own (inverted
        lists, id maps) they stay too, and a new document gets an id that this version does not use.

        A document whose id is there already is compared: with another text it takes the place of the old one and is
        embedded; with the same text it keeps its vector, whatever its metadata. To have a vector replaced all the
        same, name its id in `remove` as well.

        A graph (HNSW) is built anew from the vectors that it stores when something is removed.

        Args:
            add: Documents, as `build` takes them.
            remove: Ids of documents that go; one string is one id.
            embeddings: The embedder of the index; asked only where a document is new or its text is. Checked by the
                probes first; one that cannot be checked is an `EmbedderWarning`.
            vectors: Instead of an embedder: (n, d) float32, row i for document i of `add`. Those of documents that
                are there with the same text are not looked at.
            ids: Ids of the documents in `add`, in order; else their own, else made of their texts.
            chunking: As in `build`; None leaves it.
            corpus: As in `build`. None leaves it where no document differs; else it is unknown then, since the
                documents were not made from the old one alone.
            batch_size: As in `build`.
            threads: As in `build`.

        Returns:
            The next index. This very one where nothing differs: a job that runs daily need not know whether something
            changed, and logging the same content again gives the version that is there.

        Raises:
            InvalidValue: An id to remove is not there, an id is given twice, nothing would be left, nothing embeds what
                is new, or nothing can be removed from such an index (a graph over codes). Nothing is embedded then.
            Incompatible: It is another embedder.
            Unreachable: The embedder raised.

        Example:
            >>> space = EmbeddingSpec("toy", 2, metric="l2")
            >>> kb = VectorIndex.from_vectors([[0, 0], [3, 4]], ["here", "there"], embedding=space, ids=["a", "b"])
            >>> later = kb.updated(add=[{"id": "c", "text": "far"}], vectors=[[9, 9]], remove="a")
            >>> [document.id for document in later.documents], later.search([3, 3], k=1).ids.tolist()
            (['b', 'c'], [['b']])
        """
        from llmartifacts.kinds.vector_index import update

        given = update.Given(embeddings, vectors, batch_size)
        return update.updated(self, add, remove, ids, given, chunking, corpus, threads)

    # --- what it is

    @property
    def count(self) -> int:
        """Vectors, and documents."""
        return self.mapped.layout.count

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return self.embedding.dimension

    @property
    def faiss(self) -> Any:
        """FAISS's own object, read-only: its mutators raise `NotAllowed`."""
        return self.mapped.index

    def writable_copy(self) -> Any:
        """A FAISS index in memory with the same content, which may be changed and logged as a new version."""
        return self.mapped.writable_copy()

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        space = self.embedding
        return (
            f"VectorIndex({self.count} documents, {self.factory}, {space.dimension}, {space.metric}, {space.model!r})"
        )

    # --- search

    def search(self, vectors: Any, k: int, *, nprobe: int | None = None, ef_search: int | None = None) -> SearchHits:
        """Find the nearest documents. Safe from several threads.

        Args:
            vectors: Queries, (n, d) float32; (d,) is one query. Where the embedding is normalized, one that is not of
                unit length (to 0.001) is scaled to it; others reach FAISS bit for bit.
            k: How many, from 1.
            nprobe: Lists to look at, for an IVF index and this call.
            ef_search: Width of the search, for an HNSW index and this call.

        Returns:
            n rows of k hits, nearest first; what FAISS alone gives for the same vectors.

        Raises:
            InvalidValue: Another shape, NaN, infinite, or a parameter the index does not have.
            TooLarge: n times k is over 16 million.

        Example:
            >>> space = EmbeddingSpec("toy", 2, metric="l2")
            >>> kb = VectorIndex.from_vectors([[0, 0], [3, 4]], ["here", "there"], embedding=space, ids=["a", "b"])
            >>> hits = kb.search([3, 3], k=2)
            >>> hits.ids.tolist(), hits.scores.tolist()
            ([['b', 'a']], [[1.0, 18.0]])
        """
        import numpy as np

        mapped = self.mapped
        queries = self._queries(vectors)
        if type(k) is not int or k < 1:
            raise InvalidValue(f"k is {k!r:.40}, not a whole number from 1 on", field="k")
        if len(queries) * k > MAX_ANSWERS:
            raise TooLarge(f"{len(queries)} queries times k = {k} are over {MAX_ANSWERS} answers", field="k")
        parameters = None
        if nprobe is not None or ef_search is not None:
            from llmartifacts.kinds.vector_index.build import search_parameters  # so the first search imports nothing

            parameters = search_parameters(mapped.index, nprobe, ef_search)
        rows, scores = self._nearest(queries, min(k, self.count), parameters)
        if k > self.count:
            gap = ((0, 0), (0, k - self.count))
            rows, scores = np.pad(rows, gap, constant_values=-1), np.pad(scores, gap)
        worst = np.finfo(np.float32).max
        scores[rows < 0] = -worst if self.embedding.metric == "inner_product" else worst
        found = {row: self.documents[row] for row in sorted(set(rows[rows >= 0].tolist()))}
        documents = tuple(tuple(found.get(row) for row in line) for line in rows.tolist())
        ids = np.empty(rows.shape, dtype=object)
        for i, line in enumerate(documents):
            ids[i] = [document.id if document else None for document in line]
        return SearchHits(ids, scores, documents)

    def nearest_rows(
        self, queries: npt.NDArray[np.float32], k: int, window: tuple[int, int] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Rows of the nearest documents, and scores, for probes and evaluations.

        Args:
            queries: (n, d) float32, taken as they are.
            k: How many, at most `count`.
            window: Look at these rows only (first, after the last); for a flat index.

        Returns:
            rows (n, k), -1 where there is none, and scores (n, k).
        """
        parameters = None
        if window is not None:
            import faiss

            parameters = faiss.SearchParameters(sel=faiss.IDSelectorRange(*window))
        return self._nearest(queries, min(k, self.count), parameters)

    def _nearest(
        self, queries: npt.NDArray[np.float32], k: int, parameters: Any
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        from llmartifacts.kinds.vector_index.guard import mind_forks

        mind_forks()
        try:
            scores, labels = self.mapped.index.search(queries, k, params=parameters)
        except RuntimeError as error:
            from llmartifacts.kinds.vector_index.guard import reason

            raise InvalidValue(f"FAISS refuses the search: {reason(error)}", field="vectors") from None
        return self._rows(labels), scores

    def _rows(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """FAISS's ids -> rows of documents."""
        import numpy as np

        rows, good = labels, (labels >= -1) & (labels < self.count)
        if self.row_ids is not None:
            at = np.searchsorted(self.row_ids, labels, sorter=self._by_id)
            rows = self._by_id[np.minimum(at, self.count - 1)]
            good = self.row_ids[rows] == labels
            # -1 is FAISS's word for "none"; no document has a negative id.
            rows, good = np.where(labels == -1, -1, rows), good | (labels == -1)
        if not good.all():
            raise Damaged(
                f"the index names the vector {int(labels[~good][0])}, to which no document belongs", file="index.faiss"
            )
        return rows

    @cached_property
    def _by_id(self) -> npt.NDArray[np.int64]:
        """The rows in the order of FAISS's ids."""
        import numpy as np

        return np.argsort(cast(Any, self.row_ids), kind="stable").astype(np.int64)

    def _queries(self, vectors: Any) -> npt.NDArray[np.float32]:
        from llmartifacts.kinds.vector_index.contents import as_matrix, to_unit

        matrix = as_matrix(vectors, field="vectors", dimension=self.dimension, one=True)
        return to_unit(matrix, field="vectors") if self.embedding.normalized else matrix

    # --- embedders

    def check_embeddings(self, embeddings: Embeddings) -> list[str]:
        """Whether an embedder is the one that this index was built with: the text probes are embedded again.

        Args:
            embeddings: A LangChain embedder.

        Returns:
            Warnings: it could not be reached, or there is nothing to check it by. Empty if it is the right one.

        Raises:
            Incompatible: It gives vectors of another dimension (rule `index-dimension`), or other vectors (rule
                `embedder-probes`).
        """
        from llmartifacts.kinds.vector_index.contents import as_matrix, to_unit
        from llmartifacts.kinds.vector_index.probes import TextProbe, embed, furthest

        probes = self.probes.file.texts
        asked = probes or (TextProbe(text="dimension", side="query"),)
        try:
            made = embed(embeddings, asked)
        except InvalidInput as error:
            raise self._misfit("embedder-probes", error.message) from None
        except Exception as error:  # noqa: BLE001 - whatever an embedder raises, it cannot be reached
            return [f"the embedder of {self.embedding.model!r} was not checked, it raised {_short(error)}"]
        try:
            found = as_matrix(made, field="embeddings")
            if found.shape[1] != self.dimension:
                said = f"vectors of dimension {found.shape[1]}, the index has {self.dimension}"
                raise self._misfit("index-dimension", f"the embedder gives {said}")
            found = to_unit(found, field="embeddings") if self.embedding.normalized else found
        except InvalidValue as error:
            raise self._misfit("embedder-probes", error.message) from None
        if not probes:
            return ["the index has no text probes, so its embedder was not checked"]
        worst, apart = furthest(self.probes.text_vectors, found)
        if apart > self.probes.file.tolerance:
            raise self._misfit(
                "embedder-probes",
                f"the embedder gives another vector for {probes[worst].text!r:.60}: {apart:.2f} away, where "
                f"{self.probes.file.tolerance} is allowed",
            )
        return []

    def as_vectorstore(self, embeddings: Embeddings) -> IndexVectorStore:
        """The index as a LangChain `VectorStore`, for searching only.

        Args:
            embeddings: The embedder that the index was built with; checked by its probes. One that cannot be
                checked is an `EmbedderWarning`.

        Raises:
            Incompatible: It is another one.
        """
        from llmartifacts.kinds.vector_index.langchain import IndexVectorStore

        for warning in self.check_embeddings(embeddings):
            warnings.warn(warning, EmbedderWarning, stacklevel=2)
        return IndexVectorStore(self, embeddings)

    def as_retriever(self, embeddings: Embeddings, **options: Any) -> BaseRetriever:
        """The index as a LangChain retriever.

        Args:
            embeddings: As in `as_vectorstore`.
            **options: Of LangChain's `VectorStore.as_retriever`: `search_type`, `search_kwargs={"k": 4}`, …

        Raises:
            Incompatible: It is another embedder.
        """
        return self.as_vectorstore(embeddings).as_retriever(**options)

    def _misfit(self, rule: str, message: str) -> Incompatible:
        return Incompatible(
            message,
            field="embeddings",
            problems=(f"{rule}: {message}",),
            next_step=f"Use the embedder that the index was built with ({self.embedding.model}), or build it anew.",
        )


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
