"""`VectorIndexKind`: a vector index to config and files, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast

from llmartifacts.errors import InvalidValue
from llmartifacts.kinds.base import Config, FileSink, FileView, Kind
from llmartifacts.kinds.vector_index import overlap
from llmartifacts.kinds.vector_index.config import (
    DocumentsConfig,
    EmbeddingConfig,
    IndexConfig,
    ProbesConfig,
    VectorIndexConfig,
)
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.records.canonical import plain_json
from llmartifacts.records.diff import Change, Diff, diff_files, diff_json, excluding
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.wording import size

if TYPE_CHECKING:
    from llmartifacts.kinds.vector_index.documents import Documents

INDEX, IDS = "index.faiss", "ids.i64"
MAX_SUMMARY = 300


class VectorIndexKind(Kind[VectorIndex]):
    """The kind `vector_index`.

    Files: `index.faiss`; `documents.jsonl` with `documents.lengths`; `probes.json` with `probes.f32`; and, where
    FAISS's ids are not the rows, `ids.i64` (int64 little-endian, one for each document).
    """

    name: ClassVar[str] = "vector_index"
    value_type = VectorIndex
    config_model: ClassVar[type[Config]] = VectorIndexConfig

    def pack(self, value: VectorIndex, files: FileSink) -> Mapping[str, Any]:
        """Turn an index into config and files; large ones are streamed."""
        from llmartifacts.kinds.vector_index.training import trained_digest

        layout = value.mapped.layout
        files.add(INDEX, memoryview(value.mapped.data))
        for path, stream in value.documents.streams():
            with stream:
                files.add(path, stream)
        for path, body in value.probes.to_files().items():
            files.add(path, body)
        if value.row_ids is not None:
            files.add(IDS, value.row_ids.astype("<i8").tobytes())
        config = VectorIndexConfig(
            embedding=EmbeddingConfig.from_spec(value.embedding),
            index=IndexConfig(
                factory=value.factory,
                types=layout.types,
                count=layout.count,
                dimension=layout.dimension,
                metric=layout.metric,
                bytes=len(value.mapped.data),
                nprobe=layout.nprobe,
                ef_search=layout.ef_search,
                trained=trained_digest(value.faiss),
            ),
            documents=DocumentsConfig(count=len(value.documents), fields=value.fields),
            probes=ProbesConfig(texts=len(value.probes.file.texts), queries=len(value.probes.file.queries)),
            chunking=plain_json(value.chunking) if value.chunking is not None else None,
            corpus=value.corpus,
        )
        return config.model_dump(mode="json", exclude_none=True)

    def unpack(self, config: Mapping[str, Any], files: FileView) -> VectorIndex:
        """Open an index: mapped, its structure walked before FAISS sees it, its query probes asked again.

        Raises:
            InvalidValue: Config, files and answers do not fit each other.
            UnsafeContent: The index has a structure that is not opened.
        """
        from llmartifacts.kinds.vector_index import contents, documents, probes  # `contents`: for the first search
        from llmartifacts.kinds.vector_index.guard import open_index

        body = cast(VectorIndexConfig, self.parse(config))
        wanted = {INDEX, documents.JSONL, documents.LENGTHS, probes.JSON, probes.F32}
        wrong = wanted ^ (set(files.paths()) - {IDS})
        if wrong:
            path = min(wrong)
            raise InvalidValue(
                f"the file {path} is {'missing' if path in wanted else 'unknown'}", field=f"files.{path}"
            )
        mapped = open_index(files.as_path(INDEX), body.index)
        texts = documents.Documents(files.as_path(documents.JSONL), files.as_path(documents.LENGTHS))
        if len(texts) != body.documents.count:
            raise InvalidValue(
                f"there are {len(texts)} documents, not {body.documents.count}", field="config.documents"
            )
        known = probes.Probes.from_files(
            files.read(probes.JSON), files.read(probes.F32), dimension=body.embedding.dimension
        )
        if (len(known.file.texts), len(known.file.queries)) != (body.probes.texts, body.probes.queries):
            raise InvalidValue("the probes are not as many as the config says", field="config.probes")
        value = VectorIndex(
            embedding=body.embedding.to_spec(),
            factory=body.index.factory,
            documents=texts,
            fields=body.documents.fields,
            chunking=None if body.chunking is None else MappingProxyType(body.chunking),
            corpus=body.corpus,
            probes=known,
            mapped=mapped,
            row_ids=contents.ids_of_rows(files.read(IDS), body.index.count) if IDS in files.paths() else None,
        )
        probes.check_queries(value.nearest_rows, known)
        return value

    def diff(self, before: Manifest, after: Manifest, files: tuple[FileView, FileView]) -> Diff:
        """Parameters by field, documents by id (added, removed, changed), and how alike the two answer.

        `numbers["overlap@5"]` is the mean share of the five nearest documents that both give, over
        `numbers["overlap_queries"]` queries: the probes of both. Where it cannot be measured, `text` says why.
        """
        from llmartifacts.kinds.vector_index.documents import JSONL, LENGTHS, Documents

        changes = [
            *excluding(diff_json(before.config, after.config), "index.bytes", *_unsaid(before, after)),
            *excluding(diff_files(before, after), "files/documents.", "files/probes.", f"files/{IDS}"),
        ]
        documents: list[Change] = []
        numbers: dict[str, float] = {}
        if _digest(before, JSONL) != _digest(after, JSONL):
            old, new = (Documents(view.as_path(JSONL), view.as_path(LENGTHS)) for view in files)
            documents = _diff_documents(old, new)
            for op in ("added", "removed", "changed"):
                numbers[f"documents_{op}"] = sum(change.op == op for change in documents)
            if not documents:
                numbers["documents_moved"] = len(new)
                changes.extend(c for c in diff_files(before, after) if c.path == f"files/{JSONL}")
        said = ["the quantizer was trained anew"] if _retrained(before, after) else []
        if any(_digest(before, path) != _digest(after, path) for path in (INDEX, JSONL, IDS)):
            measured, why_not = self._overlap(before, after, files)
            numbers |= measured
            said += [why_not] if why_not else []
        return Diff(self.name, "", "", (*changes, *documents), "\n".join(said), numbers)

    def _overlap(
        self, before: Manifest, after: Manifest, files: tuple[FileView, FileView]
    ) -> tuple[dict[str, float], str]:
        """The overlap as numbers, or why there is none."""
        old, new = (cast(VectorIndexConfig, self.parse(m.config)).embedding.to_spec() for m in (before, after))
        why = overlap.apart(old, new)
        if not why:
            try:
                one, two = self.unpack(before.config, files[0]), self.unpack(after.config, files[1])
            except InvalidValue as error:  # an index that FAISS does not read here; the rest of the diff is good
                why = str(error)
            else:
                found = overlap.measure(one, two)
                if found is not None:
                    return {overlap.NAME: found.mean, "overlap_queries": found.queries}, ""
                why = "neither has query probes"
        return {}, f"{overlap.NAME} was not measured: {why}"

    def remarks(self, before: Manifest, after: Manifest, added: Mapping[str, int]) -> list[str]:
        """Says that an index was trained anew though its structure is the same, and what that costs."""
        if not _retrained(before, after):
            return []
        return [
            f"the quantizer was trained anew: {size(added.get(INDEX, 0))} of new bytes are stored for {INDEX}; with "
            "VectorIndex.build(..., train_from=the version before) or .updated(...) only what changed would be"
        ]

    def documents(self, config: Mapping[str, Any], files: FileView) -> Iterator[str]:
        """The ids of the documents."""
        from llmartifacts.kinds.vector_index.documents import JSONL, read_ids

        with files.open(JSONL) as stream:
            yield from read_ids(stream)

    def summary(self, config: Mapping[str, Any]) -> str:
        """One line: documents, index, space."""
        body = cast(VectorIndexConfig, self.parse(config))
        space = body.embedding
        metric = {"inner_product": "cosine" if space.normalized else "inner product", "l2": "L2"}[space.metric]
        plural = "" if body.index.count == 1 else "s"
        told = (
            f"{body.index.count:,} document{plural}, {body.index.factory}, {space.model} ({space.dimension}, {metric})"
        )
        return "".join(c if c.isprintable() else "?" for c in told)[:MAX_SUMMARY]

    def read_source(self, paths: Sequence[Path], options: Mapping[str, str]) -> VectorIndex:
        """Read `index.faiss` or `vectors.npy`, and `documents.jsonl`; options: see `source.read_source`."""
        from llmartifacts.kinds.vector_index.source import read_source

        return read_source(paths, options)


def _trained(manifest: Manifest) -> tuple[Any, ...]:
    """Structure and dimension, and the digest of what was learnt."""
    index = manifest.config.get("index", {})
    return index.get("factory"), index.get("dimension"), index.get("trained")


def _retrained(before: Manifest, after: Manifest) -> bool:
    """Whether two indexes of one structure learnt something else."""
    old, new = _trained(before), _trained(after)
    return old[:2] == new[:2] and None not in (old[2], new[2]) and old[2] != new[2]


def _unsaid(before: Manifest, after: Manifest) -> list[str]:
    """Versions of earlier releases do not say what was learnt: that is no difference of two indexes."""
    old, new = _trained(before), _trained(after)
    return ["index.trained"] if old[:2] == new[:2] and None in (old[2], new[2]) else []


def _digest(manifest: Manifest, path: str) -> str | None:
    found = manifest.file(path)
    return found.digest if found else None


def _diff_documents(before: Documents, after: Documents) -> list[Change]:
    """By id; only hashes are held, so that two large corpora fit into memory."""
    old = {d.id: (row, _content(d)) for row, d in enumerate(before)}
    changes: list[Change] = []
    for row, document in enumerate(after):
        was = old.pop(document.id, None)
        if was is None:
            changes.append(Change(f"documents/{document.id}", None, after[row].text, "added"))
        elif was[1] != _content(document):
            one, two = before[was[0]], document
            if one.text != two.text:
                changes.append(Change(f"documents/{document.id}", one.text, two.text, "changed"))
            else:
                pair = dict(one.metadata), dict(two.metadata)
                changes.append(Change(f"documents/{document.id}/metadata", *pair, "changed"))
    changes.extend(Change(f"documents/{key}", before[row].text, None, "removed") for key, (row, _) in old.items())
    return changes


def _content(document: Any) -> bytes:
    import json

    body = json.dumps([document.text, document.metadata], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(body.encode(), digest_size=16).digest()
