"""Suites run as tests, as somebody sees them who runs pytest."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import llmartifacts as la

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "llmartifacts.integrations.pytest_plugin")
MODEL = """
from pathlib import Path

def answer(value, item):
    with Path("asked.txt").open("a") as asked:
        asked.write(f"{item.id} {value.format(input='').strip()}\\n")
    number, said = int(item.input.split()[0]), value.format(input="")
    if "crash" in said and number == 3:
        raise RuntimeError("the model is down")
    wrong = ("hurry" in said and number % 3 == 0) or ("dawdle" in said and number % 40 == 0)
    return "?" if wrong else str(2 * number)
"""
SUITE = """
name: adding
dataset: sums
target: agent:v2
outputs: {runnable: model:answer}
scorers: [equals, latency, {type: contains, metric: says-it}]
thresholds:
  says-it: {margin: 0.1, at_least: 0.5}
  equals: {margin: 0.05}
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of five prompts, of which the first is prod."""
    # What a run of pytest within this process imports is forgotten at its end, and classes would be there twice.
    for module in pkgutil.walk_packages(la.__path__, "llmartifacts."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    place = tmp_path_factory.mktemp("prepared") / "registry"
    with la.init(place) as made:
        items = [{"id": f"q{i}", "input": f"{i} + {i}", "expected_output": str(2 * i)} for i in range(80)]
        made.log("sums", la.EvalDataset(items))
        for n, said in enumerate(("Add.", "Please add.", "Add, hurry.", "Add, crash.", "Add, dawdle.")):
            prompt = la.Prompt(said + " {{ input }}", template_format="jinja2")
            made.log("agent", prompt, aliases="prod" if n == 0 else ())
        suite = la.EvalSuite("warm-up", "sums", ["equals"])
        la.evaluate(made, suite, "agent:v2", outputs=lambda value, item: item.expected_output, log=False)
    return place


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, registry: Path) -> pytest.Pytester:
    """A project with a model, a suite, a test of its own, and the registry."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # what is installed beside is not what is tested
    pytester.makepyfile(model=MODEL, test_own="def test_own():\n    pass\n")
    pytester.mkdir("eval_suites").joinpath("adding.yaml").write_text(SUITE)
    pytester.path.joinpath("eval_suites", "README.md").write_text("no suite")
    shutil.copytree(registry, pytester.path / ".llmartifacts")
    return pytester


def logged(project: pytest.Pytester, name: str) -> int:
    with la.connect(project.path / ".llmartifacts") as registry:
        return len(registry.versions(name)) if name in {c.name for c in registry.collections()} else 0


# --- suites as tests


def test_each_threshold_is_a_test_that_can_be_seen_and_chosen(project: pytest.Pytester) -> None:
    seen = project.runpytest_inprocess(*PLUGIN, "--llmartifacts-suites", "eval_suites", "--collect-only", "-q")
    assert seen.outlines[:4] == [
        "eval_suites/adding.yaml::adding::equals margin 0.05",
        "eval_suites/adding.yaml::adding::says-it margin 0.1",
        "eval_suites/adding.yaml::adding::says-it at least 0.5",
        "test_own.py::test_own",
    ]
    assert not (project.path / "asked.txt").exists()

    chosen = project.runpytest_inprocess(*PLUGIN, "--llmartifacts-suites", "eval_suites", "-k", "says-it and margin")
    chosen.assert_outcomes(passed=1, deselected=3)
    one = "eval_suites/adding.yaml::adding::equals margin 0.05"
    project.runpytest_inprocess(*PLUGIN, one).assert_outcomes(passed=1)


def test_a_suite_runs_once_for_all_of_its_tests_beside_the_projects_own(project: pytest.Pytester) -> None:
    done = project.runpytest_inprocess(*PLUGIN, "--llmartifacts-suites", "eval_suites", "-v")

    done.assert_outcomes(passed=4)
    done.stdout.fnmatch_lines(["llmartifacts: 1 suite"])
    assert len((project.path / "asked.txt").read_text().splitlines()) == 160  # 80 items, target and baseline


def test_nothing_is_written_to_the_registry_unless_asked(project: pytest.Pytester) -> None:
    project.runpytest_inprocess(*PLUGIN, "eval_suites/adding.yaml").assert_outcomes(passed=3)
    assert (logged(project, "adding"), logged(project, "adding-report")) == (0, 0)

    project.runpytest_inprocess(*PLUGIN, "eval_suites/adding.yaml", "--llmartifacts-log").assert_outcomes(passed=3)
    assert (logged(project, "adding"), logged(project, "adding-report")) == (1, 1)

    project.makeini("[pytest]\nllmartifacts_log = true\n")
    no = ("eval_suites/adding.yaml", "--no-llmartifacts-log")
    project.runpytest_inprocess(*PLUGIN, *no).assert_outcomes(passed=3)
    assert logged(project, "adding-report") == 1


def test_a_failure_says_why_draws_the_interval_and_names_the_items(project: pytest.Pytester) -> None:
    done = project.runpytest_inprocess(
        *PLUGIN, "eval_suites/adding.yaml", "--llmartifacts-target", "agent:v3", "-ra", "--llmartifacts-log"
    )

    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(
        [
            "eval_suites?adding.yaml FF.*",
            "*_ adding: equals margin 0.05 _*",
            "FAIL: proven worse than the baseline, and by more than 0.05 of the scale (equals, margin 0.05)",
            "adding on agent:v3, against agent:v1, 80 items of sums:v1",
            "equals: 0.6625 *, n = 80",
            "*├━*●*│*",
            "*margin*",
            "  q0: equals 1 -> 0",
            "logged adding-report:v1",
            "every item: llmartifacts eval compare agent:v1 agent:v3",
            "FAILED eval_suites/adding.yaml::adding::equals margin 0.05*",
            "* 2 failed, 1 passed*",
        ]
    )


def test_an_inconclusive_test_looks_neither_like_a_failure_nor_like_a_success(project: pytest.Pytester) -> None:
    arguments = ("eval_suites/adding.yaml", "--llmartifacts-target", "agent:v5", "-k", "equals", "-ra")
    done = project.runpytest_inprocess(*PLUGIN, *arguments)

    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(
        [
            "eval_suites?adding.yaml I *",
            "INCONCLUSIVE: it may be worse by more than the margin, or not (equals, margin 0.05)",
            "to do: About * items would decide *",
            "INCONCLUSIVE eval_suites/adding.yaml::adding::equals margin 0.05*",
        ]
    )

    project.makeini("[pytest]\nllmartifacts_inconclusive = skip\n")
    done = project.runpytest_inprocess(*PLUGIN, *arguments)
    done.assert_outcomes(skipped=1, deselected=2)
    done.stdout.fnmatch_lines(["eval_suites?adding.yaml i *", "INCONCLUSIVE * items would decide *"])


def test_what_could_not_be_computed_is_an_error(project: pytest.Pytester) -> None:
    done = project.runpytest_inprocess(
        *PLUGIN, "eval_suites/adding.yaml", "--llmartifacts-target", "agent:v4", "-k", "equals", "-ra"
    )

    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.assert_outcomes(errors=1, deselected=2)
    done.stdout.fnmatch_lines(
        [
            "eval_suites?adding.yaml E *",
            "ERROR: no score for 1 of the items, because of an error (equals, no errors)",
            "  q3: *the model is down*",
            "ERROR eval_suites/adding.yaml::adding::equals margin 0.05*",
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--llmartifacts-target", "agent:v9"), "ERROR: *v9*"),
        (("--llmartifacts-baseline", "agent:v9"), "ERROR: *v9*"),
        (("--llmartifacts-registry", "nowhere"), "ERROR: *nowhere*"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error_of_every_test_without_a_traceback(
    arguments: tuple[str, ...], told: str, project: pytest.Pytester
) -> None:
    done = project.runpytest_inprocess(*PLUGIN, "eval_suites/adding.yaml", *arguments)
    done.assert_outcomes(errors=3)
    done.stdout.fnmatch_lines([told])
    done.stdout.no_fnmatch_line("*Traceback*")
    done.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_target_and_baseline_are_of_all_suites_or_of_one(project: pytest.Pytester) -> None:
    (project.path / "eval_suites" / "other.yaml").write_text(SUITE.replace("adding", "other"))
    given = ("--llmartifacts-suites", "eval_suites", "--llmartifacts-target")
    done = project.runpytest_inprocess(*PLUGIN, *given, "other=agent:v3", "--llmartifacts-baseline", "prod")
    done.assert_outcomes(passed=5, failed=2)
    done.stdout.fnmatch_lines(["other on agent:v3, against agent:v1, *"])

    done = project.runpytest_inprocess(*PLUGIN, *given, "agent:v3", "--llmartifacts-baseline", "none", "-rP")
    done.assert_outcomes(passed=7)
    done.stdout.fnmatch_lines(["adding on agent:v3, 80 items *", "not compared: no comparison was asked for"])


def test_a_suite_that_demands_nothing_does_not_pass(project: pytest.Pytester) -> None:
    (project.path / "idle.suite.yaml").write_text(SUITE[: SUITE.index("thresholds")])
    done = project.runpytest_inprocess(*PLUGIN, "idle.suite.yaml")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["ERROR: the suite demands nothing"])


def test_a_file_that_is_no_suite_is_told_with_its_line_and_no_test_of_it_runs(project: pytest.Pytester) -> None:
    (project.path / "eval_suites" / "adding.yaml").write_text(SUITE.replace("equals, latency", "equls, latency"))
    done = project.runpytest_inprocess(*PLUGIN, "--llmartifacts-suites", "eval_suites")
    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stdout.fnmatch_lines(["*no scorer is called 'equls' (field scorers*, line 6)*"])
    done.stdout.no_fnmatch_line("*Traceback*")


def test_the_verdict_and_the_report_are_in_pytests_own_junit_file(project: pytest.Pytester) -> None:
    project.runpytest_inprocess(
        *PLUGIN,
        "eval_suites/adding.yaml",
        "--llmartifacts-target",
        "agent:v3",
        "--junitxml=out.xml",
        "--llmartifacts-log",
    )
    case = next(c for c in ElementTree.parse(project.path / "out.xml").iter("testcase") if c.get("name", "")[0] == "e")
    properties = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert properties == {"verdict": "FAIL", "value": "0.6625", "report": "adding-report:v1"}
    assert case.find("failure") is not None


# --- which files


def test_a_folder_means_its_own_files_and_below_it_those_that_are_named_as_suites(project: pytest.Pytester) -> None:
    for place in ("more", "more/deep/eval_suites", "more/deep/other", "more/.hidden/eval_suites"):
        (project.path / place).mkdir(parents=True)
        (project.path / place / "data.yaml").write_text(SUITE)
    (project.path / "more" / "deep" / "a.suite.yml").write_text(SUITE)
    (project.path / "more" / "test_not_asked_for.py").write_text("def test_it(): assert False")

    done = project.runpytest_inprocess(*PLUGIN, "test_own.py", "--llmartifacts-suites", "more", "--collect-only", "-q")
    files = {line.partition("::")[0] for line in done.outlines if "::" in line}
    assert files == {"test_own.py", "more/data.yaml", "more/deep/eval_suites/data.yaml", "more/deep/a.suite.yml"}

    (project.path / "more" / "pyproject.toml").touch()  # a whole project, where YAML may be anything
    done = project.runpytest_inprocess(*PLUGIN, "test_own.py", "--llmartifacts-suites", "more", "--collect-only", "-q")
    assert "more/data.yaml" not in {line.partition("::")[0] for line in done.outlines}


def test_the_projects_settings_may_name_the_suites(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nllmartifacts_suites = eval_suites\n")
    (project.path / "below").mkdir()
    os.chdir(project.path / "below")  # from the file of the settings, not from here
    project.runpytest_inprocess(*PLUGIN, "--rootdir", str(project.path), str(project.path)).assert_outcomes(passed=4)
    os.chdir(project.path)
    project.runpytest_inprocess(*PLUGIN).assert_outcomes(passed=4)


@pytest.mark.parametrize("place", ["nowhere", "empty", "test_own.py"])
def test_a_place_without_suites_is_wrong_use_and_not_success(place: str, project: pytest.Pytester) -> None:
    project.mkdir("empty")
    done = project.runpytest_inprocess(*PLUGIN, "--llmartifacts-suites", place)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"*there is no suite at *{place}"])


# --- the fixture


def test_a_test_evaluates_and_asserts(project: pytest.Pytester) -> None:
    (project.path / "tests").mkdir()
    (project.path / "tests" / "near.suite.yaml").write_text(SUITE)
    (project.path / "tests" / "test_prompt.py").write_text(
        """
import pytest

def test_passes(evaluate):
    made = evaluate("eval_suites/adding.yaml")
    made.assert_passes()
    assert made.verdict == "PASS"
    assert made.report.metric("equals").value == 1
    assert made.made.version is None

def test_a_suite_beside_the_test(evaluate):
    evaluate("near.suite.yaml", "agent:v2").assert_passes("equals")

def test_fails(evaluate):
    evaluate("eval_suites/adding.yaml", target="agent:v3").assert_passes("equals")

def test_one_metric_may_pass_where_another_does_not(evaluate, llmartifacts_registry):
    made = evaluate("eval_suites/adding.yaml", "agent:v3", outputs=lambda value, item: "4 or 5", baseline="none")
    assert made.verdict != "PASS"

def test_unknown(evaluate):
    evaluate("eval_suites/adding.yaml").assert_passes("latency")

def test_logs(evaluate, llmartifacts_registry):
    made = evaluate("eval_suites/adding.yaml", log=True)
    assert llmartifacts_registry.find("adding-report:v1").version.digest == made.made.version.digest
"""
    )
    done = project.runpytest_inprocess(*PLUGIN, "tests")
    done.assert_outcomes(passed=4, failed=2)
    done.stdout.fnmatch_lines(
        ["*_ test_fails _*", "FAIL: proven worse* (equals, margin 0.05)", "*├━*", "*_ test_unknown _*"]
    )
    done.stdout.fnmatch_lines(["ERROR: the suite demands nothing of latency"])
    done.stdout.no_fnmatch_line("*says-it*")


# --- with others


@pytest.mark.matrix
def test_workers_of_xdist_ask_for_each_output_once_and_log_one_report(project: pytest.Pytester) -> None:
    arguments = ("eval_suites/adding.yaml", "--llmartifacts-target", "agent:v3", "--llmartifacts-log")
    for mode in ("load", "loadgroup"):
        (project.path / "asked.txt").unlink(missing_ok=True)
        done = project.runpytest_subprocess("-p", "xdist", *PLUGIN, "-n", "3", "--dist", mode, *arguments)
        done.assert_outcomes(failed=2, passed=1)
        done.stdout.fnmatch_lines(["FAIL: proven worse* (equals, margin 0.05)"])
    assert logged(project, "adding-report") == 2
    assert not (project.path / "asked.txt").exists()  # the second run found every output
    first = project.runpytest_subprocess("-p", "xdist", *PLUGIN, "-n", "3", "eval_suites/adding.yaml")
    first.assert_outcomes(passed=3)
    asked = (project.path / "asked.txt").read_text().splitlines()
    assert len(asked) == len(set(asked)) == 80


def test_a_run_that_has_nothing_to_do_with_it_imports_nothing_more(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
import sys

def pytest_sessionfinish(session):
    print("\\nLOADED", sorted(m for m in sys.modules if m.partition(".")[0] in {
        "llmartifacts", "numpy", "faiss", "pydantic", "yaml", "apsw", "langchain_core", "jinja2"}))
"""
    )
    with_it = project.runpytest_subprocess(*PLUGIN, "-s", "-W", "error", "--strict-markers", "--strict-config")
    with_it.assert_outcomes(passed=1)
    with_it.stdout.fnmatch_lines(
        ["LOADED [[]'llmartifacts', 'llmartifacts.integrations', 'llmartifacts.integrations.pytest_plugin']"]
    )
    with_it.stdout.no_fnmatch_line("llmartifacts:*")


@pytest.mark.matrix
def test_it_is_there_where_the_package_is_installed_and_can_be_switched_off(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = project.mkdir("site").joinpath("probe-1.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pytest11]\nllmartifacts-probe = llmartifacts.integrations.pytest_plugin\n")
    monkeypatch.setenv("PYTHONPATH", str(info.parent))
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")

    own = ("-p", "no:llmartifacts", "-p", "no:schemathesis")  # what is installed beside it; the latter is slow to load
    given = ("-W", "error", "--llmartifacts-suites", "eval_suites")
    project.runpytest_subprocess(*own, *given).assert_outcomes(passed=4)
    off = project.runpytest_subprocess(*own, "-p", "no:llmartifacts-probe", *given)
    assert off.ret == pytest.ExitCode.USAGE_ERROR
    project.runpytest_subprocess(*own, "-p", "no:llmartifacts-probe").assert_outcomes(passed=1)


def test_yaml_files_that_nobody_asked_for_are_not_collected(project: pytest.Pytester) -> None:
    project.runpytest_inprocess(*PLUGIN).assert_outcomes(passed=1)
    (project.path / "data.yaml").write_text(SUITE)
    done = project.runpytest_inprocess(*PLUGIN, "data.yaml")
    assert done.ret == pytest.ExitCode.USAGE_ERROR  # as without the plugin


def test_warnings_as_errors_do_not_break_an_evaluation(project: pytest.Pytester) -> None:
    done = project.runpytest_subprocess(*PLUGIN, "-W", "error", "eval_suites/adding.yaml")
    done.assert_outcomes(passed=3)


def test_help_names_every_option() -> None:
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, "--help"],
        env=environment,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("suites", "target", "baseline", "registry", "log"):
        assert f"--llmartifacts-{name}" in done.stdout
    for name in ("llmartifacts_suites", "llmartifacts_log", "llmartifacts_inconclusive"):
        assert name in done.stdout
