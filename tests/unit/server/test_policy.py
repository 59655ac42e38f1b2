"""The table of policies against the contract."""

from __future__ import annotations

from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from buf.validate import validate_pb2
from memoro.v1 import (
    admin_pb2,
    admin_service_pb2,
    billing_service_pb2,
    jobs_service_pb2,
    memory_service_pb2,
    webhooks_service_pb2,
)
from memoro_core.limits.model import MethodClass
from memoro_core.tenancy.model import Scope
from memoro_server.policy import POLICIES

OURS = (memory_service_pb2, jobs_service_pb2, billing_service_pb2, admin_service_pb2, webhooks_service_pb2)


def methods_of(*files: Any) -> dict[str, Any]:
    return {
        f"/{service.full_name}/{method.name}": method
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def test_every_method_has_a_policy_and_no_policy_is_stale() -> None:
    assert POLICIES.keys() == methods_of(*OURS, health_pb2, reflection_pb2).keys()


def test_every_method_of_ours_needs_a_scope_and_is_limited_and_no_other() -> None:
    assert {path for path, policy in POLICIES.items() if policy.scope is not None} == methods_of(*OURS).keys()
    assert {path for path, policy in POLICIES.items() if policy.method_class is not None} == methods_of(*OURS).keys()


def test_a_call_counts_against_the_limit_of_what_it_does() -> None:
    for path, policy in POLICIES.items():
        match policy.scope:
            case Scope.ADMIN:
                assert policy.method_class is MethodClass.ADMIN, path
            case Scope.WRITE | Scope.JOBS:
                assert policy.method_class is MethodClass.WRITE, path
            case Scope.READ | Scope.BILLING:
                assert policy.method_class in {MethodClass.READ, MethodClass.SEARCH}, path


@pytest.mark.parametrize("path", methods_of(*OURS))
def test_the_smallest_bucket_holds_any_call(path: str) -> None:
    burst = admin_pb2.RateLimit.DESCRIPTOR.fields_by_name["burst"].GetOptions().Extensions[validate_pb2.field]
    assert 1 <= POLICIES[path].weight <= burst.int64.gte


@pytest.mark.parametrize("path", methods_of(admin_service_pb2))
def test_administration_needs_its_scope(path: str) -> None:
    assert POLICIES[path].scope is Scope.ADMIN


def test_operators_need_no_other_scope_where_they_may_name_a_tenant() -> None:
    named = {path for path, method in methods_of(billing_service_pb2).items() if _names_a_tenant(method)}
    assert all(POLICIES[path].operators or POLICIES[path].scope is Scope.ADMIN for path in named)
    others = {path for path, policy in POLICIES.items() if policy.operators} - named
    assert others == {"/memoro.v1.BillingService/ListPrices"}


def _names_a_tenant(method: Any) -> bool:
    return "tenant_id" in method.input_type.fields_by_name


@pytest.mark.parametrize(("path", "method"), methods_of(*OURS).items())
def test_a_policy_fits_its_method(path: str, method: Any) -> None:
    policy = POLICIES[path]
    assert policy.streaming == method.server_streaming
    assert policy.longest_deadline > 0


@pytest.mark.parametrize(("path", "method"), methods_of(*OURS).items())
def test_what_changes_data_can_be_made_safe_to_repeat(path: str, method: Any) -> None:
    reads = {Scope.READ, Scope.ADMIN, Scope.BILLING}
    changes = POLICIES[path].scope not in reads and not method.name.startswith("Batch")
    if changes:
        assert "request_id" in method.input_type.fields_by_name
