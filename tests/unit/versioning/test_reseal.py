"""A database whose pages lost their checksums gets them back where everything else says that it is right."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts.errors import Damaged, LlmartifactsError, NotAllowed, NotFound, UnsafeContent
from llmartifacts.versioning import reseal as work
from llmartifacts.versioning.reseal import KEPT, reseal


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A registry as a killed process leaves it, with what it did last in the log."""
    place = tmp_path / "r"
    with la.init(place) as registry:
        for number in range(5):
            registry.log("agent", la.Prompt(f"{number}: {{{{ question }}}}", template_format="jinja2"))
        registry.promote("agent:v3", to="prod", reason="better")
        shutil.copytree(place, tmp_path / "killed")
    shutil.rmtree(place)
    (tmp_path / "killed" / "registry.db-shm").unlink(missing_ok=True)
    return tmp_path / "killed"


def _opened_by_another_program(place: Path) -> None:
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(c.execute(sys.argv[2]).fetchone()); c.close()"
    told = subprocess.run(
        [sys.executable, "-c", code, str(place / "registry.db"), "select count(*) from version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "(5,)\n"


def test_another_program_that_had_the_database_open_leaves_it_refused_until_it_is_repaired(killed: Path) -> None:
    _opened_by_another_program(killed)
    with la.connect(killed) as registry:
        problem = registry.verify().problems[0]
    assert isinstance(problem, Damaged)
    assert "not what was written there" in problem.message
    assert "repair --database" in problem.next_step
    done = reseal(killed, actor="ann")
    assert done.versions == 5
    assert (Path(done.kept) / "registry.db").stat().st_size > 100_000
    with la.connect(killed) as registry:
        assert registry.get("agent:prod").number == 3
        assert registry.verify(read_data=True).ok
        entry = registry.audit_log(limit=1)[0].event
        assert entry is not None
        assert (entry.verb, entry.subject, entry.actor) == ("repair", "database", "ann")
        registry.log("agent", la.Prompt("after it {{ question }}", template_format="jinja2"))
    assert la.connect(killed).verify().ok


def test_a_rotted_bit_is_not_sealed_where_anybody_is_told_of_it(killed: Path) -> None:
    la.connect(killed).close()  # its log goes into the file
    file = killed / "registry.db"
    good, before = file.read_bytes(), _told(killed)
    chance, refused = random.Random(4), 0
    for word in (b"better", b"agent", b"prod", b"CREATE TABLE version", b'"verb":"log"'):
        at = chance.choice([found.start() for found in re.finditer(word, good)])
        bad = bytearray(good)
        bad[at] ^= 4
        file.write_bytes(bad)
        try:
            reseal(killed, actor="ann")
        except Damaged:
            refused += 1
            assert _is_refused(killed)  # it stays so
            with pytest.raises(Damaged):
                reseal(killed, actor="ann")
        else:
            assert _told(killed) == before  # it was in bytes that no row uses
        assert any((kept / "registry.db").read_bytes() == bytes(bad) for kept in (killed / KEPT).iterdir())
        for beside in ("-wal", "-shm"):
            Path(f"{file}{beside}").unlink(missing_ok=True)
        file.write_bytes(good)
    assert refused >= 2


def _told(place: Path) -> str:
    with la.connect(place) as registry:
        return repr((registry.versions("agent"), registry.history("agent:prod"), registry.state("prod")))


def _is_refused(place: Path) -> bool:
    try:
        with la.connect(place) as registry:
            return not registry.verify().ok
    except Damaged:
        return True


def test_records_that_the_audit_does_not_tell_are_not_sealed(killed: Path) -> None:
    with closing(sqlite3.connect(killed / "registry.db")) as plain, plain:
        plain.execute("update promotion set reason = 'worse'")
    with pytest.raises(Damaged, match="the reason is not what the audit says"):
        reseal(killed, actor="ann")
    assert _is_refused(killed)


def test_a_log_that_lost_its_end_is_given_up_from_there_on(killed: Path) -> None:
    log = killed / "registry.db-wal"
    bad = bytearray(log.read_bytes())
    bad[-100] ^= 1
    log.write_bytes(bad)
    with pytest.raises(Damaged, match="of its log is damaged"):
        la.connect(killed)
    done = reseal(killed, actor="ann")
    assert (Path(done.kept) / "registry.db-wal").read_bytes() == bytes(bad)
    with la.connect(killed) as registry:
        assert registry.verify(read_data=True).ok
        assert registry.versions("agent")[0].number == 5
        with pytest.raises(NotFound):
            registry.get("agent:prod")  # it moved in what was lost


def test_it_may_be_called_where_nothing_is_wrong(killed: Path) -> None:
    assert reseal(killed, actor="ann").versions == 5
    assert reseal(killed, actor="ann").versions == 5
    assert len(list((killed / KEPT).iterdir())) == 2
    with la.connect(killed) as registry:
        assert registry.verify().ok


def test_where_there_is_no_registry_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        reseal(tmp_path / "nothing", actor="ann")
    assert list(tmp_path.iterdir()) == []


def test_another_program_may_read_what_is_in_use(killed: Path) -> None:
    with la.connect(killed) as registry:
        _opened_by_another_program(killed)  # it is not the last one, and leaves the log to the others
        assert registry.get("agent:prod").number == 3
    assert la.connect(killed).verify().ok


def test_what_is_no_database_stays_none(killed: Path) -> None:
    (killed / "registry.db").write_bytes(b"not a database at all" * 400)
    with pytest.raises(LlmartifactsError):
        reseal(killed, actor="ann")


def test_a_link_that_leads_out_of_the_registry_is_not_followed(killed: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (killed / KEPT).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeContent, match="symbolic link"):
        reseal(killed, actor="ann")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_copy_that_cannot_be_made_leaves_the_registry_as_it_was(
    killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (killed / "registry.db").read_bytes(), (killed / "registry.db-wal").read_bytes()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(work, "sync_data", full)
        with pytest.raises(NotAllowed, match="full"):
            reseal(killed, actor="ann")
    assert list((killed / KEPT).iterdir()) == []
    assert ((killed / "registry.db").read_bytes(), (killed / "registry.db-wal").read_bytes()) == before
    assert reseal(killed, actor="ann").versions == 5
