"""Which bytes and names survive a power cut, read from a trace of system calls, and whether the order was right.

A file's bytes survive once it was synced after they were written; a name, once its folder was synced after it was
given, and so were the names of all folders above. Nothing else is taken for granted, whatever a file system may do.
The rules, each with the moment at which it must hold:

    before a transaction is written   every stored object is whole and named for good
    before a file is given a name     its bytes are for good (objects, packs, cached files)
    before a transaction is written   whatever is stored for it is stored
    before a backup is listed         all that it needs is for good
    before an object is removed       no transaction is on its way that is not for good
    before the log is removed/emptied the database is for good
    when something is acknowledged    the log, the database and their names are for good
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_LINE = re.compile(r"^(\d+) +(?:(\w+)\((.*)|<\.\.\. (\w+) resumed>(.*))$")
_ENDED = re.compile(r"^(.*?)\)? += (-?\d+|\?)(?:<(.*)>)?(?: .*)?$")
_FD = re.compile(r"^(?:\d+|AT_FDCWD)<(.*?)(?: \(deleted\))?>$")
_WRITES = frozenset(["write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "copy_file_range"])
_CHANGES = _WRITES | {"fallocate"}
_SYNCS = frozenset(["fsync", "fdatasync"])

OBJECTS, BACKUPS, EXPORT = "/backup/objects/", "/backup/backups/", "/out.export"
"""Where the verbs that are traced put what a backup needs, the list of backups, and an export."""


@dataclass
class _Changing:
    """Something that changes, and is made durable up to a change."""

    changes: int = 0
    durable: int = 0


@dataclass
class _Folder(_Changing):
    """A folder: its names, each with the change that gave it."""

    names: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Call:
    thread: str
    name: str
    arguments: list[str]
    result: int = 0
    made: str = ""


class Disk:
    """What a power cut would leave.

    Args:
        there: Paths that were there, and durable, before the trace begins.
    """

    def __init__(self, there: Iterator[Path] | list[Path]) -> None:
        self._files: dict[str, _Changing] = {str(p): _Changing() for p in there}
        self._folders: dict[str, _Folder] = {}
        self._syncing: dict[str, tuple[_Changing, int]] = {}
        self._uncommitted: dict[str, None] = {}
        self.broken: list[str] = []

    # --- what holds

    def bytes_last(self, path: str) -> bool:
        """Whether a file's bytes would survive."""
        found = self._files.get(path)
        return found is None or found.durable >= found.changes

    def name_lasts(self, path: str, below: str = "") -> bool:
        """Whether a path would lead to what it leads to now, given that `below` does."""
        while path not in ("/", "", below):
            above, _, name = path.rpartition("/")
            folder = self._folders.get(above)
            if folder is not None and folder.names.get(name, 0) > folder.durable:
                return False
            path = above
        return True

    def require(self, path: str, when: str, below: str = "") -> None:
        """Note that a file would not survive, if so, given that `below` does."""
        if path not in self._files:
            return
        if not self.bytes_last(path):
            self.broken.append(f"{when}, the bytes of {path} are not durable")
        elif not self.name_lasts(path, below):
            self.broken.append(f"{when}, the name {path} is not durable")

    def stored(self, within: str = "/blobs/") -> list[str]:
        """Every object and pack that has its name, or every file of a backup or of an export."""
        return [p for p in self._files if within in p and "/." not in p.rpartition(within)[2]]

    # --- what happens

    def begins(self, call: _Call) -> None:
        """A call that is about to do its work: the last moment for what must be so before."""
        path = _path(call.arguments[0]) if call.arguments else ""
        if call.name in _CHANGES:
            if path.endswith("registry.db-wal") and call.name in _WRITES:
                self._uncommitted.clear()
                home = path.rpartition("/")[0]  # one that is made aside has its own name last of all
                for stored in self.stored():
                    if stored.startswith(f"{home}/"):
                        self.require(stored, "when a transaction is written", home)
            self._change(path)
        elif call.name == "ftruncate":  # of the log, once all of it is in the database: it may come back as it was
            if path.endswith("registry.db-wal") and not self.bytes_last(path.removesuffix("-wal")):
                self.broken.append("when the log is emptied, the database is not durable")
        elif call.name in _SYNCS:
            target = self._files.get(path) or self._folders.get(path)
            if target is not None:
                self._syncing[call.thread] = target, target.changes
        elif call.name.startswith(("link", "rename")):
            source, target_path = _two_paths(call)
            if any(w in target_path for w in ("/blobs/", "/cache/", "/backup/", EXPORT)) and not self.bytes_last(
                source
            ):
                self.broken.append(f"when {target_path} is given its name, its bytes are not durable")
            if BACKUPS in target_path:
                for kept in self.stored(OBJECTS):
                    self.require(kept, "when a backup is listed")
        elif call.name in ("unlink", "unlinkat"):
            gone = _one_path(call)
            if gone.endswith("registry.db-wal") and not self.bytes_last(gone[: -len("-wal")]):
                self.broken.append("when the log is removed, the database is not durable")
            if gone in self.stored() and not all(self.bytes_last(p) for p in self._files if p.endswith(".db-wal")):
                self.broken.append(f"when {gone} is removed, a transaction is not durable")
        elif call.name == "sendto" and '"[\\"done' in call.arguments[1]:
            for kept in [p for p in self._files if re.search(r"registry\.db(-wal)?$", p)]:
                if self._files[kept].changes:  # an empty log is nothing that could be lost
                    self.require(kept, "when it is acknowledged")
            for within in ("/blobs/", OBJECTS, BACKUPS, EXPORT):
                for stored in self.stored(within):
                    self.require(stored, "when it is acknowledged")
            for stored in self._uncommitted:
                self.broken.append(f"{stored} is stored after the transaction that names it")

    def ends(self, call: _Call) -> None:
        """A call that has returned."""
        syncing = self._syncing.pop(call.thread, None) if call.name in _SYNCS else None
        if call.result < 0:
            return
        if syncing is not None:
            target, changes = syncing
            target.durable = max(target.durable, changes)
        elif call.name in ("openat", "open", "creat"):
            if "O_CREAT" in "".join(call.arguments) and call.made and call.made not in self._files:
                self._files[call.made] = _Changing()
                self._named(call.made)
            elif "O_TRUNC" in "".join(call.arguments):
                self._change(call.made)
        elif call.name in _CHANGES:
            self._change(_path(call.arguments[0]))
        elif call.name in ("mkdir", "mkdirat"):
            self._folders[_one_path(call)] = _Folder()
            self._named(_one_path(call))
        elif call.name.startswith("link"):
            source, target_path = _two_paths(call)
            self._files[target_path] = self._files.setdefault(source, _Changing())
            self._named(target_path)
            self._stored(target_path)
        elif call.name.startswith("rename"):
            source, target_path = _two_paths(call)
            self._renamed(source, target_path)
            self._stored(target_path)
        elif call.name in ("unlink", "unlinkat"):
            self._files.pop(_one_path(call), None)
            self._named(_one_path(call))

    def _change(self, path: str) -> None:
        if path in self._files:
            self._files[path].changes += 1

    def _named(self, path: str) -> None:
        above, _, name = path.rpartition("/")
        folder = self._folders.setdefault(above, _Folder())
        folder.changes += 1
        folder.names[name] = folder.changes

    def _stored(self, path: str) -> None:
        if path in self.stored():
            self._uncommitted[path] = None

    def _renamed(self, source: str, target: str) -> None:
        self._files = {_moved(path, source, target): file for path, file in self._files.items()}
        self._folders = {_moved(path, source, target): folder for path, folder in self._folders.items()}
        self._named(source)
        self._named(target)


def problems(trace: Path, there: list[Path]) -> list[str]:
    """What a power cut at the wrong moment would have broken, one readable line each.

    Args:
        trace: What `strace -f -y` wrote.
        there: Files that were there before.
    """
    disk = Disk(there)
    open_calls: dict[str, tuple[str, str]] = {}
    for line in trace.read_text(errors="replace").splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        thread, name, rest, resumed, tail = found.groups()
        if name is not None and rest.endswith("<unfinished ...>"):
            begun = rest.removesuffix("<unfinished ...>").rstrip()
            open_calls[thread] = name, begun
            disk.begins(_Call(thread, name, _arguments(begun)))
            continue
        if resumed is not None:
            name, begun = open_calls.pop(thread, (resumed, ""))
            rest = begun + (tail or "").lstrip()
        ended = _ENDED.match(rest)
        if ended is None:
            continue
        inside, result, made = ended.groups()
        call = _Call(thread, name, _arguments(inside), -1 if result == "?" else int(result), made or "")
        if resumed is None:
            disk.begins(call)
        disk.ends(call)
    return list(dict.fromkeys(disk.broken))


def _arguments(text: str) -> list[str]:
    """The arguments of a call; a comma in a string or a path separates nothing."""
    found, depth, quoted, begin, at = [], 0, False, 0, 0
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
        elif letter == '"':
            quoted = not quoted
        elif not quoted and letter in "<[{":
            depth += 1
        elif not quoted and letter in ">]}":
            depth -= 1
        elif letter == "," and not quoted and depth == 0:
            found.append(text[begin:at].strip())
            begin = at + 1
        at += 1
    return [*found, text[begin:].strip()]


def _path(argument: str) -> str:
    found = _FD.match(argument)
    return found[1] if found else argument.strip('"')


def _joined(folder: str, name: str) -> str:
    return name if name.startswith("/") else f"{folder}/{name}"


def _one_path(call: _Call) -> str:
    if call.name.endswith("at"):
        return _joined(_path(call.arguments[0]), _path(call.arguments[1]))
    return _path(call.arguments[0])


def _two_paths(call: _Call) -> tuple[str, str]:
    given = [_path(argument) for argument in call.arguments]
    if call.name in ("link", "rename"):
        return given[0], given[1]
    return _joined(given[0], given[1]), _joined(given[2], given[3])


def _moved(path: str, source: str, target: str) -> str:
    return target + path[len(source) :] if path == source or path.startswith(f"{source}/") else path
