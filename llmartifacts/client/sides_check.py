"""Is what is kept of large blobs beside the cache right? See `sides.py`."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import blake3

from llmartifacts.blobs.base import read_up_to
from llmartifacts.blobs.chunks.check import check_view
from llmartifacts.blobs.chunks.pack import TRAILER
from llmartifacts.blobs.chunks.recipe import MAX_BYTES
from llmartifacts.blobs.disk import READ_FILE
from llmartifacts.blobs.forms import BadForm

_MOST = 1 << 31
"""Bytes that the chunks of a head may have together."""


def side_problem(path: Path) -> str | None:
    """What is wrong with a recipe or a head that is kept; None if nothing is.

    Args:
        path: `<hex>.recipe` or `<hex>.pack`.

    Raises:
        FileNotFoundError: It is not there.
        OSError: It cannot be read, or is a link.
    """
    with open(os.open(path, READ_FILE), "rb") as file:
        if path.suffix == ".recipe":
            recipe = read_up_to(file, MAX_BYTES)
            right = len(recipe) >= 32 and blake3.blake3(recipe[:-32]).digest() == recipe[-32:]
            return None if right else "its checksum is wrong"
        if not file.seek(0, 2):
            return "it is empty"
        view = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    try:
        check_view(bytes(view[-TRAILER + 8 : -TRAILER + 40]).hex(), view, _MOST)
    except (BadForm, ValueError) as error:
        return str(error)
    return None
