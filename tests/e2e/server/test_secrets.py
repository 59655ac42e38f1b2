"""No secret is in anything that a server or a worker says: not in their logs at level debug, nor in an error."""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from memoro import AsyncClient, BudgetScope, JobState, MemoroError
from memoro_core.clock import SystemClock
from memoro_core.container import open_container
from memoro_core.embedded.ports import free_port
from memoro_core.embedded.stack import Stack
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import Settings
from memoro_core.tenancy.bootstrap import Bootstrap
from memoro_core.tenancy.model import Scope
from tests.fakes.openai_server import FakeOpenAI, Fault
from tests.fakes.webhook_receiver import Receiver
from tests.support.domain import fresh_name
from tests.support.issuer import AUDIENCE, ISSUER, claims, issuing, signed
from tests.support.processes import SERVER, WORKER, open_processes

START = 60.0
WITHIN = 60.0
TEXT = "Ann's safe opens with the number 8231 7720."


@dataclass
class Secrets:
    """What nobody may hear, by what it is; and what was told to callers in errors."""

    known: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def new(self, name: str) -> str:
        self.known[name] = secrets.token_hex(20)
        return self.known[name]

    def keep(self, name: str, secret: str | None) -> str:
        assert secret, name
        self.known[name] = secret
        return secret

    def key(self, name: str, key: str | None) -> str:
        """A key: its prefix may be told."""
        assert key, name
        self.known[name] = key.rsplit("_", 1)[1]
        return key

    async def failing(self, call: Any) -> MemoroError:
        with pytest.raises(MemoroError) as caught:
            await call
        error = caught.value
        self.errors.append(f"{error!r} {error} {error.__dict__} {error.__cause__!r} {error.__context__!r}")
        return error

    def found_in(self, text: str) -> list[str]:
        return [name for name, secret in self.known.items() if secret in text or quote(secret, safe="") in text]


def _with_password(url: str, password: str) -> str:
    return re.sub(r":[^:@/]*@", f":{password}@", url, count=1)


async def _exit_code(processes: Any, **changes: str) -> int:
    process = await processes.start(**changes)
    async with asyncio.timeout(START):
        code: int = await process.wait()
    processes.alive.remove(process)
    return code


async def _serving(port: int, process: Any) -> None:
    async with AsyncClient(f"127.0.0.1:{port}") as client, asyncio.timeout(START):
        while True:
            assert process.returncode is None
            try:
                await client.health(timeout=1)
            except MemoroError:
                await asyncio.sleep(0.1)
            else:
                return


async def test_no_secret_is_ever_told(settings: Settings, stack: Stack, tmp_path: Path) -> None:
    told = Secrets()
    log = tmp_path / "log"
    told.keep("the database's password", urlsplit(stack.database_url).password)
    told.keep("Redis' password", urlsplit(stack.redis_url).password)
    async with (
        issuing() as issuer,
        FakeOpenAI() as provider,
        Receiver() as receiver,
        open_processes(SERVER, settings, log) as servers,
        open_processes(WORKER, settings, log) as workers,
    ):
        port = free_port()
        common = {
            "MEMORO_DATABASE_URL": stack.database_url,
            "MEMORO_REDIS_URL": stack.redis_url,
            "MEMORO_LOG_LEVEL": "debug",
            "MEMORO_GRPC_PORT": str(port),
            "MEMORO_SERVER_OPS_PORT": "0",
            "MEMORO_WORKER_OPS_PORT": "0",
            "MEMORO_SECRET_KEY": told.new("the key that seals"),
            "MEMORO_JWT_ISSUER": ISSUER,
            "MEMORO_JWT_AUDIENCE": AUDIENCE,
            "MEMORO_JWT_JWKS": issuer.url,
            "MEMORO_EXTRACTION_PROVIDER": "openai",
            "MEMORO_OPENAI_BASE_URL": provider.base_url,
            "MEMORO_JOB_MAX_ATTEMPTS": "2",
            "MEMORO_JOB_RETRY_BASE": "0.1",
            "MEMORO_WEBHOOK_ALLOW_PRIVATE": "true",
            "MEMORO_WEBHOOK_INTERVAL": "0.1",
            "MEMORO_ALERT_CHANNELS": "email,slack",
            "MEMORO_ALERT_TIMEOUT": "1",
            "MEMORO_ALERT_INTERVAL": "0.1",
            "MEMORO_ALERT_SMTP_HOST": "127.0.0.1",
            "MEMORO_ALERT_SMTP_PORT": "9",
            "MEMORO_ALERT_SMTP_USER": "memoro",
            "MEMORO_ALERT_SMTP_PASSWORD": told.new("the password for mail"),
            "MEMORO_ALERT_EMAIL_FROM": "memoro@example.com",
            "MEMORO_ALERT_EMAIL_TO": "ops@example.com",
            "MEMORO_ALERT_SLACK_WEBHOOK_URL": f"http://127.0.0.1:9/services/{told.new('the address at Slack')}",
            "OPENAI_API_KEY": f"sk-{told.new('the key of the provider')}",
        }
        # The provider knows another key, and says in its error which one it was shown.
        server = await servers.start(**common)
        worker = await workers.start(**common)
        await _serving(port, server)
        async with open_container(settings, takes_jobs=True) as container:
            bootstrap = Bootstrap(PostgresTenancyStore(container.database), SystemClock())
            operator = await bootstrap.operator()
            admin_key = told.key("an operator's key", await bootstrap.key(operator, "test", (Scope.ADMIN,)))
        await _many_calls(told, f"127.0.0.1:{port}", admin_key, provider, receiver)

        wrong = told.new("a password that is wrong")
        bad_role = _with_password(stack.database_url, wrong)
        nowhere = f"postgresql://memoro_service:{wrong}@127.0.0.1:9/memoro"
        for url in (bad_role, nowhere):
            for processes in (servers, workers):
                assert await _exit_code(processes, **{**common, "MEMORO_DATABASE_URL": url}) == 1
        second, no_redis = free_port(), f"redis://:{wrong}@127.0.0.1:9/0"
        without_redis = await servers.start(**{**common, "MEMORO_REDIS_URL": no_redis, "MEMORO_GRPC_PORT": str(second)})
        wrong_redis = await workers.start(**{**common, "MEMORO_REDIS_URL": _with_password(stack.redis_url, wrong)})
        await _serving(second, without_redis)
        async with AsyncClient(f"127.0.0.1:{second}", api_key=admin_key) as client:
            assert [tenant async for tenant in client.admin.tenants.list(limit=1)]
        await asyncio.sleep(1)
        for processes, one in ((servers, server), (workers, worker), (servers, without_redis), (workers, wrong_redis)):
            await processes.end(one)
    output = log.read_text("utf-8")
    assert output.count('"event":"call"') > 20
    for sign in ("CREDENTIALS_INVALID", "RotateApiKey", "PROVIDER_FAILED"):
        assert sign in output, f"the log does not tell of {sign}: what is missing can't leak"
    assert told.found_in(output) == []
    assert told.found_in("\n".join(told.errors)) == []
    assert TEXT not in output


async def _many_calls(told: Secrets, endpoint: str, admin_key: str, provider: FakeOpenAI, receiver: Receiver) -> None:
    async with AsyncClient(endpoint, api_key=admin_key) as operator:
        tenant = await operator.admin.tenants.create(fresh_name(), tier="enterprise")
        created = await operator.admin.keys.create(tenant.id)
        key = told.key("a tenant's key", created.secret)
        rotated = await operator.admin.keys.rotate(tenant.id, created.api_key.id)
        told.key("its successor", rotated.secret)
        await told.failing(operator.admin.keys.rotate(tenant.id, tenant.id))
        await operator.admin.set_budget(BudgetScope.TENANT, 10**12, tenant_id=tenant.id)
        await operator.billing.add_credits(tenant.id, 10**10)
        await operator.admin.test_alert(message="hello")
        assert [event async for event in operator.admin.audit(tenant_id=tenant.id)]
    async with AsyncClient(endpoint, api_key=key) as client:
        endpoint_made = await client.webhooks.create(receiver.url)
        told.keep("a webhook's secret", (endpoint_made.secret or "").removeprefix("whsec_"))
        rotation = await client.webhooks.rotate(endpoint_made.endpoint.id)
        told.keep("the next one", (rotation.secret or "").removeprefix("whsec_"))
        await told.failing(client.webhooks.create("http://user:hunter2@127.0.0.1/"))
        await told.failing(client.admin.keys.create(tenant.id))
        refused = await client.memories.create(user_id="ann", text=TEXT)
        job = await _ended(client, refused.job.id)
        told.errors.append(repr(job))
        provider.any_key = True
        provider.script("chat", Fault(status=500, body="out of order"), Fault(drop=True), Fault(status=429))
        told.errors.append(repr(await _ended(client, (await client.memories.create(user_id="ann", text=TEXT)).job.id)))
    token = signed(claims(tenant.name, scope="read write"))
    forged = signed(claims(tenant.name, aud="another"))
    for name, text in (("a token", token), ("a token that is no good", forged)):
        told.keep(name, text.rsplit(".", 1)[1])
        told.keep(f"the claims of {name}", text.split(".")[1])
    async with AsyncClient(endpoint, api_key=token) as client:
        assert [memory async for memory in client.memories.list(user_id="ann")]
    for bad in (forged, key[:-1] + "x", "memoro_" + told.new("half a key"), told.new("no key at all")):
        async with AsyncClient(endpoint, api_key=bad) as client:
            error = await told.failing(client.memories.get(tenant.id))
            assert error.reason == "CREDENTIALS_INVALID"


async def _ended(client: AsyncClient, job_id: str) -> Any:
    async with asyncio.timeout(WITHIN):
        while (job := await client.jobs.get(job_id)).state not in (JobState.SUCCEEDED, JobState.FAILED):
            await asyncio.sleep(0.1)
    return job
