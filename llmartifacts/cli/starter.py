"""Starter content: the prompt templates, evaluation suites, policies and examples that come with the package."""

from __future__ import annotations

from pathlib import Path

from llmartifacts.errors import NotFound

FOLDERS = ("templates", "eval_suites", "policies", "schemas", "examples")


def starter(folder: str) -> Path:
    """Where one folder of starter content is: in an installed wheel, or in the checkout of an editable install.

    Args:
        folder: `templates`, `eval_suites`, `policies`, `schemas` or `examples`.

    Raises:
        NotFound: There is no such folder, or this installation came without it.
    """
    package = Path(__file__).resolve().parent.parent
    places = [package / "starter" / folder]
    if (package.parent / "pyproject.toml").is_file():  # else what lies beside the package belongs to somebody else
        places.append(package.parent / folder)
    found = next((place for place in places if place.is_dir()), None) if folder in FOLDERS else None
    if found is None:
        raise NotFound(
            f"there is no starter content {folder!r}",
            what="starter content",
            name=folder,
            next_step="Install the wheel of llmartifacts, or run from a whole checkout.",
        )
    return found
