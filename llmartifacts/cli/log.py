"""`log`: a file becomes a version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmartifacts import plugins
from llmartifacts.cli.arguments import bare_name, existing, pairs
from llmartifacts.cli.command import LOOK, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.look import kind_summary
from llmartifacts.cli.output import FAINT, GOOD, NAME, joined
from llmartifacts.cli.progress import metered
from llmartifacts.errors import InvalidInput
from llmartifacts.records.digest import short
from llmartifacts.records.external import is_address
from llmartifacts.records.names import DEFAULT_PROJECT
from llmartifacts.records.wording import size

if TYPE_CHECKING:
    from llmartifacts.records.version import Version
    from llmartifacts.registry import Registry

SOURCES = """\
  prompt        .j2, .mustache, .yaml, LangChain's .json, or any text with -o
                template_format= (f-string, …); model= revision= parameters=
                helpers= jinja=
  vector_index  a folder, or its files: index.faiss or vectors.npy, and
                documents.jsonl; -o model= is wanted; metric= normalized=
                dimension= probes= index= nprobe= ef_search=
  eval_dataset  .jsonl .csv .tsv .json, each also .gz, .parquet; columns by -o
                id= input= expected_output= metadata= split= (- for none);
                id_from= json_columns= delimiter=
  bundle        a .yaml with components (role: reference), models (role:
                {provider, name, revision, parameters, files or folder}),
                inputs, parameters; or a model's folder, -o role=
  report        a .json with the fields of la.Report
  eval_suite    a .yaml; eval_suites/ has some, schemas/ its JSON Schema
  files         any files and folders; what a URL names (https://, s3://,
                file://) stays where it is, pinned by SHA-256: --sha256"""
"""What each kind reads, and every option that it knows."""

_ALIAS_HINT = "Write the name alone; an alias goes into --alias prod."


@command(
    "log",
    panel=LOOK,
    examples=(
        "log prompt support-agent agent.j2 -m 'shorter greeting'",
        "log eval_dataset support-eval questions.jsonl --tag owner=qa",
        "log files train data/ --input docs:v3 --alias staging",
        "log files weights s3://models/llama/weights.bin config.json",
    ),
    shape='Version; "created" says whether it is new',
    more={"Sources and options": SOURCES},
)
def log(
    session: Session,
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help=f"{', '.join(plugins.BUILT_IN['kinds'])}, or a package's own.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Collection; the first log makes it.")],
    source: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Files or folders that hold the content; for files, also [path=]URL."),
    ],
    alias: Annotated[
        list[str] | None, typer.Option("--alias", "-a", metavar="ALIAS", help="Also move this alias to it. Repeatable.")
    ] = None,
    message: Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="What to say of it.")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Label it. Repeatable.")] = None,
    input: Annotated[  # noqa: A002 - the option's name
        list[str] | None, typer.Option("--input", metavar="REF", help="A version it was made from. Repeatable.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="How the kind reads the source. Repeatable."),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", metavar="HEX", help="Digest of the URL's content; another content is refused."),
    ] = None,
) -> None:
    """Log files as a version; the same content again gives the same version."""
    from llmartifacts.packing import kind_named

    bare_name(name, field="NAME", next_step=_ALIAS_HINT)
    if plugins.is_installed("kinds", name) and not plugins.is_installed("kinds", kind):
        hint = f"The kind comes first: llmartifacts log {name} NAME SOURCE…"
        raise InvalidInput(f"there is no kind {kind!r}, but {name!r} is one", field="KIND", next_step=hint)
    reader = kind_named(kind)
    out = session.out
    tags, options = pairs(tag or (), "--tag"), pairs(option or (), "--option")
    addresses = [one for one in source if is_address(one)]
    files = existing([Path(one) for one in source if not is_address(one)], field="SOURCE")
    if sha256 is not None:
        options = _with_digest(options, sha256, addresses)
    with session.open() as registry:
        if addresses:
            addresses = _each_below(registry, addresses, alone=len(source) == 1) if reader.external else addresses
            value = reader.read_addresses(addresses, files, options)
        else:
            with out.working(f"reading {', '.join(p.name for p in files)}"):
                value = reader.read_source(files, options)
        with metered(registry, out, f"logging {name}"):
            version = registry.log(name, value, aliases=alias or (), message=message, inputs=input or (), tags=tags)
        summary = kind_summary(registry.find(version.pinned).manifest)
        first = version.created and _is_first(registry, version)

    def text() -> None:
        news = ("new", GOOD) if version.created else ("this content was logged before", FAINT)
        out.line((str(version), NAME), f"  sha256:{short(version.digest)}  ", news)
        out.fields(
            (
                (version.kind, summary),
                ("project", f"{version.project} (its first version)" if first else ""),
                ("size", size(version.size)),
                ("aliases", ", ".join(version.aliases)),
                ("tags", joined(version.tags)),
            )
        )

    out.result(version, text)


def _with_digest(options: dict[str, str], sha256: str, addresses: Sequence[str]) -> dict[str, str]:
    if len(addresses) != 1:
        raise InvalidInput(
            "--sha256 is the digest of one URL",
            field="--sha256",
            next_step="Of several URLs, each one's digest goes behind it: https://…#sha256=HEX.",
        )
    return {**options, "sha256": sha256}


def _each_below(registry: Registry, addresses: Sequence[str], *, alone: bool) -> list[str]:
    """The addresses, with everything that lies below a prefix of a bucket in its place."""
    made: list[str] = []
    for address in addresses:
        path, equals, _ = address.partition("://")[0].rpartition("=")
        url = address[len(path) + len(equals) :]
        if not (url.startswith("s3://") and url.endswith("/")):
            made.append(address)
            continue
        # As folders are taken: one by itself without its name, several each below its own.
        folder = path or ("" if alone else url.rstrip("/").rpartition("/")[2])
        made += [f"{folder}/{name}={one}".lstrip("/") for name, one in registry.external.below(url).items()]
    return made


def _is_first(registry: Registry, version: Version) -> bool:
    """Whether a version is the first of its project, which a slip of the pen may have made."""
    if version.number > 1 or version.project == DEFAULT_PROJECT:
        return False
    return any(p.name == version.project and p.collections == 1 for p in registry.projects())
