"""`EvalDataset`: items with stable ids, immutable.

Example:
    >>> dataset = EvalDataset([{"question": "2 + 2?", "answer": "4"}, {"question": "Who?", "answer": "Ada"}])
    >>> [(item.input, item.expected_output) for item in dataset]
    [('2 + 2?', '4'), ('Who?', 'Ada')]
    >>> dataset.fields["input"]
    'question'
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from llmartifacts.errors import InvalidValue, NotFound
from llmartifacts.kinds.disk import AnyPath
from llmartifacts.kinds.eval_dataset import rows, splits
from llmartifacts.kinds.eval_dataset.compare import ItemDiff, compare
from llmartifacts.kinds.eval_dataset.rows import ID
from llmartifacts.kinds.eval_dataset.schema import Column, infer
from llmartifacts.kinds.eval_dataset.sources import LIMITS, Limits, Origin, Row
from llmartifacts.records.canonical import canonical_bytes
from llmartifacts.records.names import did_you_mean, near_names

if TYPE_CHECKING:
    from llmartifacts.kinds.eval_dataset.drift import Drift
    from llmartifacts.kinds.eval_dataset.leakage import Leakage

ColumnMap = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Item:
    """One item. It is a copy: changing what is inside changes no dataset.

    Attributes:
        id: Unique in its dataset, and stable.
        input: What the target is asked; any JSON value but null.
        expected_output: What a good answer is; None if there is none.
        metadata: JSON object about the item; empty if there is none.
        split: Name of its split; None if it is in none.
        columns: Every column of the item by its own name, those of the fields above included, the id not.
    """

    id: str
    input: Any
    expected_output: Any
    metadata: Mapping[str, Any]
    split: str | None
    columns: Mapping[str, Any]


@dataclass(frozen=True, init=False, eq=False, repr=False)
class EvalDataset:
    """Items with stable ids, in order. Immutable; kept as one canonical JSON line an item.

    Args:
        items: One mapping an item: column -> JSON value.
        columns: Field (`id`, `input`, `expected_output`, `metadata`, `split`) -> column, where the names alone do not
            tell; None for "no column is this field". What is not said is found by well-known names, such as `question`
            and `answer`; see `llmartifacts.kinds.eval_dataset.fields`. Columns keep their names.
        id_from: Columns whose content makes the id, where no column is the id. By default all but those of
            `expected_output`, `metadata` and `split`; see `llmartifacts.kinds.eval_dataset.rows`.
        limits: Caps on size; they can be lowered.

    Raises:
        InvalidValue: No items, duplicate ids, a missing input, or what is not JSON (NaN, …); field and origin named.
        TooLarge: A cap is passed.
    """

    kind: ClassVar[str] = "eval_dataset"

    _built: rows.Built

    def __init__(
        self,
        items: Iterable[Mapping[str, Any]],
        *,
        columns: ColumnMap | None = None,
        id_from: Sequence[str] | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        numbered = (Row(Origin("", "item", i), item) for i, item in enumerate(items, 1))
        self._set(rows.build(numbered, columns=columns, id_from=id_from, limits=limits))

    def _set(self, built: rows.Built) -> None:
        object.__setattr__(self, "_built", built)

    @classmethod
    def of(cls, built: rows.Built) -> EvalDataset:
        """A dataset of items that `rows.build` or a kind has checked."""
        made = cls.__new__(cls)
        made._set(built)
        return made

    # --- in

    @classmethod
    def from_jsonl(
        cls,
        source: AnyPath | Iterable[str | bytes],
        *,
        columns: ColumnMap | None = None,
        id_from: Sequence[str] | None = None,
        limits: Limits = LIMITS,
    ) -> EvalDataset:
        """Read JSON Lines: one object a line; blank lines are skipped.

        Args:
            source: A file, plain or gzip; or its lines.
            columns: As in `EvalDataset`.
            id_from: As in `EvalDataset`.
            limits: As in `EvalDataset`.

        Raises:
            InvalidValue: A line is no JSON object, or the items are not what a dataset takes; file and line named.
            TooLarge: A cap is passed, or gzip decompresses beyond it.
            NotFound: There is no such file.
        """
        from llmartifacts.kinds.eval_dataset.formats import jsonl

        return cls.of(rows.build(jsonl.read(source, limits), columns=columns, id_from=id_from, limits=limits))

    @classmethod
    def from_csv(
        cls,
        path: AnyPath,
        *,
        columns: ColumnMap | None = None,
        id_from: Sequence[str] | None = None,
        delimiter: str = ",",
        json_columns: Sequence[str] = (),
        limits: Limits = LIMITS,
    ) -> EvalDataset:
        """Read CSV (RFC 4180) with a header line. Every cell is text; an empty cell is null, `""` is empty text.

        Args:
            path: A file, plain or gzip.
            columns: As in `EvalDataset`.
            id_from: As in `EvalDataset`.
            delimiter: One character.
            json_columns: Columns whose cells are JSON.
            limits: As in `EvalDataset`.

        Raises:
            InvalidValue: Rows of unlike length, duplicate column names, a quote that never closes, …; line named.
            TooLarge: A cap is passed.
            NotFound: There is no such file.
        """
        from llmartifacts.kinds.eval_dataset.formats import csv

        found = csv.read(path, limits, delimiter=delimiter, json_columns=json_columns)
        return cls.of(rows.build(found, columns=columns, id_from=id_from, limits=limits))

    @classmethod
    def from_json(
        cls,
        path: AnyPath,
        *,
        columns: ColumnMap | None = None,
        id_from: Sequence[str] | None = None,
        limits: Limits = LIMITS,
    ) -> EvalDataset:
        """Read one JSON document that holds the items.

        That is a list of objects, an object with one such list (`examples`, `data`, `items`, …), or SQuAD's nested
        form, of which each question becomes an item with its `context` and `title`.

        Args:
            path: A file, plain or gzip.
            columns: As in `EvalDataset`.
            id_from: As in `EvalDataset`.
            limits: As in `EvalDataset`.

        Raises:
            InvalidValue: Not JSON, or no list of objects in it.
            TooLarge: A cap is passed.
            NotFound: There is no such file.
        """
        from llmartifacts.kinds.eval_dataset.formats import json

        return cls.of(rows.build(json.read(path, limits), columns=columns, id_from=id_from, limits=limits))

    @classmethod
    def from_parquet(
        cls,
        path: AnyPath,
        *,
        columns: ColumnMap | None = None,
        id_from: Sequence[str] | None = None,
        limits: Limits = LIMITS,
    ) -> EvalDataset:
        """Read Parquet. Dates and times become ISO 8601 text, decimals text; bytes and durations are refused.

        Args:
            path: A file.
            columns: As in `EvalDataset`.
            id_from: As in `EvalDataset`.
            limits: As in `EvalDataset`.

        Raises:
            MissingExtra: pyarrow is not installed.
            InvalidValue: Not Parquet, or a value that has no JSON form; the column is named.
            TooLarge: A cap is passed.
            NotFound: There is no such file.
        """
        from llmartifacts.kinds.eval_dataset.formats import parquet

        return cls.of(rows.build(parquet.read(path, limits), columns=columns, id_from=id_from, limits=limits))

    @classmethod
    def from_huggingface(
        cls,
        dataset: Any,
        *,
        columns: ColumnMap | None = None,
        id_from: Sequence[str] | None = None,
        limits: Limits = LIMITS,
    ) -> EvalDataset:
        """Take a Hugging Face `Dataset`, `IterableDataset`, or `DatasetDict` (its keys become the column `split`).

        Args:
            dataset: Anything that iterates over mappings, or a mapping of such. Class labels stay integers.
            columns: As in `EvalDataset`.
            id_from: As in `EvalDataset`.
            limits: As in `EvalDataset`.

        Raises:
            InvalidValue: It gives something else, or values that have no JSON form.
            TooLarge: A cap is passed.
        """
        from llmartifacts.kinds.eval_dataset.formats import huggingface

        return cls.of(rows.build(huggingface.read(dataset), columns=columns, id_from=id_from, limits=limits))

    @classmethod
    def from_file(
        cls,
        path: AnyPath | Sequence[AnyPath],
        *,
        columns: ColumnMap | None = None,
        id_from: Sequence[str] | None = None,
        limits: Limits = LIMITS,
        **options: Any,
    ) -> EvalDataset:
        """Read a file, or several as one dataset, each by its suffix.

        Known are `.jsonl`, `.ndjson`, `.csv`, `.tsv`, `.json` and `.parquet`; all but the last also with `.gz`.

        Args:
            path: One file or several.
            columns: As in `EvalDataset`.
            id_from: As in `EvalDataset`.
            limits: As in `EvalDataset`.
            **options: `delimiter` and `json_columns`, for CSV.

        Raises:
            InvalidValue: An unknown suffix or option, or as the format's own reader.
        """
        from llmartifacts.kinds.eval_dataset.formats.files import read

        return cls.of(rows.build(read(path, limits, options), columns=columns, id_from=id_from, limits=limits))

    # --- out

    def to_jsonl(self, path: AnyPath) -> None:
        """Write JSON Lines: each item's columns by their own names, and `id`. Compressed if the path ends in `.gz`.

        `EvalDataset.from_jsonl(path, columns=dataset.fields)` gives the same dataset.
        """
        from llmartifacts.kinds.eval_dataset.formats import jsonl

        jsonl.write(self, path)

    def to_csv(self, path: AnyPath, *, delimiter: str = ",") -> tuple[str, ...]:
        """Write CSV (RFC 4180). Columns with values other than text are written as JSON.

        Returns:
            The columns written as JSON: `EvalDataset.from_csv(path, columns=dataset.fields, json_columns=…)` gives the
            same dataset.
        """
        from llmartifacts.kinds.eval_dataset.formats import csv

        return csv.write(self, path, delimiter=delimiter)

    def to_parquet(self, path: AnyPath) -> None:
        """Write Parquet. Columns with arrays, objects or values of several types are JSON text, marked as such.

        `EvalDataset.from_parquet(path, columns=dataset.fields)` gives the same dataset.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        from llmartifacts.kinds.eval_dataset.formats import parquet

        parquet.write(self, path)

    def to_huggingface(self) -> Any:
        """A Hugging Face `datasets.Dataset`, columns by their own names; columns of mixed types are JSON text.

        Raises:
            MissingExtra: datasets is not installed.
        """
        from llmartifacts.kinds.eval_dataset.formats import huggingface

        return huggingface.write(self)

    # --- what is in it

    @property
    def ids(self) -> tuple[str, ...]:
        """Every item's id, in order."""
        return self._built.ids

    @property
    def fields(self) -> Mapping[str, str]:
        """Field -> the column it is read from, such as `input` -> `question`; fields without a column are left out."""
        return MappingProxyType(self._built.fields)

    @property
    def lines(self) -> tuple[bytes, ...]:
        """Each item as canonical JSON, in order, without a line end."""
        return self._built.lines

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each item as a fresh dict: `id`, and its columns by their own names; null columns are left out."""
        return map(rows.decode_line, self._built.lines)

    def line(self, item_id: str) -> bytes:
        """One item as canonical JSON. Raises `NotFound`."""
        return self._built.lines[self._at(item_id)]

    @cached_property
    def schema(self) -> Mapping[str, Column]:
        """What each column holds, by name; inferred over all items when first asked for."""
        return MappingProxyType(infer(self.rows()))

    @cached_property
    def splits(self) -> Mapping[str, int]:
        """Split -> number of items, sorted; items in none are not counted."""
        column = self.fields.get("split")
        found = Counter(row[column] for row in self.rows() if column in row) if column else Counter[str]()
        return MappingProxyType(dict(sorted(found.items())))

    def __len__(self) -> int:
        return len(self._built.ids)

    def __iter__(self) -> Iterator[Item]:
        return map(self._item, self._built.lines)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._places

    def __getitem__(self, which: int | str) -> Item:
        """One item, by its place (counted from 0) or its id. Raises `NotFound` for an unknown id."""
        return self._item(self._built.lines[which if isinstance(which, int) else self._at(which)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EvalDataset) and self._built == other._built

    def __hash__(self) -> int:
        return hash(self._built.lines)

    def __repr__(self) -> str:
        return f"EvalDataset({len(self)} items, {', '.join(f'{k}={v!r}' for k, v in self.fields.items())})"

    @cached_property
    def _places(self) -> dict[str, int]:
        return {item_id: i for i, item_id in enumerate(self._built.ids)}

    def _at(self, item_id: str) -> int:
        found = self._places.get(item_id)
        if found is None:
            near = near_names(str(item_id), self.ids)
            raise NotFound(f"no item {item_id!r:.80}", what="item", name=str(item_id), near=near)
        return found

    def _item(self, line: bytes) -> Item:
        row = rows.decode_line(line)
        item_id = row.pop(ID)
        value = {field: row.get(column) for field, column in self._built.fields.items()}
        return Item(
            item_id,
            value["input"],
            value.get("expected_output"),
            MappingProxyType(value.get("metadata") or {}),
            value.get("split"),
            MappingProxyType(row),
        )

    # --- parts of it

    def select(self, ids: Iterable[str]) -> EvalDataset:
        """The items of some ids, in the dataset's own order.

        Raises:
            NotFound: There is no such item.
            InvalidValue: None is named.
        """
        return self._take(sorted({self._at(i) for i in ids}))

    def split(self, name: str) -> EvalDataset:
        """The items of one split.

        Raises:
            NotFound: No item is in a split of that name.
        """
        if name not in self.splits:
            near = near_names(str(name), self.splits)
            raise NotFound(
                f"no split {name!r:.60}",
                what="split",
                name=str(name),
                near=near,
                next_step="" if near else f"Splits: {', '.join(self.splits) or 'none; make some with with_splits'}.",
            )
        column = self.fields["split"]
        return self._take([i for i, row in enumerate(self.rows()) if row.get(column) == name])

    def with_splits(self, fractions: Mapping[str, float], *, salt: str = "", by: str | None = None) -> EvalDataset:
        """Put every item into a split by the hash of its id: adding, removing or reordering items moves no other.

        Args:
            fractions: Split -> its share, in (0, 1]; they add up to 1. Their order counts: enlarging the first moves
                items from the next ones only.
            salt: Another salt gives another, independent partition.
            by: Column whose equal values stay together, such as the document of a question; by default each item is
                placed by its own id. Items without a value are placed by their id.

        Returns:
            The same items, with their split set.

        Raises:
            InvalidValue: The fractions are no partition, or there is no such column.

        Example:
            >>> parts = EvalDataset([{"input": str(i)} for i in range(1000)]).with_splits({"dev": 0.2, "test": 0.8})
            >>> dict(parts.splits)
            {'dev': 189, 'test': 811}
        """
        bounds = splits.bounds_of(fractions)
        if by is not None and by not in self.schema:
            raise InvalidValue(f"there is no column {by!r:.60}", field="by", next_step=did_you_mean(by, self.schema))
        column = self.fields.get("split", "split")
        if "split" not in self.fields and column in self.schema:
            raise InvalidValue("the column 'split' holds something else", field="split")
        lines = []
        for row in self.rows():
            value = row.get(by) if by else None
            key = row[ID] if value is None else f"{by}={canonical_bytes(value).decode()}"
            row[column] = splits.place(key, bounds, salt)
            lines.append(rows.encode(row, "", LIMITS))
        return self.of(rows.Built(self.ids, tuple(lines), {**self.fields, "split": column}))

    def sample(self, n: int, *, seed: int = 0) -> EvalDataset:
        """Draw `n` items, without replacement; which ones depends on their ids and the seed, never on their order.

        A smaller sample of the same seed lies inside a larger one. Items keep the dataset's order.

        Raises:
            InvalidValue: `n` is not between 1 and the number of items.
        """
        return self._take(splits.choose(self.ids, n, seed))

    def _take(self, places: Sequence[int]) -> EvalDataset:
        if not places:
            raise InvalidValue("the dataset has no items", field="items")
        built = self._built
        ids = tuple(built.ids[i] for i in places)
        lines = tuple(built.lines[i] for i in places)
        return self.of(rows.Built(ids, lines, rows.occurring(built.fields, lines)))

    # --- against another version

    def diff(self, after: EvalDataset) -> ItemDiff:
        """Item-level differences from this dataset to `after`, matched by id."""
        return compare(self, after)

    def drift(self, after: EvalDataset, *, vectors: Any = None) -> Drift:
        """What shifted from this dataset to `after`: schema, size, lengths, categories, numbers, words, embeddings.

        `llmartifacts.kinds.eval_dataset.drift` and `.embeddings` have the definitions and their sources.

        Args:
            after: The second version.
            vectors: For the embedding shift, a pair of arrays of numbers, shapes (len(self), d) and (len(after), d),
                in the order of the items. Or what makes such vectors of the inputs' texts: an object with
                `embed_documents(texts)`, or a function of a list of texts.

        Raises:
            InvalidValue: Vectors of another shape, of unlike dimensions, or with NaN or infinity; the field is named.
        """
        from llmartifacts.kinds.eval_dataset.drift import measure

        return measure(self, after, vectors=vectors)

    # --- against a training set

    def leakage(
        self,
        train: EvalDataset | AnyPath | Sequence[AnyPath] | Iterable[Mapping[str, Any]],
        *,
        fields: Sequence[str] = ("input", "expected_output"),
        train_columns: Sequence[str] | None = None,
        words: int = 8,
        share: float = 0.7,
        answer_words: int = 13,
        ids: bool = True,
        limits: Limits = LIMITS,
    ) -> Leakage:
        """Which items of this test set lie in a training set: the same text, contained in one, or the same id.

        `llmartifacts.kinds.eval_dataset.leakage` has the definitions and their sources. Splits of one dataset are
        checked the same way: `dataset.split("test").leakage(dataset.split("train"))`.

        Args:
            train: A dataset; a file of chat messages (`{"messages": […]}`), of prompts and completions or of any other
                columns, or several; or one mapping an item. It is read once, one item at a time.
            fields: Fields or columns of this set whose text is looked for.
            train_columns: Columns of the training items to look in; all but the id by default, of a dataset also all
                but metadata and split.
            words: Words of a shingle, 1 to 100.
            share: Share of a text's shingles from which it counts as contained, in (0, 1].
            answer_words: Words from which an expected output is looked for: shorter ones are equal by nature.
            ids: Whether an equal id counts; ids of digits alone never do.
            limits: Caps on a training file.

        Raises:
            InvalidValue: An unknown field or column, a number out of range, or training items that cannot be read.
            TooLarge: A cap is passed.
            NotFound: There is no such file.

        Example:
            >>> test = EvalDataset([{"id": "q1", "input": "How many eggs do Janet's ducks lay in a week?"}])
            >>> report = test.leakage([{"prompt": "Q: how many eggs do  Janet's ducks lay in a week? A:"}])
            >>> print(report.leaks[0])
            q1 (input): 100% contained in item 1 (prompt)
        """
        from llmartifacts.kinds.eval_dataset.leakage import check

        return check(
            self,
            train,
            fields=fields,
            train_columns=train_columns,
            words=words,
            share=share,
            answer_words=answer_words,
            ids=ids,
            limits=limits,
        )
