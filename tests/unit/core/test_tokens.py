"""Which tokens are good, and what they say."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.clock import SystemClock
from memoro_core.errors import Code, MemoroError
from memoro_core.ids import new_id
from memoro_core.tenancy.key_set import KeySet, unreachable
from memoro_core.tenancy.model import Scope
from memoro_core.tenancy.tokens import MAX_TOKEN_LENGTH, Token, TokenPolicy, TokenVerifier
from tests.support.issuer import (
    ALGORITHMS,
    ALL_KEYS,
    AUDIENCE,
    ED_KEY,
    ISSUER,
    POLICY,
    RSA_KEY,
    claims,
    key_set,
    public_jwk,
    signed,
)


def fetching(document: bytes) -> Callable[[], Awaitable[bytes]]:
    async def fetch() -> bytes:
        return document

    return fetch


def verifier(document: bytes = ALL_KEYS, policy: TokenPolicy = POLICY) -> TokenVerifier:
    return TokenVerifier(policy, KeySet(fetching(document), policy.algorithms), SystemClock())


async def verified(text: str, **more: Any) -> Token | None:
    return await verifier(**more).verify(text)


def segment(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_good_token_names_its_tenant_and_scopes(algorithm: str) -> None:
    token = await verified(signed(claims(), algorithm))
    assert token is not None
    assert (token.subject, token.tenant, token.scopes) == ("alice", "acme", frozenset({Scope.READ, Scope.WRITE}))
    assert timedelta(seconds=320) < token.until - SystemClock().now() < timedelta(seconds=335)


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        (None, set()),
        ("", set()),
        ("read", {Scope.READ}),
        ("openid memoro:read  memoro:admin read", {Scope.READ, Scope.ADMIN}),
        (["write", "memoro:jobs", "reads", 7, None], {Scope.WRITE, Scope.JOBS}),
        (7, set()),
        ({"read": True}, set()),
        ("READ memoro:memoro:read", set()),
    ],
)
async def test_known_scopes_count_with_and_without_the_prefix(scope: object, scopes: set[Scope]) -> None:
    token = await verified(signed(claims(scope=scope)))
    assert token is not None
    assert token.scopes == scopes


async def test_a_tenant_is_named_by_id_or_name() -> None:
    tenant_id = new_id()
    token = await verified(signed(claims(str(tenant_id))))
    assert token is not None
    assert token.tenant == tenant_id
    other = TokenPolicy(ISSUER, AUDIENCE, "org", "permissions", ALGORITHMS)
    token = await verified(signed(claims(org="shop", permissions=["jobs"])), policy=other)
    assert token is not None
    assert (token.tenant, token.scopes) == ("shop", frozenset({Scope.JOBS}))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example.com"},
        {"iss": [ISSUER]},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"aud": ["another", 7]},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"sub": "ali\x00ce"},
        {"exp": None},
        {"exp": timedelta(seconds=-31)},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"nbf": timedelta(seconds=90)},
        {"iat": timedelta(seconds=90)},
        {"memoro_tenant": None},
        {"memoro_tenant": ""},
        {"memoro_tenant": "A Name"},
        {"memoro_tenant": "acme\x00"},
        {"memoro_tenant": ["acme"]},
        {"memoro_tenant": 7},
    ],
    ids=repr,
)
async def test_a_claim_that_is_wrong_or_missing_spoils_a_token(changes: dict[str, Any]) -> None:
    now = int(time.time())
    assert await verified(signed(claims() | {"nbf": now})) is not None
    wrong = {
        name: now + int(value.total_seconds()) if isinstance(value, timedelta) else value
        for name, value in (claims() | changes).items()
        if value is not None
    }
    # As text, because the library would not sign some of it.
    signing_input = f"{segment({'alg': 'EdDSA', 'kid': 'EdDSA'})}.{segment(wrong)}"
    assert await verified(f"{signing_input}.{segment(ED_KEY.sign(signing_input.encode()))}") is None


async def test_clocks_may_differ_by_thirty_seconds_and_an_audience_may_be_one_of_several() -> None:
    now = int(time.time())
    assert await verified(signed(claims(exp=now - 20, nbf=now + 20, iat=now + 20, aud=["other", AUDIENCE]))) is not None
    far = await verified(signed(claims(exp=10**15)))
    assert far is not None
    assert far.until - SystemClock().now() < timedelta(days=2)


async def test_a_public_key_is_no_shared_secret() -> None:
    public = RSA_KEY.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    for algorithm, digest in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
        for secret in (pem, pem.strip(), der, json.dumps(public_jwk(RSA_KEY, "RS256")).encode(), b""):
            for key_id in ("RS256", "HS256"):
                signing_input = f"{segment({'alg': algorithm, 'kid': key_id, 'typ': 'JWT'})}.{segment(claims())}"
                signature = hmac.new(secret, signing_input.encode(), digest).digest()
                assert await verified(f"{signing_input}.{segment(signature)}") is None


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, 7, ["RS256"], {"a": 1}])
async def test_a_token_without_a_signature_is_none(algorithm: object) -> None:
    for header in ({"alg": algorithm, "kid": "RS256"}, {"alg": algorithm}):
        assert await verified(f"{segment(header)}.{segment(claims())}.") is None


async def test_a_key_is_used_only_with_the_algorithm_that_it_is_for() -> None:
    wide = TokenPolicy(ISSUER, AUDIENCE, "memoro_tenant", "scope", ("RS256", "RS512", "PS256"))
    token = jwt.encode(claims(), RSA_KEY, algorithm="RS512", headers={"kid": "k"})
    assert await verified(token, document=key_set(public_jwk(RSA_KEY, "k")), policy=wide) is not None
    assert await verified(token, document=key_set(public_jwk(RSA_KEY, "k", alg="RS256")), policy=wide) is None
    assert await verified(token, document=key_set(public_jwk(RSA_KEY, "k"))) is None
    # The token of one key under the id of another.
    assert await verified(signed(claims(), "ES256", key_id="RS256")) is None
    p384 = ec.generate_private_key(ec.SECP384R1())
    of_p384 = signed(claims(), "ES384", key=p384, key_id="p")
    assert await verified(of_p384, document=key_set(public_jwk(p384, "p"))) is None


@pytest.mark.parametrize("more", [{"use": "enc"}, {"key_ops": ["encrypt"]}, {"key_ops": "verify"}, {"alg": "RS512"}])
async def test_a_key_for_something_else_verifies_nothing(more: dict[str, Any]) -> None:
    assert await verified(signed(claims(), key_id="k"), document=key_set(public_jwk(RSA_KEY, "k"))) is not None
    assert await verified(signed(claims(), key_id="k"), document=key_set(public_jwk(RSA_KEY, "k", **more))) is None


async def test_a_short_key_verifies_nothing() -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = signed(claims(), key=short, key_id="k")
    assert await verified(token, document=key_set(public_jwk(short, "k"))) is None


async def test_a_token_without_a_key_id_needs_the_only_key_there_is() -> None:
    token = jwt.encode(claims(), RSA_KEY, algorithm="RS256")
    assert await verified(token) is not None
    assert await verified(token, document=key_set(public_jwk(RSA_KEY))) is not None
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert await verified(token, document=key_set(public_jwk(RSA_KEY, "a"), public_jwk(other, "b"))) is None
    # A key without an id is found by none.
    for key_id in ("0", "\x000", "None"):
        assert await verified(signed(claims(), key_id=key_id), document=key_set(public_jwk(RSA_KEY))) is None


async def test_a_changed_token_is_none() -> None:
    header, payload, signature = signed(claims()).split(".")
    other = segment(claims("other"))
    for text in (
        f"{header}.{other}.{signature}",
        f"{header}.{payload}.{segment(b'x' * 256)}",
        f"{header}.{payload}.",
        f"{header}.{payload}",
        f"{header}.{payload}.{signature}.{signature}",
        f"{segment({'alg': 'RS256', 'kid': 'RS256', 'crit': ['x'], 'x': 1})}.{payload}.{signature}",
        f"{header}.{payload}.{signature}\n",
    ):
        assert await verified(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "é.é.é",
        "\ud800.a.b",
        "a" * MAX_TOKEN_LENGTH,
        f"{segment(b'[' * 6000)}.e30.",
        segment(b'{"alg":' + b"[" * 5000) + ".e30.",
        f"{segment([])}.{segment({})}.x",
        f"{segment({'alg': 'RS256', 'kid': 7})}.{segment({})}.x",
        segment(b'{"alg":"RS256","kid":"RS256","n":' + b"9" * 5000 + b"}") + ".e30.",
    ],
    ids=range(12),
)
async def test_garbage_is_none(text: str) -> None:
    assert await verified(text) is None


@given(st.text(max_size=200) | st.lists(st.binary(max_size=60).map(segment), min_size=3, max_size=3).map(".".join))
async def test_no_text_is_an_error(text: str) -> None:
    assert await verified(text) is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "memoro_tenant", "scope"]), _json)
async def test_no_claim_of_a_signed_token_is_an_error(name: str, value: Any) -> None:
    signing_input = f"{segment({'alg': 'EdDSA', 'kid': 'EdDSA'})}.{segment(claims() | {name: value})}"
    token = await verified(f"{signing_input}.{segment(ED_KEY.sign(signing_input.encode()))}")
    assert token is None or token.subject.isprintable()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"keys": {}}',
        b'{"keys": ' + b"[" * 5000,
        json.dumps({"keys": [{}] * 101}).encode(),
    ],
    ids=range(7),
)
async def test_what_is_no_key_set_is_as_good_as_none(document: bytes) -> None:
    with pytest.raises(MemoroError) as caught:
        await verified(signed(claims()), document=document)
    assert caught.value.code is Code.UNAVAILABLE


async def test_what_is_no_key_among_keys_is_passed_over() -> None:
    secret = {"kty": "oct", "k": segment(b"x" * 32), "kid": "RS256", "alg": "RS256"}
    junk: Sequence[object] = (
        secret,
        {},
        {"kty": 7},
        {"kty": "RSA", "kid": "RS256"},
        {"kty": "EC", "crv": "P-1", "kid": "RS256"},
    )
    document = json.dumps({"keys": ["x", None, *junk, public_jwk(RSA_KEY, "RS256")]}).encode()
    assert await verified(signed(claims()), document=document) is not None


class Times:
    """Keys that can be changed and taken away; counts how often they are asked for."""

    def __init__(self, document: bytes) -> None:
        self.document: bytes | None = document
        self.asked = 0

    async def __call__(self) -> bytes:
        self.asked += 1
        if self.document is None:
            raise unreachable()
        return self.document


async def test_an_unknown_key_id_asks_again_but_not_for_ever() -> None:
    source = Times(key_set(public_jwk(RSA_KEY, "a")))
    keys = KeySet(source, ALGORITHMS, min_interval=0.2)
    assert await keys.find("a", "RS256") is not None
    assert [await keys.find(f"x{n}", "RS256") for n in range(50)] == [None] * 50
    assert source.asked == 1
    source.document = key_set(public_jwk(RSA_KEY, "b"))
    await _passes(0.25)
    assert await keys.find("b", "RS256") is not None
    assert source.asked == 2
    assert await keys.find("a", "RS256") is None


async def test_known_keys_go_on_while_they_can_not_be_fetched() -> None:
    source = Times(key_set(public_jwk(RSA_KEY, "a")))
    keys = KeySet(source, ALGORITHMS, min_interval=0.01, max_age=0.01)
    await keys.load()
    source.document = None
    await _passes(0.05)
    for _ in range(3):
        assert await keys.find("a", "RS256") is not None
        await _passes(0.02)
    assert source.asked > 1
    with pytest.raises(MemoroError) as caught:
        await keys.find("b", "RS256")
    assert caught.value.code is Code.UNAVAILABLE
    source.document = key_set(public_jwk(RSA_KEY, "b"))
    await _passes(0.02)
    assert await keys.find("b", "RS256") is not None
    await keys.close()


async def test_a_key_that_was_taken_back_ends_with_the_next_fetch() -> None:
    source = Times(key_set(public_jwk(RSA_KEY, "a"), public_jwk(ED_KEY, "b")))
    keys = KeySet(source, ALGORITHMS, min_interval=0.01, max_age=0.05)
    await keys.load()
    source.document = key_set(public_jwk(ED_KEY, "b"))
    await _passes(0.1)
    await keys.find("a", "RS256")
    await _passes(0.05)
    assert await keys.find("a", "RS256") is None
    assert await keys.find("b", "EdDSA") is not None


async def _passes(seconds: float) -> None:
    await asyncio.sleep(seconds)
