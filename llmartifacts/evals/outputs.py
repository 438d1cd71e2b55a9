"""The cache of outputs: what a target gave for an item is asked once, and an interrupted evaluation goes on.

<cache>/outputs/ab/<hex>.jsonl        one file for a target and a way to ask it, one line an output
<cache>/outputs/ab/<hex>.run.jsonl    outputs of a run that was told not to use the cache and has not ended yet

A line names what it answers (`key`: SHA-256 of the item's canonical line, seed and repeat) and carries its own
SHA-256, so that a torn, damaged or edited line is nothing. Lines are appended whole under a `flock`; of two lines with
one key the later counts. Outputs are for their user only (mode 0600). Nothing depends on the cache: where it cannot be
written, an evaluation asks again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmartifacts.blobs.cache import default_root
from llmartifacts.blobs.disk import READ_FILE, write_all
from llmartifacts.errors import LlmartifactsError
from llmartifacts.evals.scorers.base import Answer
from llmartifacts.records.canonical import canonical_bytes, parse_json

FOLDER = "outputs"
MAX_LINE = 16 * 1024 * 1024
RESUMED_FOR = 24 * 3600.0
"""Seconds for which a run without the cache may be gone on with after it was interrupted."""
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_FIELDS = frozenset({"key", "item", "repeat", "output", "seconds", "sha256"})


def key_of(line: bytes, seed: int, repeat: int) -> str:
    """What an output answers.

    Args:
        line: The item as canonical JSON.
        seed: Of this repeat.
        repeat: Counted from 0.
    """
    return hashlib.sha256(b"%d\n%d\n" % (seed, repeat) + line).hexdigest()


class OutputCache:
    """Outputs of one target, asked in one way. Safe with several threads and processes.

    Args:
        identity: JSON of all that the outputs depend on besides item, seed and repeat: the target's digest, how it is
            asked, the source of what asks it.
        fresh: Take nothing from earlier runs, except from one of the same kind that was interrupted within a day.
        root: Folder of all caches; by default `$LLMARTIFACTS_CACHE`, else the user's cache folder.

    Attributes:
        problem: Why nothing can be kept; empty while all is well.
        resumed: How many outputs an interrupted run left, where `fresh` is set.
    """

    def __init__(self, identity: Mapping[str, Any], *, fresh: bool = False, root: Path | None = None) -> None:
        name = hashlib.sha256(canonical_bytes(dict(identity))).hexdigest()
        folder = (root or default_root()) / FOLDER / name[:2]
        self.path = folder / f"{name}.jsonl"
        self.fresh = fresh
        self.problem = ""
        self._journal = _Journal(folder / f"{name}.run.jsonl") if fresh else None
        self._lock = threading.Lock()
        self._known: dict[str, Answer] = {}
        if self._journal is None:
            self._known = dict(_read(self.path))
        else:
            self._known = self._journal.begin()
        self.resumed = len(self._known) if fresh else 0

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Answer | None:
        """What was given for a key, or None."""
        return self._known.get(key)

    def put(self, key: str, item: str, repeat: int, answer: Answer) -> None:
        """Keep an output, at once and durably against the death of this process. One with an error is not kept."""
        if answer.error:
            return
        body = {"key": key, "item": item, "repeat": repeat, "output": answer.output, "seconds": answer.seconds}
        try:
            plain = canonical_bytes(body)
        except LlmartifactsError:  # no JSON: whoever asked will say so
            return
        line = plain[:-1] + b',"sha256":"%s"}\n' % hashlib.sha256(plain).hexdigest().encode()
        if len(line) > MAX_LINE:
            return
        with self._lock:
            self._known[key] = answer
            if self.problem:
                return
            try:
                _append(self.path if self._journal is None else self._journal.path, line)
            except OSError as error:
                self.problem = f"outputs are not kept: {error.strerror or error} ({self.path.parent})"

    def done(self) -> None:
        """The run ended: what a fresh one found replaces what was known before."""
        if self._journal is None:
            return
        with self._lock, suppress(OSError):
            self._journal.end(self.path)

    def close(self) -> None:
        """Let go of files; what was kept stays."""
        if self._journal is not None:
            self._journal.close()


class OutputCaches:
    """The caches of one run: one for each identity, all of them done together.

    A fresh run that is interrupted while it asks the baseline has the target's outputs still.

    Args:
        fresh: As in `OutputCache`.
        root: As in `OutputCache`.
    """

    def __init__(self, *, fresh: bool = False, root: Path | None = None) -> None:
        self._fresh, self._root = fresh, root
        self._open: dict[bytes, OutputCache] = {}

    def get(self, identity: Mapping[str, Any]) -> OutputCache:
        """The cache of an identity."""
        key = canonical_bytes(dict(identity))
        if key not in self._open:
            self._open[key] = OutputCache(identity, fresh=self._fresh, root=self._root)
        return self._open[key]

    def done(self) -> None:
        """The run ended; see `OutputCache.done`."""
        for cache in self._open.values():
            cache.done()

    def remarks(self) -> list[str]:
        """What somebody should know of them."""
        resumed = sum(cache.resumed for cache in self._open.values())
        told = [cache.problem for cache in self._open.values() if cache.problem]
        return [*dict.fromkeys(told), *([f"went on with {resumed:,} outputs of an interrupted run"] if resumed else [])]

    def __enter__(self) -> OutputCaches:
        return self

    def __exit__(self, *exc: object) -> None:
        for cache in self._open.values():
            cache.close()


@dataclass
class _Journal:
    """The outputs of one run that takes nothing from the cache, held by its process as long as it lives."""

    path: Path
    _held: int = -1

    def begin(self) -> dict[str, Answer]:
        """Take the journal, and what an interrupted run left in it. While another process has it, take one aside."""
        try:
            _make_folder(self.path.parent)
            self._held = os.open(self.path, _APPEND, 0o600)
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._held)
                self.path = self.path.with_name(f"{self.path.name}.{os.getpid()}")
                self._held = os.open(self.path, _APPEND | os.O_TRUNC, 0o600)
            if time.time() - os.fstat(self._held).st_mtime > RESUMED_FOR:
                os.ftruncate(self._held, 0)
        except OSError:
            return {}
        return dict(_read(self.path))

    def end(self, goal: Path) -> None:
        """Add all lines to the cache and forget them here."""
        lines = b"".join(line for line, *_ in _good_lines(self.path))
        if lines:
            _append(goal, lines)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


def _append(path: Path, data: bytes) -> None:
    with _locked(path) as fd:
        if (size := os.fstat(fd).st_size) and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data  # what a killed process began stays a line of its own, which nobody reads
        write_all(fd, data)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    _make_folder(path.parent)
    fd = os.open(path, _APPEND, 0o600)
    try:
        if not path.name.endswith(".run.jsonl"):  # a journal is held by its one process already
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _make_folder(folder: Path) -> None:
    for place in (folder.parent, folder):
        place.mkdir(0o700, parents=True, exist_ok=True)


def _read(path: Path) -> Iterator[tuple[str, Answer]]:
    for _, key, answer in _good_lines(path):
        yield key, answer


def _good_lines(path: Path) -> Iterator[tuple[bytes, str, Answer]]:
    """Lines that are whole and say what they said when they were written."""
    try:
        stream = os.fdopen(os.open(path, READ_FILE), "rb")
    except OSError:
        return
    with stream:
        while True:
            try:
                line = stream.readline(MAX_LINE + 1)
            except OSError:
                return
            if not line:
                return
            if len(line) > MAX_LINE:
                while line and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE)
                continue
            if found := _checked(line):
                yield line, *found


def _checked(line: bytes) -> tuple[str, Answer] | None:
    try:
        body = parse_json(line)
        if not line.endswith(b"\n") or not isinstance(body, dict) or body.keys() != _FIELDS:
            return None
        told = body.pop("sha256")
        if hashlib.sha256(canonical_bytes(body)).hexdigest() != told:
            return None
        return str(body["key"]), Answer(body["output"], float(body["seconds"]))
    except (LlmartifactsError, TypeError, ValueError):
        return None
