"""Plans of the hot statements on twenty thousand memories, and the approximate index against the exact order."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from memoro_core.ids import EntityId, MemoryId, TenantId, UserId
from memoro_core.memory.model import MemoryFilter, MemoryKind
from memoro_core.memory.search_ports import CandidateQuery
from memoro_core.postgres.database import Connection, Database, open_database
from memoro_core.postgres.embedding_model import for_dimensions
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.search_store import NEAREST, PostgresSearchStore
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import Settings
from tests.support.bulk import MODEL, add_entities, add_facts, add_memories, add_vectors, tell_of
from tests.support.domain import make_tenant

pytestmark = pytest.mark.asyncio(loop_scope="module")

BIG, SMALL = UserId("big"), UserId("small-0")
BIG_COUNT, SMALL_USERS, SMALL_COUNT = 4_000, 16, 1_000


@dataclass
class Library:
    """Two tenants with 20,000 memories together; one user of the first has a vector for each of 4,000."""

    database: Database
    tenant: TenantId
    other: TenantId
    vectors: NDArray[np.float32]
    entities: list[EntityId]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def library(database_url: str, owner_database_url: str) -> AsyncIterator[Library]:
    random = np.random.default_rng(7)
    # Clustered, as the vectors of texts are: forty topics, and what each text adds to its own.
    topics = random.normal(size=(40, 256))
    vectors = topics[random.integers(0, 40, BIG_COUNT)] + random.normal(size=(BIG_COUNT, 256))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    settings = Settings.model_validate({"database_url": database_url})
    async with open_database(settings) as database:
        tenancy = PostgresTenancyStore(database)
        tenant, other = await make_tenant(tenancy), await make_tenant(tenancy)
        await add_memories(database, tenant, BIG, BIG_COUNT)
        await add_vectors(database, tenant, BIG, vectors)
        for n in range(SMALL_USERS):
            owner = tenant if n % 2 == 0 else other
            await add_memories(database, owner, UserId(f"small-{n}"), SMALL_COUNT)
            await add_vectors(database, owner, UserId(f"small-{n}"), vectors[n * 50 : n * 50 + 50])
        entities = await add_entities(database, tenant, BIG, [f"entity {n}" for n in range(5_000)])
        await add_entities(database, other, SMALL, [f"entity {n}" for n in range(5_000)])
        pairs = random.integers(0, len(entities), (10_000, 2))
        ends = {(entities[a], entities[b]) for a, b in pairs if a != b}
        await add_facts(database, tenant, BIG, sorted(ends))
        await tell_of(database, tenant, BIG)
        owner_connection = await asyncpg.connect(owner_database_url)
        try:
            await owner_connection.execute("ANALYZE")
        finally:
            await owner_connection.close()
        yield Library(database, tenant, other, vectors, entities)


_EXPLAIN = """
    CREATE FUNCTION pg_temp.generic_plan(statement text) RETURNS json LANGUAGE plpgsql AS $function$
    DECLARE
        plan json;
    BEGIN
        EXECUTE 'EXPLAIN (GENERIC_PLAN, FORMAT JSON) ' || statement INTO plan;
        RETURN plan;
    END
    $function$
"""


async def plan_of(connection: Connection, statement: str, *arguments: object) -> Mapping[str, Any]:
    """How a statement would be run: for these arguments, or without any, for all, as `generic_plans` has it."""
    if arguments:
        text = await connection.fetchval("EXPLAIN (FORMAT JSON) " + statement, *arguments)
    else:
        await connection.execute(_EXPLAIN)
        text = await connection.fetchval("SELECT pg_temp.generic_plan($1)", statement)
        await connection.execute("DROP FUNCTION pg_temp.generic_plan")
    plan: Mapping[str, Any] = json.loads(text)[0]["Plan"]
    return plan


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def scans(plan: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Every table that is read, and by which index; `ALL` stands for reading the whole table."""
    found: set[tuple[str, str]] = set()
    for node in nodes(plan):
        if node["Node Type"] == "Seq Scan":
            found.add((node["Relation Name"], "ALL"))
        elif node["Node Type"] == "Bitmap Index Scan":
            found.add(("", node["Index Name"]))
        elif "Index Name" in node:
            found.add((node["Relation Name"], node["Index Name"]))
    return found


BY_USER = {"memories_by_user", "memories_by_time", "memories_by_conversation"}
"""Indexes that lead to one user's memories."""


async def test_a_search_reads_one_users_memories_and_then_goes_by_key(library: Library) -> None:
    async with library.database.tenant_tx(library.tenant, generic_plans=True) as connection:
        read = scans(await plan_of(connection, load_queries("search")["find_candidates"]))
    assert not [table for table, index in read if index == "ALL"]
    indexes = {index for _, index in read}
    assert {"memories_pkey", "memory_embeddings_pkey"} < indexes
    assert indexes - {"memories_pkey", "memory_embeddings_pkey"} <= BY_USER


async def test_an_exact_search_reads_one_users_vectors(library: Library) -> None:
    async with library.database.tenant_tx(library.tenant, generic_plans=True) as connection:
        read = scans(await plan_of(connection, load_queries("search")["nearest_exact"]))
    indexes = {index for _, index in read}
    assert "memory_embeddings_by_user" in indexes
    assert indexes - {"memory_embeddings_by_user"} <= BY_USER


async def test_a_search_of_many_vectors_goes_by_the_vector_index(library: Library) -> None:
    statement = for_dimensions(load_queries("search")["nearest_indexed"], 256)
    async with library.database.tenant_tx(library.tenant) as connection:
        query: list[Any] = [
            library.tenant,
            BIG,
            MODEL,
            library.vectors[0],
            False,
            [],
            [],
            None,
            {},
            None,
            None,
            NEAREST,
        ]
        read = scans(await plan_of(connection, statement, *query))
    assert ("memory_embeddings", "memory_embeddings_hnsw_256") in read


@pytest.mark.parametrize("filtered", [False, True], ids=["all", "filtered"])
async def test_the_vector_index_finds_what_comparing_all_would(library: Library, filtered: bool) -> None:
    random = np.random.default_rng(11)
    memory_filter = MemoryFilter(
        kinds=[MemoryKind.MESSAGE], occurred_from=datetime(2026, 1, 2, tzinfo=UTC) if filtered else None
    )
    exact = PostgresSearchStore(library.database, exact_limit=1_000_000)
    indexed = PostgresSearchStore(library.database, exact_limit=0)
    shares: list[float] = []
    for place in random.integers(0, BIG_COUNT, 20):
        vector = library.vectors[place] + 0.05 * random.normal(size=256).astype(np.float32)
        query = CandidateQuery(BIG, "of", vector.astype(np.float32), MODEL, memory_filter)
        expected = await _nearest(exact, library.tenant, query, 10)
        found = await _nearest(indexed, library.tenant, query, 10)
        assert len(expected) == 10
        shares.append(len(expected & found) / 10)
    assert np.mean(shares) >= 0.95


async def _nearest(store: PostgresSearchStore, tenant: TenantId, query: CandidateQuery, count: int) -> set[MemoryId]:
    candidates = await store.find_candidates(tenant, query)
    return {one.memory_id for one in sorted(candidates, key=lambda one: -(one.similarity or 0.0))[:count]}


async def test_the_vector_index_gives_nobody_what_is_anothers(library: Library) -> None:
    indexed = PostgresSearchStore(library.database, exact_limit=0)
    # What is closest to this vector belongs to `big`; `small-0` must still get all that it has.
    query = CandidateQuery(SMALL, "of", library.vectors[3_000], MODEL, MemoryFilter())
    found = [one for one in await indexed.find_candidates(library.tenant, query) if one.similarity is not None]
    assert len(found) == 50
    assert await indexed.find_candidates(library.other, query) == []


async def test_walks_and_facts_go_by_the_ends_of_facts(library: Library) -> None:
    queries = load_queries("graph")
    async with library.database.tenant_tx(library.tenant, generic_plans=True) as connection:
        for name in ("walk", "facts_between", "facts_of_entity"):
            read = scans(await plan_of(connection, queries[name]))
            assert read == {("relationships", "relationships_by_source"), ("relationships", "relationships_by_target")}
        read = scans(await plan_of(connection, queries["get_relationships"]))
        assert {index for _, index in read} == {"relationships_pkey", "entities_pkey", "relationship_sources_pkey"}
        read = scans(await plan_of(connection, queries["get_entities"]))
        assert {index for _, index in read} == {"entities_pkey", "mentions_by_entity"}


@pytest.mark.parametrize("user", [None, BIG], ids=["tenant", "user"])
@pytest.mark.parametrize("after", [None, "entity 42"], ids=["first page", "later page"])
async def test_entities_are_listed_in_the_order_of_an_index(
    library: Library, user: UserId | None, after: str | None
) -> None:
    statement = load_queries("graph")["list_entities"]
    position = (after, library.entities[42]) if after else (None, None)
    async with library.database.tenant_tx(library.tenant) as connection:
        plan = await plan_of(connection, statement, library.tenant, user, None, None, None, *position, 51)
    expected = "entities_by_name" if user else "entities_by_tenant_name"
    assert ("entities", expected) in scans(plan)


async def test_names_are_looked_up_by_prefix_and_as_they_stand(library: Library) -> None:
    async with library.database.tenant_tx(library.tenant) as connection:
        statement = load_queries("graph")["list_entities"]
        prefix = (library.tenant, BIG, None, "entity 7", "entity 8", None, None, 51)
        read = scans(await plan_of(connection, statement, *prefix))
        assert any(index in {"entity_aliases_by_prefix", "entity_aliases_pkey"} for _, index in read)
        for statement in (load_queries("graph")["find_starts"], load_queries("enrichment")["find_entities"]):
            read = scans(await plan_of(connection, statement))
            assert not [table for table, index in read if index == "ALL"]
