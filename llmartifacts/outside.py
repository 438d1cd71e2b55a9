"""What versions name by URL and the registry does not keep, as the verbs of a `Registry` reach it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from llmartifacts import packing
from llmartifacts.records.backend import Backend
from llmartifacts.records.reference import collection_names

if TYPE_CHECKING:
    from llmartifacts.external import ExternalFiles
    from llmartifacts.records.digest import Digest
    from llmartifacts.records.external import ExternalCheck
    from llmartifacts.records.manifest import Descriptor
    from llmartifacts.records.version import Version

_PAGE = 500
_FEW = 20


class ExternalVerbs:
    """The verbs of a `Registry` on content that is kept outside it."""

    backend: Backend
    project: str
    on_external: Callable[[int], None] | None = None
    """Told how many bytes come from outside, as they come; for a bar on a terminal."""

    @cached_property
    def external(self) -> ExternalFiles:
        """Reads the content that versions name by URL."""
        from llmartifacts.external import ExternalFiles  # which speaks HTTP, and few versions need

        return ExternalFiles(local="://" not in self.backend.location, came=self._came)

    def _came(self, count: int) -> None:
        if self.on_external is not None:
            self.on_external(count)

    def check_external(self, name: str | None = None) -> ExternalCheck:
        """Read every file that versions name by URL, and say of each whether it is what was logged.

        Nothing is kept of what is read, and nothing here makes the registry damaged: what it keeps itself is what
        `verify` checks.

        Args:
            name: `[project/]name` of a collection; by default all collections of all projects.

        Raises:
            NotFound: There is no such collection.
        """
        return self.external.check_all(self._named_outside(name))

    def _named_outside(self, name: str | None) -> Iterator[tuple[Descriptor, Sequence[str]]]:
        if name is not None:
            (bare,), project = collection_names([name], self.project)
            yield from self._of(project, bare)
            return
        for each in self.backend.projects():
            for collection in self.backend.collections(each.name):
                if packing.may_be_external(collection.kind):
                    yield from self._of(each.name, collection.name)

    def _of(self, project: str, name: str) -> Iterator[tuple[Descriptor, Sequence[str]]]:
        before: int | None = None
        while page := self.backend.versions(project, name, limit=_PAGE, before=before):
            before = page[-1].number
            for i in range(0, len(page), _FEW):  # a manifest may have 32 MiB
                by_digest: dict[Digest, list[Version]] = {}
                for version in (v for v in page[i : i + _FEW] if v.removed_at is None):
                    by_digest.setdefault(version.digest, []).append(version)
                for digest, manifest in self.backend.manifests(list(by_digest)).items():
                    named = [str(v.reference.within(project)) for v in by_digest[digest]]
                    for file in manifest.files:
                        if file.url is not None:
                            yield file, named
