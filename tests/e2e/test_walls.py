"""Two tenants on one small pool, with each other's tokens, and with every text: nothing gets from one to the other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from memoro.v1 import billing_service_pb2 as billing
from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_pb2
from memoro.v1 import memory_service_pb2 as pb
from memoro.v1 import webhooks_service_pb2 as webhooks
from memoro_core.embedded.stack import Stack
from memoro_core.settings import Settings
from memoro_core.tenancy.model import Scope
from memoro_server.policy import POLICIES
from tests.support.deployment import LOADING, METHODS, Caller, Deployment, deployed
from tests.support.fuzzing import HOSTILE, fields_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

POOL = 2
CALLS, CANCELLED = 300, 150
TOKENS = ("page_token", "resume_token")
OF_A_TENANT = {path: method for path, method in METHODS.items() if POLICIES[path].scope is not Scope.ADMIN}
SECRET = "zanzibar-4711"
"""What only the owner has ever said."""


@dataclass(frozen=True)
class Neighbours:
    """Two tenants on one server, which has two connections to the database."""

    deployment: Deployment
    owner: Caller
    stranger: Caller
    operator: Caller
    of_owner: Mapping[str, str]
    """The owner's ids and tokens."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def neighbours(stack: Stack) -> AsyncIterator[Neighbours]:
    settings = Settings.model_validate(
        {
            "database_url": stack.database_url,
            "redis_url": stack.redis_url,
            "grpc_port": 0,
            "database_pool_size": POOL,
            "limits": False,
            "watch_heartbeat": 0.2,
        }
    )
    async with deployed(settings) as deployment:
        owner, stranger = await deployment.caller(), await deployment.caller()
        operator = await deployment.operator()
        yield Neighbours(deployment, owner, stranger, operator, await _things_of(owner, operator))


async def _things_of(owner: Caller, operator: Caller) -> Mapping[str, str]:
    create = pb.CreateMemoryRequest(user_id="john", text=f"John Doe lives in {SECRET}. He works at TechCorp.")
    create.processing_mode = memory_pb2.PROCESSING_MODE_SYNC
    made = await owner.ask("MemoryService/CreateMemory", create, timeout=LOADING)
    queued = made
    for _ in range(3):
        url = webhooks.CreateWebhookEndpointRequest(url=f"https://{SECRET}.invalid/hook")
        await owner.ask("WebhooksService/CreateWebhookEndpoint", url)
        queued = await owner.ask(
            "MemoryService/CreateMemory", pb.CreateMemoryRequest(user_id="john", text=f"Ann is in {SECRET}.")
        )
        credits = billing.AddCreditsRequest(tenant_id=str(owner.tenant_id), amount=1_000, note=SECRET)
        await operator.ask("BillingService/AddCredits", credits)
    await owner.ask("JobsService/CancelJob", jobs.CancelJobRequest(job_id=queued.job.id))
    return {"memory_id": made.memory.id, "job_id": queued.job.id}


async def test_calls_of_two_tenants_over_one_pool_are_answered_each_with_its_own(neighbours: Neighbours) -> None:
    """Hundreds at once, many of them given up in the middle of their transactions."""
    chance = random.Random(4711)
    for caller, name in ((neighbours.owner, SECRET), (neighbours.stranger, "other")):
        for _ in range(5):
            request = pb.CreateMemoryRequest(user_id="pool", text=f"I belong to {name}.")
            await caller.ask("MemoryService/CreateMemory", request)

    async def listed(caller: Caller) -> None:
        answer = await caller.ask("MemoryService/ListMemories", pb.ListMemoriesRequest(user_id="pool"))
        theirs = caller is neighbours.owner
        assert len(answer.memories) == 5
        assert {SECRET in memory.text for memory in answer.memories} == {theirs}

    async def written(caller: Caller, number: int) -> None:
        request = pb.CreateMemoryRequest(user_id=f"writer-{caller is neighbours.owner}", text=f"Note {number}.")
        made = await caller.ask("MemoryService/CreateMemory", request)
        got = await caller.ask("MemoryService/GetMemory", pb.GetMemoryRequest(memory_id=made.memory.id))
        assert got.memory.user_id == request.user_id

    async def given_up(caller: Caller) -> None:
        task = asyncio.create_task(
            caller.call("MemoryService/SearchMemories", pb.SearchMemoriesRequest(user_id="pool", query="whose?"))
            if chance.random() < 0.5
            else caller.call("MemoryService/CreateMemory", pb.CreateMemoryRequest(user_id="gone", text="Gone."))
        )
        await asyncio.sleep(chance.random() * 0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    both = (neighbours.owner, neighbours.stranger)
    work: list[Any] = [listed(both[number % 2]) for number in range(CALLS)]
    work += [written(both[number % 2], number) for number in range(60)]
    work += [given_up(both[number % 2]) for number in range(CANCELLED)]
    chance.shuffle(work)
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)
    assert neighbours.deployment.container.database.size <= POOL
    # What the cancelled calls left of the connections is clean.
    async with neighbours.deployment.container.database.system_tx() as connection:
        assert await connection.fetchval("SELECT current_tenant()") is None


def with_tokens() -> Sequence[tuple[str, str]]:
    return [
        (path, token)
        for path, method in METHODS.items()
        for token in TOKENS
        if token in method.input_type.fields_by_name
    ]


async def _tokens_of(neighbours: Neighbours, path: str, token: str) -> tuple[Any, str]:
    """A request to which the method answers the owner, or the operator, with a token; and that token."""
    method, request, fields = METHODS[path], _plain(path), method_fields(path)
    if "page_size" in fields:
        request.page_size = 1
    for name, value in neighbours.of_owner.items():
        if name in fields and name == "job_id" and method.server_streaming:
            setattr(request, name, value)
    caller = neighbours.owner
    if POLICIES[path].scope is Scope.ADMIN:
        caller = neighbours.operator
        if "tenant_id" in fields and path.endswith("ListApiKeys"):
            for _ in range(2):
                await neighbours.deployment.caller_of(
                    await neighbours.deployment.container.tenancy.get_tenant(neighbours.owner.tenant_id)
                )
            request.tenant_id = str(neighbours.owner.tenant_id)
    answer = await caller.ask(path.removeprefix("/memoro.v1."), request)
    return request, getattr(answer, "next_page_token" if token == "page_token" else token)


@pytest.mark.parametrize(("path", "token"), with_tokens())
async def test_no_token_of_another_is_taken(neighbours: Neighbours, path: str, token: str) -> None:
    request, theirs = await _tokens_of(neighbours, path, token)
    if not theirs:
        assert path in WITHOUT_TOKENS, "the owner got no token, so that refusing it proves nothing"
        return
    setattr(request, token, theirs)
    method = path.removeprefix("/memoro.v1.")
    stranger = neighbours.stranger
    if POLICIES[path].scope is Scope.ADMIN:
        # Only operators get so far; and a token is bound to what was asked for.
        assert (await stranger.call(method, request)).code is grpc.StatusCode.PERMISSION_DENIED
        return
    assert (await neighbours.owner.call(method, request)).code is grpc.StatusCode.OK
    if "job_id" in method_fields(path):
        made = await stranger.ask("MemoryService/CreateMemory", pb.CreateMemoryRequest(user_id="a", text="Mine."))
        request.job_id = made.job.id
    outcome = await stranger.call(method, request)
    assert outcome.info.reason in {"PAGE_TOKEN_INVALID", "RESUME_TOKEN_INVALID"}, outcome


def method_fields(path: str) -> Any:
    return METHODS[path].input_type.fields_by_name


WITHOUT_TOKENS = {
    "/memoro.v1.AdminService/ListTiers",
    "/memoro.v1.AdminService/ListAuditEvents",
    "/memoro.v1.AdminService/ListTenants",
}
"""Lists that may be shorter than a page here, and of no tenant."""


def texts_of(path: str) -> Sequence[str]:
    """The paths of all fields that hold text, and of those that hold any JSON, however deep they are."""
    return [
        name
        for name, field in fields_of(METHODS[path].input_type)
        if field.type == FieldDescriptor.TYPE_STRING
        or (field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct")
    ]


@pytest.mark.parametrize("path", OF_A_TENANT)
async def test_no_text_reaches_what_another_tenant_has(neighbours: Neighbours, path: str) -> None:
    """Each field that holds text, with each text that means something to SQL, JSON paths, patterns or terminals."""
    before = await neighbours.deployment.rows(neighbours.owner.tenant_id)
    method = path.removeprefix("/memoro.v1.")
    work = []
    for name in texts_of(path):
        for text in (*HOSTILE, *neighbours.of_owner.values()):
            request = _plain(path)
            _put(request, name, text)
            work.append(request)
    for request in work:
        outcome = await neighbours.stranger.call(method, request)
        assert outcome.code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, (request, outcome)
        assert SECRET not in repr(outcome) or SECRET.encode() in request.SerializeToString()
    assert await neighbours.deployment.rows(neighbours.owner.tenant_id) == before


def _put(message: Any, name: str, text: str) -> None:
    """Puts the text where the path leads, into an otherwise plain request."""
    *outer, last = name.split(".")
    for part in outer:
        repeated = message.DESCRIPTOR.fields_by_name[part].is_repeated
        inner = getattr(message, part)
        message = (inner[0] if inner else inner.add()) if repeated else inner
        message.SetInParent()
        _make_plain(message)
    field = message.DESCRIPTOR.fields_by_name[last]
    if field.message_type is not None:
        getattr(message, last).update({text: text, "a": [{text: text}]})
    elif field.is_repeated:
        getattr(message, last).append(text)
    else:
        setattr(message, last, text)


def _plain(path: str) -> Any:
    """A request that would do, so that the text under trial is what matters."""
    request: Any = GetMessageClass(METHODS[path].input_type)()
    _make_plain(request)
    if "messages" in method_fields(path):
        request.messages.add().text = "Hello!"
    return request


def _make_plain(message: Any) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in (
        ("user_id", "john"),
        ("text", "Hello!"),
        ("query", "Where is Ann?"),
        ("conversation_id", "talk"),
    ):
        # What a filter names is left to the text under trial.
        if name in fields and not fields[name].has_presence and message.DESCRIPTOR.name != "MemoryFilter":
            setattr(message, name, value)


async def test_texts_are_tried_in_filters_too() -> None:
    for method in ("ListMemories", "SearchMemories"):
        assert {"filter.conversation_id", "filter.metadata"} <= {*texts_of(f"/memoro.v1.MemoryService/{method}")}


@pytest.mark.parametrize("payload", ["the-same", "another"])
async def test_a_request_id_is_its_tenants_own(neighbours: Neighbours, payload: str) -> None:
    own = pb.CreateMemoryRequest(request_id=f"shared-{payload}", user_id="john", text=f"Kept in {SECRET}.")
    first = await neighbours.owner.ask("MemoryService/CreateMemory", own)
    theirs = pb.CreateMemoryRequest()
    theirs.CopyFrom(own)
    if payload == "another":
        theirs.text = "Something else."
    second = await neighbours.stranger.ask("MemoryService/CreateMemory", theirs)
    assert second.memory.id != first.memory.id
    assert second.job.id != first.job.id
    # Each finds its own again; neither may use it for something else.
    assert (await neighbours.owner.ask("MemoryService/CreateMemory", own)).memory.id == first.memory.id
    assert (await neighbours.stranger.ask("MemoryService/CreateMemory", theirs)).memory.id == second.memory.id
    changed = pb.CreateMemoryRequest(request_id=own.request_id, user_id="john", text="A third.")
    for caller in (neighbours.owner, neighbours.stranger):
        outcome = await caller.call("MemoryService/CreateMemory", changed)
        assert outcome.info.reason == "REQUEST_ID_REUSED"


async def test_a_verdict_on_a_key_is_that_keys_alone(neighbours: Neighbours) -> None:
    """What a server remembers of keys is not mixed up, whichever is asked for first and however often."""
    keys = [neighbours.owner.key, neighbours.stranger.key]
    damaged = [key[:-1] + ("a" if key[-1] != "a" else "b") for key in keys]

    async def who(key: str) -> str:
        metadata = (("authorization", f"Bearer {key}"),)
        outcome = await neighbours.owner.call(
            "BillingService/GetBalance", billing.GetBalanceRequest(), metadata=metadata
        )
        if outcome.code is not grpc.StatusCode.OK:
            return str(outcome.info.reason)
        return str(billing.GetBalanceResponse.FromString(outcome.response).balance.tenant_id)

    # A key is its prefix and its secret: one's prefix with the other's secret is nobody's.
    crossed = [f"{one.rpartition('_')[0]}_{other.rpartition('_')[2]}" for one, other in (keys, keys[::-1])]
    asked = [*keys, *damaged, *crossed] * 20
    random.Random(7).shuffle(asked)
    told = await asyncio.gather(*(who(key) for key in asked))
    right = {
        keys[0]: str(neighbours.owner.tenant_id),
        keys[1]: str(neighbours.stranger.tenant_id),
    }
    assert told == [right.get(key, "CREDENTIALS_INVALID") for key in asked]
