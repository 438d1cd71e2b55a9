"""`login`, `logout`: a token for a server, kept on this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmartifacts.cli.command import TEAM, command
from llmartifacts.cli.context import Session
from llmartifacts.cli.output import FAINT, GOOD, NAME, WARN
from llmartifacts.cli.plain import when
from llmartifacts.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from llmartifacts.client.accounts import RemoteAccounts
    from llmartifacts.client.address import Address
    from llmartifacts.records.rights import Identity
    from llmartifacts.wire.bodies.server import LoginProvider

_MAX_PASTED = 16_384
AddressArgument = Annotated[
    str | None, typer.Argument(metavar="URL", help="The server; else --registry or $LLMARTIFACTS_REGISTRY.")
]


@command(
    "login",
    panel=TEAM,
    examples=(
        "login https://registry.example.com",
        "login https://registry.example.com --device",
        "login https://registry.example.com --token-stdin",
        "login https://registry.example.com --workload --print",
    ),
    shape='{"server", "account", "token_id", "expires_at", "path"}; with --print also "token"',
    more={
        "In CI": "  --workload takes the job's own OIDC token: $LLMARTIFACTS_ID_TOKEN, the file\n"
        "  that $LLMARTIFACTS_ID_TOKEN_FILE names, or GitHub's (permissions: id-token: write)."
    },
)
def login(
    session: Session,
    url: AddressArgument = None,
    device: Annotated[bool, typer.Option("--device", help="Log in with a browser on another device.")] = False,
    stdin: Annotated[bool, typer.Option("--token-stdin", help="Read a token from standard input.")] = False,
    workload: Annotated[bool, typer.Option("--workload", help="Log in as the program that this runs in.")] = False,
    audience: Annotated[
        str, typer.Option("--audience", metavar="A", help="Whom a workload's token is for; else the server's URL.")
    ] = "",
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="NAME", help="Which login provider, where there are several.")
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser, or show the address.")
    ] = True,
    show: Annotated[
        bool, typer.Option("--print", help="Print the token on standard output, and keep it nowhere.")
    ] = False,
) -> None:
    """Get a token for a server, and keep it for the commands that follow."""
    if sum((device, stdin, workload)) > 1:
        raise InvalidInput(
            "--device, --token-stdin and --workload are three ways to log in",
            field="--device" if device else "--workload",
            next_step="Choose one.",
        )
    from llmartifacts.client import credentials

    address = _address(session, url)
    if stdin:
        token = _pasted(sys.stdin.readline(_MAX_PASTED + 2), "--token-stdin")
    elif workload:
        token = _as_workload(address, audience)
    else:
        token = _as_person(session, address, provider, device=device, browser=browser)
    found = _identity(address, token)
    path = None
    if not show:
        path = credentials.store(
            credentials.Credential(address.origin, token, found.name, found.token_id, found.expires_at)
        )
    out = session.out
    data: dict[str, Any] = {
        "server": address.url,
        "account": found.name,
        "token_id": found.token_id,
        "expires_at": found.expires_at,
        "path": None if path is None else str(path),
    }

    def text() -> None:
        ends = "" if found.expires_at is None else f", until {when(found.expires_at)}"
        out.line(("logged in", GOOD), " to ", (address.url, NAME), " as ", (found.name, NAME), ends, error=show)
        if show:
            out.line(token)

    out.result({**data, "token": token} if show else data, text)


@command(
    "logout",
    panel=TEAM,
    examples=("logout https://registry.example.com", "logout https://registry.example.com --revoke"),
    shape='{"server", "forgotten", "revoked"}',
)
def logout(
    session: Session,
    url: AddressArgument = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Have the server revoke the token too.")] = False,
) -> None:
    """Forget the token for a server."""
    from llmartifacts.client import credentials

    address = _address(session, url)
    kept = credentials.find(address)
    if kept is None:
        raise NotFound(
            f"there is no token for {address.origin} here",
            what="token",
            name=address.origin,
            near=tuple(credentials.load())[:5],
        )
    if revoke and kept.token_id:
        _accounts(address, kept.token).revoke_token(kept.token_id)
    credentials.forget(address)
    out = session.out

    def text() -> None:
        out.line(("forgotten: ", WARN), f"the token of {kept.account or 'somebody'} for ", (address.origin, NAME))
        if not revoke and kept.token_id:
            out.line((f"it is still good; to revoke it: llmartifacts token revoke {kept.token_id}", FAINT))

    out.result({"server": address.url, "forgotten": True, "revoked": bool(revoke and kept.token_id)}, text)


# --- ways to get a token


def _as_workload(address: Address, audience: str) -> str:
    from llmartifacts.client import workload
    from llmartifacts.client.session import HttpSession

    identity = workload.identity_token(audience or address.url)
    with HttpSession(address.url, None) as http:
        return workload.exchange(http, identity, label="workload").text


def _as_person(session: Session, address: Address, name: str | None, *, device: bool, browser: bool) -> str:
    import webbrowser

    from llmartifacts.client import login, workload
    from llmartifacts.client.session import HttpSession

    with HttpSession(address.url, None) as http:
        chosen = _provider(_providers(http), name)
        if chosen is None:
            if device:
                raise InvalidInput(
                    "people do not log in to this server with a login provider",
                    field="--device",
                    next_step="Ask for a token, and paste it: --token-stdin.",
                )
            return _prompted(session, address)
        endpoints = login.discover(chosen.issuer)
        out = session.out
        if device:
            identity = login.with_device(
                endpoints,
                chosen.client_id,
                chosen.scopes,
                show=lambda where, code: out.line("open ", (where, NAME), " and enter ", (code, NAME), error=True),
            )
        else:
            identity = login.with_browser(
                endpoints,
                chosen.client_id,
                chosen.scopes,
                show=lambda where: out.line("log in with your browser: ", (where, NAME), error=True),
                browse=webbrowser.open if browser else lambda _: None,
            )
        return workload.exchange(http, identity, label="login").text


def _prompted(session: Session, address: Address) -> str:
    if not sys.stdin.isatty():
        raise InvalidInput(
            "there is no terminal to ask for a token",
            field="token",
            next_step=f"Give it on standard input: llmartifacts login {address.url} --token-stdin.",
        )
    import getpass

    return _pasted(getpass.getpass(f"token for {address.url}: "), "token")


def _pasted(text: str, field: str) -> str:
    from llmartifacts.client.surroundings import check_token

    try:
        return check_token(text.strip())
    except InvalidInput as error:
        raise InvalidInput.of(error, field=field) from None


def _providers(http: Any) -> list[LoginProvider]:
    from llmartifacts.client.calls import Calls
    from llmartifacts.wire.bodies.server import Info

    return [one for one in Calls(http).ask(Info, "info").login if one.client_id]


def _provider(known: list[LoginProvider], name: str | None) -> LoginProvider | None:
    if name is None and len(known) <= 1:
        return known[0] if known else None
    names = tuple(one.name for one in known)
    if name is None:
        raise InvalidInput(
            "this server has several login providers", field="--provider", next_step=f"One of {', '.join(names)}."
        )
    found = next((one for one in known if one.name == name), None)
    if found is None:
        raise NotFound(f"there is no login provider {name!r:.80}", what="provider", name=name, near=names[:5])
    return found


def _identity(address: Address, token: str) -> Identity:
    """Whose token it is, as the server says; a token that it does not take is not kept."""
    return _accounts(address, token).me()


def _accounts(address: Address, token: str) -> RemoteAccounts:
    from llmartifacts.client.accounts import RemoteAccounts
    from llmartifacts.client.calls import Calls
    from llmartifacts.client.session import HttpSession

    return RemoteAccounts(Calls(HttpSession(address.url, token)))


def _address(session: Session, url: str | None) -> Address:
    from llmartifacts.client.address import Address
    from llmartifacts.connect import find
    from llmartifacts.errors import NotAllowed

    given = url
    if given is None:
        try:
            given = find(session.options.registry)
        except NotFound:
            given = ""
    if "://" not in given:
        raise InvalidInput(
            f"{given!r:.120} is no address of a server" if given else "which server?",
            field="URL",
            next_step="Give its address: llmartifacts login https://registry.example.com.",
        )
    address = Address.parse(given, field="URL")
    if not address.private:
        raise NotAllowed(
            f"a token for {address} would travel in the open",
            field="URL",
            next_step="Use https:// for a server on another machine.",
        )
    return address
