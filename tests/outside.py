"""What lies outside a registry: a web server over TLS that keeps files, and misbehaves as a test says."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(folder: Path, name: str = "localhost", address: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate for a host that vouches for itself, with its key; and without, as an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(address))]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    whole, authority = folder / f"{name}.pem", folder / f"{name}-ca.pem"
    whole.write_bytes(public + secret)
    authority.write_bytes(public)
    return whole, authority


@pytest.fixture(scope="session")
def make_certificate() -> Callable[..., tuple[Path, Path]]:
    """`certificate`, for tests that need others than that of `web`."""
    return certificate


@dataclass
class Web:
    """Files at `https://localhost:…`; `files` may be changed at any time, and `oddly` puts a script in a file's place.

    Attributes:
        files: Path -> content; one that is not there is answered with 404.
        versions: Path -> the version that the answer names, as a bucket behind it would.
        oddly: Path -> what is sent instead before the connection is closed, or a function of the socket.
        etags: Whether answers have one.
        ranges: Whether a part is answered where one is asked for.
    """

    server: Any = None
    files: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    oddly: dict[str, Any] = field(default_factory=dict)
    etags: bool = False
    ranges: bool = True

    @property
    def asked(self) -> list[str]:
        """`GET /path` of each request, with its range."""
        return [
            " ".join(filter(None, (*r.line.split()[:2], (r.header("Range") or "").removeprefix("bytes="))))
            for r in self.server.requests
        ]

    def url(self, path: str) -> str:
        return f"{self.server.url}/{path}"

    def answer(self, sock: socket.socket, request: Any) -> None:
        target = request.line.split()[1].lstrip("/")
        path = target.partition("?")[0]
        odd = self.oddly.get(target, self.oddly.get(path))
        if isinstance(odd, list):
            odd = odd.pop(0) if odd else None
        if odd is not None:
            if isinstance(odd, bytes):
                sock.sendall(odd)
            else:
                odd(sock, request)
            sock.shutdown(socket.SHUT_RDWR)
            return
        content = self.files.get(path)
        if content is None:
            sock.sendall(b"HTTP/1.1 404 Gone\r\nContent-Length: 6\r\n\r\nsecret")
            return
        wanted, extra, status = content, "", "200 OK"
        if path in self.versions:
            extra += f"x-amz-version-id: {self.versions[path]}\r\n"
        if self.etags:
            extra += 'ETag: "always-the-same"\r\n'
        asked = request.header("Range")
        if asked and self.ranges:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            wanted, status = content[start:], "206 Partial Content"
            extra += f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}\r\n"
        sock.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(wanted)}\r\n{extra}\r\n".encode() + wanted)


@pytest.fixture(scope="session")
def web_certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def web(http: Any, web_certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Web:
    """A web server that this process trusts, and may speak to although it is on this machine."""
    whole, authority = web_certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(whole)
    made = Web()
    made.server = http.serve(made.answer, tls=context, echo=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    monkeypatch.setenv("LLMARTIFACTS_ALLOW_HOSTS", "localhost")
    return made
