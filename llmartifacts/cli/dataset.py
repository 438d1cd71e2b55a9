"""`dataset schema`, `split`, `drift`, `leakage`: what it holds, its parts, what shifted, what leaked into training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from llmartifacts import wire
from llmartifacts.cli.arguments import ReferenceArgument, existing, pairs
from llmartifacts.cli.command import MEASURE, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import BAD, FAINT, GOOD, NAME, WARN, Column, Output, Piece
from llmartifacts.cli.plain import plain
from llmartifacts.errors import InvalidValue, WrongKind
from llmartifacts.records.wording import counted

if TYPE_CHECKING:
    from llmartifacts.kinds.eval_dataset.drift import Drift
    from llmartifacts.kinds.eval_dataset.leakage import Leakage
    from llmartifacts.kinds.eval_dataset.value import EvalDataset
    from llmartifacts.records.version import Found
    from llmartifacts.registry import Registry

_KIND = "eval_dataset"
_OWN_HELP = "A version (name, name:alias, name:vN or name@sha256:…) or a file."

OptionOption = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="KEY=VALUE", help="How a file is read, as with log. Repeatable."),
]


def _is_file(text: str, *, field: str) -> bool:
    """Whether an argument names a file: one that is there, or what can be nothing else.

    Raises:
        NotFound: It can only be a file, and there is none.
    """
    if Path(text).is_file():
        return True
    from llmartifacts.kinds.eval_dataset.formats.files import SUFFIXES
    from llmartifacts.kinds.eval_dataset.sources import suffix_of

    if suffix_of(text) in SUFFIXES or text.startswith((".", os.sep, "~")) or Path(text).is_dir():
        existing([Path(text)], field=field)
        return True
    return False


def _read_file(path: str, options: Mapping[str, str]) -> EvalDataset:
    from llmartifacts.kinds.eval_dataset.kind import EvalDatasetKind

    return EvalDatasetKind().read_source([Path(path)], options)


def _loaded(registry: Registry, reference: str, *, field: str) -> tuple[Found, EvalDataset]:
    found = registry.find(reference)
    if found.manifest.kind != _KIND:
        raise WrongKind(
            f"{found.version} is of the kind {found.manifest.kind}, not {_KIND}",
            field=field,
            next_step="To check a file that is no dataset, pull it and name the file.",
        )
    return found, registry.load(found.manifest)


def _dataset(session: Session, text: str, options: Mapping[str, str], *, field: str) -> tuple[str, EvalDataset]:
    if _is_file(text, field=field):
        return text, _read_file(text, options)
    with session.open() as registry:
        found, value = _loaded(registry, text, field=field)
    return str(found.version), value


# --- schema


@command(
    "schema",
    examples=("dataset schema support-eval", "dataset schema questions.csv"),
    shape='{"dataset": text, "items": int, "fields": {field: column}, "splits": {name: int},'
    ' "columns": {name: {"types", "present", "null", "distinct"?, "values"?, "properties"?}}}',
)
def schema(
    session: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help=_OWN_HELP)],
    option: OptionOption = None,
) -> None:
    """Show what the columns of a dataset hold."""
    options = pairs(option or (), "--option")
    out = session.out
    with out.working("reading"):
        name, value = _dataset(session, dataset, options, field="DATASET")
        columns = {column: held.to_config() for column, held in value.schema.items()}
    data = {"dataset": name, "items": len(value), "fields": dict(value.fields), "splits": dict(value.splits)}
    out.result({**data, "columns": columns}, lambda: _show_schema(out, name, value))


def _show_schema(out: Output, name: str, value: EvalDataset) -> None:
    splits = ", ".join(f"{split} {n:,}" for split, n in value.splits.items())
    out.line((name, NAME), f"  {counted(len(value), 'item')}", f"; splits: {splits}" if splits else "")
    fields = {column: field for field, column in value.fields.items()}
    rows = []
    for column, held in value.schema.items():
        types = ", ".join(f"{kind} {n:,}" if len(held.types) > 1 else kind for kind, n in held.types.items())
        shown = ", ".join(map(str, held.values or held.properties or ()))
        rows.append(
            (
                column,
                fields.get(column, ""),
                types,
                f"{held.null:,}" if held.null else "",
                "" if held.distinct is None else f"{held.distinct:,}",
                shown,
            )
        )
    out.table(
        (
            Column("column", NAME, wraps=True),
            Column("field", GOOD),
            Column("holds"),
            Column("missing", WARN, right=True),
            Column("different", right=True, optional=True),
            Column("values or properties", FAINT, shrinks=True, optional=True),
        ),
        rows,
    )


# --- split


@command(
    "split",
    examples=("dataset split qa train=0.8 test=0.2", "dataset split qa:v3 dev=0.1 test=0.9 --by document"),
    shape='Version; "created" says whether it is new',
)
def split(
    session: Session,
    ref: ReferenceArgument,
    shares: Annotated[list[str], typer.Argument(metavar="SPLIT=SHARE", help="Each split and its share; 1 together.")],
    by: Annotated[
        str | None, typer.Option("--by", metavar="COLUMN", help="Keep items together that are equal in this column.")
    ] = None,
    salt: Annotated[str, typer.Option("--salt", metavar="TEXT", help="Another text gives other splits.")] = "",
    message: Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="What to say of it.")] = "",
) -> None:
    """Log a version with its items in splits, by the hash of their ids; later items move none."""
    fractions = {name: _share(name, text) for name, text in pairs(shares, "SPLIT=SHARE", "SPLIT=SHARE").items()}
    out = session.out
    with session.open() as registry, out.working("splitting"):
        found, value = _loaded(registry, ref, field="REF")
        parts = value.with_splits(fractions, salt=salt, by=by)
        old = found.version
        version = registry.log(f"{old.project}/{old.name}", parts, message=message, inputs=[old.pinned])
    sizes = ", ".join(f"{name} {n:,}" for name, n in parts.splits.items())

    def text() -> None:
        news = ("new", GOOD) if version.created else ("this content was logged before", FAINT)
        out.line((str(old), NAME), " -> ", (str(version), NAME), "  ", news)
        out.line(f"{counted(len(parts), 'item')}: {sizes}")

    out.result(version, text)


def _share(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidValue(
            f"the share of {name!r:.60} is {text!r:.60}, not a number", field="SPLIT=SHARE", next_step="Write test=0.2."
        ) from None


# --- drift


@command(
    "drift",
    examples=("dataset drift support-eval:v1 support-eval:v2", "dataset drift a.jsonl b.jsonl --vectors a.npy b.npy"),
    shape='{"a": text, "b": text, "drift": Drift}; every shift lies in [0, 1]',
)
def drift(
    session: Session,
    before: Annotated[str, typer.Argument(metavar="A", help=_OWN_HELP)],
    after: Annotated[str, typer.Argument(metavar="B", help="The same, of what came later.")],
    vectors: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--vectors",
            metavar="A.npy B.npy",
            help="Embeddings of the items of each, one row an item, in their order; adds the embedding shift.",
        ),
    ] = None,
    option: OptionOption = None,
) -> None:
    """Measure what shifted: schema, lengths, labels, numbers, words, embeddings."""
    options = pairs(option or (), "--option")
    out = session.out
    with out.working("comparing"):
        arrays = None if vectors is None else tuple(_array(p) for p in existing(vectors, field="--vectors"))
        old_name, old = _dataset(session, before, options, field="A")
        new_name, new = _dataset(session, after, options, field="B")
        found = old.drift(new, vectors=arrays)
    out.result({"a": old_name, "b": new_name, "drift": found}, lambda: _show_drift(out, old_name, new_name, found))


def _array(path: Path) -> Any:
    import numpy as np

    from llmartifacts.kinds.disk import find_regular

    try:
        return np.load(find_regular(path, field="--vectors"), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, OverflowError) as error:
        raise InvalidValue(
            f"not an array that numpy saved: {error}", field="--vectors", origin=str(path), next_step="See numpy.save."
        ) from None


def _show_drift(out: Output, before: str, after: str, found: Drift) -> None:
    out.line((before, NAME), " -> ", (after, NAME))
    changed = f"{found.added:,} added, {found.removed:,} removed, {found.changed:,} changed"
    out.line(f"{found.before:,} -> {counted(found.after, 'item')}: {changed}")
    rows: list[tuple[Piece, ...]] = []
    for what, shifts in (
        ("schema", found.schema),
        ("missing", found.missing),
        ("length", found.lengths),
        ("categories", found.categories),
        ("numbers", found.numbers),
        ("words", found.vocabulary),
    ):
        for one in shifts:
            moved = getattr(one, "distance", getattr(one, "divergence", None))
            told = str(one).removeprefix(f"{one.column}: ")
            rows.append((what, one.column, _moved(moved), told))
    if found.embedding is not None:
        e = found.embedding
        size = f"{e.before:,} and {counted(e.after, 'vector')} of {counted(e.dimension, 'dimension')}"
        rows += [("embedding", "energy", _moved(e.energy), size), ("embedding", "means", _moved(e.means), size)]
        new = f"{counted(e.new, 'new vector')}; 0.5 is chance" if e.novelty is not None else "no new vector"
        rows.append(("embedding", "novelty", _moved(e.novelty), new))
    out.table(
        (
            Column("what", FAINT),
            Column("column or measure", NAME, wraps=True),
            Column("shift", right=True),
            Column("", shrinks=True),
        ),
        rows,
    )
    out.line(("a shift lies between 0, none, and 1", FAINT))


def _moved(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


# --- leakage


@command(
    "leakage",
    examples=(
        "dataset leakage support-eval:prod finetune.jsonl --fail",
        "dataset leakage qa:v3 qa:v3 --split test --train-split train",
    ),
    shape='{"test": text, "train": text, "leaked": [id], "rate": number, "ways": {way: int}, "leakage": Leakage}',
)
def leakage(
    session: Session,
    test: Annotated[str, typer.Argument(metavar="TEST", help=_OWN_HELP)],
    train: Annotated[
        str, typer.Argument(metavar="TRAIN", help="The same; also a file of chat messages, or prompts and completions.")
    ],
    fail: Annotated[bool, typer.Option("--fail", help="End with exit code 1 if anything leaks.")] = False,
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="NAME",
            help="Look for this field or column of TEST. Repeatable.",
            show_default="input, expected_output",
        ),
    ] = None,
    train_column: Annotated[
        list[str] | None,
        typer.Option("--train-column", metavar="NAME", help="Look in this column of TRAIN only. Repeatable."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", metavar="NAME", help="Only this split of TEST.")] = None,
    train_split: Annotated[
        str | None, typer.Option("--train-split", metavar="NAME", help="Only this split of TRAIN, a dataset.")
    ] = None,
    words: Annotated[
        int, typer.Option("--words", min=1, max=100, metavar="N", help="Words in a row that are looked for.")
    ] = 8,
    share: Annotated[
        float, typer.Option("--share", metavar="S", help="Share of them from which a text counts as contained.")
    ] = 0.7,
    answer_words: Annotated[
        int, typer.Option("--answer-words", min=1, metavar="N", help="Look for expected outputs of so many words.")
    ] = 13,
    ids: Annotated[bool, typer.Option("--ids/--no-ids", help="Whether an equal id counts.")] = True,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="Show at most so many.")] = 20,
    option: OptionOption = None,
) -> None:
    """Find items of a test set that lie in a training set."""
    from llmartifacts.kinds.eval_dataset.leakage import CHECKED

    options = pairs(option or (), "--option")
    out = session.out
    with out.working("looking for the test items in the training items"):
        test_name, value = _dataset(session, test, options, field="TEST")
        if split is not None:
            value = value.split(split)
        train_name, source = train, cast("EvalDataset | str", train)
        if train_split is not None or not _is_file(train, field="TRAIN"):
            train_name, dataset = _dataset(session, train, options, field="TRAIN")
            source = dataset if train_split is None else dataset.split(train_split)
        found = value.leakage(
            source,
            fields=field or CHECKED,
            train_columns=train_column or None,
            words=words,
            share=share,
            answer_words=answer_words,
            ids=ids,
        )
    data = {"test": test_name, "train": train_name, "leaked": found.leaked, "rate": found.rate, "ways": found.ways}
    out.result(
        {**data, "leakage": plain(found)}, lambda: _show_leakage(out, value, found, (test_name, train_name), limit)
    )
    if found and fail:
        raise typer.Exit(wire.REFUSED)


def _show_leakage(out: Output, test: EvalDataset, found: Leakage, names: tuple[str, str], limit: int) -> None:
    out.line((names[0], NAME), " in ", (names[1], NAME))
    out.line((found.headline, BAD if found else GOOD))
    rows = [
        (
            leak.item,
            leak.column,
            f"{leak.share:.0%} contained" if leak.way == "contained" else leak.way.replace("_", " "),
            leak.train.removeprefix(f"{names[1]}, "),  # the place says more where there is little room
            leak.place,
            f"{leak.times:,}" if leak.times > 1 else "",
            "" if leak.column == "id" else str(test[leak.item].columns[leak.column]),
        )
        for leak in found.leaks[:limit]
    ]
    if rows:
        out.table(
            (
                Column("item", NAME, shrinks=True),
                Column("column"),
                Column("found", BAD),
                Column("in", shrinks=True),
                Column("at", optional=True),
                Column("times", right=True, optional=True),
                Column("text", FAINT, shrinks=True, optional=True),
            ),
            rows,
        )
    if (more := len(found.leaks) - limit) > 0:
        out.line((f"and {more:,} more: --limit {len(found.leaks)}, or --json", FAINT))
    if found.short:
        out.line((f"{counted(found.short, 'test item')} too short to look for inside others: equal texts only", FAINT))


GROUP = CommandGroup(
    "dataset",
    "What an eval dataset holds, its splits, what shifted, and what leaked into training.",
    MEASURE,
    (schema, split, drift, leakage),
)
