"""`key`: keys that sign approvals and reports; made here, trusted by the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmartifacts.cli.arguments import Reason
from llmartifacts.cli.command import GOVERN, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, GOOD, NAME, WARN, Column, Output
from llmartifacts.errors import NotFound

if TYPE_CHECKING:
    from llmartifacts.records.approval import TrustedKey
    from llmartifacts.signing.key_files import KeyFile

_LOCAL = '{"name", "id", "public", "person", "path"}'
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What the key is called on this machine.")]
WhichArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="Id, its first 8 digits or more, or the name of a key of this machine.")
]


@command(
    "create",
    examples=("key create ada --person ada",),
    shape='{"name", "id", "public", "person", "path"}',
)
def create(
    session: Session,
    name: NameArgument,
    person: Annotated[str, typer.Option("--person", metavar="NAME", help="Whose key it is: the name in their logs.")],
) -> None:
    """Make a key; $LLMARTIFACTS_KEY_PASSPHRASE locks it."""
    from llmartifacts.signing import key_files

    made = key_files.create(name, person)
    out = session.out

    def text() -> None:
        out.line(("made the key ", GOOD), (made.name, NAME), f" of {made.person}")
        out.fields((("public", made.public.text), ("id", made.public.id), ("file", str(made.path))))
        trusted = f"llmartifacts key trust {made.public.text} --person {made.person!r} --role ROLE"
        out.line(("to have it trusted: ", FAINT), trusted)

    out.result(_local(made), text)


@command(
    "trust",
    examples=(
        "key trust ed25519:… --person ada --role ml-lead",
        "key trust ada.pub --role ml-lead --role safety",
    ),
    shape='{"key": TrustedKey}',
)
def trust(
    session: Session,
    public: Annotated[
        str, typer.Argument(metavar="PUBLIC", help="The text of a public key, a file with it, or a key's name.")
    ],
    person: Annotated[
        str | None,
        typer.Option("--person", metavar="NAME", help="Whose it is: the name in their logs; else whom its file names."),
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option("--role", metavar="ROLE", help="What they may speak as. Repeatable.")
    ] = None,
) -> None:
    """Let the registry trust a key, or set the roles of one."""
    from llmartifacts.signing import approving

    with session.open() as registry:
        made = approving.trust(registry.backend, public, person=person, roles=role, actor=registry.actor)
    session.out.result({"key": made}, lambda: _show(session.out, made, "trusted"))


@command(
    "rotate",
    examples=("key rotate ada",),
    shape='{"key": TrustedKey, "local": ' + _LOCAL + ', "kept"}',
)
def rotate(session: Session, name: NameArgument) -> None:
    """Put a new key in the place of an old one, which signs it over and is revoked."""
    from llmartifacts.signing import approving

    with session.open() as registry:
        made = approving.rotate(registry.backend, name, actor=registry.actor)
    out = session.out

    def text() -> None:
        _show(out, made.key, "rotated")
        out.line((f"the old one is kept as {made.kept}; all that it signed is void", FAINT))

    out.result({"key": made.key, "local": _local(made.file), "kept": str(made.kept)}, text)


@command(
    "revoke",
    examples=("key revoke 06e3fd8fda29 --reason 'the laptop was lost'",),
    shape='{"key": TrustedKey}',
)
def revoke(session: Session, key: WhichArgument, reason: Reason) -> None:
    """Revoke a key for good: all that it signed is void."""
    from llmartifacts.records.arguments import check_reason
    from llmartifacts.signing import approving

    with session.open() as registry:
        found = approving.key_id(registry.backend, key)
        told = check_reason(reason, "a revocation")
        made = registry.backend.revoke_key(found.id, reason=told, actor=registry.actor)
    session.out.result({"key": made}, lambda: _show(session.out, made, "revoked"))


@command("ls", examples=("key ls",), shape='{"keys": [TrustedKey], "local": [' + _LOCAL + "]}")
def ls(session: Session) -> None:
    """List the keys that the registry trusts or trusted, and those of this machine."""
    from llmartifacts.signing import key_files

    with session.open() as registry:
        known = registry.backend.trusted_keys()
    here = key_files.local()
    out = session.out

    def text() -> None:
        if not known and not here:
            out.line("no keys yet; ", ("llmartifacts key create NAME --person NAME", NAME), " makes one")
            return
        names = {k.public.id: k.name for k in here}
        rows = [
            (k.short, k.person, ", ".join(k.roles), f"{k.added_at:%Y-%m-%d}", _state(k), names.get(k.id, ""))
            for k in known
        ]
        trusted = {k.id for k in known}
        rows += [
            (k.public.id[:12], k.person, "", "", ("not trusted", WARN), k.name)
            for k in here
            if k.public.id not in trusted
        ]
        out.table(
            (
                Column("id", NAME),
                Column("person"),
                Column("roles", wraps=True),
                Column("since", FAINT),
                Column("state", wraps=True),
                Column("name here"),
            ),
            rows,
        )

    out.result({"keys": known, "local": [_local(k) for k in here]}, text)


@command(
    "show",
    examples=("key show ada", "key show 06e3fd8fda29"),
    shape='{"key": TrustedKey, "local": ' + _LOCAL + "}, null where it is not",
)
def show(session: Session, key: WhichArgument) -> None:
    """Show one key: whose it is, what it may speak as, whether it is good."""
    from llmartifacts.signing import approving, key_files

    here = key_files.find(key)
    found = None
    try:
        with session.open() as registry:
            found = approving.key_id(registry.backend, key)
    except NotFound:
        if here is None:
            raise
    if here is None and found is not None:
        here = next((k for k in key_files.local() if k.public.id == found.id), None)
    out = session.out

    def text() -> None:
        if found is not None:
            _show(out, found, "", "" if here is None else str(here.path))
        elif here is not None:
            out.line((here.name, NAME), f" of {here.person}  ", ("not trusted", WARN))
            out.fields((("public", here.public.text), ("id", here.public.id), ("file", str(here.path))))

    out.result({"key": found, "local": None if here is None else _local(here)}, text)


@command(
    "sign",
    examples=("key sign support-report:v3 --key ada --reason 'all read'",),
    shape='{"report", "digest", "signers": [{"person", "roles", "problem"}]}',
)
def sign(
    session: Session,
    ref: Annotated[str, typer.Argument(metavar="REPORT", help="A version of kind report.")],
    key: Annotated[str, typer.Option("--key", metavar="NAME", help="A key of this machine, or its PEM file.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept for good.")] = "",
) -> None:
    """Sign a report, so that a policy can demand it."""
    from llmartifacts.records.arguments import check_text
    from llmartifacts.records.reference import Reference, one_project
    from llmartifacts.signing import approving

    wanted = Reference.parse(ref).required("sign")
    told = check_text(reason, field="reason")
    with session.open() as registry:
        project = one_project([wanted], registry.project)
        backend = registry.backend
        report = approving.sign_report(backend, project, wanted, key=key, reason=told, actor=registry.actor)
        signers = backend.signers(project, Reference(report.name, number=report.number, digest=report.digest))
    out = session.out

    def text() -> None:
        out.line((str(report), NAME), (" signed", GOOD))
        for person, roles, problem in signers:
            out.line(
                f"  {person}", f" ({', '.join(roles)})" if roles else "", (f"  {problem}" if problem else "", WARN)
            )

    data = [{"person": person, "roles": roles, "problem": problem} for person, roles, problem in signers]
    out.result({"report": str(report), "digest": report.digest, "signers": data}, text)


def _local(key: KeyFile) -> dict[str, Any]:
    return {
        "name": key.name,
        "id": key.public.id,
        "public": key.public.text,
        "person": key.person,
        "path": str(key.path),
    }


def _show(out: Output, key: TrustedKey, done: str, path: str = "") -> None:
    out.line((key.short, NAME), f" of {key.person}", (f"  {done}" if done else "", GOOD))
    state, _ = _state(key)
    out.fields(
        (
            ("roles", ", ".join(key.roles)),
            ("public", key.public),
            ("id", key.id),
            ("trusted", f"{key.added_at:%Y-%m-%d} by {key.added_by}"),
            ("replaces", key.replaces[:12]),
            ("revoked", state.removeprefix("revoked ") if key.revoked_at else ""),
            ("file", path),
        )
    )


def _state(key: TrustedKey) -> tuple[str, str]:
    if key.revoked_at is None:
        return "good", GOOD
    return f"revoked {key.revoked_at:%Y-%m-%d} by {key.revoked_by}: {key.revoke_reason}", WARN


GROUP = CommandGroup(
    "key", "Keys that sign approvals and reports.", GOVERN, (create, trust, rotate, revoke, ls, show, sign)
)
