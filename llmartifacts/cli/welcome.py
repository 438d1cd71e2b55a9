"""The first screen: what `llmartifacts` prints without a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, NAME, WARN
from llmartifacts.errors import LlmartifactsError

FIRST_STEPS = (
    ("demo", "the whole story, in a minute"),
    ("init", "a registry in ./.llmartifacts"),
    ("log prompt hello hello.j2", "a template becomes hello:v1"),
    ("promote hello:v1 --to prod", "prod now means v1"),
    ("history hello:prod", "who moved it, when and why"),
    ("rollback hello:prod --reason '…'", "and back"),
)
"""Command lines without the leading `llmartifacts`, and what each does."""


def welcome(session: Session, panels: Mapping[str, Sequence[str]]) -> None:
    """Print the commands by panel, the first steps, and which registry would be used here."""
    out = session.out
    out.line(("llmartifacts", NAME), ": the registry for the components of an LLM application")
    out.line()
    for panel, names in panels.items():
        for number, line in enumerate(wrap("  ".join(names), 60, break_long_words=False)):
            out.line(f"  {panel * (not number):17}", (line, NAME))
    out.line()
    out.line("First steps:")
    for step, meaning in FIRST_STEPS:
        out.line("  llmartifacts ", (f"{step:34}", NAME), (meaning, FAINT))
    out.line()
    out.line(*_registry_here(session))
    out.line("More: llmartifacts --help, llmartifacts COMMAND --help")


def _registry_here(session: Session) -> tuple[str | tuple[str, str], ...]:
    from llmartifacts.connect import find

    try:
        return ("Registry here: ", (find(session.options.registry), NAME))
    except LlmartifactsError:
        return ("Registry here: ", ("none yet", WARN), " (llmartifacts init makes one)")
