"""Somebody who signs tokens, with real keys, and publishes them over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from memoro_core.tenancy.tokens import TokenPolicy

ISSUER = "https://login.example.com"
AUDIENCE = "memoro"
ALGORITHMS = ("RS256", "ES256", "EdDSA")
POLICY = TokenPolicy(ISSUER, AUDIENCE, "memoro_tenant", "scope", ALGORITHMS)

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
KEYS: Mapping[str, Any] = {"RS256": RSA_KEY, "ES256": EC_KEY, "EdDSA": ED_KEY}


def public_jwk(key: Any, key_id: str | None = None, **more: Any) -> dict[str, Any]:
    """The public part of a private key."""
    kind: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    if isinstance(key, ed25519.Ed25519PrivateKey):
        kind = OKPAlgorithm
    jwk = dict(kind.to_jwk(key.public_key(), as_dict=True))
    jwk.pop("key_ops", None)
    return {**jwk, **({} if key_id is None else {"kid": key_id}), **more}


def key_set(*jwks: Mapping[str, Any]) -> bytes:
    """The document that holds them."""
    return json.dumps({"keys": list(jwks)}).encode()


def claims(tenant: str = "acme", **changes: Any) -> dict[str, Any]:
    """Good claims, but for the changes; None takes a claim away."""
    now = time.time()
    all_of_them = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "iat": int(now),
        "exp": int(now) + 300,
        "memoro_tenant": tenant,
        "scope": "read write",
    } | changes
    return {name: value for name, value in all_of_them.items() if value is not None}


def signed(
    payload: Mapping[str, Any], algorithm: str = "RS256", *, key: Any = None, key_id: str | None = None, **header: Any
) -> str:
    """A token; `key_id` None names the key after its algorithm."""
    headers = {"kid": algorithm if key_id is None else key_id, **header}
    return jwt.encode(dict(payload), key or KEYS[algorithm], algorithm=algorithm, headers=headers)


ALL_KEYS = key_set(*(public_jwk(key, algorithm) for algorithm, key in KEYS.items()))


class Issuer:
    """Answers with `document`, or however `respond` does, and counts how often it was asked."""

    def __init__(self) -> None:
        self.document = ALL_KEYS
        self.respond: Any = None
        self.asked = 0
        self.url = ""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.respond is not None:
            answer: web.StreamResponse = await self.respond(request)
            return answer
        return web.Response(body=self.document, content_type="application/json")


@asynccontextmanager
async def issuing() -> AsyncIterator[Issuer]:
    """An issuer on a port of this machine."""
    issuer = Issuer()
    application = web.Application()
    application.router.add_get("/{any:.*}", issuer._answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    issuer.url = f"http://{host}:{port}/jwks.json"
    try:
        yield issuer
    finally:
        await runner.cleanup()
