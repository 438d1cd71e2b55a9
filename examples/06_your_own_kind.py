"""A kind of your own: a glossary, typed, versioned, promoted and resolved like the built-in kinds.

A package declares it by an entry point, in its pyproject.toml:

    [project.entry-points."llmartifacts.kinds"]
    glossary = "my_package.glossary:GlossaryKind"
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import llmartifacts as la
from llmartifacts.kinds.base import Config, FileSink, FileView, Kind, check_options
from llmartifacts.testing.kinds import check_kind


@dataclass(frozen=True)
class Glossary:
    """Terms that answers must use, each with its meaning."""

    terms: Mapping[str, str]


class GlossaryConfig(Config):
    """A glossary inside a manifest: small content belongs here, large content into files."""

    terms: dict[str, str]


class GlossaryKind(Kind[Glossary]):
    """Turns a glossary into a config and back."""

    name = "glossary"
    value_type = Glossary
    config_model = GlossaryConfig

    def pack(self, value: Glossary, files: FileSink) -> Mapping[str, Any]:
        """Everything that changes what the component does."""
        return {"terms": dict(value.terms)}

    def unpack(self, config: Mapping[str, Any], files: FileView) -> Glossary:
        """The value again."""
        return Glossary(cast(GlossaryConfig, self.parse(config)).terms)

    def summary(self, config: Mapping[str, Any]) -> str:
        """One line for people."""
        return f"{len(cast(GlossaryConfig, self.parse(config)).terms)} terms"

    def read_source(self, paths: Sequence[Path], options: Mapping[str, str]) -> Glossary:
        """What `llmartifacts log glossary NAME terms.json` reads."""
        check_options(options, ())
        try:
            terms = json.loads(paths[0].read_text(encoding="utf-8"))
        except ValueError as error:
            raise la.errors.InvalidValue(f"not JSON: {error}", origin=str(paths[0])) from None
        if not isinstance(terms, dict) or not all(isinstance(meaning, str) for meaning in terms.values()):
            raise la.errors.InvalidValue("not an object of texts", origin=str(paths[0]))
        return Glossary(terms)


def declare_without_installing() -> None:
    """Do what pip does with the entry point above, so that this example is one file."""
    made = Path("site") / "glossary-1.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: glossary\nVersion: 1\n")
    (made / "entry_points.txt").write_text("[llmartifacts.kinds]\nglossary = example_glossary:GlossaryKind\n")
    sys.path.append(str(made.parent))
    sys.modules["example_glossary"] = sys.modules[__name__]


if __name__ == "__main__":
    first = Glossary({"version": "an immutable, numbered content", "alias": "a movable name of a version"})
    second = Glossary({**first.terms, "digest": "the SHA-256 that names a content"})

    # The conformance suite: identity, round trip, differences, and a typed error for whatever a hostile config holds.
    check_kind(GlossaryKind(), [first], [second])
    print("GlossaryKind passes the conformance suite")

    declare_without_installing()
    registry = la.init("registry")
    registry.log("house-terms", first)
    registry.log("house-terms", second, aliases="prod")
    print(registry.diff("house-terms:v1", "house-terms:v2"))
    assert registry.resolve("house-terms:prod", Glossary) == second
    print("prod has", ", ".join(registry.resolve("house-terms:prod", Glossary).terms))
