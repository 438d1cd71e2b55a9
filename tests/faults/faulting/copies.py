"""The verbs that copy a registry, mend it, or take something out of it for good."""

from __future__ import annotations

import contextlib
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import llmartifacts as la
from faulting.operations import FOLDER, NOISE, TEXT, Operation, State, Tell, prompt, seen
from llmartifacts.errors import Conflict

CONTENT = {**FOLDER, "large.bin": NOISE, "large.jsonl": TEXT}


def filled(place: Path) -> None:
    """A registry with something of everything."""
    with la.init(place / "registry") as registry:
        registry.log("agent", prompt("Answer {{ question }}."))
        registry.log("docs", la.Files(CONTENT), inputs="agent:v1", aliases="staging")
        registry.promote(["docs:v1", "agent:v1"], to="prod", reason="go")


class Backup(Operation):
    """Everything, to a folder where there is nothing yet."""

    name = "backup"

    def prepare(self, place: Path) -> None:
        filled(place)

    def do(self, registry: Any, place: Path) -> None:
        registry.backup(str(place / "backup"))

    def state(self, place: Path) -> State:
        from llmartifacts.versioning.backups.look import backups

        with la.connect(place / "registry") as registry:
            there = (place / "backup").exists() and backups(str(place / "backup"))
            return {"backup": bool(there), **seen(registry)}

    def whole(self, place: Path) -> None:
        from llmartifacts.versioning.backups.look import backups, check

        if (place / "backup").exists():
            for record in backups(str(place / "backup")):
                assert check(str(place / "backup"), record.number)[1] == ()

    def finished(self, place: Path) -> None:
        aside = [p for p in (place / "backup").rglob("*") if "stage-" in p.name]
        assert aside == [], aside


class Restore(Operation):
    """A backup becomes a registry."""

    name = "restore"

    def prepare(self, place: Path) -> None:
        filled(place)
        with la.connect(place / "registry") as registry:
            registry.backup(str(place / "backup"))
        shutil.rmtree(place / "registry")

    def work(self, place: Path, tell: Tell) -> None:
        from llmartifacts.versioning.backups.restore import restore_folder

        restore_folder(str(place / "backup"), place / "registry", actor="tester")
        tell(self.name)

    def again(self, place: Path) -> None:
        with contextlib.suppress(Conflict):  # it is there: the first one came that far
            super().again(place)

    def state(self, place: Path) -> State:
        if not (place / "registry").exists():
            return {"there": False}
        with la.connect(place / "registry") as registry:
            return {"there": True, **seen(registry)}

    def finished(self, place: Path) -> None:
        left = {p.name for p in place.iterdir()} - {"registry", "backup", "cache"}
        assert left == set(), left


class Export(Operation):
    """Collections to one file."""

    name = "export"

    def prepare(self, place: Path) -> None:
        filled(place)

    def do(self, registry: Any, place: Path) -> None:
        registry.export(place / "out.export")

    def again(self, place: Path) -> None:
        with contextlib.suppress(Conflict):
            super().again(place)

    def state(self, place: Path) -> State:
        with la.connect(place / "registry") as registry:
            found = seen(registry)
            found["verbs"] = [verb for verb in found["verbs"] if verb != "export"]  # written before the file is there
            return {"file": (place / "out.export").exists(), **found}

    def whole(self, place: Path) -> None:
        if (place / "out.export").exists():
            with la.connect(place / "registry") as registry:
                registry.import_file(place / "out.export", dry_run=True)

    def finished(self, place: Path) -> None:
        left = {p.name for p in place.iterdir()} - {"registry", "out.export", "cache"}
        assert left == set(), left


class Import(Operation):
    """Collections from one file."""

    name = "import"

    def prepare(self, place: Path) -> None:
        filled(place)
        with la.connect(place / "registry") as registry:
            registry.export(place / "in.export")
        shutil.rmtree(place / "registry")
        la.init(place / "registry").close()

    def do(self, registry: Any, place: Path) -> None:
        registry.import_file(place / "in.export")


class Repair(Operation):
    """Missing and damaged bytes of every sort, from a registry that has them."""

    name = "repair"

    def prepare(self, place: Path) -> None:
        filled(place)
        shutil.copytree(place / "registry", place / "other")
        with la.connect(place / "registry") as registry:
            driver = registry.backend.parts.blobs.driver
            for number, (key, _) in enumerate(driver.list()):
                file = Path(driver.where(key))
                if number % 2:
                    data = bytearray(file.read_bytes())
                    data[len(data) // 2] ^= 1
                    file.chmod(0o644)
                    file.write_bytes(data)
                else:
                    file.unlink()

    def do(self, registry: Any, place: Path) -> None:
        with la.connect(place / "other") as other:
            done = registry.repair(other)
            for problem in done.problems:
                raise problem

    def state(self, place: Path) -> State:
        with la.connect(place / "registry") as registry:
            return {"versions": [str(v) for name in ("agent", "docs") for v in registry.versions(name)]}

    def sound(self, before: list[str], found: list[str], *, ended: bool) -> bool:
        return found == [] if ended else len(found) <= len(before)


class Erase(Operation):
    """Items of a dataset, and every version that holds one."""

    name = "erase"

    def prepare(self, place: Path) -> None:
        with la.init(place / "registry") as registry:
            for number in range(3):
                file = place / "items.jsonl"
                items = [{"id": f"q{i}", "input": f"where is order {i}?"} for i in range(4000 if number < 2 else 3000)]
                items = [{**item, "expected_output": "x" * 300 + str(number)} for item in items]
                file.write_text("".join(json.dumps(item) + "\n" for item in items))
                registry.log("questions", la.EvalDataset.from_jsonl(file), aliases="prod")
                file.unlink()

    def do(self, registry: Any, place: Path) -> None:
        registry.erase("questions", ["q3500"], reason="asked for it")

    def state(self, place: Path) -> State:
        with la.connect(place / "registry") as registry:
            found = seen(registry)
            del found["verbs"]
            return found

    def finished(self, place: Path) -> None:
        for file in (place / "registry").rglob("*"):
            assert not file.is_file() or b"q3500" not in file.read_bytes(), file


class RemoveProject(Operation):
    """A project and all that only it needs."""

    name = "remove a project"

    def prepare(self, place: Path) -> None:
        filled(place)
        with la.connect(place / "registry", project="old") as registry:
            registry.log(
                "docs", la.Files({**CONTENT, "own.bin": NOISE[::-1], "note.txt": b"only here"}), aliases="prod"
            )

    def do(self, registry: Any, place: Path) -> None:
        registry.remove_project("old", reason="moved elsewhere", grace=timedelta(0))

    def state(self, place: Path) -> State:
        with la.connect(place / "registry") as registry:
            found = seen(registry)
            del found["verbs"]
            removed = [e.event for e in registry.audit_log() if e.event is not None and "project" in e.event.verb]
            return {**found, "removed": len({(e.verb, e.subject) for e in removed})}

    def finished(self, place: Path) -> None:
        for file in (place / "registry" / "blobs").rglob("*"):
            assert not file.is_file() or b"only here" not in file.read_bytes(), file


COPIES = (Backup(), Restore(), Export(), Import(), Repair(), Erase(), RemoveProject())
