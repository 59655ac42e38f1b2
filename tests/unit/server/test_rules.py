"""The rules of the contract, as callers are told them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import Message

from buf.validate import validate_pb2
from memoro.v1 import admin_service_pb2 as admin
from memoro.v1 import billing_service_pb2 as billing
from memoro.v1 import jobs_service_pb2, memory_service_pb2, webhooks_service_pb2
from memoro.v1 import memory_service_pb2 as pb
from memoro_core.errors import MemoroError
from memoro_server.rules import PATTERN_TEXTS, Rules

FILES: tuple[Any, ...] = (memory_service_pb2, jobs_service_pb2, billing, admin, webhooks_service_pb2)
RULES = Rules()


def violations(message: Message) -> list[tuple[str, str]]:
    with pytest.raises(MemoroError) as caught:
        RULES.check(message)
    return [(it.field, it.description) for it in caught.value.violations]


def _patterns(message: Any) -> Iterator[str]:
    for field in message.fields:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        for strings in (rules.string, rules.repeated.items.string):
            if strings.pattern:
                yield strings.pattern


def test_every_pattern_of_the_contract_has_words() -> None:
    used = {
        pattern
        for file in FILES
        for message in file.DESCRIPTOR.message_types_by_name.values()
        for pattern in _patterns(message)
    }
    assert used == PATTERN_TEXTS.keys()


def test_every_request_has_rules_that_compile() -> None:
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                RULES.prepare(method.input_type._concrete_class)


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        (pb.CreateMemoryRequest(user_id="u"), "text", "at least one visible character, and no NUL"),
        (pb.CreateMemoryRequest(user_id="u", text=" \n"), "text", "at least one visible character, and no NUL"),
        (pb.CreateMemoryRequest(user_id="u", text="a\0b"), "text", "at least one visible character, and no NUL"),
        (pb.CreateMemoryRequest(user_id="u", text="é" * 32_769), "text", "at most 65536 bytes"),
        (pb.CreateMemoryRequest(text="hi"), "user_id", "must not be empty"),
        (pb.CreateMemoryRequest(user_id="a\nb", text="hi"), "user_id", "control characters"),
        (pb.CreateMemoryRequest(user_id="u" * 129, text="hi"), "user_id", "at most 128 characters"),
        (pb.CreateMemoryRequest(user_id="u", text="hi", request_id="a b"), "request_id", "no spaces"),
        (pb.GetMemoryRequest(memory_id="x"), "memory_id", "must be a UUID"),
        (pb.ListMemoriesRequest(page_size=-1), "page_size", "greater than or equal to 0"),
        (pb.TraverseGraphRequest(user_id="u", predicates=["works at"]), "predicates[0]", "upper snake case"),
        (pb.AddConversationRequest(user_id="u", conversation_id="c"), "messages", "at least 1 item"),
        (
            pb.AddConversationRequest(user_id="u", conversation_id="c", messages=[pb.Message(text="")]),
            "messages[0].text",
            "visible",
        ),
        (
            pb.SearchMemoriesRequest(user_id="u", query="q", filter=pb.MemoryFilter(conversation_id="c" * 129)),
            "filter.conversation_id",
            "at most 128 characters",
        ),
        (admin.CreateTenantRequest(name="-a"), "name", "not beginning or ending with a hyphen"),
        (admin.CreateTenantRequest(name="a", tier="Gold!"), "tier", "empty or a name of 1 to 32 lower case letters"),
        (billing.GetUsageRequest(from_date="1/2/2026"), "from_date", "must be a day, as 2026-01-31"),
        (billing.EstimateCostRequest(), "request", "exactly one field is required in oneof"),
        (
            billing.EstimateCostRequest(create_memory=pb.CreateMemoryRequest(user_id="u")),
            "create_memory.text",
            "visible",
        ),
        (
            admin.SetPriceRequest(provider="Open AI", model="m", operation="AI_OPERATION_EMBED"),  # type: ignore[arg-type]
            "provider",
            "lower case letters",
        ),
    ],
)
def test_a_broken_rule_is_told_in_words(message: Message, field: str, words: str) -> None:
    ((path, text),) = violations(message)
    assert path == field
    assert words in text


def test_every_bad_field_is_told() -> None:
    assert [field for field, _ in violations(pb.CreateMemoryRequest(request_id="é", priority=9))] == [  # type: ignore[arg-type]
        "request_id",
        "user_id",
        "text",
        "priority",
    ]
