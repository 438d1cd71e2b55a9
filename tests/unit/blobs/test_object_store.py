"""The object store driver against an S3 server, and over a line that counts, fails, cuts and lies."""

from __future__ import annotations

import datetime
import io
import ipaddress
import itertools
import os
import random
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from llmartifacts.blobs import object_store
from llmartifacts.blobs.object_store import ObjectStoreDriver
from llmartifacts.blobs.objects import patience
from llmartifacts.errors import (
    DeadlineExceeded,
    InvalidInput,
    LlmartifactsError,
    MissingExtra,
    NotAllowed,
    Unreachable,
)
from llmartifacts.testing.blobs import check_driver

pytestmark = [pytest.mark.usefixtures("s3_environment"), pytest.mark.xdist_group("moto")]
MB = 1024 * 1024
NOISE = random.Random(5).randbytes(20 * MB)
_PLACES = itertools.count()


@pytest.fixture(scope="module")
def bucket(moto_server: Any) -> str:
    return str(moto_server.new_bucket())


@pytest.fixture
def url(moto_server: Any, bucket: str) -> str:
    return str(moto_server.url(bucket, f"p{next(_PLACES)}"))


@pytest.fixture
def driver(url: str) -> ObjectStoreDriver:
    return ObjectStoreDriver(url, seconds=10)


@pytest.fixture
def over_line(moto_server: Any, bad_line: Any, bucket: str) -> ObjectStoreDriver:
    """Over a line that does as a test says."""
    driver = ObjectStoreDriver(moto_server.url(bucket, f"p{next(_PLACES)}", endpoint=bad_line.endpoint), seconds=3)
    assert driver.put_if_absent("first", b"so that it is known that conditions are kept")
    bad_line.quiet()
    return driver


@pytest.fixture(autouse=True)
def _lines_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more time for more bytes, and no long pauses."""
    monkeypatch.setattr(patience, "_RATE", 1 << 40)
    monkeypatch.setattr(patience, "_FIRST", 0.01)


def impatient(driver: ObjectStoreDriver) -> None:
    driver._patience._seconds = 0.1


def read(driver: ObjectStoreDriver, key: str, start: int = 0, length: int | None = None) -> bytes:
    with driver.get(key, start, length) as stream:
        return stream.read()


def test_a_moto_server_is_driven_as_the_contract_says(moto_server: Any, bucket: str) -> None:
    check_driver(lambda: ObjectStoreDriver(moto_server.url(bucket, f"p{next(_PLACES)}")))


# --- what goes over the line


def test_ranges_that_lie_close_together_are_one_request(over_line: ObjectStoreDriver, bad_line: Any) -> None:
    over_line.put_if_absent("packs/a", NOISE[: 4 * MB])
    over_line.put_if_absent("packs/b", NOISE[: 2 * MB])
    ranges = [("packs/a", at, 1000) for at in range(0, 1_000_000, 5000)]
    ranges += [
        ("packs/a", 3 * MB, 5000),
        ("packs/b", 0, 10),
        ("packs/b", 10, 0),
        ("packs/b", 10, MB),
        ("packs/a", 5, 7),
    ]
    bad_line.quiet()
    got = [stream.read() for stream in over_line.get_each(ranges)]
    assert got == [NOISE[start : start + length] for _, start, length in ranges]
    assert len([one for one in bad_line.asked if one.method == "GET"]) == 5


def test_a_large_object_is_read_in_parts_and_no_more_than_what_is_wanted(
    over_line: ObjectStoreDriver, bad_line: Any
) -> None:
    over_line.put_if_absent("large", NOISE)
    bad_line.quiet()
    with over_line.get("large") as stream:
        assert stream.read(100) == NOISE[:100]
    assert len(bad_line.asked) <= 2
    time.sleep(0.2)  # what was fetched ahead comes to its end
    bad_line.quiet()
    assert read(over_line, "large") == NOISE
    assert [one.headers["range"] for one in bad_line.asked] == [
        "bytes=0-8388607",
        "bytes=8388608-16777215",
        "bytes=16777216-20971519",
    ]
    bad_line.quiet()
    assert read(over_line, "large", 15 * MB, 100) == NOISE[15 * MB :][:100]
    assert len(bad_line.asked) == 1


def test_an_object_is_one_put_whatever_its_size(over_line: ObjectStoreDriver, bad_line: Any, tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(NOISE)
    assert over_line.put_if_absent("packs/one", tmp_path / "pack")
    assert [(one.method, one.headers.get("if-none-match"), len(one.body)) for one in bad_line.asked] == [
        ("PUT", "*", len(NOISE))
    ]
    assert (tmp_path / "pack").read_bytes() == NOISE


@pytest.mark.slow
def test_a_file_is_sent_without_being_held_in_memory(url: str, tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(bytes(150 * MB))
    code = f"""
import resource, threading
from llmartifacts.blobs.object_store import ObjectStoreDriver
driver = ObjectStoreDriver({url!r})
driver.put_if_absent("small", b"1")
def rss(): return int(open("/proc/self/status").read().split("RssAnon:")[1].split()[0]) // 1024
before, most, done = rss(), [0], threading.Event()
def watch():
    while not done.wait(0.01): most[0] = max(most[0], rss())
watcher = threading.Thread(target=watch); watcher.start()
from pathlib import Path
driver.put_if_absent("large", Path({str(tmp_path / "pack")!r}))
done.set(); watcher.join()
print(most[0] - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("NO /proc: the memory of a process cannot be looked at here")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40


@pytest.mark.slow
def test_a_listing_goes_on_over_pages_and_where_it_broke_off(over_line: ObjectStoreDriver, bad_line: Any) -> None:
    keys = sorted(f"sha256/{i:04x}" for i in range(1050))
    over_line.put_many([(key, b"1") for key in keys[:30]])
    for key in keys[30:]:
        over_line._obstore.put(over_line._store(), key, b"1")
    bad_line.quiet()
    failed = []

    def fail_once(passed: Any) -> None:
        if "continuation-token" in passed.path and not failed:
            failed.append(passed)
            passed.fail(503, "SlowDown")

    bad_line.before = fail_once
    assert list(over_line.list("sha256/")) == [(key, 1) for key in keys]
    assert failed
    assert list(over_line.list("sha256/04")) == [(key, 1) for key in keys if key.startswith("sha256/04")]


# --- many at once


@pytest.fixture
def empty_line(over_line: ObjectStoreDriver) -> ObjectStoreDriver:
    """As `over_line`, without the object that is there."""
    over_line.delete("first")
    return over_line


def posts(line: Any) -> list[str]:
    return [passed.path for passed in line.asked if passed.method == "POST"]


def test_many_objects_go_with_one_request(empty_line: ObjectStoreDriver, bad_line: Any) -> None:
    keys = [f"sha256/{i:04x}" for i in range(40)]
    empty_line.put_many([(key, b"1") for key in (*keys, "stays")])
    bad_line.quiet()
    empty_line.delete_many([*keys, "never-there"])
    assert len(bad_line.asked) == len(posts(bad_line)) == 1
    assert [key for key, _ in empty_line.list()] == ["stays"]


def test_a_store_that_takes_no_such_request_is_asked_for_each_and_not_again_for_many(
    bad_line: Any, moto_server: Any, bucket: str
) -> None:
    for refusal in (answers(501, "NotImplemented"), answers(405, "MethodNotAllowed"), answers(200, "NoSuchThing")):
        driver = ObjectStoreDriver(moto_server.url(bucket, f"p{next(_PLACES)}", endpoint=bad_line.endpoint), seconds=3)
        for _ in range(2):
            driver.put_many([(key, b"1") for key in ("a", "b", "c")])
            bad_line.before = lambda passed, refusal=refusal: refusal(passed) if passed.method == "POST" else None
            driver.delete_many(["a", "b", "missing", "c"])
            assert list(driver.list()) == []
        assert len(posts(bad_line)) == 1
        bad_line.quiet()


@pytest.mark.parametrize(
    ("code", "expected"), [("AccessDenied", NotAllowed), ("InternalError", Unreachable), ("SlowDown", Unreachable)]
)
def test_what_could_not_be_deleted_is_a_typed_error_and_the_next_call_does_the_rest(
    empty_line: ObjectStoreDriver, bad_line: Any, code: str, expected: type[LlmartifactsError]
) -> None:
    """The answer to many is good, and says of one that it stays."""
    impatient(empty_line)
    keys = ["a", "b", "c"]
    empty_line.put_many([(key, b"1") for key in keys])
    told = f"<Error><Key>{empty_line.place.prefix}/b</Key><Code>{code}</Code><Message>no</Message></Error>"

    def keep_one(passed: Any) -> None:
        if passed.method == "POST":
            prefix = empty_line.place.prefix
            empty_line._obstore.delete(empty_line._store(), "a")
            passed.status = 200
            passed.answer = f"<DeleteResult><Deleted><Key>{prefix}/a</Key></Deleted>{told}</DeleteResult>".encode()
        elif passed.method == "DELETE" and passed.path.endswith("/b"):
            passed.fail(403 if code == "AccessDenied" else 503, code)

    bad_line.before = keep_one
    with pytest.raises(expected) as caught:
        empty_line.delete_many(keys)
    assert str(empty_line.place) in str(caught.value)
    assert caught.value.hint()
    bad_line.quiet()
    assert "b" in {key for key, _ in empty_line.list()}
    empty_line.delete_many(keys)
    assert list(empty_line.list()) == []


def test_one_that_is_said_to_be_missing_stops_nothing(empty_line: ObjectStoreDriver, bad_line: Any) -> None:
    """Some stores say so of a key, where others count it as deleted."""
    empty_line.put_many([(key, b"1") for key in ("a", "b", "c")])
    told = f"<Error><Key>{empty_line.place.prefix}/x</Key><Code>NoSuchKey</Code><Message>none</Message></Error>"

    def missing(passed: Any) -> None:
        if passed.method == "POST":
            passed.status, passed.answer = 200, f"<DeleteResult>{told}</DeleteResult>".encode()

    bad_line.before = missing
    empty_line.delete_many(["a", "x", "b", "c"])
    assert list(empty_line.list()) == []


# --- a line that is bad


def answers(status: int, code: str) -> Callable[[Any], None]:
    return lambda passed: passed.fail(status, code)


CALLS: dict[str, Callable[[ObjectStoreDriver], object]] = {
    "get": lambda driver: read(driver, "first"),
    "get_each": lambda driver: list(driver.get_each([("first", 0, 1), ("first", 3, 1)])),
    "size": lambda driver: driver.size("first"),
    "list": lambda driver: list(driver.list()),
    "put_if_absent": lambda driver: driver.put_if_absent("second", b"2"),
    "put_many": lambda driver: driver.put_many([("second", b"2"), ("third", b"3")]),
    "replace": lambda driver: driver.replace("first", b"1"),
    "delete": lambda driver: driver.delete("first"),
    "delete_many": lambda driver: driver.delete_many(["first", "second"]),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_store_that_is_busy_for_a_moment_is_asked_again(
    over_line: ObjectStoreDriver, bad_line: Any, call: str
) -> None:
    left = [3]

    def busy(passed: Any) -> None:
        if left[0]:
            left[0] -= 1
            passed.fail(503, "SlowDown") if left[0] % 2 else setattr(passed, "lost", True)

    bad_line.before = busy
    CALLS[call](over_line)
    assert not left[0]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (answers(403, "AccessDenied"), NotAllowed),
        (answers(400, "ExpiredToken"), NotAllowed),
        (answers(403, "InvalidAccessKeyId"), NotAllowed),
        (answers(401, "Unauthorized"), NotAllowed),
        (answers(507, "InsufficientStorage"), NotAllowed),
        (answers(301, "PermanentRedirect"), InvalidInput),
        (answers(501, "NotImplemented"), InvalidInput),
        (answers(503, "SlowDown"), Unreachable),
        (answers(500, "InternalError"), Unreachable),
        (lambda passed: setattr(passed, "lost", True), Unreachable),
    ],
)
def test_every_failure_is_typed_says_what_to_do_and_holds_no_secret(
    over_line: ObjectStoreDriver, bad_line: Any, fault: Callable[[Any], None], expected: type[LlmartifactsError]
) -> None:
    impatient(over_line)
    for call in CALLS.values():
        bad_line.before = fault
        with pytest.raises(expected) as caught:
            call(over_line)
        error: BaseException | None = caught.value
        told = f"{error}{caught.value.hint()}{caught.value.details()}"
        assert caught.value.hint()
        assert str(over_line.place) in told
        while error is not None:
            told += f"{error}{error.__notes__ if hasattr(error, '__notes__') else ''}"
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        assert not [word for word in ("AKID", "se+cret", quote("se+cret", safe=""), "X-Amz") if word in told]
        bad_line.quiet()
        call(over_line)  # and trying again works
        over_line.put_if_absent("first", b"x")


def test_a_store_that_does_not_answer_is_given_up_after_its_time(
    over_line: ObjectStoreDriver, bad_line: Any, moto_server: Any, bucket: str
) -> None:
    ended = threading.Event()
    bad_line.before = lambda passed: ended.wait(20) and None
    driver = ObjectStoreDriver(moto_server.url(bucket, "slow", endpoint=bad_line.endpoint), seconds=0.5)
    with pytest.raises(DeadlineExceeded):
        driver.size("first")
    ended.set()


def test_where_nobody_listens_is_unreachable(moto_server: Any) -> None:
    driver = ObjectStoreDriver(moto_server.url("b" * 9, endpoint="http://127.0.0.1:9"), seconds=0.3)
    with pytest.raises(Unreachable, match="no connection, after"):
        driver.size("first")


def cut(passed: Any) -> None:
    """Half of the body, and then nothing."""
    if passed.status == 206:
        passed.told, passed.answer = len(passed.answer), passed.answer[: len(passed.answer) // 2]


def shortened(passed: Any) -> None:
    """Half of the body, said to be all."""
    if passed.status == 206:
        passed.answer = passed.answer[: len(passed.answer) // 2]


def lengthened(passed: Any) -> None:
    """More than was asked for, said to be what was."""
    if passed.status == 206:
        passed.answer += bytes(32 * MB)


@pytest.mark.parametrize("fault", [cut, shortened, lengthened])
def test_an_answer_that_is_shorter_or_longer_is_never_taken_for_the_object(
    over_line: ObjectStoreDriver, bad_line: Any, fault: Callable[[Any], None]
) -> None:
    over_line.put_if_absent("large", NOISE)
    left = [4]

    def some(passed: Any) -> None:
        left[0] -= 1
        if left[0] > 0:
            fault(passed)

    bad_line.after = some
    assert read(over_line, "large") == NOISE
    impatient(over_line)
    bad_line.after = fault
    for call in (
        lambda: read(over_line, "large"),
        lambda: read(over_line, "large", 5, 100),
        lambda: [s.read() for s in over_line.get_each([("large", 0, 100), ("large", MB, 100)])],
    ):
        with pytest.raises(Unreachable):
            call()


def test_an_answer_that_got_lost_does_not_hide_who_stored_an_object(
    over_line: ObjectStoreDriver, bad_line: Any
) -> None:
    lost: list[Any] = []

    def lose_first(passed: Any) -> None:
        if passed.method == "PUT" and not lost:
            lost.append(passed)
            passed.lost = True

    bad_line.after = lose_first
    assert over_line.put_if_absent("mine", b"1")
    assert lost
    assert not over_line.put_if_absent("mine", b"1")

    def somebody_was_first(passed: Any) -> None:
        if passed.method == "PUT" and len(lost) < 2:
            lost.append(passed)
            passed.fail(500, "InternalError")
            over_line._obstore.put(over_line._store(), "theirs", b"2")

    bad_line.after = lambda passed: None
    bad_line.before = somebody_was_first
    assert not over_line.put_if_absent("theirs", b"1")
    assert read(over_line, "theirs") == b"2"


def test_somebody_who_stores_it_at_the_same_time_and_fails_is_not_relied_on(
    over_line: ObjectStoreDriver, bad_line: Any
) -> None:
    """S3 answers 409 while another put of the same name is under way, and that one may come to nothing."""
    told: list[Any] = []

    def conflict(passed: Any) -> None:
        if passed.method == "PUT" and len(told) < 2:
            told.append(passed)
            passed.fail(409, "ConditionalRequestConflict" if len(told) == 1 else "Conflict")

    bad_line.before = conflict
    assert over_line.put_if_absent("k", b"1")
    assert len(told) == 2
    assert read(over_line, "k") == b"1"


def test_a_store_that_overwrites_what_is_put_on_condition_is_refused_before_anything_is_lost(
    moto_server: Any, bucket: str, bad_line: Any
) -> None:
    driver = ObjectStoreDriver(moto_server.url(bucket, "unconditional", endpoint=bad_line.endpoint), seconds=3)
    bad_line.before = lambda passed: passed.drops.add("if-none-match")
    for call in (lambda: driver.put_if_absent("k", b"1"), lambda: driver.put_many([("k", b"1"), ("l", b"2")])):
        with pytest.raises(InvalidInput, match="overwrites"):
            call()
    assert list(driver.list()) == []
    assert driver.size("k") is None


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(driver: ObjectStoreDriver) -> None:
    driver.put_if_absent("k", NOISE)
    with driver.get("k") as stream:
        stream.read(10)
        time.sleep(1.1)
        driver.replace("k", NOISE[::-1])
        with pytest.raises(Unreachable, match="was replaced"):  # what was fetched ahead is of the first one
            while stream.read(MB):
                pass
    assert read(driver, "k") == NOISE[::-1]


def test_a_bucket_that_is_not_there_is_not_an_empty_one(moto_server: Any) -> None:
    driver = ObjectStoreDriver(moto_server.url("nobodys-bucket"), seconds=1)
    for call in (lambda: driver.get("k"), lambda: list(driver.list()), lambda: driver.put_if_absent("k", b"")):
        with pytest.raises(Unreachable, match="no such bucket"):
            call()


# --- credentials


def test_credentials_that_expired_half_way_are_refused_and_renewed_ones_go_on(
    over_line: ObjectStoreDriver, bad_line: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    shared = tmp_path / "credentials"
    shared.write_text("[default]\naws_access_key_id = AKIDOLD\naws_secret_access_key = s\naws_session_token = t1\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))
    place = str(over_line.place)
    driver = ObjectStoreDriver(f"{place}?endpoint={bad_line.endpoint}", seconds=1)
    assert driver.put_if_absent("k", b"1")
    assert "AKIDOLD" in bad_line.asked[-1].headers["authorization"]

    def expired(passed: Any) -> None:
        if "AKIDOLD" in passed.headers["authorization"]:
            passed.fail(400, "ExpiredToken")

    bad_line.before = expired
    for call in (lambda: driver.put_if_absent("l", b"1"), lambda: driver.size("k"), lambda: read(driver, "k")):
        with pytest.raises(NotAllowed, match="refuses"):
            call()
    shared.write_text("[default]\naws_access_key_id = AKIDNEW\naws_secret_access_key = s\naws_session_token = t2\n")
    assert driver.put_if_absent("l", b"1")
    assert read(driver, "k") == b"1"
    assert "AKIDNEW" in bad_line.asked[-1].headers["authorization"]
    shared.unlink()
    fresh = ObjectStoreDriver(f"{place}?endpoint={bad_line.endpoint}", seconds=1)
    with pytest.raises(NotAllowed) as caught:
        fresh.size("k")
    assert "AKID" not in str(caught.value)


def test_credentials_that_are_not_there_are_told_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NotAllowed, match="no credentials"):
        ObjectStoreDriver(url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # where a machine of the vendor's has its role
    driver = ObjectStoreDriver(url, seconds=60)
    with pytest.raises(NotAllowed, match="no credentials"):
        driver.size("k")


def certified(folder: Path) -> tuple[Path, Path]:
    """An authority's certificate, and a certificate with its key that it made for 127.0.0.1."""
    made: list[tuple[x509.Certificate, ec.EllipticCurvePrivateKey]] = []
    for name in ("authority", "store"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(made[0][0].subject if made else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=not made, path_length=None), critical=True)
        )
        if made:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        made.append((builder.sign(made[0][1] if made else key, hashes.SHA256()), key))
    pem = serialization.Encoding.PEM
    private = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "authority.pem").write_bytes(made[0][0].public_bytes(pem))
    (folder / "store.pem").write_bytes(made[1][0].public_bytes(pem) + made[1][1].private_bytes(pem, *private))
    return folder / "authority.pem", folder / "store.pem"


def test_a_certificate_is_checked_and_an_authority_of_ones_own_is_named(
    bad_line: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, store = certified(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(store)
    bad_line.socket = context.wrap_socket(bad_line.socket, server_side=True)
    url = f"s3://{bucket}/tls?endpoint={bad_line.endpoint.replace('http:', 'https:')}"
    with pytest.raises(InvalidInput, match="vouches for its certificate"):
        ObjectStoreDriver(url).size("k")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    driver = ObjectStoreDriver(url)
    assert driver.put_if_absent("k", b"1")
    assert read(driver, "k") == b"1"
    assert (driver.signed("k", 0, 1, 60) or "").startswith(f"https://127.0.0.1:{bad_line.server_port}/")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nothing"))
    with pytest.raises(InvalidInput, match="REQUESTS_CA_BUNDLE"):
        ObjectStoreDriver(url)


# --- addresses that are signed


def test_a_signed_address_gives_the_object_to_who_has_no_credentials(moto_server: Any, bucket: str) -> None:
    url = moto_server.url(bucket, "signed", public=moto_server.endpoint)
    driver = ObjectStoreDriver(url)
    driver.put_if_absent("packs/a", NOISE[:MB])
    address = driver.signed("packs/a", 10, 20, 60)
    assert address is not None
    answer = requests.get(address, headers={"Range": "bytes=10-29"}, timeout=30)
    assert (answer.status_code, answer.content) == (206, NOISE[10:30])
    assert "X-Amz-Expires=60" in address


@pytest.mark.parametrize(
    ("options", "signs"),
    [
        ("?endpoint=http://127.0.0.1:9000", ""),
        ("?endpoint=https://s3.example.org", "https://s3.example.org/bucket/p/k?"),
        ("?endpoint=https://s3.example.org&public=no", ""),
        ("?endpoint=http://minio:9000&public=https://s3.example.org", "https://s3.example.org/bucket/p/k?"),
        ("?region=eu-central-1", "https://bucket.s3.eu-central-1.amazonaws.com/p/k?"),
        ("?endpoint=https://s3.example.org&style=virtual", "https://bucket.s3.example.org/p/k?"),
    ],
)
def test_an_address_is_signed_where_clients_reach_the_store_by_tls_or_where_somebody_said_so(
    options: str, signs: str
) -> None:
    address = ObjectStoreDriver(f"s3://bucket/p{options}").signed("k", 0, 1, 60)
    assert (address or "").startswith(signs)
    assert bool(address) == bool(signs)


# --- other services


@pytest.mark.parametrize(
    ("url", "environment", "condition"),
    [
        ("gs://bucket/p", {"GOOGLE_BEARER_TOKEN": "t"}, ("x-goog-if-generation-match", "0")),
        (
            "az://container/p",
            {"AZURE_STORAGE_ACCOUNT_NAME": "ours", "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"},
            ("if-none-match", "*"),
        ),
        ("s3://bucket/p", {}, ("if-none-match", "*")),
    ],
)
def test_each_service_is_sent_the_condition_in_its_own_words(
    bad_line: Any, monkeypatch: pytest.MonkeyPatch, url: str, environment: dict[str, str], condition: tuple[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def has_it_all(passed: Any) -> None:
        passed.fail(412, "PreconditionFailed") if passed.method == "PUT" else passed.fail(403, "AccessDenied")

    bad_line.before = has_it_all
    driver = ObjectStoreDriver(f"{url}?endpoint={bad_line.endpoint}", seconds=0.3)
    with pytest.raises(NotAllowed, match="refuses"):  # when it looks whether the object is there
        driver.put_if_absent("sha256/ab", b"1")
    put = next(one for one in bad_line.asked if one.method == "PUT")
    assert put.headers[condition[0]] == condition[1]
    assert unquote(urlsplit(put.path).path).endswith("p/.conditional")
    assert driver.where("sha256/ab") == f"{url}/sha256/ab"


def test_an_account_that_nobody_named_is_asked_for() -> None:
    with pytest.raises(InvalidInput) as caught:
        ObjectStoreDriver("az://container/p")
    assert "AZURE_STORAGE_ACCOUNT_NAME" in caught.value.hint()


# --- what is around it


def test_without_the_library_it_is_told_what_to_install(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmartifacts.versioning.team import open_team

    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtra) as caught:
        open_team("postgresql://nobody@127.0.0.1:1/x", url)
    assert caught.value.hint() == "pip install 'llmartifacts[s3]'"


def test_the_library_is_imported_by_who_opens_such_a_place_and_nobody_else() -> None:
    code = "import sys, llmartifacts.blobs.object_store, llmartifacts.versioning.team; print('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    texts = {path.name: path.read_text() for path in Path(object_store.__file__).parent.rglob("*.py")}
    found = [name for name, text in texts.items() if "import obstore" in text or "from obstore" in text]
    assert found == ["object_store.py"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NO FORK on this system")
def test_a_forked_child_is_told_so_and_does_not_wait_for_ever(url: str) -> None:
    code = f"""
import os, sys
from llmartifacts.blobs.object_store import ObjectStoreDriver
driver = ObjectStoreDriver({url!r})
driver.put_many([("a", b"1"), ("b", b"2")])
def another(): return ObjectStoreDriver({url!r})
for call in (lambda: driver.size("a"), lambda: another().size("a"), lambda: list(driver.get_each([("a", 0, 1)] * 2))):
    child = os.fork()
    if not child:
        try:
            call()
        except Exception as error:
            os._exit(7 if "forked" in str(error) else 8)
        os._exit(9)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "7\n" * 3


@pytest.fixture(autouse=True)
def _no_threads_are_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("llmartifacts-put")]


def test_keys_of_others_beside_its_own_are_passed_over(driver: ObjectStoreDriver, moto_server: Any) -> None:
    driver.put_if_absent("sha256/aa", b"1")
    other = moto_server.client()
    for name in ("UPPER", "sha256/.hidden", "sha256/with space"):
        other.put_object(Bucket=driver.place.bucket, Key=f"{driver.place.prefix}/{name}", Body=b"x")
    other.put_object(Bucket=driver.place.bucket, Key=f"{driver.place.prefix}0/sha256/bb", Body=b"x")
    assert list(driver.list()) == [("sha256/aa", 1)]
    assert isinstance(driver.get("sha256/aa"), io.BytesIO)
