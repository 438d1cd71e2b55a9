"""Every verb that is tried, by name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from faulting.copies import COPIES
from faulting.operations import VERBS, GcLean, Operation, Pair, surroundings
from llmartifacts.errors import LlmartifactsError

OPERATIONS: Mapping[str, Operation] = {made.name: made for made in (*VERBS, *COPIES)}
EVERY: Mapping[str, Operation] = {**OPERATIONS, Pair.name: Pair(), GcLean.name: GcLean()}
"""Those, and what tests of their own use."""


def warm() -> None:
    """Do everything once, so that whatever is imported on the way is."""
    before = dict(os.environ)
    for operation in EVERY.values():
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            os.environ.update(surroundings(place))
            operation.prepare(place)
            operation.work(place, lambda *words: None)
            operation.state(place)
    try:
        raise LlmartifactsError("nothing")
    except LlmartifactsError as error:
        error.hint()
    os.environ.clear()
    os.environ.update(before)
