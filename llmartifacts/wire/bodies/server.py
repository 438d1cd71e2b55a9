"""Bodies about the server itself: what it is, its health, a preview."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmartifacts.wire.bodies.base import Count, Many, Model
from llmartifacts.wire.bodies.fields import Object, Ref


class Limits(Model):
    """What one request may hold.

    Attributes:
        body: Bytes of a JSON body.
        piece: Bytes of a piece of an upload.
        references: References of one reading.
        page: Members of a page.
    """

    body: Count
    piece: Count
    references: Count
    page: Count


class LoginProvider(Model):
    """Where people log in, or whose tokens are taken (OIDC).

    Attributes:
        name: Its name.
        issuer: Its address.
        client_id: Id of this registry there; empty where people do not log in with it.
        scopes: Scopes to ask for.
    """

    name: str
    issuer: str
    client_id: str = ""
    scopes: Many[str] = ()


class Info(Model):
    """What a server is.

    Attributes:
        version: Its release.
        registry: Which registry: the origin of its audit; empty where it has no entry yet.
        limits: What one request may hold.
        login: Login providers.
    """

    version: str
    registry: str
    limits: Limits
    login: Many[LoginProvider] = ()


class Health(Model):
    """Whether it works.

    Attributes:
        status: `ok`, or `unready`.
        checks: What was looked at -> `ok`, or what is wrong.
    """

    status: Literal["ok", "unready"]
    checks: dict[str, str] = Field(default_factory=dict)


class PreviewRequest(Model):
    """A prompt to render."""

    reference: Ref
    variables: Object = Field(default_factory=dict)


class PreviewMessage(Model):
    """One message of a rendered chat prompt; a part that is no text is told in square brackets."""

    role: str
    content: str


class Preview(Model):
    """What a prompt renders to: text, or messages."""

    text: str | None = None
    messages: Annotated[Many[PreviewMessage], Field(max_length=10_000)] | None = None
