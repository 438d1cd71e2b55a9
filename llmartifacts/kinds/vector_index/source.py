"""Reads a vector index from files, for `llmartifacts log vector_index NAME SOURCE…`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from llmartifacts.errors import InvalidValue
from llmartifacts.formats.faiss import Layout, Metric
from llmartifacts.kinds.base import check_options
from llmartifacts.kinds.vector_index import contents
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.documents import JSONL_HINT, refuse_pickle
from llmartifacts.kinds.vector_index.guard import open_index
from llmartifacts.kinds.vector_index.value import TextProbes, VectorIndex

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

OPTIONS = ("dimension", "ef_search", "index", "metric", "model", "nprobe", "normalized", "probes")
_NPY = b"\x93NUMPY"


@dataclass(frozen=True, slots=True)
class Found:
    """The files of one source.

    Attributes:
        index: A FAISS file.
        vectors: Or a NumPy file.
        documents: JSONL.
    """

    index: Path | None
    vectors: Path | None
    documents: Path


def read_source(paths: Sequence[Path], options: Mapping[str, str]) -> VectorIndex:
    """Read an index, or vectors, and the documents.

    Args:
        paths: A folder with `index.faiss` or `vectors.npy`, and `documents.jsonl`; or those files under any name.
        options: `model` (required), `metric`, `normalized` (`true` or `false`; default: what the vectors are),
            `dimension` (checked), `probes` (`documents`); for vectors `index` (factory string), `nprobe`, `ef_search`.

    Raises:
        InvalidValue: A file or the model is missing, or the content is wrong.
        UnsafeContent: The documents are a pickle, or the index is of a structure that is not opened.
    """
    check_options(options, OPTIONS)
    if not options.get("model"):
        raise InvalidValue(
            "which embedder made the vectors is not said",
            field="model",
            next_step="Add --option model=NAME, such as --option model=BAAI/bge-small-en-v1.5.",
        )
    found = find(paths)
    for name in ("index", "nprobe", "ef_search"):
        if name in options and found.index is not None:
            raise InvalidValue("this is settled in a finished index", field=name, next_step="Leave the option out.")
    probes: TextProbes = None
    if "probes" in options:
        if options["probes"] != "documents":
            raise InvalidValue(
                f"probes is {options['probes']!r:.40}", field="probes", next_step="Say probes=documents."
            )
        probes = "documents"
    if found.vectors is not None:
        vectors = load_npy(found.vectors)
        unit = contents.first_not_unit(vectors) is None
        spec = _spec(options, vectors.shape[1], _metric(options, "inner_product"), unit)
        return VectorIndex.from_vectors(
            vectors,
            found.documents,
            embedding=spec,
            index=options.get("index", "Flat"),
            nprobe=_number(options, "nprobe"),
            ef_search=_number(options, "ef_search"),
            probes=probes,
        )
    assert found.index is not None  # noqa: S101 - `find` gives one of the two
    mapped = open_index(found.index.resolve())
    spec = _spec(
        options, mapped.layout.dimension, _metric(options, mapped.layout.metric), _all_unit(mapped.data, mapped.layout)
    )
    return VectorIndex.from_faiss(found.index, found.documents, embedding=spec, probes=probes)


def find(paths: Sequence[Path]) -> Found:
    """Tell the files of a source apart, by their suffixes.

    Raises:
        InvalidValue: One is missing, is there twice, or is of no known type.
        UnsafeContent: The documents are a pickle only.
    """
    files: dict[str, list[Path]] = {".faiss": [], ".npy": [], ".jsonl": [], ".pkl": []}
    for path in paths:
        if not path.exists():
            raise InvalidValue("there is no such file", field="source", origin=str(path))
        folder = path.is_dir()
        for file in sorted(path.iterdir()) if folder else [path]:
            if file.suffix in files:
                files[file.suffix].append(file)
            elif not folder:
                refuse_pickle(file)
                raise InvalidValue(
                    f"{file.name} is of no known type", field="source", origin=str(file), next_step=_WANTED
                )
            # Other files of a folder are not the index's: a README, the probes of a version that was pulled.
    if files[".pkl"] and not files[".jsonl"]:
        refuse_pickle(files[".pkl"][0])
    for suffix, many in files.items():
        if len(many) > 1:
            raise InvalidValue(
                f"there are {len(many)} {suffix} files: {', '.join(f.name for f in many[:3])}",
                field="source",
                next_step="Name the files themselves.",
            )
    if bool(files[".faiss"]) == bool(files[".npy"]):
        both = "both an index and vectors" if files[".faiss"] else "neither an index nor vectors"
        raise InvalidValue(f"there are {both}", field="source", origin=str(paths[0]), next_step=_WANTED)
    if not files[".jsonl"]:
        raise InvalidValue("the documents are missing", field="source", origin=str(paths[0]), next_step=JSONL_HINT)
    return Found(next(iter(files[".faiss"]), None), next(iter(files[".npy"]), None), files[".jsonl"][0])


def load_npy(path: Path) -> npt.NDArray[np.float32]:
    """Map the vectors of a `.npy` file; an object array, which is a pickle, is refused.

    Raises:
        InvalidValue: It is no such file, or holds no (n, d) numbers.
    """
    import numpy as np

    try:
        with path.open("rb") as file:
            if file.read(len(_NPY)) != _NPY:
                raise InvalidValue(f"{path.name} is no NumPy array file", field="vectors", origin=str(path))
        loaded: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidValue(f"{path.name} cannot be read: {error}", field="vectors", origin=str(path)) from None
    try:
        return contents.as_matrix(loaded, field="vectors")
    except InvalidValue as error:
        raise InvalidValue(error.message, field=error.field, origin=path.name, next_step=error.next_step) from None


_WANTED = "Give a folder with index.faiss (or vectors.npy) and documents.jsonl, or those two files."


def _number(options: Mapping[str, str], name: str) -> int | None:
    text = options.get(name)
    if text is not None and not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidValue(f"{name} is {text!r:.40}, not a whole number", field=name)
    return None if text is None else int(text)


def _metric(options: Mapping[str, str], default: Metric) -> Any:
    said = options.get("metric", default)
    if said not in get_args(Metric):
        raise InvalidValue(f"metric is {said!r:.40}", field="metric", next_step="Say inner_product or l2.")
    return said


def _spec(options: Mapping[str, str], dimension: int, metric: Metric, unit: bool) -> EmbeddingSpec:
    stated = options.get("dimension", str(dimension))
    if stated != str(dimension):
        raise InvalidValue(f"the vectors have dimension {dimension}, the option says {stated!r:.40}", field="dimension")
    normalized = options.get("normalized", str(unit).lower())
    if normalized not in ("true", "false"):
        raise InvalidValue(f"normalized is {normalized!r:.40}", field="normalized", next_step="Say true or false.")
    return EmbeddingSpec(options["model"], dimension, metric, normalized == "true")


def _all_unit(data: Any, layout: Layout) -> bool:
    """Whether every vector is kept and has unit length."""
    if layout.vectors is None:
        return False
    return all(contents.first_not_unit(block) is None for _, block in contents.stored_vectors(data, layout))
