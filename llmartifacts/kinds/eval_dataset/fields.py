"""Which column is what: the five fields of an item, and the well-known names by which they are found.

A column keeps its own name; a field says what a column is for. Where the caller names no column for a field, the first
name of `KNOWN` that occurs is taken, whatever its case, with blanks and hyphens read as underscores. Unasked,
`metadata` is taken only where every value is an object, and `split` only where every value is text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from llmartifacts.errors import InvalidValue
from llmartifacts.records.names import did_you_mean

FIELDS = ("id", "input", "expected_output", "metadata", "split")
# fmt: off
KNOWN: dict[str, tuple[str, ...]] = {
    "id": (
        "id", "_id", "item_id", "example_id", "task_id", "question_id", "query_id", "qid", "uid", "uuid", "guid",
    ),
    "input": (
        "input", "inputs", "question", "query", "prompt", "problem", "instruction", "user_input", "message", "text",
        "sentence",
    ),
    "expected_output": (
        "expected_output", "expected", "reference", "reference_answer", "ground_truth", "gold", "best_answer",
        "correct_answer", "answer", "answers", "target", "targets", "label", "labels", "canonical_solution", "solution",
        "completion", "output",
    ),
    "metadata": ("metadata", "meta"),
    "split": ("split",),
}
# fmt: on
"""Field -> well-known column names, best first."""


def find_fields(
    names: Collection[str],
    columns: Mapping[str, str | None] | None,
    *,
    no_object: Collection[str] = (),
    no_text: Collection[str] = (),
) -> dict[str, str]:
    """Find the column of each field.

    Args:
        names: Every column of the dataset.
        columns: What the caller says: field -> column, or None for "no column is this field".
        no_object: Columns with a value that is no object; not taken for `metadata` unasked.
        no_text: Columns with a value that is no text; not taken for `split` unasked.

    Returns:
        Field -> column; fields without a column are left out. `input` is always there.

    Raises:
        InvalidValue: An unknown field, a column that does not exist, or no input.
    """
    given = dict(columns or {})
    for field, column in given.items():
        if field not in FIELDS:
            raise InvalidValue(
                f"{field!r} is not a field of an item",
                field=f"columns.{field}",
                next_step=f"Fields: {', '.join(FIELDS)}. Other columns are kept by themselves.",
            )
        if column is not None and not (isinstance(column, str) and column in names):
            raise InvalidValue(
                f"there is no column {column!r}",
                field=f"columns.{field}",
                next_step=did_you_mean(column, names, f"Columns: {_listed(names)}."),
            )
    found = {field: column for field, column in given.items() if column is not None}
    taken = set(found.values())
    unfit = {"metadata": set(no_object), "split": set(no_text)}
    by_name = {_plain(name): name for name in sorted(names)}  # of Question and question, the latter
    for field in FIELDS:
        if field in given:
            continue
        fits = (by_name[n] for n in KNOWN[field] if n in by_name)
        column = next((c for c in fits if c not in taken and c not in unfit.get(field, ())), None)
        if column is not None:
            found[field] = column
            taken.add(column)
    if "input" not in found:
        raise InvalidValue(
            "no column is known to be the input",
            field="columns.input",
            next_step=f"Name it: columns={{'input': '…'}}, or -o input=… in the shell. Columns: {_listed(names)}.",
        )
    return {field: found[field] for field in FIELDS if field in found}


def may_be_id(column: str) -> bool:
    """Whether a column's name is well known for ids."""
    return _plain(column) in KNOWN["id"]


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _listed(names: Collection[str], most: int = 20) -> str:
    shown = [f"{n:.60}" for n in sorted(names)[:most]]
    return ", ".join(shown) + (", …" if len(names) > most else "")
