"""A backlog costs the sender nothing: it steps along the index, and reads what it takes."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from memoro_core.postgres.queries import load_queries
from tests.integration.webhooks.conftest import Webhooks
from tests.support.jobs import now

ENDPOINTS, DELIVERIES = 100, 200


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in _nodes(part))]


@pytest.fixture
async def backlog(webhooks: Webhooks, owner_database_url: str) -> Any:
    """Many deliveries to many endpoints, which are gone again when the test is over."""
    async with webhooks.domain.database.tenant_tx(webhooks.domain.tenant) as connection:
        await connection.execute(
            "INSERT INTO webhook_endpoints (tenant_id, endpoint_id, url, event_types, description, state, secret,"
            " created_at) SELECT current_tenant(), gen_random_uuid(), 'https://hooks.invalid/', '{}', '', 'ENABLED',"
            f" '\\x00', now() FROM generate_series(1, {ENDPOINTS})"
        )
        await connection.execute(
            "INSERT INTO webhook_deliveries (tenant_id, event_id, endpoint_id, event_type, payload, next_attempt_at,"
            " give_up_at, created_at) SELECT tenant_id, gen_random_uuid(), endpoint_id, 'job.failed', '{}', now(),"
            f" now() + interval '1 day', now() FROM webhook_endpoints, generate_series(1, {DELIVERIES})"
        )
    owner = await asyncpg.connect(owner_database_url)
    try:
        await owner.execute("ANALYZE webhook_deliveries")
        yield
    finally:
        async with webhooks.domain.database.tenant_tx(webhooks.domain.tenant) as connection:
            await connection.execute("DELETE FROM webhook_deliveries")
        await owner.execute("VACUUM ANALYZE webhook_deliveries")
        await owner.close()


@pytest.mark.usefixtures("backlog")
async def test_claiming_reads_no_more_than_the_heads_of_the_queues(webhooks: Webhooks) -> None:
    explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + load_queries("webhooks")["claim_deliveries"]
    async with webhooks.domain.database.system_tx() as connection:
        text = await connection.fetchval(explain, now(), now() + timedelta(seconds=30), False, 8, [], [], 48)
    reads = [node for node in _nodes(json.loads(text)[0]["Plan"]) if node.get("Relation Name") == "webhook_deliveries"]
    scans = [node for node in reads if node["Node Type"] != "ModifyTable"]
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in scans) < ENDPOINTS * 12
