"""`serve`: the registry for a team, over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llmartifacts.cli.command import TEAM, command
from llmartifacts.cli.context import Session
from llmartifacts.errors import InvalidInput

_WHERE = "Where it listens"
_STORES = "What it serves"
_WHO = "Who may"
_RUN = "How it runs"


@command(
    "serve",
    panel=TEAM,
    examples=(
        "serve",
        "serve --database postgresql://db/registry --blobs /srv/blobs",
        "serve --host 0.0.0.0 --public-url https://registry.example.org",
    ),
    shape="refused: a server prints no document; --log-format json",
    more={
        "Environment": "  $LLMARTIFACTS_SERVE_PORT and so on: each option by its name; what the line gives wins.\n"
        "  More, by variables only: REQUEST_SECONDS, BODY_SECONDS, GRACE_SECONDS, DRAIN_SECONDS, RATE, RATE_ADDRESS,\n"
        "  RATE_FAILURES, MAX_CONCURRENT, MAX_WAITING, MAX_JSON, CACHE_BYTES, TRUSTED_PROXIES, METRICS.",
    },
)
def serve(
    session: Session,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1", rich_help_panel=_WHERE)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8391", rich_help_panel=_WHERE),
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The address that clients use.", rich_help_panel=_WHERE)
    ] = None,
    trusted_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="A further host name to answer to; repeat it.", rich_help_panel=_WHERE),
    ] = None,
    tls_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="Certificate, for HTTPS.", rich_help_panel=_WHERE)
    ] = None,
    tls_key: Annotated[str | None, typer.Option(metavar="FILE", help="Its key.", rich_help_panel=_WHERE)] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="postgresql://…; else the registry that connect() finds.", rich_help_panel=_STORES
        ),
    ] = None,
    blobs: Annotated[
        str | None, typer.Option(metavar="PLACE", help="Folder or URL of the bytes.", rich_help_panel=_STORES)
    ] = None,
    oidc: Annotated[
        str | None, typer.Option(metavar="FILE", help="Login providers, as YAML.", rich_help_panel=_WHO)
    ] = None,
    allow_gate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:FUNCTION", help="A function that python gates may run; repeat it.", rich_help_panel=_WHO
        ),
    ] = None,
    new_admin_token: Annotated[
        str | None,
        typer.Option(
            metavar="ACCOUNT",
            help="Print a new token of an account that administers the registry: when all have expired.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no token; on loopback only.", rich_help_panel=_WHO)
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the port.", show_default="1", rich_help_panel=_RUN)
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="text or json.", show_default="text", rich_help_panel=_RUN)
    ] = None,
) -> None:
    """Serve the registry over HTTP.

    The first start makes the account admin and prints its token, once.
    """
    if session.out.json:
        raise InvalidInput("a server prints no JSON document", field="--json", next_step="Give --log-format json.")
    try:
        from llmartifacts.server.config import Settings, from_environment
        from llmartifacts.server.run import serve as run
    except ImportError as error:
        from llmartifacts.errors import MissingExtra

        raise MissingExtra(f"a server needs {error.name}", extra="server") from error
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "public_url": public_url,
        "trusted_hosts": tuple(trusted_host) if trusted_host else None,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "database": database,
        "blobs": blobs,
        "oidc": oidc,
        "allow_gates": tuple(allow_gate) if allow_gate else None,
        "new_admin_token": new_admin_token,
        "authenticate": False if no_auth else None,
        "workers": workers,
        "log_format": log_format,
    }
    named = from_environment()
    if session.options.registry is not None:  # what the line gives wins over what the variables say
        if database or blobs:
            raise InvalidInput(
                "--registry and --database exclude each other", field="--registry", next_step="Give one of them."
            )
        named = {key: value for key, value in named.items() if key not in ("registry", "database", "blobs")}
    named |= {key: value for key, value in given.items() if value is not None}
    if not any(named.get(key) for key in ("database", "blobs", "registry")):
        named["registry"] = _registry(session)
    code = run(Settings(**named))
    if code:
        raise typer.Exit(code)


def _registry(session: Session) -> str:
    from llmartifacts.connect import find

    place = find(session.options.registry)
    if "://" in place:
        raise InvalidInput(
            f"{place} is a server already", field="registry", next_step="Name a directory with --registry."
        )
    return place
