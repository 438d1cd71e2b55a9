"""Login with a provider: only its own, good tokens are taken, and nobody becomes somebody else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from llmartifacts import errors
from llmartifacts.client.fetch import Fetched
from llmartifacts.metadata import accounts as rows
from llmartifacts.records.rights import SERVICE, operator
from llmartifacts.server.oidc import Login
from llmartifacts.server.oidc_config import Providers
from llmartifacts.server.oidc_keys import AGAIN, RETRY, STALE, Keys
from llmartifacts.versioning.accounts import EmbeddedAccounts
from llmartifacts.versioning.embedded import EmbeddedBackend

sys.path.insert(0, str(Path(__file__).parent))
from login_providers import AUDIENCE, CI, CLIENT, CONFIG, CORP

NOW = 1_800_000_000.0
RSA, OTHER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))


class World:
    """Providers with their keys, a clock, and a registry that knows them."""

    def __init__(self, backend: EmbeddedBackend) -> None:
        self.now = NOW
        self.down = False
        self.asked: list[str] = []
        self.rsa, self.other = RSA, OTHER
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.ed = ed25519.Ed25519PrivateKey.generate()
        self.published = {
            CORP: [jwk(self.rsa, "r1"), jwk(self.ec, "e1"), jwk(self.ed, "d1")],
            CI: [jwk(self.other, "r1")],
        }
        self.backend = backend
        self.parts = backend.parts
        self.accounts = EmbeddedAccounts(backend.parts, operator("root"))
        self.login = self.open(CONFIG)

    def open(self, config: dict[str, Any]) -> Login:
        return Login(
            self.parts,
            Providers.model_validate(config),
            keys=lambda issuer: Keys(issuer, get=self.get, clock=lambda: self.now),
            clock=lambda: self.now,
        )

    def get(self, url: str, **_: Any) -> Fetched:
        self.asked.append(url)
        if self.down:
            raise errors.Unreachable("down")
        issuer = url.split("/.well-known")[0].removesuffix("/jwks")
        if url.endswith("/jwks"):
            return Fetched(200, {}, json.dumps({"keys": self.published[issuer]}).encode())
        return Fetched(200, {}, json.dumps({"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}).encode())

    def person(self, **changed: Any) -> dict[str, Any]:
        claims = {
            "iss": CORP,
            "aud": CLIENT,
            "sub": "u-1",
            "iat": self.now,
            "exp": self.now + 600,
            "preferred_username": "ann",
            "groups": ["staff", "ml-core"],
        }
        return {k: v for k, v in {**claims, **changed}.items() if v is not None}

    def job(self, **changed: Any) -> dict[str, Any]:
        claims = {
            "iss": CI,
            "aud": AUDIENCE,
            "sub": "repo:acme/agent",
            "iat": self.now,
            "exp": self.now + 300,
            "repository": "acme/agent",
            "ref": "refs/heads/main",
            "environment": "prod",
        }
        return {k: v for k, v in {**claims, **changed}.items() if v is not None}

    def sign(self, claims: dict[str, Any], key: Any = None, alg: str = "RS256", **header: Any) -> str:
        key = key or (self.other if claims.get("iss") == CI else self.rsa)
        return jwt.encode(claims, key, algorithm=alg, headers={"kid": "r1", **header})

    def exchange(self, claims: dict[str, Any], **more: Any) -> Any:
        return self.login.exchange(self.sign(claims, **more))


def jwk(key: Any, kid: str, **changed: Any) -> dict[str, Any]:
    kinds: dict[Any, Any] = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    algorithm = next(made for kind, made in kinds.items() if isinstance(key, kind))
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig", **changed}


def b64(data: bytes | str) -> str:
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else data.encode()).rstrip(b"=").decode()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    backend = EmbeddedBackend.create(tmp_path / "registry", actor="tests")
    made = World(backend)
    made.accounts.create_account("root")
    made.accounts.create_account("ci-agent", SERVICE)
    made.accounts.create_account("partners", "team")
    made.accounts.grant("ci-agent", "writer", project="default")
    yield made
    backend.close()


# --- what is taken


def test_a_person_gets_an_account_of_their_own_and_the_same_one_again(world: World) -> None:
    made = world.exchange(world.person())
    assert (made.info.account, made.info.label) == ("ann", "corp")
    assert round((made.info.expires_at - made.info.created_at).total_seconds()) == 12 * 3600
    again = world.exchange(world.person(preferred_username="renamed", email="new@example.com"))
    assert again.info.account == "ann"
    assert again.text != made.text
    assert [a.name for a in world.accounts.accounts(kind="user")] == ["ann", "root"]


def test_a_workload_gets_a_short_and_narrow_token_of_its_service(world: World) -> None:
    made = world.exchange(world.job())
    assert made.info.account == "ci-agent"
    assert made.info.scope.projects == ("default",)
    assert round((made.info.expires_at - made.info.created_at).total_seconds()) == 1800


@pytest.mark.parametrize(("alg", "kid"), [("RS256", "r1"), ("PS256", "r1"), ("ES256", "e1"), ("EdDSA", "d1")])
def test_good_signatures_of_every_sort_are_taken(alg: str, kid: str, world: World) -> None:
    key = {"r1": world.rsa, "e1": world.ec, "d1": world.ed}[kid]
    assert world.exchange(world.person(), key=key, alg=alg, kid=kid).info.account == "ann"


def test_clocks_may_differ_by_a_minute(world: World) -> None:
    world.exchange(world.person(exp=world.now - 50))
    world.exchange(world.person(iat=world.now + 50, nbf=world.now + 50))


def test_new_people_come_into_their_teams(world: World) -> None:
    claims = world.person(groups=[], email="eve@partner.example", email_verified=True)
    assert world.exchange(claims).info.account == "eve-partner.example"
    assert world.accounts.account("partners").members == ("eve-partner.example",)


def test_the_change_is_in_the_audit_and_the_link_too(world: World) -> None:
    world.exchange(world.person())
    with world.parts.metadata.reading() as s:
        linked = rows.find_link(s, CORP, "u-1")
    assert linked is not None
    assert linked.name == "ann"
    verbs = [entry["verb"] for entry in world.backend.audit()]
    assert verbs[-3:] == ["account-create", "account-link", "token-create"]


# --- signatures and keys


def test_an_unsigned_token_is_refused(world: World) -> None:
    claims = b64(json.dumps(world.person()))
    for alg in ("none", "None", "NONE", "nOnE", ""):
        header = b64(json.dumps({"alg": alg, "kid": "r1"}))
        for token in (f"{header}.{claims}.", f"{header}.{claims}.AAAA", f"{header}.{claims}"):
            with pytest.raises(errors.NotAllowed):
                world.login.exchange(token)


def test_a_public_key_is_no_shared_secret(world: World) -> None:
    public = world.rsa.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for alg, digest in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
        head = b64(json.dumps({"alg": alg, "kid": "r1"})) + "." + b64(json.dumps(world.person()))
        signed = f"{head}.{b64(hmac.new(public, head.encode(), digest).digest())}"
        with pytest.raises(errors.NotAllowed, match="signed in a way"):
            world.login.exchange(signed)


def test_a_shared_secret_in_the_keys_is_never_used(world: World) -> None:
    world.published[CORP] = [{"kty": "oct", "kid": "r1", "k": b64(b"s" * 32)}]
    head = b64(json.dumps({"alg": "RS256", "kid": "r1"})) + "." + b64(json.dumps(world.person()))
    with pytest.raises(errors.NotAllowed):
        world.login.exchange(f"{head}.{b64(hmac.new(b's' * 32, head.encode(), hashlib.sha256).digest())}")
    with pytest.raises(errors.NotAllowed):
        world.exchange(world.person(), key=b"s" * 32, alg="HS256")


@pytest.mark.parametrize("header", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_that_the_token_brings_is_not_looked_at(header: str, world: World) -> None:
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    brought: dict[str, Any] = {
        "jwk": jwk(own, "r1"),
        "jku": "https://evil.example/jwks",
        "x5u": "https://evil.example/cert",
        "x5c": ["MIIB"],
    }
    for kid in ("r1", "mine"):
        with pytest.raises(errors.NotAllowed):
            world.exchange(world.person(), key=own, kid=kid, **{header: brought[header]})
    assert not [url for url in world.asked if "evil" in url]


@pytest.mark.parametrize("kid", ["../../etc/passwd", "r1' or '1'='1", "", "x" * 600, "e1", 7, None, ["r1"], "R1"])
def test_a_key_id_is_compared_and_nothing_else(kid: Any, world: World) -> None:
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    header = {"alg": "RS256", "typ": "JWT", "kid": kid}
    head = f"{b64(json.dumps(header))}.{b64(json.dumps(world.person()))}"
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(head.encode(), own)
    with pytest.raises(errors.NotAllowed):
        world.login.exchange(f"{head}.{b64(signature)}")


def test_the_key_of_another_issuer_is_no_key_of_this_one(world: World) -> None:
    with pytest.raises(errors.NotAllowed, match="signature"):
        world.exchange(world.person(), key=world.other)
    with pytest.raises(errors.NotAllowed, match="signature"):
        world.exchange(world.job(), key=world.rsa)


def test_a_key_for_something_else_is_not_used(world: World) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    for key, published in (
        (world.rsa, jwk(world.rsa, "r1", use="enc")),
        (world.rsa, jwk(world.rsa, "r1", alg="RS512")),
        (world.rsa, {**jwk(world.rsa, "r1"), "key_ops": ["encrypt"]}),
        (weak, jwk(weak, "r1")),
        (world.rsa, {"kty": "RSA", "kid": "r1", "n": "AQAB"}),
        (world.rsa, {"kty": "RSA", "kid": "r1", "n": 7, "e": []}),
    ):
        world.published[CORP], world.now = [published], world.now + 2 * AGAIN
        world.login = world.open(CONFIG)
        with pytest.warns(Warning, match="bits") if key is weak else _quiet(), pytest.raises(errors.NotAllowed):
            world.exchange(world.person(), key=key)


def _quiet() -> Any:
    import contextlib

    return contextlib.nullcontext()


def test_two_keys_of_one_id_are_none(world: World) -> None:
    world.published[CORP] = [jwk(world.rsa, "r1"), jwk(world.other, "r1")]
    with pytest.raises(errors.NotAllowed, match="publish"):
        world.exchange(world.person())


def test_a_changed_token_is_refused(world: World) -> None:
    head, body, signature = world.sign(world.person()).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = b64(json.dumps({**claims, "sub": "boss-1"}))
    for token in (f"{head}.{forged}.{signature}", f"{head}.{body}.{b64(b'x' * 256)}", f"{head}.{body}.{signature}A"):
        with pytest.raises(errors.NotAllowed):
            world.login.exchange(token)


# --- claims


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://login.example.com/"},
        {"iss": "https://evil.example"},
        {"iss": "http://login.example.com"},
        {"iss": None},
        {"iss": [CORP]},
        {"aud": "other"},
        {"aud": None},
        {"aud": []},
        {"aud": ["other"]},
        {"aud": {"llmartifacts": 1}},
        {"aud": [CLIENT, "other"]},
        {"aud": [CLIENT, "other"], "azp": "other"},
        {"azp": "other"},
        {"azp": ""},
        {"exp": NOW - 100},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": 2**60},
        {"exp": NOW + 400 * 86_400},
        {"iat": NOW + 100},
        {"iat": None},
        {"iat": NOW - 3600},
        {"nbf": NOW + 100},
        {"nbf": "soon"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 300},
        {"sub": "a\nb"},
        {"groups": ["staff"]},
        {"groups": None},
        {"groups": {"ml-core": True}},
        {"groups": [["ml-core"]]},
    ],
)
def test_a_token_that_is_not_for_here_and_now_is_refused(changed: dict[str, Any], world: World) -> None:
    claims = world.person(**changed)
    # Signed by hand: the library refuses to make most of these.
    head = f"{b64(json.dumps({'alg': 'RS256', 'kid': 'r1'}))}.{b64(json.dumps(claims))}"
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(head.encode(), world.rsa)
    with pytest.raises(errors.NotAllowed):
        world.login.exchange(f"{head}.{b64(signature)}")
    assert [a.name for a in world.accounts.accounts(kind="user")] == ["root"]


@pytest.mark.parametrize(
    "changed",
    [
        {"repository": "acme/agent-fork"},
        {"repository": "evil/acme/agent"},
        {"repository": "ACME/agent"},
        {"repository": None},
        {"repository": ["acme/other"]},
        {"ref": "refs/heads/main2"},
        {"ref": "refs/pull/1/merge"},
        {"environment": "dev"},
        {"environment": True},
        {"aud": [AUDIENCE, "other"]},
        {"aud": CLIENT},
    ],
)
def test_a_job_of_another_repository_branch_or_audience_is_refused(changed: dict[str, Any], world: World) -> None:
    with pytest.raises(errors.NotAllowed):
        world.exchange(world.job(**changed))


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "groups"])
def test_a_claim_that_comes_twice_is_refused(name: str, world: World) -> None:
    body = json.dumps(world.person())[:-1] + f', "{name}": "boss-1"}}'
    head = f"{b64(json.dumps({'alg': 'RS256', 'kid': 'r1'}))}.{b64(body)}"
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(head.encode(), world.rsa)
    with pytest.raises(errors.NotAllowed, match="cannot be read"):
        world.login.exchange(f"{head}.{b64(signature)}")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "a.b.c.d",
        "e30.e30.e30",
        "x" * 20_000,
        f"{b64(json.dumps({'alg': 'RS256'}))}.{b64('[' * 10_000)}.x",
        f"{b64('[]')}.{b64('{}')}.x",
        f"{b64(json.dumps({'alg': 'RS256'}))}.{b64(b'{}')}.x y",
        f"{b64(json.dumps({'alg': ['RS256'], 'kid': {}}))}.{b64(json.dumps({'iss': CORP}))}.x",
        f"{b64(json.dumps({'alg': 'RS256', 'typ': ['JWT']}))}.{b64(json.dumps({'iss': CORP}))}.x",
    ],
)
def test_what_is_no_token_is_refused(token: str, world: World) -> None:
    with pytest.raises(errors.NotAllowed):
        world.login.exchange(token)


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"typ": "at+jwt"}, {"typ": "logout+jwt"}])
def test_a_token_of_another_sort_is_refused(header: dict[str, Any], world: World) -> None:
    with pytest.raises(errors.NotAllowed, match="no ID token"):
        world.login.exchange(world.sign(world.person(), **header))


# --- who one becomes


def test_a_name_that_is_taken_is_not_taken_over(world: World) -> None:
    for name in ("root", "ci-agent", "partners", "ROOT", "Ci-Agent"):
        with pytest.raises(errors.NotAllowed, match="taken"):
            world.exchange(world.person(preferred_username=name))
    with world.parts.metadata.reading() as s:
        assert rows.find_link(s, CORP, "u-1") is None  # nothing is kept of what was refused


def test_another_subject_with_the_same_name_and_address_is_another_person(world: World) -> None:
    world.exchange(world.person(email="ann@example.com", email_verified=True))
    with pytest.raises(errors.NotAllowed, match="taken"):
        world.exchange(world.person(sub="u-2", email="ann@example.com", email_verified=True))


def test_the_same_subject_of_another_issuer_is_another_one(world: World) -> None:
    world.exchange(world.person())
    with pytest.raises(errors.NotAllowed):
        world.exchange(world.job(sub="u-1", repository=None))


@pytest.mark.parametrize("verified", [None, False, "true", 1])
def test_an_address_that_is_not_verified_opens_nothing(verified: Any, world: World) -> None:
    with pytest.raises(errors.NotAllowed):
        world.exchange(world.person(groups=[], email="eve@partner.example", email_verified=verified))


def test_a_person_is_named_to_an_account_by_their_full_subject_only(world: World) -> None:
    assert world.exchange(world.person(sub="boss-1")).info.account == "root"
    with pytest.raises(errors.NotAllowed, match="one subject"):
        world.exchange(world.person(sub="u-9", groups=[], role="impostor"))
    with pytest.raises(errors.NotAllowed):
        world.exchange(world.person(sub="boss-10", groups=[]))


def test_a_disabled_account_stays_out(world: World) -> None:
    world.exchange(world.person())
    world.accounts.disable_account("ann")
    with pytest.raises(errors.NotAllowed, match="disabled"):
        world.exchange(world.person())


def test_who_no_longer_matches_a_rule_gets_no_more_tokens(world: World) -> None:
    world.exchange(world.person())
    with pytest.raises(errors.NotAllowed, match="no rule"):
        world.exchange(world.person(groups=["staff"]))


@pytest.mark.parametrize("name", ["", "   ", "---", 7, None, ["ann"], "sha256", "ü"])
def test_a_claim_that_gives_no_name_makes_no_account(name: Any, world: World) -> None:
    with pytest.raises(errors.NotAllowed, match="gives no name"):
        world.exchange(world.person(preferred_username=name))


# --- the provider


def test_keys_that_cannot_be_had_are_a_typed_error_and_come_back(world: World) -> None:
    world.down = True
    with pytest.raises(errors.Unreachable, match="keys"):
        world.exchange(world.person())
    asked = len(world.asked)
    with pytest.raises(errors.Unreachable):
        world.exchange(world.person())
    assert len(world.asked) == asked  # not again at once
    world.down, world.now = False, world.now + RETRY
    assert world.exchange(world.person()).info.account == "ann"


def test_a_provider_that_is_down_is_not_missed_while_its_keys_are_known(world: World) -> None:
    world.exchange(world.person())
    world.down, world.now = True, world.now + STALE - 1
    world.exchange(world.person())
    world.now += 2
    with pytest.raises(errors.Unreachable):
        world.exchange(world.person())


def test_a_new_key_is_found_and_unknown_ones_are_asked_for_twice_a_minute_at_most(world: World) -> None:
    world.exchange(world.person())
    world.published[CORP].append(jwk(world.other, "r2"))
    asked = len(world.asked)
    for _ in range(20):
        with pytest.raises(errors.NotAllowed, match="publish"):
            world.exchange(world.person(), key=world.other, kid="r2")
    assert len(world.asked) == asked
    world.now += AGAIN
    assert world.exchange(world.person(), key=world.other, kid="r2").info.account == "ann"
    assert len(world.asked) == asked + 2


def test_a_key_that_is_taken_back_is_no_longer_good_within_the_hour(world: World) -> None:
    world.exchange(world.person())
    world.published[CORP] = [jwk(world.other, "r2")]
    world.now += 3601
    with pytest.raises(errors.NotAllowed, match="publish"):
        world.exchange(world.person())


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://evil.example", "jwks_uri": f"{CORP}/jwks"},
        {"issuer": CORP, "jwks_uri": "http://login.example.com/jwks"},
        {"issuer": CORP, "jwks_uri": "http://127.0.0.1/jwks"},
        {"issuer": CORP, "jwks_uri": "file:///etc/passwd"},
        {"issuer": CORP, "jwks_uri": "https://a@b/jwks"},
        {"issuer": CORP, "jwks_uri": 7},
        {"issuer": CORP},
        [],
    ],
)
def test_a_discovery_document_that_lies_gives_no_keys(said: Any, world: World) -> None:
    keys = Keys(CORP, get=lambda url, **_: Fetched(200, {}, json.dumps(said).encode()))
    with pytest.raises(errors.Unreachable):
        keys.find("r1", "RS256")


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"keys": 7}', b'{"keys": [], "keys": []}', b'{"keys": [%s]}' % (b"{}," * 200 + b"{}")]
)
def test_keys_that_cannot_be_read_are_none(body: bytes, world: World) -> None:
    found = json.dumps({"issuer": CORP, "jwks_uri": f"{CORP}/jwks"}).encode()
    keys = Keys(CORP, get=lambda url, **_: Fetched(200, {}, body if url.endswith("/jwks") else found))
    with pytest.raises(errors.Unreachable):
        keys.find("r1", "RS256")


def test_a_redirect_of_a_provider_is_not_followed_and_a_slow_one_not_waited_for(http: Any) -> None:
    other = http.serve(http.answer())
    server = http.serve(http.answer(302, b"", Location=other.url))
    with pytest.raises(errors.Unreachable, match="302"):
        Keys(server.url).find("r1", "RS256")
    assert other.requests == []
