"""Working off what is to be delivered: claims, signs, sends and settles, in every worker process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from standardwebhooks.webhooks import Webhook

from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.ids import WebhookEndpointId
from memoro_core.tasks import end_task
from memoro_core.tracing import trace_headers, trace_id_of
from memoro_core.webhooks.backoff import DeliveryPolicy
from memoro_core.webhooks.events import webhook_disabled
from memoro_core.webhooks.model import DeliveryClaim, DeliveryState, Outcome
from memoro_core.webhooks.ports import DeliveryStore, WebhookSender
from memoro_core.webhooks.secrets import SecretSeal, SecretUnreadable

LEASE: Final = timedelta(seconds=30)
"""After which an attempt counts as lost; longer than a send may take."""
_BREATH: Final = 0.02
_PRUNE_EVERY: Final = timedelta(minutes=10)
_PRUNE_BATCH: Final = 5000
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lane:
    """Room for attempts of one kind of endpoint: so many in all, and so many of each endpoint."""

    failing: bool
    slots: int
    per_endpoint: int


LANES: Final = (Lane(failing=False, slots=48, per_endpoint=8), Lane(failing=True, slots=16, per_endpoint=1))
"""Endpoints that fail have a lane of their own: however many they are, they take no room from the others."""


class WebhookDeliverer:
    """Delivers, at least once, what is due. Any number of processes may do so beside each other.

    `interval` seconds pass between looks for what is due; what has ended is kept for `retention`.
    """

    def __init__(
        self,
        store: DeliveryStore,
        sender: WebhookSender,
        seal: SecretSeal,
        clock: Clock,
        policy: DeliveryPolicy,
        *,
        interval: float,
        retention: timedelta,
    ) -> None:
        self._store = store
        self._sender = sender
        self._seal = seal
        self._clock = clock
        self._policy = policy
        self._interval = interval
        self._retention = retention
        self._running: dict[asyncio.Task[None], tuple[Lane, WebhookEndpointId]] = {}
        self._ended = asyncio.Event()
        self._prune_at: datetime | None = None

    @property
    def running(self) -> int:
        """Attempts under way."""
        return len(self._running)

    async def run(self, stop: asyncio.Event, *, grace: float, told: Callable[[DeliveryState], None]) -> None:
        """Delivers until `stop` is set, then gives attempts under way `grace` seconds; cut off, they are made again.

        `told` hears the state that each attempt leaves its delivery in.
        """
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._ended.clear()
                await self._round(told)
                await self._pause(stopping)
            if self._running:
                await asyncio.wait(self._running, timeout=grace)
        finally:
            await end_task(stopping)
            for task in list(self._running):
                await end_task(task)

    async def _pause(self, stopping: asyncio.Task[object]) -> None:
        """Until an attempt ends and so makes room, something may be due, or it is time to stop."""
        ended = asyncio.create_task(self._ended.wait())
        await asyncio.wait({ended, stopping}, timeout=self._interval, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            # Attempts that end together make room together.
            await asyncio.wait({stopping}, timeout=_BREATH)
        await end_task(ended)

    async def _round(self, told: Callable[[DeliveryState], None]) -> None:
        try:
            for lane in LANES:
                await self._fill(lane, told)
            await self._prune()
        except MemoroError as error:
            _log.warning("deliveries_not_claimed", reason=error.message)
        except Exception:  # noqa: BLE001 - a round that fails must not be the last
            _log.exception("deliveries_not_claimed")

    async def _fill(self, lane: Lane, told: Callable[[DeliveryState], None]) -> None:
        room = lane.slots - sum(other is lane for other, _ in self._running.values())
        if room <= 0:
            return
        now = self._clock.now()
        claims = await self._store.claim(
            failing=lane.failing,
            running=Counter(endpoint_id for _, endpoint_id in self._running.values()),
            per_endpoint=lane.per_endpoint,
            limit=room,
            now=now,
            lease_until=now + LEASE,
        )
        for claim in claims:
            task = asyncio.create_task(self._attempt(claim, told))
            self._running[task] = (lane, claim.endpoint_id)
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._ended.set()

    async def _attempt(self, claim: DeliveryClaim, told: Callable[[DeliveryState], None]) -> None:
        log = _log.bind(event_id=str(claim.event_id), endpoint_id=str(claim.endpoint_id), attempt=claim.attempt)
        if trace_id := trace_id_of(claim.trace_parent):
            log = log.bind(trace_id=trace_id)
        try:
            outcome = await self._send(claim)
            now = self._clock.now()
            verdict = self._policy.judge(claim, outcome, now)
            disabled = webhook_disabled(claim.endpoint_id, claim.url, outcome.error, now) if verdict.disable else None
            held = await self._store.settle(claim, outcome, verdict, disabled, now=now)
        except MemoroError as error:
            # Its lease runs out, and it is made again.
            log.warning("delivery_not_settled", reason=error.message)
            return
        except Exception:
            log.exception("delivery_not_settled")
            return
        told(verdict.state)
        # Never the URL: its path may be a secret.
        level = log.info if outcome.error else log.debug
        level("delivery", state=str(verdict.state), status=outcome.status, error=outcome.error, held=held)
        if verdict.disable:
            log.warning("webhook_disabled")

    async def _send(self, claim: DeliveryClaim) -> Outcome:
        now = self._clock.now()
        try:
            signatures = self._signatures(claim, now)
        except SecretUnreadable:
            return Outcome(error="the secret was sealed with another key; rotate it")
        headers = {
            "content-type": "application/json",
            "webhook-id": str(claim.event_id),
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signatures,
            **trace_headers(claim.trace_parent),
        }
        return await self._sender.post(claim.url, headers, claim.payload.encode())

    def _signatures(self, claim: DeliveryClaim, now: datetime) -> str:
        present, *previous = claim.sealed_secrets
        secrets = [self._seal.open(claim.tenant_id, claim.endpoint_id, present)]
        for sealed in previous:
            try:
                secrets.append(self._seal.open(claim.tenant_id, claim.endpoint_id, sealed))
            except SecretUnreadable:
                # The new secret is what cures an endpoint of a lost key.
                _log.warning("previous_secret_unreadable", endpoint_id=str(claim.endpoint_id))
        return " ".join(Webhook(secret).sign(str(claim.event_id), now, claim.payload) for secret in secrets)

    async def _prune(self) -> None:
        now = self._clock.now()
        if self._prune_at is not None and now < self._prune_at:
            return
        pruned = await self._store.prune(ended_before=now - self._retention, limit=_PRUNE_BATCH)
        # A full batch says that there is more.
        self._prune_at = now if pruned == _PRUNE_BATCH else now + _PRUNE_EVERY
