"""One door moves aliases: `versioning.promote.apply_moves`. Read out of the code, and watched in a live database."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest

import llmartifacts as la
from llmartifacts.versioning import project_removal, promote, rollback

PACKAGE = Path(la.__file__).parent
WRITES = re.compile(
    r"\b(?:insert\s+(?:or\s+\w+\s+)?into|replace\s+into|update(?:\s+or\s+\w+)?|delete\s+from|alter\s+table|drop\s+table"
    r"|truncate(?:\s+table)?|copy|merge\s+into)\s+[\"'`\[]?(?P<table>alias\b|move\b|\{)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Part:
    """A function of the package, or a module outside its functions."""

    module: str
    name: str
    node: ast.AST
    source: ast.Module

    def __str__(self) -> str:
        return f"{self.module}.{self.name}".rstrip(".")


def parts() -> Iterator[Part]:
    """Every function of the package by its outermost name, and each module's own level."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))

        def walk(node: ast.AST, outer: str, module: str = module, tree: ast.Module = tree) -> Iterator[Part]:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield Part(module, f"{outer}{child.name}", child, tree)
                elif isinstance(child, ast.ClassDef):
                    yield from walk(child, f"{outer}{child.name}.")
                else:
                    yield Part(module, outer, child, tree)

        yield from walk(tree, "")


PARTS = list(parts())


def literals(part: Part) -> Iterator[str]:
    """The texts of a part, pieces of one statement joined; what is filled in reads `{`."""
    inside = {id(v) for n in ast.walk(part.node) if isinstance(n, ast.JoinedStr) for v in n.values}
    for node in ast.walk(part.node):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "{x}" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


def names_for(part: Part, module: str, function: str) -> tuple[set[str], set[str]]:
    """What a module is called in a source, and what one of its functions is."""
    package, _, last = module.rpartition(".")
    modules, functions = set(), set()
    for node in ast.walk(part.source):
        if isinstance(node, ast.ImportFrom):
            for one in node.names:
                if node.module == package and one.name == last:
                    modules.add(one.asname or one.name)
                if node.module == module and one.name in (function, "*"):
                    functions.add(one.asname or one.name)
        elif isinstance(node, ast.Import):
            modules |= {one.asname or one.name for one in node.names if one.name == module}
    if part.module == module:
        functions.add(function)
    return modules, functions


def users(module: str, function: str) -> set[str]:
    """Every part of the package that names a function of a module, whether it calls it or hands it on."""
    found, known = set(), {}
    for part in PARTS:
        if str(part) == f"{module}.{function}":
            continue
        if part.module not in known:
            known[part.module] = names_for(part, module, function)
        modules, functions = known[part.module]
        if not modules | functions:
            continue
        for node in ast.walk(part.node):
            by_module = isinstance(node, ast.Attribute) and node.attr == function and ast.unparse(node.value) in modules
            by_name = isinstance(node, ast.Name) and node.id in functions and isinstance(node.ctx, ast.Load)
            if by_module or by_name:
                found.add(str(part).removeprefix("llmartifacts."))
    return found


ALIASES = "llmartifacts.metadata.aliases"


def test_three_functions_write_the_tables_of_aliases_and_moves_and_only_a_restore_fills_in_a_table() -> None:
    writers: dict[str, set[str]] = {}
    for part in PARTS:
        for text in literals(part):
            for found in WRITES.finditer(text):
                writers.setdefault(found["table"].lower(), set()).add(str(part).removeprefix("llmartifacts."))
    assert writers == {
        "alias": {"metadata.aliases.move"},
        "move": {"metadata.aliases._insert_move", "metadata.aliases.mark_undone"},
        # A backup is restored into a database that is empty, whole or not at all.
        "{": {"metadata.dump.create", "metadata.dump.insert", "metadata.dump.go_on_numbering"},
    }
    for name in ("create", "insert", "go_on_numbering"):
        (user,) = users("llmartifacts.metadata.dump", name)
        assert user.startswith("versioning.backups.restore."), name


def test_the_search_finds_what_it_looks_for() -> None:
    for text in ("insert into alias(x)", "UPDATE  alias set", "delete from move", "insert or replace into alias"):
        assert WRITES.search(text), text
    for text in ('update "alias" set', "update {x} set", "replace into move", "alter table alias add"):
        assert WRITES.search(text), text
    for text in ("select number from alias", "update collection set", "insert into promotion", "update move_log set"):
        assert not WRITES.search(text), text


def test_each_way_to_an_alias_leads_through_apply_moves() -> None:
    assert users(ALIASES, "move") == {"versioning.promote.apply_moves"}
    assert users(ALIASES, "_insert_move") == {"metadata.aliases.move", "metadata.aliases.move_latest"}
    assert users(ALIASES, "move_latest") == {"versioning.commit._commit"}
    assert users(ALIASES, "mark_undone") == {"versioning.rollback._undo", "versioning.rollback._go_to"}
    assert users("llmartifacts.versioning.promote", "apply_moves") == {
        "versioning.project_removal._remove",
        "versioning.promote.promote_in",
        "versioning.rollback._undo",
        "versioning.rollback._go_to",
        "versioning.rollback.remove_alias",
    }
    assert users("llmartifacts.versioning.promote", "promote_in") == {
        "versioning.promote.promote",
        "versioning.commit._commit",
    }


def test_before_it_moves_anything_promote_in_asks_the_gates() -> None:
    (found,) = [p.node for p in PARTS if str(p) == "llmartifacts.versioning.promote.promote_in"]
    calls = [n for n in ast.walk(found) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    called = [ast.unparse(n.func) for n in sorted(calls, key=lambda n: n.lineno)]
    assert called.index("decide") < called.index("require_pass") < called.index("apply_moves")


def test_move_latest_moves_nothing_but_latest() -> None:
    (found,) = [p.node for p in PARTS if str(p) == f"{ALIASES}.move_latest"]
    (call,) = [n for n in ast.walk(found) if isinstance(n, ast.Call) and ast.unparse(n.func) == "_insert_move"]
    assert ast.unparse(call.args[2]) == "LATEST"


# --- in a live database


@dataclass
class Watch:
    """What happened to the table of aliases."""

    open: int = 0
    through: int = 0
    past: int = 0

    def row(self, kind: int, database: str, table: str, row: int) -> None:
        if table == "alias":
            self.through, self.past = self.through + bool(self.open), self.past + (not self.open)

    def statement(self, code: int, one: str | None, two: str | None, *_: Any) -> int:
        structure = apsw.SQLITE_DELETE, apsw.SQLITE_DROP_TABLE, apsw.SQLITE_ALTER_TABLE  # not told of row by row
        attached = code == apsw.SQLITE_ATTACH and one != ""  # VACUUM attaches a file without a name, and copies to it
        if (code in structure and "alias" in (one, two)) or code == apsw.SQLITE_CREATE_TRIGGER or attached:
            self.past += 1
        return apsw.SQLITE_OK

    def connected(self, connection: apsw.Connection) -> None:
        connection.set_update_hook(self.row)
        connection.set_authorizer(self.statement)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    made, door = Watch(), promote.apply_moves

    def apply_moves(*given: Any, **more: Any) -> Any:
        made.open += 1
        try:
            return door(*given, **more)
        finally:
            made.open -= 1

    for module in (promote, rollback, project_removal):
        monkeypatch.setattr(module, "apply_moves", apply_moves)
    monkeypatch.setattr(apsw, "connection_hooks", [*apsw.connection_hooks, made.connected])
    return made


def test_no_public_call_writes_an_alias_past_the_door(
    watch: Watch, exercise: Callable[[la.Registry], None], tmp_path: Path
) -> None:
    with la.init(tmp_path / "registry", actor="ann") as registry:
        exercise(registry)
    assert watch.past == 0
    assert watch.through >= 12


def test_the_watch_sees_a_write_past_the_door(watch: Watch, place: Path) -> None:
    with la.connect(place) as registry:
        parts: Any = registry.backend._parts  # type: ignore[attr-defined]
        with parts.metadata.writing() as s:
            s.run("update alias set number = 2 where name = 'prod'")
        assert watch.past == 2
        with parts.metadata.writing() as s:
            s.run("delete from alias")
        assert watch.past > 2
