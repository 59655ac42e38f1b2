"""Receivers on real ports, and deliverers over the test's own database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest
import pytest_asyncio

from memoro_core.jobs.model import JobRef
from memoro_core.outbound.sender import open_sender
from memoro_core.postgres.webhook_store import PostgresWebhookStore
from memoro_core.webhooks.backoff import DeliveryPolicy
from memoro_core.webhooks.delivery import WebhookDeliverer
from memoro_core.webhooks.model import Delivery, DeliveryFilter, DeliveryState, WebhookEndpoint, WebhookEventType
from memoro_core.webhooks.secrets import SecretSeal
from memoro_core.webhooks.service import WebhooksService
from tests.fakes.webhook_receiver import Receiver
from tests.support.clocks import MovingClock
from tests.support.domain import Domain
from tests.support.jobs import claim, new_job, now, succeeded

SEAL = SecretSeal("a key of at least thirty-two characters")


@dataclass
class Webhooks:
    """A tenant's webhooks, as callers and the worker have them."""

    domain: Domain
    store: PostgresWebhookStore
    service: WebhooksService
    clock: MovingClock

    async def endpoint(
        self, receiver: Receiver, *event_types: WebhookEventType, url: str | None = None
    ) -> WebhookEndpoint:
        """An endpoint whose secret the receiver knows."""
        made, secret = await self.service.create(self.domain.tenant, url or receiver.url, event_types, "")
        receiver.secrets.append(secret)
        return made

    async def ended_job(self) -> JobRef:
        """A job that has ended well, as a worker ends it."""
        ref = await new_job(self.domain)
        claimed = await claim(self.domain.run_store, ref)
        await self.domain.run_store.finish(claimed, succeeded(claimed), now=now())
        return ref

    async def endpoints(self) -> dict[object, WebhookEndpoint]:
        """The tenant's endpoints by id."""
        page = await self.service.list_endpoints(self.domain.tenant, size=50, position=None)
        return {endpoint.id: endpoint for endpoint in page.items}

    async def deliveries(self, endpoint: WebhookEndpoint | None = None) -> list[Delivery]:
        """What was sent and is to be sent, newest event first."""
        wanted = DeliveryFilter(endpoint_id=endpoint.id if endpoint else None)
        page = await self.service.list_deliveries(self.domain.tenant, wanted, size=500, position=None)
        return list(page.items)

    async def settled(self, state: DeliveryState, *, attempt: int = 1, seconds: float = 20.0) -> Delivery:
        """The one delivery, once an attempt of that number has left it in that state."""
        async with asyncio.timeout(seconds):
            while True:
                (one,) = await self.deliveries()
                if (one.state, one.attempt) == (state, attempt) and (one.response_status or one.error):
                    return one
                await asyncio.sleep(0.02)


@pytest.fixture
def webhooks(domain: Domain) -> Webhooks:
    store, clock = PostgresWebhookStore(domain.database), MovingClock()
    return Webhooks(domain, store, WebhooksService(store, SEAL, clock, allow_private=True), clock)


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as listening:
        yield listening


Delivering = Callable[..., AbstractAsyncContextManager[WebhookDeliverer]]


@pytest.fixture
def delivering(webhooks: Webhooks) -> Delivering:
    """Runs a deliverer while a block lasts."""

    @asynccontextmanager
    async def run(*, timeout: float = 10.0, seal: SecretSeal = SEAL) -> AsyncIterator[WebhookDeliverer]:
        async with open_sender(allow_private=True, timeout=timeout) as sender:
            deliverer = WebhookDeliverer(
                webhooks.store,
                sender,
                seal,
                webhooks.clock,
                DeliveryPolicy(lambda: 0.5),
                interval=0.05,
                retention=timedelta(days=7),
            )
            stop = asyncio.Event()
            running = asyncio.create_task(deliverer.run(stop, grace=0.2, told=lambda _: None))
            try:
                yield deliverer
            finally:
                stop.set()
                await running

    return run
