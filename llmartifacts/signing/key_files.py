"""Private keys on this machine: one PEM file each, that only its owner may read, and beside it the public half.

`$LLMARTIFACTS_KEYS`, else `keys` in `$LLMARTIFACTS_CONFIG`, else in the user's config directory, holds `NAME.pem` (mode
0600) and `NAME.pub` (one line: the public half, then whose it is).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmartifacts.errors import Conflict, InvalidInput, InvalidValue, NotAllowed, NotFound
from llmartifacts.records.approval import check_person, short_key
from llmartifacts.records.names import check_name, near_names
from llmartifacts.records.places import config_directory
from llmartifacts.signing.keys import PrivateKey, PublicKey, parse_public

DIRECTORY = "LLMARTIFACTS_KEYS"
PASSPHRASE = "LLMARTIFACTS_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable
MAX_FILE = 65_536


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key of this machine, as far as its public half tells.

    Attributes:
        name: What it is called here.
        path: The file of its private half.
        public: Its public half.
        person: Whose it is; empty if that is not written down.
    """

    name: str
    path: Path
    public: PublicKey
    person: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key of this machine that is ready to sign.

    Attributes:
        file: The file it came from.
        private: The key.
    """

    file: KeyFile
    private: PrivateKey


def directory(environ: Mapping[str, str] | None = None) -> Path:
    """Where keys lie: `$LLMARTIFACTS_KEYS`, else `keys` beside the user's tokens (`$LLMARTIFACTS_CONFIG`)."""
    named = (os.environ if environ is None else environ).get(DIRECTORY)
    return Path(named).expanduser() if named else config_directory(environ) / "keys"


def create(name: str, person: str) -> KeyFile:
    """Make a key and write it down; locked where `$LLMARTIFACTS_KEY_PASSPHRASE` is set.

    Args:
        name: What it is called on this machine.
        person: Whose it is.

    Raises:
        Conflict: There is a key of that name; it is never overwritten.
        NotAllowed: The place cannot be written.
    """
    check_name(name, field="NAME")
    return _write(_stem(name), name, PrivateKey.generate(), check_person(person))


def load(name: str) -> SigningKey:
    """A key by its name, or by the path of its PEM file.

    Raises:
        NotFound: There is none; near names are given.
        NotAllowed: Others than its owner may read or change the file.
        InvalidValue: It is no Ed25519 key, or the passphrase is missing or wrong.
    """
    path = _path_of(name)
    data = _read_private(path, name)
    private = PrivateKey.from_pem(data, os.environ.get(PASSPHRASE, ""), origin=str(path))
    _, person = _read_public(path.with_suffix(".pub")) or (None, "")
    return SigningKey(KeyFile(name, path, private.public, person), private)


def find(name: str) -> KeyFile | None:
    """A key of this machine by its name, without its private half; None if there is none."""
    try:
        path = _path_of(name)
    except InvalidInput:
        return None
    found = _read_public(path.with_suffix(".pub")) if os.path.lexists(path) else None
    return None if found is None else KeyFile(name, path, *found)


def local() -> list[KeyFile]:
    """The keys of this machine, by name."""
    place = directory()
    try:
        names = sorted(p.stem for p in place.iterdir() if p.suffix == ".pem" and not p.name.startswith("."))
    except OSError:
        return []
    return [found for found in map(find, names) if found is not None]


def next_key(old: SigningKey) -> SigningKey:
    """The key that shall take another's place: made aside, or the one that an interrupted change left there."""
    stem = _next_stem(old.file)
    path = Path(f"{stem}.pem")
    if not os.path.lexists(path):
        _write(stem, old.file.name, PrivateKey.generate(), old.file.person)
    private = PrivateKey.from_pem(_read_private(path, old.file.name), os.environ.get(PASSPHRASE, ""), origin=str(path))
    if not os.path.lexists(f"{stem}.pub"):
        _write_public(stem, private.public, old.file.person)
    return SigningKey(KeyFile(old.file.name, path, private.public, old.file.person), private)


def take_place(old: SigningKey, new: SigningKey) -> tuple[KeyFile, Path]:
    """Give the new key the old one's name; the old one is kept as `NAME.ID.pem`.

    Returns:
        The key under that name now, and where the old one is.
    """
    kept = old.file.path.with_name(f"{old.file.path.stem}.{short_key(old.file.public.id)}.pem")
    with _told("change", old.file.path):
        for suffix in (".pub", ".pem"):
            current, aside, old_now = (p.with_suffix(suffix) for p in (old.file.path, new.file.path, kept))
            if current.exists() and not os.path.lexists(old_now):
                os.link(current, old_now)
            os.replace(aside, current)
        _sync(kept.parent)
    return KeyFile(old.file.name, old.file.path, new.file.public, new.file.person), kept


def _write(stem: Path, name: str, private: PrivateKey, person: str) -> KeyFile:
    place = stem.parent
    path = Path(f"{stem}.pem")
    data = private.to_pem(os.environ.get(PASSPHRASE, ""))
    with _told("write", path):
        if not place.is_dir():
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            _write_new(path, data, 0o600)
        except FileExistsError:
            raise Conflict(
                f"there is a key {name!r} already", field="NAME", origin=str(path), next_step="Choose another name."
            ) from None
        try:
            _write_public(stem, private.public, person)
            _sync(place)
        except BaseException:
            path.unlink()
            raise
    return KeyFile(name, path, private.public, person)


def _write_public(stem: Path, public: PublicKey, person: str) -> None:
    path = Path(f"{stem}.pub")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # of a key that is gone
    _write_new(path, f"{public.text} {person}".rstrip().encode() + b"\n", 0o644)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        with open(handle, "wb") as file:
            os.fchmod(handle, mode)  # whatever the umask says
            file.write(data)
            file.flush()
            os.fsync(handle)
    except BaseException:
        path.unlink()
        raise


def _read_private(path: Path, name: str) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        known = [k.name for k in local()]
        raise NotFound(
            f"there is no key {name!r:.160}",
            what="key",
            name=name,
            near=near_names(name, known),
            origin=str(path),
            next_step="" if near_names(name, known) else f"Make one: llmartifacts key create {name} --person NAME.",
        ) from None
    except OSError as error:
        raise NotAllowed(f"the key {name!r:.160} cannot be read: {error.strerror}", origin=str(path)) from None
    try:
        _check_place(path.parent)
        found = os.fstat(handle)  # of what is open, not of what lies there by now
        if not stat.S_ISREG(found.st_mode):
            raise InvalidValue("a key is a regular file", field="key", origin=str(path))
        if found.st_mode & 0o077:
            raise NotAllowed(
                f"others may use the key {name!r:.160}: its mode is {stat.S_IMODE(found.st_mode):04o}",
                field="key",
                origin=str(path),
                next_step=f"Take that away: chmod 600 {path}. If others had it, make a new one: key rotate.",
            )
        if found.st_uid not in (os.geteuid(), 0):
            raise NotAllowed(f"the key {name!r:.160} belongs to somebody else", field="key", origin=str(path))
        data = os.read(handle, MAX_FILE + 1)
    finally:
        os.close(handle)
    if len(data) > MAX_FILE:
        raise InvalidValue("the file is too large for a key", field="key", origin=str(path))
    return data


def _check_place(place: Path) -> None:
    """Refuse a directory in which anybody may put another key in the place of this one."""
    mode = os.stat(place).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise NotAllowed(
            f"anybody may exchange the keys in {place}: its mode is {stat.S_IMODE(mode):04o}",
            field="key",
            origin=str(place),
            next_step=f"Take that away: chmod o-w {place}. See whose key it is then: key show.",
        )


def _read_public(path: Path) -> tuple[PublicKey, str] | None:
    """The public key and the person of a `.pub` file; None if there is none that can be read."""
    try:
        line = _read_plain(path).decode("utf-8", "replace").partition("\n")[0].strip()
        return parse_public(line), _person(line)
    except (OSError, InvalidInput):
        return None


def read_public_file(path: Path) -> tuple[PublicKey, str]:
    """A public key from a file: the line that `key create` wrote, or PEM; and whose it says it is, if it does.

    Raises:
        InvalidValue: The file holds no public key.
        NotFound: There is no file.
    """
    try:
        data = _read_plain(path)
    except OSError as error:
        raise NotFound(
            f"{str(path)!r:.200} is neither a public key nor a file: {error.strerror}",
            what="file",
            name=str(path),
            field="PUBLIC",
            next_step="Give the text 'ed25519:…' that `llmartifacts key create` printed, or the path of the .pub file.",
        ) from None
    text = data.decode("utf-8", "replace").strip()
    return parse_public(text, field="PUBLIC", origin=str(path)), "" if text.startswith("-----") else _person(text)


def _read_plain(path: Path) -> bytes:
    """The beginning of a plain file; a pipe that somebody put there holds nobody up. Raises `OSError`."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        return file.read(MAX_FILE)


def _person(line: str) -> str:
    said = line.partition("\n")[0].partition(" ")[2].strip()
    return check_person(said) if said else ""


def _stem(name: str) -> Path:
    return directory() / name


def _next_stem(old: KeyFile) -> Path:
    return old.path.with_name(f".{old.path.stem}.next")  # no key of its own can be called so


def _path_of(name: str) -> Path:
    if isinstance(name, str) and (os.sep in name or name.endswith(".pem")):
        return Path(name).expanduser()
    return Path(f"{_stem(check_name(name, field='key'))}.pem")


def _sync(place: Path) -> None:
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _told(verb: str, path: Path) -> Iterator[None]:
    """Errors of the file system, as errors of this package."""
    try:
        yield
    except OSError as error:
        raise NotAllowed(
            f"cannot {verb} the key at {path}: {error.strerror or error}",
            origin=str(path),
            next_step=f"Name another directory in ${DIRECTORY}.",
        ) from error
