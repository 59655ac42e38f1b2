"""The contract's messages to and from the domain's objects."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from memoro.v1 import admin_pb2, jobs_pb2, memory_pb2
from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_service_pb2 as pb
from memoro_core.errors import MemoroError, Reason
from memoro_core.graph.model import Direction
from memoro_core.ids import ApiKeyId, JobId, MemoryId, TenantId, UserId, new_id
from memoro_core.jobs.model import (
    PLANNED_STAGES,
    Job,
    JobError,
    JobEvent,
    JobKind,
    JobResult,
    JobState,
    JobUsage,
    Priority,
    Stage,
    StageProgress,
    StageStatus,
)
from memoro_core.memory.model import Memory, MemoryKind, MemoryPatch, MemoryStatus, ProcessingMode, Role
from memoro_core.tenancy.model import DEFAULT_SCOPES, FREE_TIER, PRO_TIER, ApiKey, Scope
from memoro_server.convert import jobs as convert_jobs
from memoro_server.convert import memory as convert_memory
from memoro_server.convert import tenancy as convert_tenancy
from memoro_server.convert.graph import to_walk
from memoro_server.convert.idempotency import idempotency_of
from memoro_server.convert.jobs import from_job, from_job_event, to_job_filter
from memoro_server.convert.memory import (
    from_memory,
    to_memory_filter,
    to_memory_patch,
    to_new_conversation,
    to_new_memory,
    to_processing_mode,
)
from memoro_server.convert.metadata import MAX_BYTES, MAX_DEPTH, to_metadata
from memoro_server.convert.scalars import from_time, to_id, to_time, to_version
from memoro_server.convert.tenancy import from_api_key, to_scopes, to_tier_name

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
CREATE = "/memoro.v1.MemoryService/CreateMemory"


def refused(function: Any, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(MemoroError) as caught:
        function(*arguments)
    assert caught.value.reason is Reason.INVALID_FIELD
    (violation,) = caught.value.violations
    return violation.field, violation.description


def with_metadata(metadata: dict[str, Any]) -> pb.CreateMemoryRequest:
    request = pb.CreateMemoryRequest()
    request.metadata.update(metadata)
    return request


# --- times, ids, etags, enums ----------------------------------------------------------------------------------------


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_survives(moment: datetime) -> None:
    request = pb.CreateMemoryRequest(occurred_at=from_time(moment))
    assert to_time(request, "occurred_at") == moment


def test_a_time_in_another_zone_is_the_same_moment() -> None:
    moment = datetime.fromisoformat("2026-03-04T05:06:07+02:00")
    assert from_time(moment).ToDatetime(UTC) == moment


def test_no_time_is_none() -> None:
    assert to_time(pb.CreateMemoryRequest(), "occurred_at") is None


@pytest.mark.parametrize(
    "stamp",
    [
        Timestamp(seconds=253_402_300_800),
        Timestamp(seconds=-62_135_596_801),
        Timestamp(nanos=-1),
        Timestamp(nanos=1_000_000_000),
        Timestamp(seconds=2**63 - 1),
    ],
)
def test_a_time_out_of_range_is_refused(stamp: Timestamp) -> None:
    assert refused(to_time, pb.CreateMemoryRequest(occurred_at=stamp), "occurred_at")[0] == "occurred_at"


def test_an_id_is_its_canonical_spelling() -> None:
    made = new_id()
    assert to_id(str(made), "memory_id") == made
    assert refused(to_id, made.hex, "memory_id")[0] == "memory_id"


def test_an_etag_is_a_version() -> None:
    assert to_version("") is None
    assert to_version("17") == 17
    for text in ("x", "-1", "1.0", "٣", "9" * 19):
        assert refused(to_version, text)[0] == "etag"


@pytest.mark.parametrize(
    ("numbers", "enum"),
    [
        (convert_memory.KINDS, memory_pb2.MemoryKind),
        (convert_memory.STATUSES, memory_pb2.MemoryStatus),
        (convert_memory.ROLES, memory_pb2.Role),
        (convert_memory.PROCESSING_MODES, memory_pb2.ProcessingMode),
        (convert_jobs.KINDS, jobs_pb2.JobKind),
        (convert_jobs.STATES, jobs_pb2.JobState),
        (convert_jobs.STAGES, jobs_pb2.Stage),
        (convert_jobs.STAGE_STATUSES, jobs_pb2.StageStatus),
        (convert_jobs.PRIORITIES, memory_pb2.Priority),
        (convert_tenancy.STATES, admin_pb2.TenantState),
        (convert_tenancy.SCOPES, admin_pb2.Scope),
    ],
)
def test_every_value_of_an_enum_has_its_member(numbers: dict[Any, int], enum: Any) -> None:
    assert sorted(numbers.values()) == sorted(set(enum.values()) - {0})


def test_every_direction_has_its_member() -> None:
    walks = [to_walk(pb.TraverseGraphRequest(entity_names=["x"], direction=number)) for number in pb.Direction.values()]
    assert {walk.direction for walk in walks} == set(Direction)


# --- metadata --------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
PLAIN = (
    st.none() | st.booleans() | TEXT | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=10
)


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@given(st.dictionaries(TEXT, JSON, max_size=4).filter(lambda it: depth_of(it) <= MAX_DEPTH))
def test_metadata_survives(metadata: dict[str, Any]) -> None:
    read = to_metadata(with_metadata(metadata))
    assert read == metadata
    assert to_metadata(with_metadata(read)) == metadata


def test_whole_numbers_become_ints() -> None:
    sent = {"a": 3, "b": 3.5, "c": 1e300, "d": True}
    read = to_metadata(with_metadata(sent))
    assert {key: type(value) for key, value in read.items()} == {key: type(value) for key, value in sent.items()}


def test_metadata_that_is_not_set_is_empty() -> None:
    assert to_metadata(pb.CreateMemoryRequest()) == {}


def nested(levels: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {"leaf": 1}
    for _ in range(levels - 1):
        metadata = {"inner": metadata}
    return metadata


def test_metadata_is_as_deep_as_it_may_be_and_no_deeper() -> None:
    assert to_metadata(with_metadata(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    assert "levels deep" in refused(to_metadata, with_metadata(nested(MAX_DEPTH + 1)))[1]
    lists: list[Any] = []
    for _ in range(MAX_DEPTH - 1):
        lists = [lists]
    assert "levels deep" in refused(to_metadata, with_metadata({"a": lists}))[1]


def test_metadata_is_as_large_as_it_may_be_and_no_larger() -> None:
    room = MAX_BYTES - len('{"k":""}')
    assert to_metadata(with_metadata({"k": "x" * room}))
    assert "bytes as JSON" in refused(to_metadata, with_metadata({"k": "x" * (room + 1)}))[1]
    assert "bytes as JSON" in refused(to_metadata, with_metadata({"k": ["x"] * 1_000_000}))[1]
    zeros = [0] * ((MAX_BYTES - len('{"k":[]}') + 1) // 2)
    assert to_metadata(with_metadata({"k": zeros})) == {"k": zeros}


@pytest.mark.parametrize(
    "struct",
    [
        Struct(fields={"a\0b": Value(bool_value=True)}),
        Struct(fields={"a": Value(string_value="a\0b")}),
        Struct(fields={"a": Value(list_value=ListValue(values=[Value(string_value="\0")]))}),
        Struct(fields={"a": Value(number_value=math.nan)}),
        Struct(fields={"a": Value(number_value=math.inf)}),
        Struct(fields={"a": Value()}),
    ],
)
def test_metadata_that_is_no_json_is_refused(struct: Struct) -> None:
    assert refused(to_metadata, pb.CreateMemoryRequest(metadata=struct))[0] == "metadata"


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_new_memory_leaves_to_the_service_what_is_not_said() -> None:
    new = to_new_memory(pb.CreateMemoryRequest(user_id="u", text="hi"))
    assert (new.metadata, new.occurred_at, new.priority) == ({}, None, None)
    assert to_processing_mode(pb.CreateMemoryRequest()) is ProcessingMode.ASYNC
    assert (
        to_processing_mode(pb.CreateMemoryRequest(processing_mode=memory_pb2.PROCESSING_MODE_SYNC))
        is ProcessingMode.SYNC
    )


def test_a_conversation_keeps_order_roles_and_speakers() -> None:
    request = pb.AddConversationRequest(
        user_id="u",
        conversation_id="c",
        messages=[
            pb.Message(text="a", role=memory_pb2.ROLE_USER, speaker="Ann"),
            pb.Message(text="b", occurred_at=from_time(NOW)),
        ],
        priority=memory_pb2.PRIORITY_HIGH,
    )
    new = to_new_conversation(request)
    assert [(it.text, it.role, it.speaker, it.occurred_at) for it in new.messages] == [
        ("a", Role.USER, "Ann", None),
        ("b", None, None, NOW),
    ]
    assert new.priority is Priority.HIGH


def test_the_path_of_a_bad_message_says_which() -> None:
    request = pb.AddConversationRequest(messages=[pb.Message(), pb.Message()])
    request.messages[1].metadata.update({"a": "\0"})
    assert refused(to_new_conversation, request)[0] == "messages[1].metadata"


def test_an_empty_filter_fits_everything() -> None:
    fits = to_memory_filter(pb.ListMemoriesRequest().filter)
    assert (fits.kinds, fits.statuses, fits.conversation_id, fits.metadata) == ((), (), None, {})
    some = pb.MemoryFilter(
        kinds=[memory_pb2.MEMORY_KIND_UNSPECIFIED, memory_pb2.MEMORY_KIND_TEXT],
        statuses=[memory_pb2.MEMORY_STATUS_READY],
    )
    assert to_memory_filter(some).kinds == ()
    assert to_memory_filter(some).statuses == (MemoryStatus.READY,)
    any_state = jobs.ListJobsRequest(states=[jobs_pb2.JOB_STATE_RUNNING, jobs_pb2.JOB_STATE_UNSPECIFIED])
    assert to_job_filter(any_state).states == ()


def test_a_bad_filter_is_told_with_its_path() -> None:
    message = pb.MemoryFilter()
    message.metadata.update({"a": "\0"})
    assert refused(to_memory_filter, message)[0] == "filter.metadata"


def test_a_patch_without_a_mask_changes_what_is_set() -> None:
    patch = to_memory_patch(pb.UpdateMemoryRequest(text="new", etag="3"))
    assert patch == MemoryPatch(text="new", version=3)


def test_a_mask_rules_over_what_is_set() -> None:
    request = pb.UpdateMemoryRequest(text="new", update_mask={"paths": ["metadata"]})  # type: ignore[arg-type]
    assert to_memory_patch(request) == MemoryPatch(metadata={})


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.UpdateMemoryRequest(), "update_mask"),
        (pb.UpdateMemoryRequest(text="x", update_mask={"paths": ["user_id"]}), "update_mask"),  # type: ignore[arg-type]
        (pb.UpdateMemoryRequest(update_mask={"paths": ["text"]}), "text"),  # type: ignore[arg-type]
        (pb.UpdateMemoryRequest(update_mask={"paths": ["occurred_at"]}), "occurred_at"),  # type: ignore[arg-type]
        (pb.UpdateMemoryRequest(text="x", etag="old"), "etag"),
    ],
)
def test_a_bad_patch_is_refused(request_: pb.UpdateMemoryRequest, field: str) -> None:
    assert refused(to_memory_patch, request_)[0] == field


def test_a_walk_needs_a_start_and_has_defaults() -> None:
    assert refused(to_walk, pb.TraverseGraphRequest(user_id="u"))[0] == "entity_names"
    assert refused(to_walk, pb.TraverseGraphRequest(entity_ids=[str(new_id()), "x"]))[0] == "entity_ids[1]"
    walk = to_walk(pb.TraverseGraphRequest(user_id="u", entity_names=["John"]))
    assert (walk.max_depth, walk.max_nodes, walk.direction, walk.as_of) == (2, 100, Direction.BOTH, None)


def test_scopes_and_tiers_have_defaults() -> None:
    assert to_scopes([]) == DEFAULT_SCOPES
    assert to_scopes([admin_pb2.SCOPE_ADMIN]) == (Scope.ADMIN,)
    assert (to_tier_name(""), to_tier_name("pro")) == (FREE_TIER, PRO_TIER)


# --- idempotency -----------------------------------------------------------------------------------------------------


def test_a_request_without_an_id_is_not_idempotent() -> None:
    assert idempotency_of(CREATE, pb.CreateMemoryRequest(text="a")) is None


def test_the_fingerprint_knows_the_method_and_all_but_the_id() -> None:
    def fingerprint(method: str = CREATE, **fields: Any) -> bytes:
        request = pb.CreateMemoryRequest(**{"request_id": "1", "user_id": "u", "text": "a", **fields})
        made = idempotency_of(method, request)
        assert made is not None
        assert made.request_id == request.request_id
        return made.fingerprint

    assert len(fingerprint()) == 32
    assert fingerprint() == fingerprint(request_id="2")
    assert len({fingerprint(), fingerprint(text="b"), fingerprint(priority=1), fingerprint("/other")}) == 4
    one, other = {"a": 1, "b": 2, "c": 3}, {"c": 3, "b": 2, "a": 1}
    assert fingerprint(metadata=one) == fingerprint(metadata=other)


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_memory_goes_out_whole() -> None:
    memory = Memory(
        id=MemoryId(new_id()),
        user_id=UserId("u"),
        kind=MemoryKind.TEXT,
        text="hi",
        metadata={"a": [1, {"b": None}]},
        status=MemoryStatus.PENDING,
        conversation_id=None,
        position=0,
        role=None,
        speaker=None,
        occurred_at=NOW,
        job_id=JobId(new_id()),
        version=4,
        created_at=NOW,
        updated_at=NOW,
    )
    sent = from_memory(memory)
    assert (sent.etag, sent.role, sent.conversation_id) == ("4", 0, "")
    assert sent.create_time.ToDatetime(UTC) == NOW
    assert to_metadata(sent) == memory.metadata


def a_job(**fields: Any) -> Job:
    values: dict[str, Any] = {
        "id": JobId(new_id()),
        "kind": JobKind.MEMORY_ENRICH,
        "state": JobState.QUEUED,
        "priority": Priority.LOW,
        "user_id": UserId("u"),
        "memory_ids": [MemoryId(new_id())],
        "stages": PLANNED_STAGES,
        "attempt": 0,
        "max_attempts": 5,
        "run_at": NOW,
        "sequence": 1,
        "created_at": NOW,
    }
    return Job(**{**values, **fields})


def test_a_queued_job_has_its_stages_planned() -> None:
    sent = from_job(a_job())
    assert [(it.stage, it.status) for it in sent.stages] == [(number, 1) for number in range(1, 6)]
    assert not sent.HasField("error")
    assert not sent.HasField("result")
    assert not sent.HasField("end_time")


def test_an_ended_job_goes_out_whole() -> None:
    stages = tuple(StageProgress(stage, StageStatus.SUCCEEDED, 2, 3) for stage in Stage)
    job = a_job(
        state=JobState.FAILED,
        stages=stages,
        error=JobError("PROVIDER_FAILED", "no", retryable=True),
        result=JobResult(1, 2, 3, 4),
        usage=JobUsage(5, 6, 7),
        cost_bound=8,
        started_at=NOW,
        ended_at=NOW + timedelta(seconds=1),
        partial=True,
        cancel_requested=True,
    )
    sent = MessageToDict(from_job(job), preserving_proto_field_name=True)
    assert sent["error"] == {"reason": "PROVIDER_FAILED", "message": "no", "retryable": True}
    assert sent["result"] == {"memories": 1, "entities": 2, "relationships": 3, "superseded": 4}
    assert sent["usage"] == {"input_tokens": "5", "output_tokens": "6", "charged": "7"}
    assert sent["cost_bound"] == "8"
    assert sent["stages"][0] == {
        "stage": "STAGE_SCREEN",
        "status": "STAGE_STATUS_SUCCEEDED",
        "completed": 2,
        "total": 3,
    }
    assert sent["end_time"] == "2026-03-04T05:06:08.000089Z"


def test_an_event_sets_only_what_it_touches() -> None:
    sent = from_job_event(JobId(new_id()), JobEvent(seq=2, state=JobState.RUNNING, attempt=1, at=NOW))
    assert {field.name for field, _ in sent.ListFields()} == {"job_id", "state", "attempt", "event_time"}


def test_a_key_goes_out_without_anything_secret() -> None:
    key = ApiKey(ApiKeyId(new_id()), TenantId(new_id()), "name", "mk_prefix", (Scope.READ,), NOW, None, None)
    sent = from_api_key(key)
    assert sent.scopes == [admin_pb2.SCOPE_READ]
    assert not sent.HasField("expire_time")
    assert set(admin_pb2.ApiKey.DESCRIPTOR.fields_by_name) == {
        "id",
        "tenant_id",
        "display_name",
        "prefix",
        "scopes",
        "create_time",
        "expire_time",
        "revoke_time",
    }
