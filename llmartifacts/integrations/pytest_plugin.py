"""A pytest plugin: suites run as tests, and a fixture that evaluates.

    pytest --llmartifacts-suites eval_suites --llmartifacts-target support-kb:staging

Each threshold of a suite is one test, `…/retrieval.yaml::stdlib-retrieval::recall@5 margin 0.05`; each suite is run
once. FAIL is a failure; INCONCLUSIVE fails too, marked `I`, and says how many items would decide; ERROR and TAMPERED
are errors. In the tests of a project:

    def test_prompt(evaluate):
        evaluate("suites/answers.yaml", target="agent:v2").assert_passes()

Loaded by every run of pytest where the package is installed: nothing is imported, read or opened until a suite is asked
for.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llmartifacts.evals.evaluate import Evaluation
    from llmartifacts.evals.verdicts import Ruling
    from llmartifacts.kinds.eval_suite import EvalSuite
    from llmartifacts.kinds.report import Report
    from llmartifacts.records.policy import Verdict
    from llmartifacts.registry import Registry

FOLDER = "eval_suites"
"""In a folder of this name, every YAML file is a suite."""
_YAML = (".yaml", ".yml")
_SUITE = (".suite.yaml", ".suite.yml")
_NEVER = frozenset({"node_modules", "__pycache__", "site-packages"})
_ITEMS = 10
_SHARED = "llmartifacts_shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and settings."""
    group = parser.getgroup("llmartifacts", "llmartifacts: evaluation suites as tests")
    add = group.addoption
    add(
        "--llmartifacts-suites",
        action="append",
        default=[],
        metavar="PATH",
        help="Run this suite as tests; of a folder, its YAML files and, below it, *.suite.yaml and eval_suites/*.yaml. "
        "Repeatable.",
    )
    add(
        "--llmartifacts-target",
        action="append",
        default=[],
        metavar="[SUITE=]REF",
        help="What to evaluate, of all suites or of one; by default what the suite says. Repeatable.",
    )
    add(
        "--llmartifacts-baseline",
        metavar="REF|ALIAS|none",
        help="What to compare with; by default what the suite says.",
    )
    add(
        "--llmartifacts-registry",
        metavar="PATH",
        help="Where the registry is; else $LLMARTIFACTS_REGISTRY, else the nearest .llmartifacts/ upward.",
    )
    add(
        "--llmartifacts-log",
        action="store_true",
        default=None,
        help="Log suites and reports, as evidence for gates; by default nothing is written to the registry.",
    )
    add("--no-llmartifacts-log", action="store_false", dest="llmartifacts_log", help="Log nothing.")
    parser.addini("llmartifacts_suites", "Suites to run as tests, as --llmartifacts-suites.", type="paths", default=[])
    parser.addini("llmartifacts_log", "Whether to log suites and reports.", type="bool", default=False)
    parser.addini("llmartifacts_inconclusive", "What an INCONCLUSIVE test is: fail or skip.", default="fail")


def pytest_configure(config: pytest.Config) -> None:
    """Find the suites that are asked for, and have them collected.

    Raises:
        UsageError: One is not there, or a setting is wrong.
    """
    config.stash[_STATE] = state = _State(config)
    if config.getini("llmartifacts_inconclusive") not in ("fail", "skip"):
        raise pytest.UsageError("llmartifacts_inconclusive is fail or skip")
    named = [config.invocation_params.dir / p for p in config.getoption("--llmartifacts-suites")]
    for place in named or config.getini("llmartifacts_suites"):
        found = sorted(_suites_at(Path(os.path.abspath(place))))
        if not found:
            raise pytest.UsageError(f"llmartifacts: there is no suite at {place}")
        state.files.update(dict.fromkeys(found))
    for file in state.files:
        if "[" in str(file) or "::" in str(file):
            raise pytest.UsageError(f"llmartifacts: pytest cannot take the path {file}, because of [ or ::")
        if str(file) not in config.args:  # a worker of xdist has it from the one that started it
            config.args.append(str(file))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the registry."""
    state = config.stash.get(_STATE, None)
    if state is not None:
        state.close()


def pytest_report_header(config: pytest.Config) -> str | None:
    """How many suites are run."""
    many = len(config.stash[_STATE].files)
    return f"llmartifacts: {many} suite{'s' * (many != 1)}" if many else None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker of xdist a folder to share with the others; the first that needs it makes it."""
    node.workerinput[_SHARED] = node.config.stash[_STATE].shared()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A suite that was asked for, or that is named on the command line."""
    if file_path.suffix not in _YAML:
        return None
    if file_path in parent.config.stash[_STATE].files or (
        _looks_like_suite(file_path) and parent.session.isinitpath(file_path)
    ):
        return SuiteFile.from_parent(parent, path=file_path)
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Write the verdict into the report of its test."""
    report = yield
    if isinstance(item, ThresholdItem) and call.when == "call" and item.verdict:
        report.llmartifacts_verdict = item.verdict  # type: ignore[attr-defined]
    return report


def pytest_report_teststatus(report: Any) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """INCONCLUSIVE looks like neither a failure nor a success; ERROR and TAMPERED are errors."""
    verdict = getattr(report, "llmartifacts_verdict", "")
    if verdict == "INCONCLUSIVE":
        return ("skipped", "i", (verdict, {"yellow": True})) if report.skipped else ("failed", "I", (verdict, _YELLOW))
    if verdict in ("ERROR", "TAMPERED") and report.failed:
        return "error", "E", (verdict, {"red": True})
    return None


_YELLOW = {"yellow": True}


# --- suites as tests


class SuiteFile(pytest.File):
    """The YAML file of a suite."""

    def collect(self) -> Iterable[pytest.Collector]:
        """The suite in it. Raises `CollectError` if it is none."""
        from llmartifacts.errors import LlmartifactsError
        from llmartifacts.kinds.eval_suite import EvalSuite

        try:
            suite = EvalSuite.from_file(self.path)
        except LlmartifactsError as error:
            raise self.CollectError(str(error)) from None
        yield SuiteNode.from_parent(self, name=suite.name, suite=suite)


class SuiteNode(pytest.Collector):
    """A suite: a test for each thing that it demands."""

    def __init__(self, *, suite: EvalSuite, **known: Any) -> None:
        super().__init__(**known)
        self.suite = suite
        if self.config.pluginmanager.hasplugin("xdist"):  # with --dist loadgroup they go to one worker
            self.add_marker(pytest.mark.xdist_group(self.name))

    def collect(self) -> Iterable[pytest.Item]:
        """The tests; a suite that demands nothing has one, which says so."""
        for metric in self.suite.metrics:
            limit = self.suite.thresholds.get(metric)
            if limit is None:
                continue
            if limit.margin is not None:
                yield self._test(metric, "margin", f"margin {limit.margin:g}")
            sides = (("at least", limit.at_least), ("at most", limit.at_most))
            absolute = " and ".join(f"{word} {value:g}" for word, value in sides if value is not None)
            if absolute:
                yield self._test(metric, "absolute", absolute)
        if not self.suite.thresholds:
            yield self._test("", "", "demands something")

    def _test(self, metric: str, sort: str, told: str) -> ThresholdItem:
        name = f"{metric} {told}".strip().replace("::", ":")
        return ThresholdItem.from_parent(self, name=name, suite=self.suite, metric=metric, sort=sort)


class ThresholdItem(pytest.Item):
    """One demand of a suite on one metric, as a test.

    Attributes:
        verdict: What it came to; empty before it ran, and where something else went wrong.
    """

    def __init__(self, *, suite: EvalSuite, metric: str, sort: str, **known: Any) -> None:
        super().__init__(**known)
        self.suite, self.metric, self.sort = suite, metric, sort
        self.verdict = ""

    def runtest(self) -> None:
        """Evaluate the suite, unless another of its tests did, and judge by its ruling."""
        from llmartifacts.errors import LlmartifactsError

        if not self.metric:
            self.verdict = "ERROR"
            pytest.fail("ERROR: the suite demands nothing\nto do: give it thresholds", pytrace=False)
        state = self.config.stash[_STATE]
        try:
            run = state.run(self.path, self.suite)
        except LlmartifactsError as error:
            self.verdict = "ERROR"
            pytest.fail(f"ERROR: {error}", pytrace=False)
        judged = [r for r in run.made.rulings if r.metric == self.metric and self._is_mine(r)]
        self.verdict = _worst(judged)
        report = run.made.report
        self.user_properties.append(("verdict", self.verdict))
        self.user_properties.append(("value", report.metric(self.metric).value))
        if run.report:
            self.user_properties.append(("report", run.report))
        text = _told(run.made, judged, run.report)
        if self.verdict == "PASS":
            self.add_report_section("call", "evaluation", text)
        else:
            _end(self.config, self.verdict, text)

    def _is_mine(self, ruling: Ruling) -> bool:
        """Whether a ruling is about this demand; `no errors` is about every demand on its metric."""
        return ruling.rule == "no errors" or (ruling.rule.startswith("margin ") == (self.sort == "margin"))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it is, and what it is called."""
        return self.path, None, f"{self.suite.name}: {self.name}"


# --- the fixtures


class Evaluated:
    """An evaluation in a test.

    Args:
        made: The evaluation; see `llmartifacts.evals.evaluate.Evaluation` for what is in it.
        config: The configuration of the run of pytest.
    """

    def __init__(self, made: Evaluation, config: pytest.Config) -> None:
        self.made = made
        self._config = config

    @property
    def report(self) -> Report:
        """The report, with its metrics and its items."""
        return self.made.report

    @property
    def verdict(self) -> Verdict | None:
        """The worst of what was demanded; None where nothing was."""
        return self.made.verdict

    def assert_passes(self, *metrics: str) -> None:
        """End the test unless all that the suite demands passes, or all that it demands of some metrics.

        Args:
            *metrics: Names of metrics; all by default.
        """
        __tracebackhide__ = True
        known = {r.metric for r in self.made.rulings}
        missing = sorted(set(metrics) - known)
        if missing or not known:
            pytest.fail(f"ERROR: the suite demands nothing{f' of {missing[0]}' if missing else ''}", pytrace=False)
        judged = [r for r in self.made.rulings if not metrics or r.metric in metrics]
        verdict = _worst(judged)
        if verdict != "PASS":
            _end(self._config, verdict, _told(self.made, judged, _logged(self.made)))


@pytest.fixture(scope="session")
def llmartifacts_registry(pytestconfig: pytest.Config) -> Registry:
    """The registry that `--llmartifacts-registry` names, else the one that `llmartifacts.connect()` finds."""
    return pytestconfig.stash[_STATE].registry()


@pytest.fixture
def evaluate(request: pytest.FixtureRequest, llmartifacts_registry: Registry) -> Callable[..., Evaluated]:
    """Runs a suite: `evaluate(suite, target=None, **options)`.

    The suite is a path (from the working directory, else from the test's own folder), a reference or an `EvalSuite`.
    The options are those of `llmartifacts.evaluate`. Whether it is logged is up to `--llmartifacts-log`, unless `log`
    says.
    """
    config = request.config

    def run(suite: Any, target: Any = None, **options: Any) -> Evaluated:
        beside = request.path.parent / str(suite)
        if isinstance(suite, str | Path) and str(suite).endswith(_YAML) and not Path(suite).exists():
            suite = beside if beside.exists() else suite
        chosen = {"log": config.stash[_STATE].logs, **options}
        return Evaluated(_evaluate(llmartifacts_registry, suite, target, **chosen), config)

    return run


# --- what they share


@dataclass
class _Run:
    """An evaluation that every test of its suite is judged by."""

    made: Evaluation
    report: str


@dataclass
class _State:
    """What one run of pytest has open."""

    config: pytest.Config
    files: dict[Path, None] = field(default_factory=dict)
    _runs: dict[Path, _Run | Exception] = field(default_factory=dict)
    _registry: Registry | None = None
    _folder: str = ""

    @property
    def logs(self) -> bool:
        given = self.config.getoption("llmartifacts_log")
        return bool(self.config.getini("llmartifacts_log") if given is None else given)

    def registry(self) -> Registry:
        if self._registry is None:
            from llmartifacts.connect import connect

            self._registry = connect(self.config.getoption("--llmartifacts-registry"))
        return self._registry

    def run(self, path: Path, suite: EvalSuite) -> _Run:
        """The evaluation of a suite, made once. Raises what it raised, each time."""
        if path not in self._runs:
            try:
                self._runs[path] = self._evaluated(path, suite)
            except Exception as error:  # noqa: BLE001 - it is the same for every test of the suite
                self._runs[path] = error
        found = self._runs[path]
        if isinstance(found, Exception):
            raise found
        return found

    def _evaluated(self, path: Path, suite: EvalSuite) -> _Run:
        target = None
        for given in self.config.getoption("--llmartifacts-target"):
            name, equals, reference = given.partition("=")
            if not equals or name == suite.name:
                target = reference if equals else given
        baseline = self.config.getoption("--llmartifacts-baseline")
        with self._turn(path) as (earlier, keep):
            # A worker that comes later finds the outputs in the cache; the report is logged once.
            logs = self.logs and not earlier
            made = _evaluate(self.registry(), suite, target, baseline=baseline, log=logs)
            report = _logged(made) or earlier
            keep(report)
        return _Run(made, report)

    @contextmanager
    def _turn(self, path: Path) -> Iterator[tuple[str, Callable[[str], None]]]:
        """One worker of xdist after the other; gives what an earlier one logged."""
        shared = getattr(self.config, "workerinput", {}).get(_SHARED)
        if shared is None:
            yield "", lambda report: None
            return
        import fcntl
        import hashlib

        Path(shared).mkdir(mode=0o700, exist_ok=True)
        name = hashlib.sha256(str(path).encode()).hexdigest()
        with (Path(shared) / name).open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            file.seek(0)
            earlier = file.read()

            def keep(report: str) -> None:
                file.truncate(0)
                file.write(report)
                file.flush()

            yield earlier, keep

    def shared(self) -> str:
        """Where the workers of this run share what they know; nobody else can guess the name."""
        if not self._folder:
            import tempfile

            self._folder = os.path.join(tempfile.gettempdir(), f"llmartifacts-pytest-{os.urandom(16).hex()}")
        return self._folder

    def close(self) -> None:
        if self._registry is not None:
            self._registry.close()
            self._registry = None
        if self._folder:
            import shutil

            shutil.rmtree(self._folder, ignore_errors=True)


_STATE = pytest.StashKey[_State]()


def _evaluate(registry: Registry, suite: Any, target: Any, **options: Any) -> Evaluation:
    with warnings.catch_warnings():
        # Importing FAISS warns of how it was built, which `-W error` would make the end of.
        warnings.filterwarnings("ignore", message=".*[Ss]wig.*", category=DeprecationWarning)
        from llmartifacts.evals.evaluate import evaluate_logged

        return evaluate_logged(registry, suite, target, **options)


def _suites_at(place: Path) -> Iterator[Path]:
    """The suite files of a place that was asked for."""
    if place.is_file():
        if place.suffix in _YAML:
            yield place
        return
    for root, folders, files in os.walk(place):
        folders[:] = [f for f in folders if not f.startswith(".") and f not in _NEVER and not _is_venv(Path(root, f))]
        for name in files:
            file = Path(root, name)
            if file.suffix in _YAML and ((file.parent == place and not _is_broad(place)) or _looks_like_suite(file)):
                yield file


def _is_broad(place: Path) -> bool:
    """Whether a folder is one of a whole project: there, a YAML file may be anything."""
    return any((place / name).exists() for name in ("pyproject.toml", "setup.py", "setup.cfg", ".git"))


def _is_venv(folder: Path) -> bool:
    return (folder / "pyvenv.cfg").is_file()


def _looks_like_suite(file: Path) -> bool:
    return file.name.endswith(_SUITE) or file.parent.name == FOLDER


def _worst(judged: list[Ruling]) -> str:
    from llmartifacts.records.policy import all_of

    return all_of([r.verdict for r in judged]).value


def _is_worth_items(made: Evaluation, metric: str, wanting: list[Ruling]) -> bool:
    """Whether its items say why it does not pass: not where there are only too few of them."""
    return any(r.verdict.value != "INCONCLUSIVE" for r in wanting) or bool(wanting and made.before.get(metric))


def _logged(made: Evaluation) -> str:
    return str(made.version) if made.version is not None else ""


def _end(config: pytest.Config, verdict: str, text: str) -> None:
    """End a test that did not pass."""
    __tracebackhide__ = True
    if verdict == "INCONCLUSIVE" and config.getini("llmartifacts_inconclusive") == "skip":
        pytest.skip("; ".join(text.partition("\n\n")[0].splitlines()))
    pytest.fail(text, pytrace=False)


def _told(made: Evaluation, judged: list[Ruling], logged: str) -> str:
    """What an evaluation came to, for people: the reason first, the interval drawn, the items to look at."""
    from llmartifacts.evals.changes import failing_items
    from llmartifacts.evals.interval import plot_interval
    from llmartifacts.records.evidence import MARGIN

    wanting = [r for r in judged if r.verdict.value != "PASS"]
    shown = wanting or judged
    against = f", against {made.baseline}" if made.baseline is not None else ""
    lines = [f"{r.verdict.value}: {r.message} ({r.metric}, {r.rule})" for r in shown]
    lines += [f"to do: {step}" for step in dict.fromkeys(r.next_step for r in wanting if r.next_step)]
    lines += ["", f"{made.report.suite} on {made.target}{against}, {len(made.items)} items of {made.dataset}"]
    for name in dict.fromkeys(r.metric for r in shown):
        metric = made.report.metric(name)
        lines.append(str(metric))
        if metric.comparison is not None:
            margin = made.suite.thresholds[name].margin
            drawn = plot_interval(metric.comparison, MARGIN if margin is None else margin)
            lines += [f"  {line}" for line in drawn.splitlines()]
        if _is_worth_items(made, name, wanting):
            lines += [f"  {line}" for line in failing_items(made.report, name, made.before.get(name), _ITEMS)]
    if made.uncompared:
        lines.append(f"not compared: {made.uncompared}")
    lines += [f"note: {remark}" for remark in made.remarks]
    if logged:
        lines.append(f"logged {logged}")
        if made.baseline is not None and wanting:
            lines.append(f"every item: llmartifacts eval compare {made.baseline} {made.target}")
    return "\n".join(lines)
