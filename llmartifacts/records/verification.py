"""What a check of a whole registry found, and what a repair mended."""

from __future__ import annotations

from dataclasses import dataclass

from llmartifacts.errors import LlmartifactsError


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found.

    Attributes:
        versions: How many versions were checked.
        blobs: How many blobs were checked.
        read_data: Whether every byte was read and hashed.
        problems: What is wrong, each naming the file, the digest and the versions; empty if all is well.
        packs: How many packs were checked.
        more: How many problems there are besides those that are listed.
        part: Of which part every byte was read, such as `3/20`; empty for all, or for none.
    """

    versions: int
    blobs: int
    read_data: bool
    problems: tuple[LlmartifactsError, ...] = ()
    packs: int = 0
    more: int = 0
    part: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Repaired:
    """What `repair` mended, or would mend.

    Attributes:
        dry_run: Whether nothing was changed.
        source: Where else it looked for bytes; empty for nowhere.
        blobs: How many blobs were made right again.
        size: Their bytes.
        packs: How many packs were made right again, to the very bytes that they had.
        removed: How many damaged packs went, in which nothing was left that any version needs.
        index: Whether the index of chunks was made anew.
        manifests: How many manifests were put back.
        problems: What is wrong still, each naming the file, the digest and the versions; empty if all is well.
        more: How many problems there are besides those that are listed.
    """

    dry_run: bool
    source: str
    blobs: int
    size: int
    packs: int
    removed: int
    index: bool
    manifests: int
    problems: tuple[LlmartifactsError, ...] = ()
    more: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong any more, or would be."""
        return not self.problems
