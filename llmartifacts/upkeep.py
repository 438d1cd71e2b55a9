"""Keeping a registry in order: projects, checks, bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from llmartifacts.errors import InvalidInput, NotAllowed
from llmartifacts.records.arguments import check_count, check_limit, check_line, check_place, check_reason
from llmartifacts.records.audit import AuditEntry, AuditVerification
from llmartifacts.records.backend import Backend, Collected, Migrated, Progress, Repaired, Stats, Verification
from llmartifacts.records.checkpoint import Checkpoint
from llmartifacts.records.leases import Lease, check_length
from llmartifacts.records.names import check_name
from llmartifacts.records.reference import Reference, collection_names, one_project, parse_many, strings
from llmartifacts.records.removal import MAX_DOCUMENTS, Erased, RemovedProject, check_document
from llmartifacts.records.retention import HISTORY, Retention, check_grace
from llmartifacts.records.version import Project

if TYPE_CHECKING:
    from llmartifacts.records.backup import Backup
    from llmartifacts.versioning.exports.imports import Imported
    from llmartifacts.versioning.exports.write import Exported
    from llmartifacts.versioning.parts import Parts


class Upkeep:
    """The verbs of a `Registry` that keep it in order."""

    backend: Backend
    project: str
    actor: str

    def projects(self, *, limit: int | None = None, after: str | None = None) -> list[Project]:
        """Every project, by name; with `limit`, at most so many, with names above `after`."""
        last = None if after is None else check_name(after, field="after")
        return self.backend.projects(limit=check_limit(limit), after=last)

    def create_project(self, name: str) -> Project:
        """Make a project. Raises `Conflict` if it exists."""
        return self.backend.create_project(check_name(name, field="project"), actor=self.actor)

    def verify(
        self,
        name: str | None = None,
        *,
        read_data: bool = False,
        subset: str = "",
        progress: Progress | None = None,
    ) -> Verification:
        """Check that everything the versions need is there; with `read_data`, that every stored byte is right.

        Args:
            name: Collection whose bytes are checked; by default those of all. Records are checked all the same.
            read_data: Read and hash every stored byte.
            subset: Read only a part: `3/20` (the third of twenty, which together are all), `5%` or `50G` (a part of
                that size, drawn by chance).
            progress: Told of the bytes done and in all.

        Raises:
            InvalidInput: `subset` is none.
            NotFound: There is no such collection.
            NewerFormat: A newer release wrote the registry.
        """
        (bare,), project = collection_names([name], self.project) if name is not None else (("",), "")
        return self.backend.verify(read_data=read_data, subset=subset, project=project, name=bare, progress=progress)

    def repair(
        self,
        source: object | None = None,
        *,
        dry_run: bool = False,
        read_data: bool = True,
        progress: Progress | None = None,
    ) -> Repaired:
        """Make damaged and missing bytes right again, in place; may be interrupted and called again.

        What is here is tried first: the index of chunks is made from the packs, a pack from what proves it, a blob
        from this user's cache. Nothing is taken that has not the right SHA-256.

        Args:
            source: Where else the bytes may be: another `Registry`, or anything with `path(blob)`, such as a
                `BlobStore`.
            dry_run: Change nothing; what can be had is fetched and verified all the same.
            read_data: Read every stored byte to find damage; else only what is missing or cut short is found.
            progress: Told of the bytes looked at and in all.

        Returns:
            What was mended, and what is still wrong: damaged records of the database are restored from a backup.

        Raises:
            NotAllowed: It is a server's, or read-only, or full; what was done by then stays done.
            InvalidInput: `source` is neither.
        """
        return self.backend.repair(source, dry_run=dry_run, read_data=read_data, progress=progress, actor=self.actor)

    def stats(self, name: str | None = None) -> Stats:
        """Bytes, logical and stored; with a name, of that collection and by version. Raises `NotFound`."""
        if name is None:
            return self.backend.stats()
        (bare,), project = collection_names([name], self.project)
        return self.backend.stats(project, bare)

    def gc(
        self,
        *,
        dry_run: bool = False,
        compact: bool = False,
        grace: timedelta | None = None,
        keep_last: int | None = None,
        keep_within: timedelta | None = None,
        collections: str | Sequence[str] = (),
        history: timedelta = HISTORY,
        reason: str = "",
    ) -> Collected:
        """Free what no version needs; nothing is deleted where anything needed cannot be read.

        With `keep_last` or `keep_within`, versions of the project that neither keeps are removed first. Whatever these
        say, kept is what an alias names or named within `history`, `latest`, what a lease holds, what a bundle that
        stays contains, what the policy names, and the reports that let those in. A removed version stays in lists and
        lineage, marked; logging the same content again brings it back.

        Args:
            dry_run: Change nothing; the report is the same.
            compact: Also erase removed rows that chunks still carry, and rewrite every pack with something unneeded.
            grace: How long what nothing needs stays, from the `gc` that first finds it so. Default: not at all for a
                registry in a directory, a day where servers share a database or a store.
            keep_last: Of each collection, keep the newest so many versions.
            keep_within: Keep versions logged within this time.
            collections: Names of the collections that the rules are about; none for all of the project.
            history: How long what an alias has named is kept after the alias moved on.
            reason: Why versions are removed; kept with each.

        Raises:
            InvalidInput: A rule or a length of time is none.
            NotFound: A collection is not there.
            Damaged: Something needed cannot be read.
        """
        names, project = (strings(collections), self.project)
        rules = None
        if names:
            names, project = collection_names(names, self.project)
        if keep_last is not None or keep_within is not None or names:
            rules = Retention(project, keep_last, keep_within, tuple(names), history, reason)
        return self.backend.gc(
            dry_run=dry_run, compact=compact, grace=check_grace(grace), rules=rules, actor=self.actor
        )

    def backup(self, target: str, *, read_back: bool = False) -> Backup:
        """Take a backup of everything, while others go on writing. What an earlier one brought is not sent again.

        Args:
            target: A folder, or a URL of an object store.
            read_back: Read and hash what is there already, and mend it; else its size is compared.

        Raises:
            NotAllowed: The registry is a server, or the target cannot be written.
            Damaged: Something that the registry needs cannot be read; there is no backup.
            Conflict: The target has backups of another registry, or of one that this one parted from in a restore.
            Unreachable: The target cannot be had.
        """
        from llmartifacts.versioning.backups.take import backup

        return backup(self._own_parts("backed up", "backup"), target, read_back=read_back).summary

    def export(
        self, file: str | os.PathLike[str], references: str | Sequence[str] | None = None, *, key: str = ""
    ) -> Exported:
        """Write collections with everything they need to one file, to be imported elsewhere.

        Args:
            file: Where it goes; nothing lies there.
            references: Names of collections, or references to single versions; None for all of every project.
            key: Sign it with this key of this machine.

        Raises:
            NotAllowed: The registry is a server, or the file cannot be written.
            NotFound: There is no such collection or version.
            Conflict: There is a file already.
            Damaged: Something cannot be read; there is no file.
        """
        from llmartifacts.versioning.exports.write import export

        chosen = None if references is None else [Reference.parse(one) for one in strings(references)]
        place = Path(check_place(file, field="FILE"))
        parts = self._own_parts("exported", "export")
        return export(parts, place, chosen, home=self.project, key=key, actor=self.actor)

    def import_file(
        self,
        file: str | os.PathLike[str],
        *,
        project: str | None = None,
        aliases: bool = False,
        dry_run: bool = False,
        require_signature: bool = False,
    ) -> Imported:
        """Log what an export holds; twice adds nothing. Works with a server too.

        Args:
            file: The export.
            project: Project for all of it; by default that of each collection.
            aliases: Also move the aliases that it knows, as far as gates let them.
            dry_run: Check everything, and change nothing.
            require_signature: Refuse a file without a signature by a key that this registry trusts.

        Raises:
            Damaged: The file is not whole, was altered, or somebody made it up; nothing was logged.
            WrongKind: A collection here has another kind; nothing was logged.
            InvalidReference: A name here differs in case only; nothing was logged.
            Refused: It is not signed as it must be, or a gate refuses a move of aliases.
            NotAllowed: No right to log here.
        """
        from llmartifacts.versioning.exports.imports import import_export

        return import_export(
            self.backend,
            Path(check_place(file, field="FILE")),
            project=project,
            aliases=aliases,
            dry_run=dry_run,
            require_signature=require_signature,
            actor=self.actor,
        )

    def _own_parts(self, done: str, verb: str) -> Parts:
        """The stores, where this process has them. Raises `NotAllowed`: a server has them."""
        parts: Parts | None = getattr(self.backend, "parts", None)
        if parts is None:
            raise NotAllowed(
                f"a server's registry is {done} on the server's host",
                next_step=f"Run it there: llmartifacts {verb} … --database postgresql://… --blobs PLACE.",
            )
        return parts

    def erase(self, name: str, documents: str | Iterable[str], *, reason: str, dry_run: bool = False) -> Erased:
        """Erase documents for good: every version of a collection that holds one of them goes, and all of its bytes.

        The versions stay in lists and in the audit, marked as erased; the same content is not taken again under this
        name. First log a version without the documents, and promote it wherever an alias names one with them. Then
        nothing of them is left in the store, the database's files, or this machine's cache; backups and other
        machines' caches are somebody else's to see to.

        Args:
            name: `[project/]name` of an index, a dataset or a report.
            documents: Ids of the documents, or items.
            reason: Why; kept with each version.
            dry_run: Change nothing; say what would go.

        Returns:
            The versions that went, and what stays of them since other versions hold it too.

        Raises:
            InvalidInput: There is no document, or more than 100,000.
            NotFound: There is no such collection.
            WrongKind: Its kind has no documents.
            Refused: An alias names such a version, or a bundle with one, or it is the latest.
            Damaged: Something cannot be read; nothing was erased.
        """
        (bare,), project = collection_names([name], self.project)
        given = [documents] if isinstance(documents, str) else list(documents)
        ids = dict.fromkeys(check_document(one) for one in given)
        if not 0 < len(ids) <= MAX_DOCUMENTS:
            raise InvalidInput(
                f"{len(ids):,} documents are named, and 1 to {MAX_DOCUMENTS:,} are erased at once", field="documents"
            )
        why = check_reason(reason, "an erasure")
        return self.backend.erase(project, bare, list(ids), reason=why, dry_run=dry_run, actor=self.actor)

    def remove_project(
        self, name: str, *, reason: str, grace: timedelta | None = None, even_default: bool = False
    ) -> RemovedProject:
        """Remove a project: its aliases, all of its versions, and every byte that no other project needs.

        Its name is not used again, and the audit stays whole. Called again, it frees what had to wait, and gives the
        proof anew.

        Args:
            name: The project.
            reason: Why; kept for good.
            grace: As for `gc`; what is still waiting is named in the proof.
            even_default: Remove also `default`, the project that names without one mean: from then on everybody has to
                name another.

        Returns:
            The proof: what is stored nowhere now, what stays since other projects need it, and the audit entry.

        Raises:
            NotFound: There is no such project.
            Refused: It is `default`, and `even_default` was not said.
            Damaged: Something that others need cannot be read; the project is removed, and its bytes are not freed.
        """
        wanted = check_name(name, field="project")
        why = check_reason(reason, "the removal of a project")
        return self.backend.remove_project(
            wanted, reason=why, grace=check_grace(grace), even_default=even_default, actor=self.actor
        )

    def lease(
        self, references: str | Reference | Sequence[str | Reference], *, holder: str, length: timedelta
    ) -> Lease:
        """Hold versions for a time: no retention rule removes them.

        Args:
            references: The versions, each with a selector. What the holder held before and that is not among them is
                let go of.
            holder: Who holds them, such as `support@web-3`.
            length: How long, from now, at most 366 days; a lease is renewed by taking it again, and ended by none.

        Raises:
            NotFound: A version is not there, or was removed.
            NotAllowed: On a server: somebody else holds something under that name, or the caller holds too much.
        """
        wanted = [one.required("lease") for one in parse_many(references)]
        project = one_project(wanted, self.project)
        name = check_line(holder, field="holder")
        if not name:
            raise InvalidInput("a lease needs a holder", field="holder", next_step="Name the service that holds it.")
        return self.backend.lease(project, wanted, holder=name, length=check_length(length), actor=self.actor)

    def leases(self) -> list[Lease]:
        """Every lease of the project that has not ended, by holder."""
        return self.backend.leases(self.project)

    def migrate(self, *, dry_run: bool = False, progress: Progress | None = None) -> Migrated:
        """Cut large files that an earlier release stored whole into chunks; may be interrupted and called again."""
        return self.backend.migrate(dry_run=dry_run, progress=progress, actor=self.actor)

    def audit_log(self, *, verb: str | None = None, limit: int = 50, before: int | None = None) -> list[AuditEntry]:
        """The newest audit entries of every project, the newest last; with `before`, those with lower numbers."""
        limit, before = check_count(limit, field="limit"), check_limit(before, field="before")
        return self.backend.audit_log(None, verb=verb, limit=limit, before=before)

    def audit_checkpoint(self) -> Checkpoint:
        """Size and root of the audit now. Raises `Damaged`: an entry was altered or is missing."""
        return self.backend.audit_checkpoint()

    def verify_audit(self, checkpoints: Sequence[tuple[str, Checkpoint]] = ()) -> AuditVerification:
        """Check the whole audit, against checkpoints kept elsewhere too.

        Args:
            checkpoints: Where each was kept, and what it says; `llmartifacts.signing.note.read_checkpoint` reads one.
        """
        return self.backend.verify_audit(checkpoints)

    def export_audit(self) -> Iterator[bytes]:
        """Every audit entry in order, as the bytes that are hashed. Raises `Damaged`."""
        return self.backend.export_audit()
