"""What statements read: which indexes, and how many rows of each."""

from __future__ import annotations

import json
from typing import Any

from memoro_core.postgres.queries import load_queries
from tests.support.domain import Domain


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan and all of its parts."""
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


async def scans(domain: Domain, file: str, name: str, *parameters: object, of_tenant: bool = False) -> dict[str, float]:
    """Which indexes of `jobs` a statement reads, and how many rows it gets from each. What it changes is taken back.

    Whole tables are read only where no index would do: how many rows other tests have left must not decide.
    """
    explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + load_queries(file)[name]
    database = domain.database
    async with database.tenant_tx(domain.tenant) if of_tenant else database.system_tx() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off; SAVEPOINT before")
        text = await connection.fetchval(explain, *parameters)
        await connection.execute("ROLLBACK TO before")
    return reads(text, "jobs")


def reads(text: str, table: str) -> dict[str, float]:
    """What an explained statement has read of a table, by index."""
    read: dict[str, float] = {}
    for node in nodes(json.loads(text)[0]["Plan"]):
        if node.get("Relation Name") == table and node["Node Type"] != "ModifyTable":
            index = node.get("Index Name") or next(
                (part["Index Name"] for part in nodes(node) if "Index Name" in part), node["Node Type"]
            )
            rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            read[index] = read.get(index, 0) + rows
    return read
