"""Signing secrets in the database."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.ids import TenantId, WebhookEndpointId, new_id
from memoro_core.webhooks.secrets import SecretSeal, SecretUnreadable, new_secret

TENANT, ENDPOINT = TenantId(new_id()), WebhookEndpointId(new_id())
KEY = "a key of at least thirty-two characters"


def test_a_secret_is_what_the_specification_says() -> None:
    secret = new_secret()
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert new_secret() != secret


@pytest.mark.parametrize("key", [None, KEY])
@given(st.text(max_size=80))
def test_what_was_sealed_can_be_opened(key: str | None, secret: str) -> None:
    seal = SecretSeal(key)
    assert seal.open(TENANT, ENDPOINT, seal.seal(TENANT, ENDPOINT, secret)) == secret


def test_with_a_key_it_can_be_read_with_that_key_and_in_that_place_only() -> None:
    sealed = SecretSeal(KEY).seal(TENANT, ENDPOINT, "whsec_c2VjcmV0")
    assert b"c2VjcmV0" not in sealed
    assert sealed != SecretSeal(KEY).seal(TENANT, ENDPOINT, "whsec_c2VjcmV0")
    for seal, tenant, endpoint, data in (
        (SecretSeal(KEY + "!"), TENANT, ENDPOINT, sealed),
        (SecretSeal(None), TENANT, ENDPOINT, sealed),
        (SecretSeal(KEY), TenantId(new_id()), ENDPOINT, sealed),
        (SecretSeal(KEY), TENANT, WebhookEndpointId(new_id()), sealed),
        (SecretSeal(KEY), TENANT, ENDPOINT, sealed[:-1] + bytes([sealed[-1] ^ 1])),
    ):
        with pytest.raises(SecretUnreadable):
            seal.open(tenant, endpoint, data)


def test_what_was_stored_before_there_was_a_key_stays_readable() -> None:
    assert SecretSeal(KEY).open(TENANT, ENDPOINT, SecretSeal(None).seal(TENANT, ENDPOINT, "s")) == "s"
