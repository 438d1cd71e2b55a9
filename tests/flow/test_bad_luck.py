"""Bad luck: forks, threads, races, a full disk, a read-only mount, a directory that goes away under one's feet."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import llmartifacts as la
from llmartifacts.errors import Conflict, LlmartifactsError, NotAllowed, NotFound, Yanked

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def prompt(text: str = "Hi {{ x }}") -> la.Prompt:
    return la.Prompt(text, template_format="jinja2")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with la.init(tmp_path / "registry") as registry:
        for text in "123":
            registry.log("a", prompt(text))
            registry.log("b", prompt(text))
        registry.log("f", la.Files({"raw": bytes(range(256)) * 40, "text": b"words " * 4000}))
        registry.promote(["a:v1", "b:v1"], to="prod")
        registry.promote(["a:v2", "b:v2"], to="prod")
    return tmp_path / "registry"


def in_child(work: Callable[[], object], seconds: int = 30) -> int:
    """Fork, work there, and return the child's pid; it ends with 0 if the work ended well."""
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)  # what hangs is killed, and then fails the test
        code = 1
        with contextlib.suppress(BaseException):
            work()
            code = 0
        os._exit(code)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(code: str, *arguments: object, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    program = [*(prefix or []), sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)


# --- forks and threads


def test_what_a_forked_child_was_told_is_durable_outlives_its_parents_connection(place: Path) -> None:
    registry = la.connect(place)
    registry.get("a:v1")
    told, answered = os.pipe(), os.pipe()

    def work() -> None:
        registry.get("a:v1")
        os.write(answered[1], b"1")
        os.read(told[0], 1)
        registry.log("a", prompt("from the child"))
        os.write(answered[1], b"1")
        os.read(told[0], 1)

    child = in_child(work)
    os.read(answered[0], 1)
    registry.close()
    os.write(told[1], b"1")
    os.read(answered[0], 1)
    with la.connect(place) as other:  # while the child still runs
        assert other.versions("a")[0].number == 4
        other.log("a", prompt("from another"))
    os.write(told[1], b"1")
    assert ended(child) == 0
    with la.connect(place) as other:
        assert [v.number for v in other.versions("a")] == [5, 4, 3, 2, 1]
        assert other.verify(read_data=True).ok
    for end in (*told, *answered):
        os.close(end)


@pytest.mark.parametrize("children", [8, pytest.param(25, marks=pytest.mark.matrix)])
@pytest.mark.parametrize("what", ["reads", "writes"])
def test_a_fork_while_other_threads_work_leaves_a_child_that_works(place: Path, what: str, children: int) -> None:
    registry = la.connect(place)
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            if what == "reads":
                registry.get("a:prod")
            else:
                registry.log("hammered", prompt(str(random.random())))

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        codes = [
            ended(in_child(lambda i=i: registry.log("a", prompt(f"child {i}")), seconds=20)) for i in range(children)
        ]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * children
    assert registry.get("a").number == 3 + children
    assert registry.verify().ok
    registry.close()


def test_a_fork_inside_a_transaction_leaves_the_registry_to_the_parent(place: Path) -> None:
    registry = la.connect(place)

    def work() -> None:
        with pytest.raises(NotAllowed, match="forked"):
            la.connect(place)
        threading.Thread(target=lambda: None).start()

    with registry.backend._parts.metadata.writing() as session:  # type: ignore[attr-defined]
        session.run("update meta set value = value")
        child = in_child(work)
        assert ended(child) == 0
    assert registry.log("a", prompt("after")).number == 4
    registry.close()


def test_threads_that_end_leave_no_file_open(place: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("NO /proc HERE: open files cannot be counted")
    with la.connect(place) as registry:
        counts = []
        for _ in range(40):
            thread = threading.Thread(target=lambda: registry.promote("a:v1", to=f"x{random.randrange(9)}"))
            thread.start()
            thread.join()
            counts.append(len(os.listdir("/proc/self/fd")))
    assert max(counts) - min(counts) < 10


def test_sixteen_threads_with_mixed_verbs_break_nothing(place: Path) -> None:
    told: Counter[str] = Counter()
    broken: list[BaseException] = []
    with la.connect(place) as registry:
        verbs: list[Callable[[random.Random], object]] = [
            lambda r: registry.log("c", prompt(str(r.randrange(20))), aliases=r.choice([(), "x"])),
            lambda r: registry.promote([f"a:v{r.randint(1, 3)}", f"b:v{r.randint(1, 3)}"], "prod"),
            lambda r: registry.rollback("a:prod", reason="x", whole=r.random() < 0.5),
            lambda r: registry.resolve("a:prod"),
            lambda r: registry.state("prod"),
            lambda r: registry.history("a:prod"),
            lambda r: registry.tag("a:v1", set={"k": str(r.random())}),
            lambda r: registry.lineage("c"),
            lambda r: registry.log("f", la.Files({"x": r.randbytes(3000)})),
            lambda r: registry.resolve("f:latest", la.Files),
            lambda r: registry.remove_alias("c:x"),
            lambda r: registry.yank("c:latest", reason="x"),
            lambda r: registry.verify(),
        ]

        def work(seed: int) -> None:
            generator = random.Random(seed)
            for _ in range(20):
                try:
                    generator.choice(verbs)(generator)
                    told["done"] += 1
                except LlmartifactsError as error:
                    told[type(error).__name__] += 1
                except BaseException as error:
                    broken.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not broken
        assert told.keys() <= {"done", "NotFound", "Conflict", "Yanked"}
        assert told["done"] > 100
        assert registry.verify(read_data=True).problems == ()


def test_a_registry_closed_by_another_thread_is_told_as_closed(place: Path) -> None:
    registry = la.connect(place)
    seen: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                registry.get("a:prod")
        except BaseException as error:
            seen.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    registry.close()
    for thread in threads:
        thread.join()
    assert [type(error) for error in seen] == [NotAllowed] * 4
    with pytest.raises(NotAllowed, match="closed"):
        registry.get("a:prod")
    registry.close()


# --- races

ROLL_BACK = """
import sys
import llmartifacts as la
registry = la.connect(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    print(registry.rollback("default@r2", reason="both of us").id)
except la.errors.Conflict as error:
    print("conflict", "undone already" in str(error))
"""


def test_of_two_processes_that_roll_back_one_promotion_one_does(place: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", ROLL_BACK, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    told = sorted(child.communicate("go\n")[0].strip() for child in children)
    assert told == ["conflict True", "default@r3"]
    with la.connect(place) as registry:
        assert (registry.get("a:prod").number, registry.get("b:prod").number) == (1, 1)
        assert len(registry.promotions()) == 3


def test_a_version_is_promoted_or_withdrawn_but_never_both(place: Path) -> None:
    with la.connect(place) as registry:
        outcomes: Counter[str] = Counter()
        for i in range(30):
            registry.log("race", prompt(str(i)))
            reference, gate = f"race:v{i + 1}", threading.Barrier(2)
            calls = [
                lambda r=reference: registry.promote(r, to="prod"),
                lambda r=reference: registry.yank(r, reason="x"),
            ]

            def work(call: Callable[[], object], gate: threading.Barrier = gate) -> None:
                gate.wait()
                try:
                    call()
                except (Yanked, Conflict) as error:
                    outcomes[type(error).__name__] += 1

            threads = [threading.Thread(target=work, args=(call,)) for call in calls]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            version = registry.get(reference)
            assert (version.yanked_at is not None) != ("prod" in version.aliases)
        assert sum(outcomes.values()) == 30


# --- the directory goes away, or is another


@pytest.mark.parametrize("how", ["deleted", "moved", "emptied"])
def test_a_registry_that_goes_away_is_told_and_not_half_made_again(place: Path, how: str) -> None:
    with la.connect(place) as registry:
        registry.get("a:prod")
        if how == "moved":
            place.rename(place.with_name("elsewhere"))
        else:
            shutil.rmtree(place)
        if how == "emptied":
            place.mkdir()
        calls: list[Callable[[], object]] = [
            lambda: registry.get("a:prod"),
            lambda: registry.log("a", prompt("new")),
            lambda: registry.log("f", la.Files({"x": b"x" * 5000})),
            lambda: registry.promote("a:v1", to="prod"),
            lambda: registry.rollback("a:prod", reason="x"),
        ]
        for call in calls:
            with pytest.raises(NotFound) as caught:
                call()
            assert caught.value.hint()
    assert not place.exists() or not list(place.iterdir())


def test_a_restored_copy_is_seen_by_a_process_that_has_the_registry_open(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "backup")
    with la.connect(place) as registry:
        registry.log("a", prompt("lost by the restore"))
        shutil.rmtree(place)
        (tmp_path / "backup").rename(place)
        assert registry.get("a").number == 3
        assert registry.log("a", prompt("after the restore")).number == 4
    with la.connect(place) as registry:
        assert registry.get("a").number == 4
        assert registry.verify(read_data=True).ok


def test_a_clock_that_goes_back_changes_no_order(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with la.connect(place) as registry:
        newest = registry.promotions(limit=1)[0]
        monkeypatch.setattr("llmartifacts.metadata.sqlite.time.time_ns", lambda: 1_000_000_000)
        made = registry.promote("a:v3", to="prod", reason="in 1970")
        registry.log("a", prompt("in 1970"))
        assert made.at > newest.at
        assert [h.revision for h in registry.history("a:prod")] == [3, 2, 1]
        assert registry.state("prod", at=newest.at)["a"].version.number == 2
        assert registry.state("prod", at=made.at)["a"].version.number == 3
        assert registry.state("prod")["a"].version.number == 3
        assert registry.get("a").number == 4
        assert registry.rollback("a:prod", reason="x").at > made.at
        assert registry.verify().ok


# --- places that cannot be written

USE = """
import sys
import llmartifacts as la
registry = la.connect(sys.argv[1])
assert registry.get("a:prod").number == 2
files = registry.resolve("f:v1", la.Files)
assert files.read("raw") == bytes(range(256)) * 40
assert files.path("text").read_bytes() == b"words " * 4000
assert registry.verify(read_data=True).ok
assert registry.stats().blobs == 2
with la.Resolver({"a": "a:prod", "f": "f:v1"}, registry=registry) as resolver:
    print(resolver.current.number)
for call in (
    lambda: registry.log("a", la.Prompt("new", template_format="jinja2")),
    lambda: registry.log("f", la.Files({"x": b"x" * 2_000_000})),
    lambda: registry.promote("a:v1", to="prod"),
    lambda: registry.rollback("a:prod", reason="x"),
    lambda: registry.yank("a:v3", reason="x"),
    lambda: registry.tag("a:v1", set={"k": "v"}),
):
    try:
        call()
    except la.errors.NotAllowed as error:
        assert error.hint()
        print(error.code)
"""


@pytest.fixture
def mounts() -> None:
    if not sys.platform.startswith("linux") or os.getuid() != 0:
        pytest.skip("MOUNTS NEED LINUX AND ROOT: read-only and full file systems are not tested")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("UNSHARE MAY NOT MAKE A MOUNT NAMESPACE HERE: read-only and full file systems are not tested")


def mounted(script: str, place: Path) -> list[str]:
    return ["unshare", "-m", "sh", "-ec", f'{script}\nexec "$@"', "sh"]


@pytest.mark.usefixtures("mounts")
def test_on_a_read_only_mount_all_is_read_and_nothing_written(place: Path) -> None:
    bind = f"mount --bind {place} {place}; mount -o remount,ro,bind {place}"
    done = run(USE, place, prefix=mounted(bind, place))
    assert done.stdout.split() == ["1", *["not_allowed"] * 6], done.stderr


@pytest.mark.usefixtures("mounts")
def test_on_a_full_disk_all_is_read_and_what_is_refused_leaves_nothing(place: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    fill = (
        f"mount -t tmpfs -o size=1m none {full}; cp -r {place} {full}/registry;"
        f" dd if=/dev/zero of={full}/rest bs=1k count=2000 2>/dev/null || true"
    )
    after = """
    import os
    os.unlink(os.path.dirname(sys.argv[1]) + "/rest")
    assert registry.verify(read_data=True).ok
    assert os.listdir(sys.argv[1] + "/tmp") == []
    print(registry.log("a", la.Prompt("there is room again", template_format="jinja2")))
    """
    done = run(USE + textwrap.dedent(after), full / "registry", prefix=mounted(fill, place))
    assert done.stdout.split() == ["1", *["not_allowed"] * 6, "a:v4"], done.stderr


READ_ON = """
import os, sys
import llmartifacts as la
la.connect(sys.argv[1]).close()  # imports what the other user may have no right to read
os.setgid(65534)
os.setuid(65534)
registry = la.connect(sys.argv[1])
while sys.stdin.readline():
    print(registry.get("a:prod"), flush=True)
try:
    registry.promote("a:v1", to="prod")
except la.errors.NotAllowed:
    print("not allowed")
"""


@pytest.fixture
def reachable(place: Path) -> Iterator[Path]:
    """The registry where another user may read it."""
    if os.getuid() != 0:
        pytest.skip("ONLY ROOT CAN BECOME ANOTHER USER: a reader without the right to write is not tested")
    folder = Path(f"/tmp/llmartifacts-{os.getpid()}-{random.randrange(10**9)}")
    folder.mkdir(mode=0o755)
    shutil.copytree(place, folder / "registry")
    subprocess.run(["chmod", "-R", "a+rX,go-w", str(folder)], check=True)
    try:
        yield folder / "registry"
    finally:
        shutil.rmtree(folder)


def test_a_reader_without_the_right_to_write_sees_every_promotion(reachable: Path) -> None:
    reader = subprocess.Popen(
        [sys.executable, "-c", READ_ON, str(reachable)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LLMARTIFACTS_CACHE": "/nonexistent", "HOME": "/nonexistent"},
    )

    def reads() -> str:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write("again\n")
        reader.stdin.flush()
        return reader.stdout.readline().strip()

    with reader:
        assert reads() == "a:v2"
        with la.connect(reachable) as writer:
            writer.promote("a:v3", to="prod")
            assert reads() == "a:v3"
            writer.promote("a:v1", to="prod")
            assert reads() == "a:v1"
        assert reads() == "a:v1"
        with la.connect(reachable) as writer:
            writer.rollback("a:prod", reason="x")
        assert reads() == "a:v3"
        assert reader.communicate()[0] == "not allowed\n"
