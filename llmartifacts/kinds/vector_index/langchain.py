"""A `VectorIndex` as LangChain's `VectorStore`: the same search, for reading only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from llmartifacts.errors import InvalidValue, NotAllowed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llmartifacts.kinds.vector_index.documents import Document
    from llmartifacts.kinds.vector_index.value import VectorIndex

Filter = Callable[[dict[str, Any]], bool] | Mapping[str, Any]
_SEARCH_OPTIONS = frozenset({"nprobe", "ef_search"})


class IndexVectorStore(VectorStore):
    """Searches a `VectorIndex` with a LangChain embedder; made by `VectorIndex.as_vectorstore`.

    Scores are FAISS's own: inner products (more is nearer) or squared L2 distances (less is nearer). Every search
    takes `nprobe` and `ef_search`, for that call.

    Args:
        value: The index.
        embeddings: Embeds the queries.
    """

    def __init__(self, value: VectorIndex, embeddings: Embeddings) -> None:
        self.value = value
        self._embeddings = embeddings

    @property
    def embeddings(self) -> Embeddings:
        """What embeds the queries."""
        return self._embeddings

    # --- search

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[LangChainDocument]:
        """The k documents nearest to a text; options as in `similarity_search_with_score_by_vector`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """The k documents nearest to a text, with their scores."""
        return self.similarity_search_with_score_by_vector(self._embeddings.embed_query(query), k, **kwargs)

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[LangChainDocument]:
        """The k documents nearest to a vector."""
        return [document for document, _ in self.similarity_search_with_score_by_vector(embedding, k, **kwargs)]

    def similarity_search_with_score_by_vector(
        self,
        embedding: Sequence[float],
        k: int = 4,
        *,
        filter: Filter | None = None,  # noqa: A002 - LangChain's word
        fetch_k: int = 20,
        **kwargs: Any,
    ) -> list[tuple[LangChainDocument, float]]:
        """The k documents nearest to a vector, with their scores.

        Args:
            embedding: The query, d numbers.
            k: How many.
            filter: Metadata that a document must have (`{"lang": "en"}`), or a function of the metadata. It is
                applied to the `fetch_k` nearest, so fewer than k may be left.
            fetch_k: See `filter`.
            **kwargs: `nprobe`, `ef_search`.

        Raises:
            InvalidValue: An unknown option, or as `VectorIndex.search`.
        """
        found = self._nearest(embedding, max(k, fetch_k) if filter is not None else k, kwargs)
        kept = [(d, score) for d, score in found if filter is None or _passes(d.metadata, filter)]
        return [(_document(d), score) for d, score in kept[:k]]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[LangChainDocument]:
        """Documents near to a text and unlike each other; see `max_marginal_relevance_search_by_vector`."""
        vector = self._embeddings.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[LangChainDocument]:
        """Documents near to a vector and unlike each other, chosen one by one.

        The candidates' texts are embedded again, since not every index keeps vectors.

        Args:
            embedding: The query, d numbers.
            k: How many.
            fetch_k: Candidates.
            lambda_mult: 1 weighs nearness only, 0 difference only.
            **kwargs: `filter`, `nprobe`, `ef_search`.

        Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking", SIGIR 1998.
        """
        import numpy as np

        keep = kwargs.pop("filter", None)
        found = [d for d, _ in self._nearest(embedding, max(k, fetch_k), kwargs)]
        candidates = [d for d in found if keep is None or _passes(d.metadata, keep)]
        if not candidates:
            return []
        vectors = _unit(np.asarray(self._embeddings.embed_documents([d.text for d in candidates]), np.float64))
        near = vectors @ _unit(np.asarray([embedding], np.float64))[0]
        alike = vectors @ vectors.T
        chosen: list[int] = []
        while len(chosen) < min(k, len(candidates)):
            repeats = alike[:, chosen].max(axis=1) if chosen else np.zeros(len(candidates))
            worth = lambda_mult * near - (1 - lambda_mult) * repeats
            worth[chosen] = -np.inf
            chosen.append(int(np.argmax(worth)))
        return [_document(candidates[i]) for i in chosen]

    def get_by_ids(self, ids: Sequence[str], /) -> list[LangChainDocument]:
        """The documents of some ids; ids that are not there are left out."""
        rows = self.value.documents.row_of
        return [_document(self.value.documents[rows[i]]) for i in ids if i in rows]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Cosine, cut at 0: what LangChain's score thresholds are held against."""
        if not self.value.embedding.normalized:
            raise InvalidValue(
                "relevance from 0 to 1 needs vectors of unit length",
                field="embedding.normalized",
                next_step="Build the index with normalize=True, or use similarity_search_with_score.",
            )
        if self.value.embedding.metric == "inner_product":
            return lambda score: min(max(score, 0.0), 1.0)
        return lambda distance: min(max(1.0 - distance / 2, 0.0), 1.0)  # |a - b|^2 = 2 - 2 cos on unit vectors

    def _nearest(self, embedding: Sequence[float], k: int, options: Mapping[str, Any]) -> list[tuple[Document, float]]:
        unknown = sorted(options.keys() - _SEARCH_OPTIONS)
        if unknown:
            raise InvalidValue(
                f"unknown search option {unknown[0]!r}",
                field=unknown[0],
                next_step="Known options: ef_search, fetch_k, filter, k, nprobe.",
            )
        hits = self.value.search([embedding], k, **options)
        pairs = zip(hits.documents[0], hits.scores[0].tolist(), strict=True)
        return [(document, score) for document, score in pairs if document is not None]

    # --- a version does not change

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Refused: raises `NotAllowed`."""
        raise _read_only("add_texts")

    def add_documents(self, documents: list[LangChainDocument], **kwargs: Any) -> list[str]:
        """Refused: raises `NotAllowed`."""
        raise _read_only("add_documents")

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Refused: raises `NotAllowed`."""
        raise _read_only("delete")

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> IndexVectorStore:
        """Refused: raises `NotAllowed`; use `VectorIndex.build`."""
        raise _read_only("from_texts")


def _read_only(name: str) -> NotAllowed:
    return NotAllowed(
        f"{name}(): a version of an index does not change",
        field=name,
        next_step="Make another with VectorIndex.updated(...), or anew with la.VectorIndex.build(...), and log it.",
    )


def _document(document: Document) -> LangChainDocument:
    return LangChainDocument(id=document.id, page_content=document.text, metadata=dict(document.metadata))


def _passes(metadata: Mapping[str, Any], keep: Filter) -> bool:
    if callable(keep):
        return bool(keep(dict(metadata)))
    missing = object()
    return all(
        metadata.get(key, missing) in value if isinstance(value, list | tuple | set) else metadata.get(key) == value
        for key, value in keep.items()
    )


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    import numpy as np

    size = np.linalg.norm(vectors, axis=1, keepdims=True)
    made: npt.NDArray[np.float64] = vectors / np.where(size > 0, size, 1)
    return made
