"""What goes into the audit log, whatever comes of a call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from memoro.v1 import admin_service_pb2 as admin
from memoro.v1 import billing_service_pb2 as billing
from memoro.v1 import webhooks_pb2
from memoro.v1 import webhooks_service_pb2 as webhooks
from memoro_core.audit.service import MAX_REQUEST_BYTES
from memoro_core.errors import Code, MemoroError, Reason, unavailable
from memoro_core.ids import ApiKeyId, TenantId, new_id
from memoro_core.tenancy.model import FREE_TIER, Principal, Scope
from memoro_server.call import Call, Method, scope_missing
from memoro_server.convert.audit import HIDDEN, TOLD, to_audit_json
from memoro_server.interceptors.audit import AuditInterceptor
from memoro_server.policy import POLICIES, Policy, is_audited
from tests.support.deployment import METHODS

AUDITED = [path for path in METHODS if is_audited(path, POLICIES[path])]
CREATE_KEY = "/memoro.v1.AdminService/CreateApiKey"
ROTATE_SECRET = "/memoro.v1.WebhooksService/RotateWebhookSecret"
WHO = Principal(TenantId(new_id()), ApiKeyId(new_id()), frozenset({Scope.ADMIN}), FREE_TIER)
TENANT = new_id()
NOT_KEPT = {"description", "display_name", "message", "note", "url"}
"""Texts that say more than a name: they may hold anything, secrets too."""


@pytest.mark.parametrize("path", [path for path in METHODS if POLICIES[path].scope is Scope.ADMIN])
def test_what_operators_change_is_audited_and_what_they_read_is_not(path: str) -> None:
    changes = "request_id" in METHODS[path].input_type.fields_by_name
    assert is_audited(path, POLICIES[path]) == changes


def test_what_tenants_do_to_credentials_is_audited_and_nothing_else_of_theirs() -> None:
    theirs = {path for path in AUDITED if POLICIES[path].scope is not Scope.ADMIN}
    secret = {path for path, method in METHODS.items() if "secret" in method.output_type.fields_by_name}
    assert secret <= set(AUDITED)
    assert {path.rpartition("/")[2] for path in theirs} == {
        "CreateWebhookEndpoint",
        "RotateWebhookSecret",
        "DeleteWebhookEndpoint",
    }
    assert not is_audited("unknown", Policy(None, None, 0, False, 30.0))


@pytest.mark.parametrize("path", AUDITED)
def test_every_text_of_a_request_is_either_a_name_or_not_kept(path: str) -> None:
    fields = set(_texts(METHODS[path].input_type))
    assert fields <= TOLD | NOT_KEPT, "say in convert/audit.py whether a new field is kept, or here that it is not"
    assert not TOLD & NOT_KEPT


def _texts(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            yield field.name
        elif field.message_type is not None and not field.message_type.full_name.startswith("google.protobuf."):
            yield from _texts(field.message_type)


def test_a_request_is_told_without_its_texts() -> None:
    request = webhooks.CreateWebhookEndpointRequest(
        request_id="r",
        url="https://a.example/?token=hunter2",
        event_types=[webhooks_pb2.WEBHOOK_EVENT_TYPE_JOB_SUCCEEDED],
        description="hunter2",
    )
    request.event_types.append(99)  # type: ignore[arg-type]  # of a newer client
    assert json.loads(to_audit_json(request)) == {
        "request_id": "r",
        "url": HIDDEN,
        "event_types": ["WEBHOOK_EVENT_TYPE_JOB_SUCCEEDED", 99],
        "description": HIDDEN,
    }
    update = admin.UpdateTenantRequest(tenant_id="t", tier="pro", display_name="x")
    update.update_mask.paths.append("display_name")
    assert json.loads(to_audit_json(update)) == {
        "tenant_id": "t",
        "tier": "pro",
        "display_name": HIDDEN,
        "update_mask": "displayName",
    }
    rotate = admin.RotateApiKeyRequest(api_key_id="k")
    rotate.overlap.seconds = 60
    rotate.expire_time.seconds = 1 << 60
    assert json.loads(to_audit_json(rotate)) == {"api_key_id": "k", "overlap": "60s", "expire_time": HIDDEN}


class Events:
    """A log in memory, which may be out of order."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.error: MemoroError | None = None

    async def record(self, principal: Principal, method: str, **what: Any) -> None:
        if self.error is not None:
            raise self.error
        self.events.append({"principal": principal, "method": method, **what})


class Outcome:
    """A call of an audited method: who is known to make it, and how it ends."""

    def __init__(self, path: str, request: Message | bytes, ends: Any = b"answer", who: Principal | None = WHO) -> None:
        method = Method(path, POLICIES[path], GetMessageClass(METHODS[path].input_type))
        self.log = Events()
        self.data = request if isinstance(request, bytes) else request.SerializeToString()
        self._interceptor = AuditInterceptor(self.log)
        self._handler = self._interceptor.wrap(method, self._end)
        self._method, self._ends, self._who = method, ends, who
        self.heard = True

    async def _end(self, request: Any, call: Call) -> bytes:
        if self.heard:
            await call.read()
        if isinstance(self._ends, BaseException):
            raise self._ends
        assert isinstance(self._ends, bytes)
        return self._ends

    async def __call__(self) -> bytes | None:
        call = Call(self._method, self)  # type: ignore[arg-type]
        call.request_id = "x-1"
        if self._who is not None:
            call.principal = self._who
        return await self._handler(None, call)

    async def read(self) -> bytes:
        """What the caller sends, as a call's context reads it."""
        return self.data


async def test_a_call_is_written_before_its_answer_leaves() -> None:
    outcome = Outcome(CREATE_KEY, admin.CreateApiKeyRequest(tenant_id=str(TENANT), display_name="hunter2"))
    assert await outcome() == b"answer"
    assert outcome.log.events == [
        {
            "principal": WHO,
            "method": "AdminService/CreateApiKey",
            "code": "OK",
            "reason": "",
            "tenant_id": TENANT,
            "request": json.dumps(
                {"tenant_id": str(TENANT), "display_name": HIDDEN}, separators=(",", ":"), ensure_ascii=False
            ),
            "request_id": "x-1",
        }
    ]


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (scope_missing(Scope.ADMIN), "PERMISSION_DENIED", "SCOPE_MISSING"),
        (MemoroError(Code.NOT_FOUND, Reason.TENANT_NOT_FOUND, "no"), "NOT_FOUND", "TENANT_NOT_FOUND"),
        (RuntimeError("hunter2"), "INTERNAL", "INTERNAL"),
        (asyncio.CancelledError(), "CANCELLED", ""),
    ],
    ids=repr,
)
async def test_a_call_that_fails_is_written_too(error: BaseException, code: str, reason: str) -> None:
    outcome = Outcome(CREATE_KEY, admin.CreateApiKeyRequest(), error)
    with pytest.raises(type(error)):
        await outcome()
    [event] = outcome.log.events
    assert (event["code"], event["reason"], event["tenant_id"]) == (code, reason, None)
    assert "hunter2" not in repr(event)


@pytest.mark.parametrize("ends", [b"answer", MemoroError(Code.NOT_FOUND, Reason.TENANT_NOT_FOUND, "no")])
async def test_what_can_not_be_written_fails(ends: Any) -> None:
    outcome = Outcome(CREATE_KEY, admin.CreateApiKeyRequest(), ends)
    outcome.log.error = unavailable("database")
    with pytest.raises(MemoroError) as caught:
        await outcome()
    assert caught.value.code is Code.UNAVAILABLE


async def test_whom_a_call_is_about() -> None:
    for path, request, whom in (
        (ROTATE_SECRET, webhooks.RotateWebhookSecretRequest(endpoint_id="e"), WHO.tenant_id),
        ("/memoro.v1.AdminService/PauseQueue", admin.PauseQueueRequest(queue="pro"), None),
        ("/memoro.v1.AdminService/SetBudget", admin.SetBudgetRequest(), None),
        ("/memoro.v1.AdminService/SuspendTenant", admin.SuspendTenantRequest(tenant_id="no id"), None),
        ("/memoro.v1.BillingService/AddCredits", billing.AddCreditsRequest(tenant_id=str(TENANT)), TENANT),
        (CREATE_KEY, b"\xff\xff", WHO.tenant_id),
    ):
        outcome = Outcome(path, request)
        await outcome()
        [event] = outcome.log.events
        assert event["tenant_id"] == whom, path


async def test_who_is_not_known_is_not_written() -> None:
    error = MemoroError(Code.UNAUTHENTICATED, Reason.CREDENTIALS_INVALID, "no")
    outcome = Outcome(CREATE_KEY, admin.CreateApiKeyRequest(), error, who=None)
    with pytest.raises(MemoroError):
        await outcome()
    assert outcome.log.events == []


@pytest.mark.parametrize("stalls", [True, False])
async def test_who_is_refused_before_he_is_heard_is_written_whatever_he_then_does(
    monkeypatch: pytest.MonkeyPatch, stalls: bool
) -> None:
    monkeypatch.setattr("memoro_server.interceptors.audit._PATIENCE", 0.05)
    outcome = Outcome(CREATE_KEY, b"", scope_missing(Scope.ADMIN))

    async def never() -> bytes:
        await asyncio.sleep(60)
        return b""

    monkeypatch.setattr(outcome, "read", never)
    outcome.heard = False
    calling = asyncio.create_task(outcome())
    await asyncio.sleep(0)
    if not stalls:
        calling.cancel()
    with pytest.raises(MemoroError):
        await calling
    [event] = outcome.log.events
    assert (event["reason"], event["request"], event["tenant_id"]) == ("SCOPE_MISSING", "", WHO.tenant_id)


async def test_nobody_fills_the_log_with_what_he_may_not_do() -> None:
    outcome = Outcome(CREATE_KEY, admin.CreateApiKeyRequest(), scope_missing(Scope.ADMIN))
    for _ in range(200):
        with pytest.raises(MemoroError):
            await outcome()
    assert len(outcome.log.events) == 60
    outcome._ends = b"answer"
    for _ in range(100):
        await outcome()
    assert len(outcome.log.events) == 160


def test_what_is_not_audited_is_left_alone() -> None:
    async def handler(request: Any, call: Call) -> bytes:
        return b""

    path = "/memoro.v1.AdminService/ListTenants"
    assert AuditInterceptor(Events()).wrap(Method(path, POLICIES[path], admin.ListTenantsRequest), handler) is handler


def test_the_longest_request_that_is_kept_is_four_kibibytes() -> None:
    assert MAX_REQUEST_BYTES == 4096
