"""References and manifests: what services ask for when they start, and again and again afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from llmartifacts.errors import NotFound
from llmartifacts.metadata import manifests as stored
from llmartifacts.metadata import versions
from llmartifacts.metadata.database import Session
from llmartifacts.records.digest import Digest, parse_digest
from llmartifacts.records.reference import Reference
from llmartifacts.server.calls import Answer, Call, Header, handler
from llmartifacts.server.reading import kept_reading, matches
from llmartifacts.server.routes.look import local
from llmartifacts.wire.bodies import reading as r
from llmartifacts.wire.bodies import versions as v

FOREVER: Header = (b"cache-control", b"private, max-age=31536000, immutable")


@handler("read")
def read(call: Call) -> Answer:
    """References at one revision; 304 where the client has this very answer. The next such request is quick."""
    return _answer(call, call.asks(v.ReferencesQuery).ref, "ref", call.target)


@handler("read_many")
def read_many(call: Call) -> Answer:
    """References at one revision, too many for an address."""
    return _answer(call, call.sends(v.References).references, "references", b"")


def _answer(call: Call, references: Sequence[Reference], field: str, query: bytes) -> Answer:
    for number, reference in enumerate(references):
        local(call, reference, field=f"{field}[{number}]")
    made = kept_reading(call.state, call.project, query, references)
    has = call.headers.get("if-none-match", "").encode()
    if has and matches(made.tag, has):
        return Answer(status=304, headers=made.headers[1:])
    return Answer(made.body, headers=made.headers[1:])


@handler("revision")
def revision(call: Call) -> v.Revision:
    """The project's revision."""
    return v.Revision(revision=call.backend.revision(call.project))


@handler("manifests")
def manifests(call: Call) -> Answer:
    """Manifests of versions in projects that the caller may see."""
    wanted = list(dict.fromkeys(call.sends(r.Digests).digests))
    return Answer(r.encode_manifests(_seen(call, wanted)))


@handler("manifest")
def manifest(call: Call) -> Answer:
    """The canonical bytes of one manifest."""
    digest = parse_digest(call.path["digest"])
    with call.backend.parts.metadata.reading() as s:
        if not _is_seen(call, s, digest) or versions.manifest_body(s, digest) is None:
            raise NotFound(f"there is no manifest {digest}", what="manifest", name=digest)
        return Answer(call.backend.parts.manifest_bytes(s, digest), headers=(FOREVER,))


def _seen(call: Call, digests: list[Digest]) -> dict[Digest, bytes | None]:
    """Those manifests that a version in a project has that the caller may see; a digest alone grants nothing.

    Of large ones, which are kept apart, nothing is opened here.
    """
    made: dict[Digest, bytes | None] = {}
    parts = call.backend.parts
    with parts.metadata.reading() as s:
        for digest in digests:
            found = versions.manifest_body(s, digest) if _is_seen(call, s, digest) else None
            if found is not None:
                made[digest] = None if found[0] is None else parts.manifest_bytes(s, digest, found[0])
    return made


def _is_seen(call: Call, s: Session, digest: Digest) -> bool:
    return call.caller.sees_all or any(call.caller.sees(project) for project in stored.projects_with(s, digest))
