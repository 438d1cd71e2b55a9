"""A program's own token of a login provider (OIDC), exchanged for one of the registry, and again before that ends.

Where it comes from: `$LLMARTIFACTS_ID_TOKEN`, the file that `$LLMARTIFACTS_ID_TOKEN_FILE` names (read anew each time,
as Kubernetes and others write it anew), or GitHub Actions, in a job with `permissions: id-token: write`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from llmartifacts.client.address import Address
from llmartifacts.client.fetch import check_url, fetch
from llmartifacts.client.session import HttpSession
from llmartifacts.client.surroundings import check_token
from llmartifacts.errors import InvalidInput, LlmartifactsError, NotFound, Unreachable
from llmartifacts.records.rights import NewToken

TEXT = "LLMARTIFACTS_ID_TOKEN"
FILE = "LLMARTIFACTS_ID_TOKEN_FILE"
GITHUB_URL = "ACTIONS_ID_TOKEN_REQUEST_URL"
GITHUB_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"  # noqa: S105 - the name of a variable
MAX_FILE = 65_536
_EARLY = 0.2
"""Part of a token's life before its end in which it is renewed."""


@dataclass(frozen=True, slots=True)
class _Exchange:
    """What a session needs to know of the route; the table of all routes would cost a program's start more."""

    name: str = "exchange"
    method: str = "POST"
    path: str = "/auth/exchange"
    writes: bool = True
    slow: bool = False


def names_file() -> bool:
    """Whether a file is named, so that a token comes from there by itself."""
    return bool(os.environ.get(FILE))


def identity_token(audience: str = "") -> str:
    """The token of the login provider, from where this program has it.

    Args:
        audience: Whom it shall be for, where that can be asked for (GitHub Actions).

    Raises:
        NotFound: There is none here.
        Unreachable: GitHub does not give one.
        InvalidInput: What is there is no token.
    """
    if given := os.environ.get(TEXT, "").strip():
        return _checked(given, f"${TEXT}")
    if path := os.environ.get(FILE, ""):
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_FILE)
        except OSError as error:
            raise NotFound(
                f"the token of the login provider cannot be read: {error.strerror}",
                what="file",
                name=path,
                field=f"${FILE}",
            ) from None
        return _checked(data.decode("utf-8", "replace").strip(), f"${FILE}")
    if os.environ.get(GITHUB_URL) and os.environ.get(GITHUB_TOKEN):
        return _from_github(audience)
    raise NotFound(
        "there is no token of a login provider here",
        what="token",
        name=TEXT,
        next_step=f"Set ${TEXT} or ${FILE}; in GitHub Actions, give the job `permissions: id-token: write`.",
    )


def exchange(session: HttpSession, token: str, *, label: str = "") -> NewToken:
    """Exchange a login provider's token for one of the registry.

    Raises:
        NotAllowed: The server takes none of that provider, or not this one.
        Unreachable: The server cannot be had, or not the provider's keys.
    """
    from llmartifacts.wire.bodies import accounts as bodies
    from llmartifacts.wire.bodies.base import read_answer

    body = bodies.Exchange.known(token=token, label=label).to_bytes()
    answer = session.call(_Exchange(), body=body)
    try:
        return read_answer(bodies.NewToken, answer.json()).record()
    except LlmartifactsError as error:
        if isinstance(error, Unreachable):
            raise
        raise Unreachable(f"the answer of {session.address} cannot be understood: {error.message}") from None


class Workload:
    """The token of a program on one server, renewed by itself.

    Args:
        address: The server.
        audience: Whom the provider's token shall be for; by default the server's address.
    """

    def __init__(self, address: Address, audience: str = "") -> None:
        self._address = address
        self._audience = audience or address.url
        self._token: str | None = None
        self._renew_at = 0.0

    def token(self, *, refused: str | None = None) -> str:
        """The token to send; another one where that one was refused, or ends soon. Raises as `exchange`."""
        if self._token is None or refused == self._token or time.monotonic() >= self._renew_at:
            # A session of its own: the one that asks holds a lock, and has no token yet.
            with HttpSession(self._address.url, None) as session:
                made = exchange(session, identity_token(self._audience), label="workload")
            ends = made.info.expires_at  # by the server's clock, as its beginning is
            life = 300.0 if ends is None else max(0.0, (ends - made.info.created_at).total_seconds())
            self._token, self._renew_at = made.text, time.monotonic() + life * (1 - _EARLY)
        return self._token

    def __repr__(self) -> str:
        return f"Workload({self._address.origin!r})"


def _from_github(audience: str) -> str:
    url = check_url(os.environ[GITHUB_URL], field=f"${GITHUB_URL}", loopback=True)
    if audience:
        url += ("&" if "?" in url else "?") + "audience=" + quote(audience, safe="")
    secret = check_token(os.environ[GITHUB_TOKEN])
    answer = fetch(url, headers={"Authorization": f"Bearer {secret}"})
    value: Any = answer.json("GitHub").get("value") if answer.status == 200 else None
    if not isinstance(value, str):
        raise Unreachable(
            f"GitHub answered {answer.status} and gave no token",
            next_step="Give the job `permissions: id-token: write`.",
        )
    return _checked(value, "GitHub's token")


def _checked(token: str, field: str) -> str:
    try:
        check_token(token)
    except InvalidInput as error:
        raise InvalidInput.of(error, field=field) from None
    if token.count(".") != 2:
        raise InvalidInput("it is no token of a login provider (a JWT has three parts)", field=field)
    return token
