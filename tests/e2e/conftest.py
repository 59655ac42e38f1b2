"""One deployment, as `memoro dev` starts it, for all tests that only use it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from memoro import Client
from tests.support.dev import Dev, running_dev

FEE = 1_000
"""What an operation of a local model costs in the deployment `priced_dev`, in micro-credits a text."""


@pytest.fixture(scope="session")
def dev() -> Iterator[Dev]:
    """A running deployment. Not for killing."""
    with running_dev() as running:
        yield running


@pytest.fixture(scope="session")
def priced_dev() -> Iterator[Dev]:
    """A deployment of its own whose models are not free, so that its tenants need credits. Not for killing."""
    with running_dev() as running:
        with Client(running.endpoint, api_key=running.admin_key) as operator:
            for price in operator.billing.prices(provider="local").prices:
                operator.admin.set_price(
                    price.provider, price.model, price.operation, input_price=20_000, output_price=60_000, fee=FEE
                )
        # By then every process knows.
        time.sleep(2)
        yield running
