"""What is asked of the limiter about a call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from memoro.v1 import admin_service_pb2 as admin
from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_service_pb2 as pb
from memoro_core.ids import ApiKeyId, TenantId, new_id
from memoro_core.limits.model import Limits, Rate, TenantLimits
from memoro_core.tenancy.model import FREE_TIER, Principal
from memoro_server.asks import Asks
from memoro_server.call import Method
from memoro_server.policy import POLICIES
from tests.support.deployment import METHODS, path_of

LIMITS = TenantLimits(Limits(requests=Rate(60, 20)), "1")


def caller(limits: TenantLimits = LIMITS) -> Principal:
    return Principal(TenantId(new_id()), ApiKeyId(new_id()), frozenset(), FREE_TIER, limits)


def asks_of(name: str) -> Asks:
    path = path_of(name)
    policy = POLICIES[path]
    assert policy.method_class is not None
    return Asks(Method(path, policy, GetMessageClass(METHODS[path].input_type)), policy.method_class)


def batch(*users: str) -> pb.BatchCreateMemoriesRequest:
    return pb.BatchCreateMemoriesRequest(requests=[pb.CreateMemoryRequest(user_id=user) for user in users])


@pytest.mark.parametrize(
    ("name", "request_", "users"),
    [
        ("MemoryService/CreateMemory", pb.CreateMemoryRequest(user_id="ann"), {"ann": 1}),
        ("MemoryService/AddConversation", pb.AddConversationRequest(user_id="ann"), {"ann": 10}),
        ("MemoryService/SearchMemories", pb.SearchMemoriesRequest(user_id="ann"), {"ann": 5}),
        ("MemoryService/GetMemory", pb.GetMemoryRequest(memory_id="m"), {}),
        ("JobsService/ListJobs", jobs.ListJobsRequest(user_id="ann"), {"ann": 2}),
        ("JobsService/ListJobs", jobs.ListJobsRequest(), {}),
        ("JobsService/WatchJobs", jobs.WatchJobsRequest(user_id="ann"), {"ann": 5}),
        # It is a user of another tenant.
        ("AdminService/ResetCircuitBreaker", admin.ResetCircuitBreakerRequest(user_id="ann"), {}),
        # What the contract refuses is not remembered anywhere.
        ("MemoryService/CreateMemory", pb.CreateMemoryRequest(user_id="a" * 129), {}),
        ("MemoryService/BatchCreateMemories", batch(*(f"user-{number}" for number in range(101))), {}),
        ("MemoryService/BatchCreateMemories", batch(), {}),
        ("MemoryService/BatchCreateMemories", batch("ann"), {"ann": 20}),
        ("MemoryService/BatchCreateMemories", batch("ann", "bob", "ann"), {"ann": 14, "bob": 7}),
        ("MemoryService/BatchCreateMemories", batch("ann", "", "a" * 129), {"ann": 7}),
    ],
)
def test_a_call_takes_its_weight_of_the_users_that_it_names(
    name: str, request_: Message, users: dict[str, int]
) -> None:
    principal = caller()
    ask = asks_of(name).of(principal, request_)
    policy = POLICIES[path_of(name)]
    assert (ask.tenant_id, ask.limits) == (principal.tenant_id, LIMITS)
    assert (ask.method_class, ask.weight) == (policy.method_class, policy.weight)
    assert ask.users == users


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=100))
def test_no_share_is_too_small(users: list[str]) -> None:
    shares = asks_of("MemoryService/BatchCreateMemories").of(caller(), batch(*users)).users
    assert shares.keys() == set(users)
    assert all(20 * users.count(user) <= share * len(users) for user, share in shares.items())
    assert all(share < 20 * users.count(user) / len(users) + 1 for user, share in shares.items())


def test_a_question_is_remembered_while_it_is_the_same() -> None:
    asks, ann = asks_of("MemoryService/CreateMemory"), pb.CreateMemoryRequest(user_id="ann")
    principal = caller()
    first = asks.of(principal, ann)
    assert asks.of(principal, ann) is first
    assert asks.of(principal, pb.CreateMemoryRequest(user_id="bob")).users == {"bob": 1}
    assert asks.of(principal, ann) is first
    assert asks.of(caller(), ann).tenant_id != principal.tenant_id
    changed = replace(principal, limits=TenantLimits(Limits(requests=Rate(90, 20)), "2"))
    assert asks.of(changed, ann).limits is changed.limits


def test_it_does_not_remember_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoro_server.asks._MAX_REMEMBERED", 10)
    asks: Any = asks_of("MemoryService/CreateMemory")
    principal = caller()
    for number in range(25):
        asks.of(principal, pb.CreateMemoryRequest(user_id=f"user-{number}"))
    asks.of(principal, pb.CreateMemoryRequest(user_id="a" * 1_000_000))
    assert len(asks._remembered) == 5
