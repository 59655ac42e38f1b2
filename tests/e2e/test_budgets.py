"""A daily budget over a server and four worker processes: what is beyond it waits, and operators hear of it once."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from memoro import (
    AiOperation,
    AsyncClient,
    AsyncJobHandle,
    BreakerState,
    BudgetScope,
    Job,
    JobState,
    SpendBreaker,
)
from memoro_core.settings import Settings
from tests.fakes.openai_server import FakeOpenAI
from tests.fakes.slack_server import Slack
from tests.fakes.smtp_server import Mailbox
from tests.support.deployment import deployed
from tests.support.processes import WORKER, Processes, open_processes
from tests.support.stacks import temporary_stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

WORKERS = 4
FEE = 1_000
"""What each job costs, in micro-credits: neither more nor less."""
BUDGET = 2 * WORKERS * FEE
WITHIN = 90.0
THRESHOLDS = {"50 %", "75 %", "100 %", "breaker is open"}
"""What operators hear of a budget that is used up."""


@dataclass
class World:
    """A tenant with a budget for so many jobs a day, and whoever looks on."""

    client: AsyncClient
    operator: AsyncClient
    tenant_id: str
    provider: FakeOpenAI
    mailbox: Mailbox
    slack: Slack
    workers: Processes

    async def add(self, count: int) -> list[AsyncJobHandle]:
        """Jobs, one after the other."""
        return [(await self.client.memories.create(user_id="ann", text=f"Text {n}.")).job for n in range(count)]

    async def jobs(self, handles: Sequence[AsyncJobHandle]) -> list[Job]:
        """Jobs as they now are."""
        return [await self.client.jobs.get(handle.id) for handle in handles]

    async def breaker(self) -> SpendBreaker:
        """How the tenant's budget stands."""
        (breaker,) = [
            one for one in await self.operator.admin.breakers(self.tenant_id) if one.scope is BudgetScope.TENANT
        ]
        return breaker

    async def turned(self, state: BreakerState) -> SpendBreaker:
        """The breaker, once it stands there."""
        async with asyncio.timeout(WITHIN):
            while (breaker := await self.breaker()).state is not state:
                await asyncio.sleep(0.05)
        return breaker

    def told(self) -> tuple[Counter[str], Counter[str]]:
        """Of which thresholds emails and Slack messages have come, and how often."""
        emails = [str(email.message["Subject"]) for email in self.mailbox.emails]
        return _thresholds(emails), _thresholds([str(message) for message in self.slack.messages])


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(temporary_stack(durable=False))
        provider = await stack.enter_async_context(FakeOpenAI())
        mailbox = await stack.enter_async_context(Mailbox())
        slack = await stack.enter_async_context(Slack())
        settings = Settings.model_validate(
            {
                "database_url": servers.database_url,
                "redis_url": servers.redis_url,
                "grpc_port": 0,
                "server_ops_port": 0,
                "worker_ops_port": 0,
                "worker_concurrency": 1,
                "embedding_provider": "openai",
                "extraction_provider": "none",
                "openai_api_key": provider.api_key,
                "openai_base_url": provider.base_url,
                "openai_embedding_dimensions": provider.dimensions,
            }
        )
        deployment = await stack.enter_async_context(deployed(settings))
        operator, caller = await deployment.operator(), await deployment.caller()
        endpoint = f"127.0.0.1:{deployment.server.port}"
        admin = await stack.enter_async_context(AsyncClient(endpoint, api_key=operator.key))
        client = await stack.enter_async_context(AsyncClient(endpoint, api_key=caller.key))
        await admin.admin.set_price("openai", "text-embedding-3-small", AiOperation.EMBED, fee=FEE)
        # By then every process knows of it.
        await asyncio.sleep(2 * settings.price_refresh)
        tenant_id = str(caller.tenant_id)
        await admin.billing.add_credits(tenant_id, 1_000 * FEE)
        await admin.admin.set_budget(BudgetScope.TENANT, BUDGET, tenant_id=tenant_id)
        workers = await stack.enter_async_context(open_processes(WORKER, settings, tmp_path / "workers.log"))
        await asyncio.gather(*(workers.start(**_alerting(provider, mailbox, slack)) for _ in range(WORKERS)))
        yield World(client, admin, tenant_id, provider, mailbox, slack, workers)
        ended = await asyncio.gather(*(workers.end(process) for process in list(workers.alive)))
        assert ended == [0] * len(ended)


def _alerting(provider: FakeOpenAI, mailbox: Mailbox, slack: Slack) -> dict[str, str]:
    return {
        "MEMORO_ALERT_CHANNELS": '["email","slack"]',
        "MEMORO_ALERT_INTERVAL": "0.1",
        "MEMORO_ALERT_SMTP_HOST": "127.0.0.1",
        "MEMORO_ALERT_SMTP_PORT": str(mailbox.port),
        "MEMORO_ALERT_SMTP_TLS": "none",
        "MEMORO_ALERT_EMAIL_FROM": "memoro@example.com",
        "MEMORO_ALERT_EMAIL_TO": '["ops@example.com"]',
        "MEMORO_ALERT_SLACK_WEBHOOK_URL": slack.webhook_url,
        "OPENAI_API_KEY": provider.api_key,
    }


def _thresholds(texts: Sequence[str]) -> Counter[str]:
    return Counter(words for words in THRESHOLDS for text in texts if words in text)


async def test_what_a_budget_does_not_cover_waits_and_goes_after_all_that_waits(world: World) -> None:
    fitting, late = await world.add(2 * WORKERS), await world.add(WORKERS)
    for handle in fitting:
        await handle.result(timeout=WITHIN)
    for job in await world.jobs(late):
        assert (job.state, job.error, job.cost_bound) == (JobState.DEFERRED, None, FEE)
        assert job.run_time is not None
    async for update in late[0].watch(timeout=WITHIN):
        assert update.state is JobState.DEFERRED
        break
    breaker = await world.breaker()
    assert (breaker.state, breaker.spent, breaker.reserved, breaker.deferred_jobs) == (
        *(BreakerState.OPEN, BUDGET, 0, WORKERS),
    )
    assert (await world.client.billing.balance()).held == 0
    # An operator who lets everything run does not let it run beyond the budget.
    triggered = await world.operator.admin.trigger_processing(tenant_id=world.tenant_id)
    assert triggered.released == 0

    # Put off before, let go now, and behind what has come after.
    await world.operator.admin.pause_queue("enterprise")
    await asyncio.sleep(1.0)
    reset = await world.operator.admin.reset_breaker(BudgetScope.TENANT, tenant_id=world.tenant_id)
    assert (reset.state, reset.limit) == (BreakerState.HALF_OPEN, 2 * BUDGET)
    await world.turned(BreakerState.CLOSED)
    assert {job.state for job in await world.jobs(late)} == {JobState.QUEUED}
    normal = await world.add(WORKERS)
    (beyond,) = await world.add(1)
    assert (await world.jobs([beyond]))[0].state is JobState.DEFERRED
    world.provider.delay = 0.5
    await world.operator.admin.resume_queue("enterprise")
    for handle in (*normal, *late):
        await handle.result(timeout=WITHIN)
    in_order = sorted(await world.jobs([*normal, *late]), key=lambda job: str(job.start_time))
    assert {job.id for job in in_order[:WORKERS]} == {handle.id for handle in normal}

    # Three thresholds were crossed, and the breaker opened twice: each was told of once over each channel.
    await world.mailbox.wait_for(len(THRESHOLDS))
    await asyncio.sleep(2.0)
    assert world.told() == (Counter(THRESHOLDS), Counter(THRESHOLDS))
    charged = {job.usage.charged for job in await world.jobs([*fitting, *late, *normal])}
    balance = await world.client.billing.balance()
    assert (charged, balance.held, balance.spent) == ({FEE}, 0, 2 * BUDGET)
    proof = await world.operator.admin.verify_ledger(world.tenant_id)
    assert proof.valid


async def test_workers_that_are_killed_in_between_spend_no_more_than_the_budget(world: World) -> None:
    world.provider.delay = 0.3
    handles = await world.add(4 * WORKERS)
    async with asyncio.timeout(WITHIN):
        while (await world.breaker()).spent == 0:
            await asyncio.sleep(0.1)
    for times in (2, 3):
        await world.workers.end(world.workers.alive[0], signal.SIGKILL)
        reset = await world.operator.admin.reset_breaker(BudgetScope.TENANT, tenant_id=world.tenant_id)
        assert reset.limit == times * BUDGET
        assert reset.spent + reset.reserved <= reset.limit
        await asyncio.sleep(1.0)
    for handle in handles:
        await handle.result(timeout=WITHIN)
    breaker = await world.turned(BreakerState.CLOSED)
    assert (breaker.reserved, breaker.deferred_jobs) == (0, 0)
    charged = sum(job.usage.charged for job in await world.jobs(handles))
    assert breaker.spent == (await world.client.billing.balance()).spent == charged
    assert len(handles) * FEE <= charged <= breaker.limit
