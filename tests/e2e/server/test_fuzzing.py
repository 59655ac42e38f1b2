"""Whatever is sent to whichever method, the answer is one of the contract, in time, and the server goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from memoro.v1 import admin_service_pb2 as admin
from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_pb2
from memoro.v1 import memory_service_pb2 as pb
from memoro.v1 import webhooks_service_pb2 as webhooks
from memoro_core.embedded.stack import Stack
from memoro_core.settings import Settings
from tests.support.deployment import LOADING, METHODS, Caller, Deployment, deployed
from tests.support.fuzzing import Ids, mutilated, requests

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = 24
LONGEST = 10.0
Code = grpc.StatusCode
OF_THE_CONTRACT = {
    Code.OK,
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.ALREADY_EXISTS,
    Code.PERMISSION_DENIED,
    Code.FAILED_PRECONDITION,
    Code.ABORTED,
    Code.OUT_OF_RANGE,
    Code.RESOURCE_EXHAUSTED,
}
"""Neither INTERNAL nor UNKNOWN nor a deadline that passed; nothing here is away, and the keys stand."""


@dataclass
class Target:
    """A server that nobody else uses, so that nothing is hurt, and two keys."""

    deployment: Deployment
    tenant: Caller
    operator: Caller
    ids: Ids
    codes: dict[str, Counter[str]] = field(default_factory=dict)

    async def send(self, path: str, data: bytes) -> None:
        """A call with either key; what comes of it must be of the contract."""
        method = path.removeprefix("/memoro.v1.")
        outcomes = await asyncio.gather(
            *(caller.call(method, data, timeout=LONGEST) for caller in (self.tenant, self.operator))
        )
        for outcome in outcomes:
            assert outcome.code in OF_THE_CONTRACT, (path, data, outcome)
            assert outcome.code is Code.OK or outcome.info.domain == "memoro", (path, data, outcome)
            self.codes.setdefault(path, Counter())[outcome.code.name] += 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(quiet_stack: Stack) -> AsyncIterator[Target]:
    settings = Settings.model_validate(
        {
            "database_url": quiet_stack.database_url,
            "redis_url": quiet_stack.redis_url,
            "grpc_port": 0,
            "limits": False,
            "extraction_provider": "none",
            "watch_heartbeat": 0.2,
        }
    )
    async with deployed(settings) as deployment:
        tenant = await deployment.caller()
        operator = await deployment.operator()
        yield Target(deployment, tenant, operator, await _things_of(deployment, tenant, operator))


async def _things_of(deployment: Deployment, tenant: Caller, operator: Caller) -> Ids:
    """What ids may name: the tenant's things; of tenants, one that may be suspended and worse."""
    create = pb.CreateMemoryRequest(user_id="john", text="Ann works at TechCorp.")
    create.processing_mode = memory_pb2.PROCESSING_MODE_SYNC
    made = [await tenant.ask("MemoryService/CreateMemory", create, timeout=LOADING) for _ in range(3)]
    talk = pb.AddConversationRequest(user_id="john", conversation_id="talk", messages=[pb.Message(text="Hello!")])
    queued = await tenant.ask("MemoryService/AddConversation", talk)
    url = webhooks.CreateWebhookEndpointRequest(url="https://hooks.invalid/memoro")
    endpoint = await tenant.ask("WebhooksService/CreateWebhookEndpoint", url)
    page = await tenant.ask("MemoryService/ListMemories", pb.ListMemoriesRequest(page_size=1))
    watch = tenant.stream("JobsService/WatchJob", jobs.WatchJobRequest(job_id=queued.job.id))
    snapshot = await watch.read()
    watch.cancel()
    victim = await deployment.caller()
    await deployment.caller_of(await deployment.container.tenancy.get_tenant(victim.tenant_id))
    of_victim = admin.ListApiKeysRequest(tenant_id=str(victim.tenant_id))
    keys = (await operator.ask("AdminService/ListApiKeys", of_victim)).api_keys
    return {
        "user_id": ["john", "ann", "nobody"],
        "memory_id": [answer.memory.id for answer in made],
        "job_id": [queued.job.id, *(answer.job.id for answer in made)],
        "endpoint_id": [endpoint.endpoint.id],
        "tenant_id": [str(victim.tenant_id)],
        "api_key_id": [key.id for key in keys],
        "conversation_id": ["talk", "other"],
        "page_token": [page.next_page_token, "", ""],
        "resume_token": [snapshot.resume_token, "", ""],
        "etag": ["", made[0].memory.etag],
        "entity_name": ["TechCorp"],
    }


@pytest.mark.parametrize("path", METHODS)
@hypothesis_settings(
    max_examples=EXAMPLES,
    # The same in every run: a failure is found again by running the test again.
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[*HealthCheck],
)
@given(data=st.data())
async def test_no_request_breaks_a_method(target: Target, path: str, data: st.DataObject) -> None:
    request = data.draw(requests(METHODS[path].input_type, target.ids)).SerializeToString()
    await target.send(path, request)
    await target.send(path, data.draw(mutilated(request)))


async def test_the_server_goes_on_and_was_not_only_refused(target: Target) -> None:
    listed = await target.tenant.ask("JobsService/ListJobs", jobs.ListJobsRequest())
    assert listed.jobs
    await target.deployment.container.database.ping()
    assert target.codes.keys() == METHODS.keys()
    # Chance does not meet the conditions of every method, but it must get far into most.
    never = {path for path, codes in target.codes.items() if not codes["OK"]}
    assert len(never) <= len(METHODS) // 4, never
