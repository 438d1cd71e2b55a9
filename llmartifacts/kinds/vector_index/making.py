"""How a `VectorIndex` comes to be: documents and index are written to a private folder, checked, and mapped.

The folder goes at once; the maps stay. So a value that was just made reads the same bytes in the same way as one that
was resolved, `pack` streams those bytes, and input that is refused leaves nothing behind.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llmartifacts.errors import InvalidManifest, InvalidValue, Unreachable, UnsafeContent
from llmartifacts.formats.faiss import Metric, Rows
from llmartifacts.kinds.vector_index import contents, probing
from llmartifacts.kinds.vector_index.build import Recipe, build_index, empty_index, save_index
from llmartifacts.kinds.vector_index.config import EmbeddingSpec, check_corpus
from llmartifacts.kinds.vector_index.documents import (
    JSONL,
    JSONL_HINT,
    LENGTHS,
    Document,
    Documents,
    as_documents,
    refuse_pickle,
    write_documents,
)
from llmartifacts.kinds.vector_index.guard import MappedIndex, open_index
from llmartifacts.kinds.vector_index.probes import Probes, ProbesFile
from llmartifacts.kinds.vector_index.training import check_space
from llmartifacts.kinds.vector_index.value import TextProbes, VectorIndex
from llmartifacts.records.canonical import plain_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

INDEX = "index.faiss"


@dataclass(frozen=True, slots=True)
class About:
    """What users say of an index besides its vectors."""

    chunking: Mapping[str, Any] | None
    corpus: str | None
    tolerance: float

    @classmethod
    def of(cls, chunking: Any, corpus: Any, tolerance: Any) -> About:
        """Check all of it.

        Raises:
            InvalidValue: The chunking is no JSON object, or the tolerance not between 0 and 1.
            InvalidReference: The corpus is no digest.
        """
        if chunking is not None:
            if not isinstance(chunking, Mapping):
                raise InvalidValue(f"chunking is a {type(chunking).__name__}, not an object", field="chunking")
            try:
                chunking = MappingProxyType(plain_json(chunking, field="chunking"))
            except InvalidManifest as error:
                raise InvalidValue(error.message, field=error.field, next_step=error.next_step) from None
        if type(tolerance) not in (int, float) or not 0 < tolerance < 1:
            raise InvalidValue(f"probe_tolerance is {tolerance!r:.40}, not between 0 and 1", field="probe_tolerance")
        return cls(chunking, check_corpus(corpus), float(tolerance))


@dataclass(frozen=True, slots=True)
class Stored:
    """Documents that were written to the private folder."""

    documents: Documents
    fields: tuple[str, ...]


def build(
    documents: Any,
    embeddings: Any,
    model: str,
    metric: Metric,
    normalize: bool | None,
    ids: Iterable[str] | None,
    recipe: Recipe,
    about: About,
    batch_size: int,
) -> VectorIndex:
    """See `VectorIndex.build`."""
    EmbeddingSpec(model, 1, metric)  # refused before anything is embedded
    if recipe.trained is not None:
        check_space(recipe.trained, model, metric)
    with private_folder() as folder:
        stored = store(as_documents(documents, ids), folder)
        count = len(stored.documents)

        def check_recipe(dimension: int) -> None:
            empty_index(count, EmbeddingSpec(model, dimension, metric), recipe)

        vectors = embed_all(stored.documents, embeddings, batch_size, check_recipe)
        if normalize:
            vectors = contents.to_unit(vectors, field="vectors")
        unit = normalize is not False and contents.first_not_unit(vectors) is None
        spec = EmbeddingSpec(model, vectors.shape[1], metric, unit)
        rows = probing.probe_rows(stored.documents)
        asked = [stored.documents[row].text for row in rows[:2]]
        answers = embed_queries(asked, embeddings)
        known = probing.of_documents(stored.documents, {row: vectors[row] for row in rows}, spec)
        known = known.and_queries(asked, answers, spec)
        mapped = _save(build_index(vectors, spec, recipe), folder / INDEX, recipe)
        return _finish(mapped, spec, recipe.factory, stored, about, known, vectors)


def from_vectors(
    vectors: Any,
    documents: Any,
    spec: EmbeddingSpec,
    ids: Iterable[str] | None,
    recipe: Recipe,
    about: About,
    probes: TextProbes,
) -> VectorIndex:
    """See `VectorIndex.from_vectors`."""
    spec = _spec(spec)
    matrix = contents.as_matrix(vectors, field="vectors", dimension=spec.dimension)
    check_unit(matrix, spec, 0)
    with private_folder() as folder:
        stored = store(as_documents(documents, ids), folder)
        check_count(len(stored.documents), len(matrix))
        if probes == "documents":
            rows = probing.probe_rows(stored.documents)
            known = probing.of_documents(stored.documents, {row: matrix[row] for row in rows}, spec)
        else:
            known = probing.of_user(probes, spec)
        mapped = _save(build_index(matrix, spec, recipe), folder / INDEX, recipe)
        return _finish(mapped, spec, recipe.factory, stored, about, known, matrix)


def from_faiss(
    index: Any,
    documents: Any,
    spec: EmbeddingSpec,
    ids: Iterable[str] | None,
    faiss_ids: Sequence[int] | None,
    about: About,
    probes: TextProbes,
) -> VectorIndex:
    """See `VectorIndex.from_faiss`."""
    spec = _spec(spec)
    with private_folder() as folder:
        if isinstance(index, str | Path):
            path, documents = _find(Path(index), documents)
            _copy(path, folder / INDEX)
        else:
            save_index(index, folder / INDEX)
        if documents is None:
            raise InvalidValue("an index needs its documents", field="documents", next_step=JSONL_HINT)
        mapped = open_index(folder / INDEX)
        layout = mapped.layout
        for what in ("dimension", "metric"):
            found, said = getattr(layout, what), getattr(spec, what)
            if found != said:
                raise InvalidValue(
                    f"the index has {what} {found}, the embedding says {said}", field=f"embedding.{what}"
                )
        _check_stored(mapped, spec)
        stored = store(as_documents(documents, ids), folder)
        check_count(len(stored.documents), layout.count)
        row_ids = _own_ids(mapped, faiss_ids)
        if probes == "documents":
            rows = probing.probe_rows(stored.documents)
            vectors = probing.fetch(mapped, row_ids, set(rows))
            if len(vectors) != len(rows):
                raise InvalidValue(
                    f"a {layout.factory} index keeps no vectors to check embedders by",
                    field="probes",
                    next_step="Give texts with their vectors: probes={text: vector}.",
                )
            known = probing.of_documents(stored.documents, {row: vectors[row] for row in rows}, spec)
        else:
            known = probing.of_user(probes, spec)
        return _finish(mapped, spec, layout.factory, stored, about, known, None, row_ids)


def store(documents: Iterable[Document], folder: Path) -> Stored:
    """Write documents to a private folder, and open what was written."""
    fields = write_documents(documents, folder).fields
    return Stored(Documents(folder / JSONL, folder / LENGTHS), fields)


def _finish(
    mapped: MappedIndex,
    spec: EmbeddingSpec,
    factory: str,
    stored: Stored,
    about: About,
    known: probing.Known,
    vectors: Vectors | None,
    row_ids: npt.NDArray[np.int64] | None = None,
) -> VectorIndex:
    """Ask the new index its query probes, and put the value together."""
    asked = probing.sample_queries(mapped, spec, vectors)
    file = ProbesFile(tolerance=about.tolerance, texts=known.texts)
    bare = VectorIndex(
        embedding=spec,
        factory=factory,
        documents=stored.documents,
        fields=stored.fields,
        chunking=about.chunking,
        corpus=about.corpus,
        probes=Probes(file, known.vectors, asked[:0]),
        mapped=mapped,
        row_ids=row_ids,
    )
    answered = file.model_copy(update={"queries": probing.answers(bare, asked, vectors)})
    return replace(bare, probes=Probes(answered, known.vectors, asked))


# --- checks


def _spec(spec: Any) -> EmbeddingSpec:
    if not isinstance(spec, EmbeddingSpec):
        raise InvalidValue(
            f"embedding is a {type(spec).__name__}, not an EmbeddingSpec",
            field="embedding",
            next_step='Give la.EmbeddingSpec("model name", dimension, normalized=True).',
        )
    return spec


def check_unit(vectors: Vectors, spec: EmbeddingSpec, before: int) -> None:
    """Refuse vectors that are not of unit length where their space says so; `before` rows went before these."""
    bad = contents.first_not_unit(vectors) if spec.normalized else None
    if bad is not None:
        size = float(contents.lengths(vectors[bad : bad + 1])[0])
        raise InvalidValue(
            f"the embedding is normalized, and the vector of row {before + bad} has length {size:.4g}",
            field=f"vectors[{before + bad}]",
            next_step="Divide the vectors by their lengths, or say normalized=False.",
        )


def check_count(documents: int, vectors: int) -> None:
    """Refuse documents and vectors that are not as many."""
    if documents != vectors:
        raise InvalidValue(
            f"{documents} documents for {vectors} vectors",
            field=f"documents[{vectors}]" if documents > vectors else f"vectors[{documents}]",
            next_step="Give one document for each vector, in the same order.",
        )


def _check_stored(mapped: MappedIndex, spec: EmbeddingSpec) -> None:
    before = 0
    for _, block in contents.stored_vectors(mapped.data, mapped.layout):
        bad = contents.first_not_finite(block)
        if bad is not None:
            raise InvalidValue(
                f"the vector at position {before + bad} of the index holds a NaN or an infinity",
                field=f"vectors[{before + bad}]",
            )
        check_unit(block, spec, before)
        before += len(block)


def _own_ids(mapped: MappedIndex, given: Sequence[int] | None) -> npt.NDArray[np.int64] | None:
    """FAISS's id of each document; None if they are the rows."""
    import numpy as np

    found = contents.faiss_ids(mapped.data, mapped.layout)
    count = mapped.layout.count
    rows = np.arange(count, dtype=np.int64)
    present = np.sort(rows if found is None else found)
    repeated = np.flatnonzero(present[1:] == present[:-1])
    if len(repeated) or present[0] < 0:
        bad = int(present[repeated[0]] if len(repeated) else present[0])
        raise InvalidValue(f"the index has the id {bad} {'twice' if len(repeated) else 'below 0'}", field="faiss_ids")
    if given is not None:
        try:
            ids = np.array(given, dtype=np.int64)
        except (TypeError, ValueError, OverflowError):
            raise InvalidValue("the ids are not 64-bit whole numbers", field="faiss_ids") from None
        if ids.shape != (count,) or not np.array_equal(np.sort(ids), present):
            raise InvalidValue(
                f"the {ids.size} ids given are not the {count} of the index",
                field="faiss_ids",
                next_step="Give FAISS's id of each document, in the order of the documents.",
            )
    elif isinstance(mapped.layout.ids, Rows) and found is not None:
        ids = found.copy()  # the order of an id map is the order of adding
    elif np.array_equal(present, rows):
        return None
    else:
        raise InvalidValue(
            "the index has ids of its own, and nothing says which document each belongs to",
            field="faiss_ids",
            next_step="Give faiss_ids: FAISS's id of each document, in the order of the documents.",
        )
    return None if np.array_equal(ids, rows) else ids


# --- embedding


def check_embedder(embeddings: Any) -> None:
    """Refuse what cannot embed.

    Raises:
        InvalidValue: It has not the two methods of an embedder.
    """
    for method in ("embed_documents", "embed_query"):
        if not callable(getattr(embeddings, method, None)):
            raise InvalidValue(
                f"a {type(embeddings).__name__} is no embedder",
                field="embeddings",
                next_step="Give an object with embed_documents and embed_query, such as LangChain's Embeddings.",
            )


def embed_queries(texts: Sequence[str], embeddings: Any) -> list[Any]:
    """Embed texts as queries, for probes."""
    return [_call(embeddings.embed_query, text, "embed_query", "a probe") for text in texts]


def embed_all(documents: Sequence[Document], embeddings: Any, batch_size: int, first: Callable[[int], None]) -> Vectors:
    """Embed every document.

    Args:
        documents: What to embed.
        embeddings: A LangChain embedder.
        batch_size: Texts per call.
        first: Called with the dimension, once it is known.

    Raises:
        InvalidValue: No embedder, or what it gives are no vectors.
        Unreachable: It raised.
    """
    import numpy as np

    if type(batch_size) is not int or batch_size < 1:
        raise InvalidValue(f"batch_size is {batch_size!r:.40}, not a whole number from 1 on", field="batch_size")
    check_embedder(embeddings)
    made: list[Vectors] = []
    dimension: int | None = None
    for start in range(0, len(documents), batch_size):
        texts = [d.text for d in documents[start : start + batch_size]]
        where = f"documents {start} to {start + len(texts) - 1}"
        vectors = _call(embeddings.embed_documents, texts, "embed_documents", where)
        try:
            block = contents.as_matrix(vectors, field="vectors", dimension=dimension)
        except InvalidValue as error:
            raise InvalidValue(
                f"the embedder's answer for {where}: {error.message}", field=error.field, next_step=error.next_step
            ) from None
        if len(block) != len(texts):
            raise InvalidValue(f"the embedder gave {len(block)} vectors for {where}", field="embeddings")
        if dimension is None:
            dimension = block.shape[1]
            first(dimension)
        made.append(block)
    return np.vstack(made)


def _call(method: Any, argument: Any, name: str, where: str) -> Any:
    try:
        return method(argument)
    except Exception as error:
        raise Unreachable(
            f"the embedder failed in {name} for {where}: {type(error).__name__}: {error}", field="embeddings"
        ) from error


# --- files


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that nobody else reads, and that goes."""
    with tempfile.TemporaryDirectory(prefix="llmartifacts-") as folder:
        yield Path(folder)


def _find(path: Path, documents: Any) -> tuple[Path, Any]:
    """The index file of a path, and the documents beside it where none are given."""
    folder = path if path.is_dir() else path.parent
    if documents is None:
        if (folder / JSONL).is_file():
            documents = folder / JSONL
        else:
            pickled = next(iter(sorted(folder.glob("*.pkl"))), None)
            if pickled:
                refuse_pickle(pickled)
    return (path / INDEX if folder == path else path), documents


def _save(index: Any, path: Path, recipe: Recipe) -> MappedIndex:
    save_index(index, path)
    try:
        return open_index(path)
    except UnsafeContent as error:
        raise InvalidValue(
            f"{recipe.factory!r} makes a file that is not opened: {error.message}",
            field="index",
            next_step=error.hint(),
        ) from None


def _copy(source: Path, target: Path) -> None:
    """Copy an index file, so that whoever writes to it later does not write to ours."""
    try:
        if not source.is_file():
            raise InvalidValue(f"there is no index file {source.name}", field="index", origin=str(source))
        shutil.copyfile(source, target)
    except OSError as error:
        raise InvalidValue(
            f"the index cannot be read: {error.strerror or error}", field="index", origin=str(source)
        ) from None
