"""`policy set|show|check|history|rm`: what an alias demands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts.cli.arguments import Reason, existing
from llmartifacts.cli.command import GOVERN, CommandGroup, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, GOOD, NAME, WARN, Column
from llmartifacts.cli.plain import minute
from llmartifacts.errors import LlmartifactsError, NotFound
from llmartifacts.records.digest import short

if TYPE_CHECKING:
    from llmartifacts.records.policy import PolicyRecord
    from llmartifacts.registry import Registry

PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help="YAML; see policies/ of the starter content.")]


@command(
    "set",
    examples=("policy set policies/production.yaml -m 'two approvals for prod'",),
    shape="PolicyRecord",
)
def set_(
    session: Session,
    file: PolicyFile,
    message: Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="What to say of it.")] = "",
) -> None:
    """Let a policy hold from now on; earlier approvals lapse."""
    with session.open() as registry:
        try:
            before = registry.policy()
        except NotFound:  # a project that nobody logged to yet
            before = None
        made = registry.set_policy(existing([file], field="FILE")[0], message=message)
        missing = _missing_suites(registry, made)
    out = session.out

    def text() -> None:
        if before is not None and before.number == made.number:
            out.line(f"the policy {made.number} says that already")
            return
        out.line((f"{made.project}@p{made.number}", NAME), f"  {made.body['name']}  ", (short(made.digest), FAINT))
        out.line(("holds now", GOOD), f", and protects {', '.join(sorted(made.body['aliases']))}")
        for suite in missing:
            out.line(
                ("note: ", WARN),
                f"the suite {suite} is not logged yet, and nothing that asks for it passes until it is",
            )

    out.result(made, text)


def _missing_suites(registry: Registry, record: PolicyRecord) -> list[str]:
    """Suites that a policy names, and that are not there."""
    from llmartifacts.gates.policy import Policy, within

    policy = Policy.of(record.body)
    gates = (g for rules in policy.body.aliases for many in policy.gates_of(rules) for g in within(many))
    names = dict.fromkeys(name for gate in gates for name in getattr(gate, "suites", ()))
    items = registry.read(list(names)).items if names else ()
    return [name for name, item in zip(names, items, strict=True) if isinstance(item, LlmartifactsError)]


@command("show", examples=("policy show", "policy show --number 2"), shape="PolicyRecord")
def show(
    session: Session,
    number: Annotated[int | None, typer.Option("--number", "-n", min=1, metavar="N", help="An earlier one.")] = None,
) -> None:
    """The policy that holds, or an earlier one, as YAML."""
    with session.open() as registry:
        if number is None:
            found = registry.policy()
        else:
            found = next((p for p in registry.policies() if p.number == number), None)
    out = session.out
    if found is None:
        what = "no policy holds" if number is None else f"there is no policy {number}"
        step = "Set one: llmartifacts policy set FILE."
        raise NotFound(f"{what} in project {registry.project}", what="policy", name=str(number or ""), next_step=step)

    def text() -> None:
        import yaml

        from llmartifacts.gates.policy import Policy

        said = f": {found.message}" if found.message else ""
        out.line((f"# {found.project}@p{found.number}, set {minute(found.at)} by {found.author}{said}", FAINT))
        out.line((f"# {found.digest}", FAINT))
        out.block(
            yaml.safe_dump(Policy.of(found.body).plain if found.body else {}, sort_keys=False, allow_unicode=True)
        )

    out.result(found, text)


@command(
    "check",
    examples=("policy check policies/production.yaml",),
    shape='{"name", "aliases": [TEXT], "digest"}',
)
def check(session: Session, file: PolicyFile) -> None:
    """Read a policy file and say what is wrong with it, by line; needs no registry."""
    from llmartifacts.gates.policy import Policy
    from llmartifacts.governance import read_policy

    policy = Policy.of(read_policy(existing([file], field="FILE")[0]))
    data = {"name": policy.body.name, "aliases": list(policy.protected), "digest": policy.digest}
    out = session.out
    told = f"protects {', '.join(policy.protected)}  "
    out.result(
        data, lambda: out.line((policy.body.name, NAME), " reads well, and ", told, (short(policy.digest), FAINT))
    )


@command("history", examples=("policy history",), shape='{"policies": [PolicyRecord]}, newest first')
def history(session: Session) -> None:
    """Every policy that was set: when, by whom, and what was said."""
    with session.open() as registry:
        found = registry.policies()
    out = session.out

    def text() -> None:
        if not found:
            out.line("no policy was ever set")
            return
        out.table(
            (
                Column("policy", NAME),
                Column("when, UTC", FAINT),
                Column("by"),
                Column("name"),
                Column("protects"),
                Column("why", wraps=True),
            ),
            [
                (
                    f"{p.project}@p{p.number}",
                    minute(p.at),
                    p.author,
                    p.body.get("name", "none"),
                    ", ".join(sorted(p.body.get("aliases", {}))) or "nothing",
                    p.message,
                )
                for p in found
            ],
        )

    out.result({"policies": found}, text)


@command("rm", examples=("policy rm --reason 'the project is over'",), shape="PolicyRecord")
def rm(session: Session, reason: Reason) -> None:
    """Take the policy away: every alias is free then."""
    with session.open() as registry:
        made = registry.remove_policy(message=reason)
    out = session.out
    out.result(made, lambda: out.line((f"{made.project}@p{made.number}", NAME), (": no alias is protected now", WARN)))


GROUP = CommandGroup("policy", "What must hold before an alias moves.", GOVERN, (set_, show, check, history, rm))
