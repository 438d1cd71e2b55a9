"""The tokens of this machine, one for each server, in a file that only its owner may read.

`$LLMARTIFACTS_TOKEN` comes first. Then a workload's own token of a login provider (`workload`), where one is named;
then `credentials.json` in `$LLMARTIFACTS_CONFIG`, else in the user's config directory, written by `llmartifacts login`.
A token is kept by its server's origin, scheme and port with it, and is found for no other.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from llmartifacts.client.address import Address
from llmartifacts.client.session import TokenSource
from llmartifacts.client.surroundings import check_token
from llmartifacts.errors import InvalidInput, InvalidValue, LlmartifactsError, NotAllowed, TooLarge
from llmartifacts.records.canonical import canonical_bytes, parse_json
from llmartifacts.records.places import config_directory
from llmartifacts.records.times import parse_time, to_text

TOKEN = "LLMARTIFACTS_TOKEN"  # noqa: S105 - the name of a variable
FILE = "credentials.json"
SCHEMA = "llmartifacts/credentials/1"
MAX_FILE = 1024 * 1024
MAX_SERVERS = 1_000


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A token for one server.

    Attributes:
        origin: `scheme://host:port` of the server.
        token: The token.
        account: Whose it is.
        token_id: Its public part.
        expires_at: When it ends, UTC; None if that is not known.
    """

    origin: str
    token: str
    account: str = ""
    token_id: str = ""
    expires_at: datetime | None = None

    def __repr__(self) -> str:
        return f"Credential({self.origin!r}, {self.token_id!r})"  # a traceback or a log shows no secret


def token_for(address: Address) -> str | TokenSource | None:
    """The token to send to a server; None if there is none.

    Raises:
        NotAllowed: Others may read the file of credentials.
        InvalidValue: It is damaged.
        InvalidInput: `$LLMARTIFACTS_TOKEN` is no token.
    """
    given = os.environ.get(TOKEN, "").strip()
    if given:
        try:
            return check_token(given)
        except InvalidInput as error:
            raise InvalidInput.of(error, field=f"${TOKEN}") from None
    from llmartifacts.client.workload import Workload, names_file

    if names_file():
        return Workload(address)
    found = find(address)
    return None if found is None else found.token


def find(address: Address) -> Credential | None:
    """What is kept for a server; None if nothing is. Raises as `load`."""
    return load().get(address.origin)


def load() -> dict[str, Credential]:
    """Everything that is kept, by origin.

    Raises:
        NotAllowed: Others than its owner may read or change the file, or it is a link.
        InvalidValue: It is damaged.
    """
    path = config_directory() / FILE
    data = _read(path)
    return {} if data is None else _parse(data, path)


def store(credential: Credential) -> Path:
    """Keep a token, in the place of one for the same server.

    Returns:
        The file.

    Raises:
        NotAllowed: The file cannot be written, or others may read it.
        InvalidValue: What is there is damaged; it stays as it is.
    """
    check_token(credential.token)
    with _changing() as (path, kept):
        kept[credential.origin] = credential
        if len(kept) > MAX_SERVERS:
            raise TooLarge(f"credentials for more than {MAX_SERVERS} servers", field="credentials", origin=str(path))
        _write(path, kept)
    return path


def forget(address: Address) -> Credential | None:
    """Keep nothing for a server any more; gives what was kept. Raises as `store`."""
    if not os.path.lexists(config_directory() / FILE):
        return None
    with _changing() as (path, kept):
        had = kept.pop(address.origin, None)
        if had is not None:
            _write(path, kept)
    return had


# --- the file


@contextlib.contextmanager
def _changing() -> Iterator[tuple[Path, dict[str, Credential]]]:
    """The file and what it holds, while nobody else of this machine changes it."""
    place = config_directory()
    path = place / FILE
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(place / f".{FILE}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise NotAllowed(f"credentials cannot be kept there: {error.strerror}", origin=str(place)) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        data = _read(path)
        yield path, {} if data is None else _parse(data, path)
    except OSError as error:
        raise NotAllowed(f"the credentials cannot be written: {error.strerror}", origin=str(path)) from None
    finally:
        os.close(lock)


def _write(path: Path, kept: Mapping[str, Credential]) -> None:
    servers = {
        origin: {
            "token": one.token,
            "account": one.account,
            "token_id": one.token_id,
            "expires_at": None if one.expires_at is None else to_text(one.expires_at),
        }
        for origin, one in kept.items()
    }
    made = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with open(handle, "wb") as file:
            os.fchmod(handle, 0o600)  # whatever the umask says
            file.write(canonical_bytes({"schema": SCHEMA, "servers": servers}))
            file.flush()
            os.fsync(handle)
        os.replace(made, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            made.unlink()
        raise


def _read(path: Path) -> bytes | None:
    """The bytes of the file, if nobody else may read or change it; None if there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        why = "it is a link" if error.errno in (errno.ELOOP, errno.EMLINK) else error.strerror
        raise NotAllowed(f"the credentials cannot be read: {why}", field="credentials", origin=str(path)) from None
    try:
        found = os.fstat(handle)  # of what is open, not of what lies there by now
        if not stat.S_ISREG(found.st_mode):
            raise NotAllowed("the credentials are no regular file", field="credentials", origin=str(path))
        if found.st_mode & 0o077:
            raise NotAllowed(
                f"others may use the credentials: their mode is {stat.S_IMODE(found.st_mode):04o}",
                field="credentials",
                origin=str(path),
                next_step=f"Take that away: chmod 600 {path}. If others had them, revoke: llmartifacts token revoke.",
            )
        if found.st_uid not in (os.geteuid(), 0):
            raise NotAllowed("the credentials belong to somebody else", field="credentials", origin=str(path))
        place = os.stat(path.parent)
        if place.st_mode & stat.S_IWOTH and not place.st_mode & stat.S_ISVTX:
            raise NotAllowed(
                "anybody may exchange the credentials: everybody may write their folder",
                field="credentials",
                origin=str(path.parent),
                next_step=f"Take that away: chmod o-w {path.parent}.",
            )
        data = b""
        while piece := os.read(handle, MAX_FILE + 1 - len(data)):
            data += piece
    finally:
        os.close(handle)
    if len(data) > MAX_FILE:
        raise _damaged("it is too large", path)
    return data


def _parse(data: bytes, path: Path) -> dict[str, Credential]:
    try:
        document = parse_json(data)
    except LlmartifactsError as error:
        raise _damaged(error.message, path) from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise _damaged("it has another form", path)
    servers = document.get("servers")
    if not isinstance(servers, dict):
        raise _damaged("it names no servers", path)
    return {origin: _credential(origin, one, path) for origin, one in servers.items()}


def _credential(origin: str, one: Any, path: Path) -> Credential:
    texts = ("token", "account", "token_id")
    try:
        if Address.parse(origin).origin != origin or not isinstance(one, dict):
            raise _damaged("an entry is none", path)
        if not all(isinstance(one.get(name, ""), str) for name in texts):
            raise _damaged("an entry is no text", path)
        ends = one.get("expires_at")
        return Credential(
            origin,
            check_token(one.get("token", "")),
            one.get("account", ""),
            one.get("token_id", ""),
            None if ends is None else parse_time(ends),
        )
    except (LlmartifactsError, TypeError, AttributeError) as error:
        if isinstance(error, InvalidValue):
            raise
        raise _damaged(f"the entry of {origin!r:.100} cannot be read", path) from None


def _damaged(why: str, path: Path) -> InvalidValue:
    return InvalidValue(
        f"the credentials are damaged: {why}",
        field="credentials",
        origin=str(path),
        next_step="Remove the file, and log in anew: llmartifacts login URL.",
    )
