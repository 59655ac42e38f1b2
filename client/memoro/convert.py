"""Turns messages of the contract into the client's own types."""

from __future__ import annotations

from collections.abc import Iterable

from memoro import enums, types
from memoro.convert_tiers import limits
from memoro.v1 import (
    admin_pb2,
    graph_pb2,
    jobs_pb2,
    jobs_service_pb2,
    memory_pb2,
    memory_service_pb2,
    webhooks_pb2,
)
from memoro.wire import enum_of, mapping_of, optional_enum_of, time_of


def memory(message: memory_pb2.Memory) -> types.Memory:
    return types.Memory(
        id=message.id,
        user_id=message.user_id,
        kind=enum_of(enums.MemoryKind, message.kind),
        text=message.text,
        metadata=mapping_of(message.metadata),
        status=enum_of(enums.MemoryStatus, message.status),
        conversation_id=message.conversation_id,
        position=message.position,
        role=optional_enum_of(enums.Role, message.role),
        speaker=message.speaker,
        occurred_at=time_of(message, "occurred_at"),
        job_id=message.job_id,
        etag=message.etag,
        create_time=time_of(message, "create_time"),
        update_time=time_of(message, "update_time"),
    )


def search_hit(message: memory_service_pb2.SearchHit) -> types.SearchHit:
    return types.SearchHit(
        memory=memory(message.memory),
        score=message.score,
        explanation=tuple(
            types.ArmScore(arm.arm, arm.raw, arm.rank, arm.contribution) for arm in message.explanation.arms
        ),
    )


def stage(message: jobs_pb2.StageProgress) -> types.StageProgress:
    return types.StageProgress(
        stage=enum_of(enums.Stage, message.stage),
        status=enum_of(enums.StageStatus, message.status),
        completed=message.completed,
        total=message.total,
    )


def job(message: jobs_pb2.Job) -> types.Job:
    return types.Job(
        id=message.id,
        kind=enum_of(enums.JobKind, message.kind),
        state=enum_of(enums.JobState, message.state),
        priority=optional_enum_of(enums.Priority, message.priority),
        user_id=message.user_id,
        memory_ids=tuple(message.memory_ids),
        stages=tuple(stage(one) for one in message.stages),
        partial=message.partial,
        attempt=message.attempt,
        max_attempts=message.max_attempts,
        error=_job_error(message),
        result=_job_result(message),
        usage=_job_usage(message),
        cancel_requested=message.cancel_requested,
        sequence=message.sequence,
        create_time=time_of(message, "create_time"),
        run_time=time_of(message, "run_time"),
        start_time=time_of(message, "start_time"),
        end_time=time_of(message, "end_time"),
        retry_of=message.retry_of,
        cost_bound=message.cost_bound,
    )


def job_update(message: jobs_service_pb2.WatchJobResponse | jobs_service_pb2.WatchJobsResponse) -> types.JobUpdate:
    """An update from a message of a watch that is a snapshot or an update."""
    if message.HasField("snapshot"):
        snapshot = job(message.snapshot)
        return types.JobUpdate(
            job_id=snapshot.id,
            sequence=message.sequence,
            resume_token=message.resume_token,
            state=snapshot.state,
            attempt=snapshot.attempt,
            snapshot=snapshot,
            error=snapshot.error,
            result=snapshot.result,
            partial=snapshot.partial,
            usage=snapshot.usage,
            run_time=snapshot.run_time,
        )
    update = message.update
    return types.JobUpdate(
        job_id=update.job_id,
        sequence=message.sequence,
        resume_token=message.resume_token,
        state=enum_of(enums.JobState, update.state),
        attempt=update.attempt,
        stage=stage(update.stage) if update.HasField("stage") and update.stage.stage else None,
        error=_job_error(update),
        result=_job_result(update),
        partial=update.partial,
        usage=_job_usage(update) if update.HasField("usage") else None,
        run_time=time_of(update, "run_time"),
        event_time=time_of(update, "event_time"),
    )


def entity(message: graph_pb2.Entity) -> types.Entity:
    return types.Entity(
        id=message.id,
        user_id=message.user_id,
        type=message.type,
        name=message.name,
        aliases=tuple(message.aliases),
        mention_count=message.mention_count,
        create_time=time_of(message, "create_time"),
        update_time=time_of(message, "update_time"),
    )


def relationship(message: graph_pb2.Relationship) -> types.Relationship:
    return types.Relationship(
        id=message.id,
        source_entity_id=message.source_entity_id,
        source_name=message.source_name,
        predicate=message.predicate,
        target_entity_id=message.target_entity_id,
        target_name=message.target_name,
        confidence=message.confidence,
        memory_ids=tuple(message.memory_ids),
        valid_from=time_of(message, "valid_from"),
        valid_to=time_of(message, "valid_to"),
        superseded_by=message.superseded_by,
        create_time=time_of(message, "create_time"),
    )


def subgraph(message: memory_service_pb2.TraverseGraphResponse) -> types.Subgraph:
    return types.Subgraph(
        nodes=tuple(types.GraphNode(entity(node.entity), node.depth) for node in message.nodes),
        edges=tuple(relationship(edge) for edge in message.edges),
        memories=tuple(memory(one) for one in message.memories),
        truncated=message.truncated,
    )


def tenant(message: admin_pb2.Tenant) -> types.Tenant:
    return types.Tenant(
        id=message.id,
        name=message.name,
        display_name=message.display_name,
        tier=message.tier,
        state=enum_of(enums.TenantState, message.state),
        etag=message.etag,
        create_time=time_of(message, "create_time"),
        update_time=time_of(message, "update_time"),
        limits=limits(message.limits),
    )


def tenant_usage(message: admin_pb2.TenantUsage) -> types.TenantUsage:
    return types.TenantUsage(message.memories, message.bytes)


def api_key(message: admin_pb2.ApiKey) -> types.ApiKey:
    return types.ApiKey(
        id=message.id,
        tenant_id=message.tenant_id,
        display_name=message.display_name,
        prefix=message.prefix,
        scopes=tuple(enum_of(enums.Scope, scope) for scope in message.scopes),
        create_time=time_of(message, "create_time"),
        expire_time=time_of(message, "expire_time"),
        revoke_time=time_of(message, "revoke_time"),
    )


def audit_event(message: admin_pb2.AuditEvent) -> types.AuditEvent:
    return types.AuditEvent(
        id=message.id,
        event_time=time_of(message, "event_time"),
        method=message.method,
        code=message.code,
        reason=message.reason,
        actor_tenant_id=message.actor_tenant_id,
        actor_api_key_id=message.actor_api_key_id,
        actor_subject=message.actor_subject,
        tenant_id=message.tenant_id,
        request=message.request,
        request_id=message.request_id,
    )


def worker(message: admin_pb2.Worker) -> types.Worker:
    return types.Worker(
        id=message.id,
        host=message.host,
        process_id=message.process_id,
        version=message.version,
        concurrency=message.concurrency,
        running=message.running,
        jobs=tuple(_running_job(one) for one in message.jobs),
        stopping=message.stopping,
        start_time=time_of(message, "start_time"),
        seen_time=time_of(message, "seen_time"),
    )


def queues(messages: Iterable[admin_pb2.Queue]) -> tuple[types.QueueStatus, ...]:
    return tuple(
        types.QueueStatus(
            name=message.name,
            waiting=message.waiting,
            active=message.active,
            deferred=message.deferred,
            succeeded_today=message.succeeded_today,
            failed_today=message.failed_today,
            rate=message.rate,
            oldest_due_time=time_of(message, "oldest_due_time"),
            pause_time=time_of(message, "pause_time"),
        )
        for message in messages
    )


def webhook_endpoint(message: webhooks_pb2.WebhookEndpoint) -> types.WebhookEndpoint:
    return types.WebhookEndpoint(
        id=message.id,
        url=message.url,
        event_types=tuple(enum_of(enums.WebhookEventType, kind) for kind in message.event_types),
        description=message.description,
        state=enum_of(enums.WebhookEndpointState, message.state),
        previous_secret_expire_time=time_of(message, "previous_secret_expire_time"),
        failing_since=time_of(message, "failing_since"),
        disable_time=time_of(message, "disable_time"),
        create_time=time_of(message, "create_time"),
    )


def webhook_delivery(message: webhooks_pb2.WebhookDelivery) -> types.WebhookDelivery:
    return types.WebhookDelivery(
        event_id=message.event_id,
        endpoint_id=message.endpoint_id,
        event_type=enum_of(enums.WebhookEventType, message.event_type),
        state=enum_of(enums.DeliveryState, message.state),
        attempt=message.attempt,
        response_status=message.response_status,
        error=message.error,
        create_time=time_of(message, "create_time"),
        attempt_time=time_of(message, "attempt_time"),
        next_attempt_time=time_of(message, "next_attempt_time"),
        end_time=time_of(message, "end_time"),
    )


def _running_job(message: admin_pb2.RunningJob) -> types.RunningJob:
    return types.RunningJob(
        job_id=message.job_id,
        tenant_id=message.tenant_id,
        kind=enum_of(enums.JobKind, message.kind),
        attempt=message.attempt,
        start_time=time_of(message, "start_time"),
    )


def _job_error(message: jobs_pb2.Job | jobs_pb2.JobUpdate) -> types.JobError | None:
    if not message.HasField("error"):
        return None
    return types.JobError(message.error.reason, message.error.message, message.error.retryable)


def _job_result(message: jobs_pb2.Job | jobs_pb2.JobUpdate) -> types.JobResult | None:
    if not message.HasField("result"):
        return None
    result = message.result
    return types.JobResult(
        result.memories, result.entities, result.relationships, result.superseded, result.relate_job_id
    )


def _job_usage(message: jobs_pb2.Job | jobs_pb2.JobUpdate) -> types.JobUsage:
    usage = message.usage
    return types.JobUsage(usage.input_tokens, usage.output_tokens, usage.charged)
