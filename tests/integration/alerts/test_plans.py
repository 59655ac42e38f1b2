"""A backlog costs the sender nothing: it reads what it takes, along the index."""

from __future__ import annotations

from datetime import timedelta

import asyncpg

from memoro_core.postgres.queries import load_queries
from tests.integration.alerts.conftest import Alerts
from tests.support.alerts import clear_alerts
from tests.support.plans import reads

ENDED, WAITING = 5_000, 1_000


async def test_claiming_reads_no_more_than_it_takes(alerts: Alerts, owner_database_url: str) -> None:
    database = alerts.domain.database
    async with database.system_tx() as connection:
        for state, count in (("DELIVERED", ENDED), ("PENDING", WAITING)):
            await connection.execute(
                "INSERT INTO alerts (alert_id, tenant_id, dedupe_key, kind, severity, title, state, next_attempt_at,"
                " created_at) SELECT gen_random_uuid(), gen_random_uuid(), $1 || '/' || number, 'test', 'INFO', '', $1,"
                f" now() - number * interval '1 second', now() FROM generate_series(1, {count}) AS number",
                state,
            )
    owner = await asyncpg.connect(owner_database_url)
    try:
        await owner.execute("ANALYZE alerts")
        async with database.system_tx() as connection:
            explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + load_queries("alerts")["claim_alerts"]
            now = alerts.clock.now()
            read = reads(await connection.fetchval(explain, now, now + timedelta(seconds=60), 4), "alerts")
    finally:
        await clear_alerts(database)
        await owner.execute("VACUUM ANALYZE alerts")
        await owner.close()
    assert set(read) == {"alerts_due", "alerts_pkey"}
    assert sum(read.values()) <= 8
