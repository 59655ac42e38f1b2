"""Who is told of what: tenants by webhooks, operators by alerts."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from memoro_core.alerts.delivery import AlertDeliverer
from memoro_core.alerts.queue_monitor import QueueMonitor
from memoro_core.alerts.retry import AlertPolicy
from memoro_core.alerts.service import AlertService
from memoro_core.container.billing import Billing
from memoro_core.container.ground import Ground
from memoro_core.outbound.alert_router import open_alert_router
from memoro_core.outbound.sender import open_sender
from memoro_core.postgres.alert_store import PostgresAlertStore
from memoro_core.postgres.answer_store import PostgresAnswerStore
from memoro_core.postgres.queue_store import PostgresQueueStore
from memoro_core.postgres.webhook_store import PostgresWebhookStore
from memoro_core.webhooks.backoff import DeliveryPolicy
from memoro_core.webhooks.delivery import WebhookDeliverer
from memoro_core.webhooks.secrets import SecretSeal
from memoro_core.webhooks.service import WebhooksService


@dataclass(frozen=True, slots=True)
class Notices:
    """What tells them."""

    webhooks: WebhooksService
    webhook_deliverer: WebhookDeliverer
    alerts: AlertService
    alert_deliverer: AlertDeliverer
    queue_monitor: QueueMonitor


async def open_notices(ground: Ground, billing: Billing, stack: AsyncExitStack) -> Notices:
    """Opens the ways out; the stack closes them."""
    settings, database, clock = ground.settings, ground.database, ground.clock
    webhook_store, alert_store = PostgresWebhookStore(database), PostgresAlertStore(database)
    seal = SecretSeal(settings.secret_key.get_secret_value() if settings.secret_key else None)
    sender = await stack.enter_async_context(open_sender(allow_private=settings.webhook_allow_private))
    router = await stack.enter_async_context(open_alert_router(settings))
    return Notices(
        webhooks=WebhooksService(webhook_store, seal, clock, allow_private=settings.webhook_allow_private),
        webhook_deliverer=WebhookDeliverer(
            webhook_store,
            sender,
            seal,
            clock,
            DeliveryPolicy(),
            interval=settings.webhook_interval,
            retention=timedelta(seconds=settings.webhook_retention),
        ),
        alerts=AlertService(router, PostgresAnswerStore(database), clock),
        alert_deliverer=AlertDeliverer(
            alert_store,
            router,
            clock,
            AlertPolicy(),
            interval=settings.alert_interval,
            retention=timedelta(seconds=settings.alert_retention),
        ),
        queue_monitor=QueueMonitor(
            PostgresQueueStore(database, billing.holds),
            alert_store,
            clock,
            waiting=settings.alert_queue_waiting,
            failed=settings.alert_queue_failed,
            time_zone=ground.calendar.time_zone,
        ),
    )
