"""Previews of hostile prompts: each ends, with a typed error, and the process of the server is as it was."""

from __future__ import annotations

import importlib.util
import os
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmartifacts as la
from llmartifacts.errors import (
    Busy,
    InvalidInput,
    InvalidTemplate,
    InvalidValue,
    LlmartifactsError,
    MissingVariable,
    NotFound,
    RenderLimitExceeded,
    TooLarge,
    WrongKind,
)
from llmartifacts.records.backend import Draft
from llmartifacts.records.manifest import Manifest
from llmartifacts.records.reference import Reference
from llmartifacts.server import preview
from llmartifacts.server.preview import PreviewMessages, Previews, PreviewText
from llmartifacts.versioning.parts import Parts

_FILE = Path(__file__).with_name("test_templates.py")
_SPEC = importlib.util.spec_from_file_location("hostile_templates", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
HOSTILE: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(HOSTILE)


class Desk:
    """A registry of prompts as strangers log them, and their previews."""

    def __init__(self, registry: la.Registry, previews: Previews) -> None:
        backend: Any = registry.backend
        self.backend = backend.guarded()
        self.parts: Parts = self.backend.parts
        self.previews = previews

    def log(self, name: str, config: dict[str, Any], kind: str = "prompt") -> None:
        self.backend.commit("default", [Draft(name, Manifest.build(kind, config))], actor="mallory")

    def log_template(self, template: str, template_format: str = "jinja2") -> None:
        """As its maker would have logged it; where not even a prompt can be made, as one would who leaves that out."""
        try:
            config = _config(la.Prompt(template, template_format=template_format))
        except InvalidTemplate:
            config = {"type": "text", "template_format": template_format, "template": template, "variables": {}}
        self.log("evil", config)

    def asked(self) -> list[str]:
        """The variables of the hostile prompt."""
        item = self.backend.read("default", [Reference.parse("evil:latest")]).items[0]
        return list(item.manifest.config["variables"])

    def show(self, reference: str = "evil", **variables: Any) -> PreviewText | PreviewMessages:
        return self.previews.preview(self.parts, "default", Reference.parse(reference), variables)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    previews = Previews(most=1, wait=0.2)
    with la.init(tmp_path / "registry") as registry:
        yield Desk(registry, previews)
    previews.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One for many templates: what a template did to the process would show in the next."""
    previews = Previews()
    with la.init(tmp_path_factory.mktemp("previews") / "registry") as registry:
        yield Desk(registry, previews)
    previews.close()


# --- what is asked for


def test_a_text_and_a_chat_are_rendered(desk: Desk) -> None:
    desk.log("text", _config(la.Prompt("Hello {{ name }}!", template_format="jinja2")))
    assert desk.show("text:v1", name="Ada") == PreviewText("Hello Ada!")
    chat = la.Prompt([("system", "Be {{ how }}."), {"placeholder": "history"}], template_format="jinja2")
    desk.log("chat", _config(chat))
    history = [{"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image", "url": "u"}]}]
    shown = desk.show("chat", how="brief", history=history)
    assert shown == PreviewMessages((("system", "Be brief."), ("user", "Look: [image]")))


def test_what_is_wrong_with_the_variables_is_said_as_by_the_prompt_itself(desk: Desk) -> None:
    desk.log("text", _config(la.Prompt("Hello {{ name }}!", template_format="jinja2")))
    with pytest.raises(MissingVariable, match="name"):
        desk.show("text")
    with pytest.raises(InvalidInput, match="other"):
        desk.show("text", name="Ada", other=1)
    with pytest.raises(TooLarge, match="the limit is"):
        desk.show("text", name="x" * 2**20)
    with pytest.raises(InvalidInput):
        desk.show("text", name=float("nan"))


def test_only_prompts_that_are_there_are_rendered(desk: Desk) -> None:
    desk.log("thing", {"x": 1}, kind="strange")
    with pytest.raises(WrongKind, match="not a prompt"):
        desk.show("thing")
    with pytest.raises(NotFound):
        desk.show("nothing:v1")


def test_a_process_is_kept_for_the_next_preview_and_replaced_after_so_many(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "USES", 3)
    desk.log("text", _config(la.Prompt("{{ n }}", template_format="jinja2")))
    seen = []
    for n in range(5):
        assert desk.show("text", n=n) == PreviewText(str(n))
        process = desk.previews._idle[0][0]._process
        seen.append(None if process is None else process.pid)
    assert seen[0] == seen[1] != seen[3] == seen[4]
    assert seen[2] is None


def test_whoever_finds_no_turn_is_told_to_try_again(desk: Desk) -> None:
    desk.log("text", _config(la.Prompt("{{ n }}", template_format="jinja2")))
    with desk.previews._worker(), pytest.raises(Busy, match="other previews"):
        desk.show("text", n=1)
    assert desk.show("text", n=1) == PreviewText("1")


# --- what attacks


def test_every_template_that_asks_for_too_much_is_stopped_and_the_next_preview_works(kept: Desk) -> None:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    passed = []
    for template in HOSTILE.DENIALS:
        kept.log_template(template)
        try:
            kept.show(**({"x": "value"} if "x" in kept.asked() else {}))
            passed.append(template[:80])
        except LlmartifactsError as error:
            if not isinstance(error, InvalidTemplate) or error.field == "variables":
                passed.append(f"{type(error).__name__}: {template[:80]}")
    assert passed == []
    kept.log("good", _config(la.Prompt("{{ n }}", template_format="jinja2")))
    assert kept.show("good", n=1) == PreviewText("1")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert grown < 200, f"this process grew by {grown} MiB"
    assert time.monotonic() - started < 250


def test_every_template_that_reaches_for_the_host_is_refused(kept: Desk) -> None:
    for template in HOSTILE.ESCAPES:
        kept.log_template(template)
        with pytest.raises(InvalidInput) as caught:
            kept.show(**({"x": "value"} if "x" in kept.asked() else {}))
        assert caught.value.field != "variables", template


def test_every_hostile_template_of_another_format_is_refused(kept: Desk) -> None:
    for template_format, template in HOSTILE.HOSTILE_OTHERS:
        kept.log_template(template, template_format)
        with pytest.raises(LlmartifactsError):
            kept.show()


def test_a_config_that_says_it_is_a_prompt_and_is_none_is_never_rendered(desk: Desk) -> None:
    with pytest.raises(InvalidValue):
        desk.log("evil", {"type": "text", "template_format": "jinja2", "template": 7, "variables": {}})


# --- what the process stops, where the template engine would stop nothing

LOOPS = "while True: pass"
EATS = "x = []\nwhile True: x.append(bytes(10_000_000))"
WRITES = "return_ = {'text': 'x' * 50_000_000}"
DIES = "import os; os.kill(os.getpid(), 9)"
EXITS = "raise SystemExit(0)"
RAISES = "raise ValueError('odd \\x1b[31m')"


@pytest.mark.parametrize("code", [LOOPS, EATS, WRITES, DIES, EXITS, RAISES])
def test_whatever_the_rendering_does_it_ends_as_an_error_and_the_next_one_works(
    code: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unmetered.py").write_text(
        "def render(config, variables):\n    found = {}\n    exec(config['template'], found)\n"
        "    return found.get('return_')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    desk.previews._limits["seconds"] = 1.0
    desk.log_template(code)
    with monkeypatch.context() as patch:
        patch.setattr(preview, "RENDER", "unmetered:render")
        with pytest.raises(RenderLimitExceeded) as caught:
            desk.show()
    assert "\x1b" not in str(caught.value)
    desk.log("good", _config(la.Prompt("{{ n }}", template_format="jinja2")))
    assert desk.show("good", n=1) == PreviewText("1")


def test_a_preview_that_takes_long_holds_up_no_other(tmp_path: Path) -> None:
    previews = Previews(most=2)
    with la.init(tmp_path / "registry") as registry:
        desk = Desk(registry, previews)
        desk.log_template("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
        desk.log("good", _config(la.Prompt("{{ n }}", template_format="jinja2")))
        stopped: list[Exception] = []

        def attack() -> None:
            try:
                desk.show("evil")
            except LlmartifactsError as error:
                stopped.append(error)

        attacker = threading.Thread(target=attack)
        attacker.start()
        assert desk.show("good", n=1) == PreviewText("1")
        attacker.join()
    previews.close()
    assert [type(e) for e in stopped] == [RenderLimitExceeded]


def test_the_process_has_no_secret_of_the_server(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMARTIFACTS_TOKEN", "lla_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    (tmp_path / "looking.py").write_text("import os\ndef render(c, v): return {'text': repr(dict(os.environ))}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(preview, "RENDER", "looking:render")
    desk.log_template("hi")
    shown = desk.show()
    assert isinstance(shown, PreviewText)
    assert "PATH" in shown.text
    assert "lla_secret" not in shown.text
    assert "hidden" not in shown.text
    assert str(os.getpid()) not in shown.text


def _config(prompt: la.Prompt) -> dict[str, Any]:
    from llmartifacts.kinds.prompt.kind import PromptKind

    nowhere: Any = None
    return dict(PromptKind().pack(prompt, nowhere))
