"""What the limits of a tenant mean for its texts: beyond one, facts come later; beyond another, nothing is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from memoro import Client, JobKind, JobState, Limits, MemoroError, Scope, Stage, StageStatus, TenantUsage
from memoro_core.ids import TenantId
from memoro_core.postgres.database import open_database
from memoro_core.settings import Settings
from tests.support.dev import Dev, running_dev

pytestmark = pytest.mark.e2e

WITHIN = 60.0
HOUR = timedelta(hours=1)
FRIENDS = ("Anna", "Bert", "Clara", "David", "Emma", "Frank")


@pytest.fixture(scope="module")
def deployment() -> Iterator[Dev]:
    """A deployment with the local providers."""
    with running_dev() as running:
        yield running


async def an_hour_later(deployment: Dev, tenant_id: str) -> None:
    """Moves what the tenant's users have done an hour into the past."""
    settings = Settings.model_validate({"database_url": deployment.database_url})
    async with open_database(settings) as database, database.tenant_tx(TenantId(UUID(tenant_id))) as connection:
        await connection.execute("UPDATE relation_slots SET taken_at = taken_at - interval '1 hour'")
        await connection.execute("UPDATE jobs SET run_at = run_at - interval '1 hour' WHERE state = 'DEFERRED'")


async def test_the_sixth_text_of_an_hour(deployment: Dev) -> None:
    with Client(deployment.endpoint, api_key=deployment.admin_key) as operator:
        tenant = operator.admin.tenants.create("freeloader", tier="free")
        key = operator.admin.keys.create(tenant.id, scopes=[Scope.READ, Scope.WRITE, Scope.JOBS]).secret
    with Client(deployment.endpoint, api_key=key) as client:
        texts = [f"{friend} lives in Paris." for friend in FRIENDS]
        jobs = [client.memories.create(user_id="ann", text=text).job for text in texts]
        results = [job.result(timeout=WITHIN) for job in jobs]
        left = [result.relate_job_id for result in results if result.relate_job_id]
        assert len(left) == 1
        (late,) = [job for job, result in zip(jobs, results, strict=True) if result.relate_job_id]
        ended = late.refresh()
        assert (ended.state, ended.partial) == (JobState.SUCCEEDED, False)
        status = {stage.stage: stage.status for stage in ended.stages}
        assert (status[Stage.EMBED], status[Stage.EXTRACT]) == (StageStatus.SUCCEEDED, StageStatus.DEFERRED)
        text = client.memories.get(ended.memory_ids[0]).text
        (hit,) = client.memories.search(text, user_id="ann", limit=1)
        assert hit.memory.text == text
        friend = text.split()[0]
        assert friend not in {entity.name for entity in client.graph.entities(user_id="ann", type="PERSON")}

        later = client.jobs.get(left[0])
        assert (later.kind, later.state, later.attempt) == (JobKind.MEMORY_RELATE, JobState.DEFERRED, 0)
        assert later.run_time is not None
        assert abs(later.run_time - datetime.now(UTC) - HOUR) < timedelta(minutes=2)
        (listed,) = client.jobs.list(kinds=[JobKind.MEMORY_RELATE])
        assert listed.id == later.id
        shown = deployment.memoro("jobs", "get", late.id, api_key=key)
        assert f"entities and facts follow with job {later.id}" in shown
        got = json.loads(deployment.memoro("jobs", "get", later.id, "--json", api_key=key))
        assert (got["kind"], got["state"]) == ("MEMORY_RELATE", "DEFERRED")

        await an_hour_later(deployment, tenant.id)
        result = client.jobs.handle(later.id).result(timeout=WITHIN)
        assert (result.memories, result.entities > 0) == (1, True)
        assert friend in {entity.name for entity in client.graph.entities(user_id="ann", type="PERSON")}
        updates = list(client.jobs.watch(later.id, resume_token=""))
        assert updates[-1].state is JobState.SUCCEEDED


def test_a_full_tenant_is_told_and_may_go_on_once_there_is_room(deployment: Dev) -> None:
    with Client(deployment.endpoint, api_key=deployment.admin_key) as operator:
        tenant = operator.admin.tenants.create("hoarder", tier="enterprise")
        operator.admin.tenants.update(tenant.id, limits=Limits(max_memories=2, max_bytes=40))
        key = operator.admin.keys.create(tenant.id).secret
        with Client(deployment.endpoint, api_key=key) as client:
            first = client.memories.create(user_id="ann", text="Ann", request_id="first").memory
            with pytest.raises(MemoroError) as large:
                client.memories.create(user_id="ann", text="Ann lives in a town with a very long name")
            assert (large.value.reason, large.value.metadata["limit"]) == ("QUOTA_EXCEEDED", "max_bytes")
            client.memories.create(user_id="ann", text="Bob")
            with pytest.raises(MemoroError) as full:
                client.memories.create(user_id="ann", text="Cem")
            assert (full.value.reason, dict(full.value.metadata)["maximum"]) == ("QUOTA_EXCEEDED", "2")
            assert client.memories.create(user_id="ann", text="Ann", request_id="first").memory.id == first.id
            assert operator.admin.tenants.get(tenant.id).usage == TenantUsage(2, 10)
            shown = deployment.memoro("admin", "tenants", "get", tenant.id, api_key=deployment.admin_key)
            assert "2 memories, 10 bytes" in shown
            client.memories.delete(first.id)
            client.memories.create(user_id="ann", text="Cem")
