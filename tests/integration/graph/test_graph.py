"""Reading the graph: lists by name, one entity, and walks that stay within their bounds."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import pytest_asyncio

from memoro_core.clock import SystemClock
from memoro_core.errors import MemoroError, Reason
from memoro_core.graph.model import Direction, EntityFilter, Subgraph, Walk
from memoro_core.graph.service import GraphService
from memoro_core.ids import EntityId, UserId, new_id
from memoro_core.memory.model import NewMemory
from memoro_core.postgres.graph_store import PostgresGraphStore
from tests.support.bulk import add_entities, add_facts
from tests.support.domain import Domain
from tests.support.enrichment import Enricher, fact, facts

ALICE = UserId("alice")
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest_asyncio.fixture
async def graph(domain: Domain) -> GraphService:
    return GraphService(PostgresGraphStore(domain.database), SystemClock())


async def chain(domain: Domain, *names: str) -> list[EntityId]:
    """Entities each of which knows the next."""
    ids = await add_entities(domain.database, domain.tenant, ALICE, names)
    await add_facts(domain.database, domain.tenant, ALICE, list(pairwise(ids)))
    return ids


def depths(subgraph: Subgraph) -> dict[str, int]:
    return {node.entity.name: node.depth for node in subgraph.nodes}


def edges(subgraph: Subgraph) -> set[tuple[str, str, str]]:
    return {(edge.source_name, edge.predicate, edge.target_name) for edge in subgraph.edges}


async def listed(graph: GraphService, domain: Domain, entity_filter: EntityFilter, size: int = 50) -> list[str]:
    """All names of a list, page by page."""
    names: list[str] = []
    position: tuple[str, ...] | None = None
    while True:
        page = await graph.list_entities(domain.tenant, entity_filter, size=size, position=position)
        assert len(page.items) <= size
        names += [entity.name for entity in page.items]
        position = page.next_position
        if position is None:
            return names


async def test_lists_go_by_name_page_by_page(graph: GraphService, domain: Domain) -> None:
    names = [f"entity {n:02}" for n in range(25)] + ["100%", "a_b", "straße", "été", "日本"]
    await add_entities(domain.database, domain.tenant, ALICE, names)
    # The same names again, of another user: the id decides between equals.
    await add_entities(domain.database, domain.tenant, UserId("bob"), names[:10])
    for size in (1, 7, 50):
        assert await listed(graph, domain, EntityFilter(), size) == sorted([*names, *names[:10]])
        assert await listed(graph, domain, EntityFilter(user_id=ALICE), size) == sorted(names)
    assert await listed(graph, domain, EntityFilter(user_id=UserId("nobody"))) == []


async def test_a_prefix_is_taken_as_it_stands_in_any_case_and_of_any_name(graph: GraphService, domain: Domain) -> None:
    enricher = Enricher(domain)
    enricher.extractor.answers = {"text": facts(("Ann Lee", "KNOWS", "Anton"), ("Ann", "KNOWS", "%nn"))}
    await domain.memories.create(domain.tenant, NewMemory(ALICE, "text"))
    await enricher.run()
    found = {
        prefix: await listed(graph, domain, EntityFilter(name_prefix=prefix)) for prefix in ("AN", "%", "ann ", "_")
    }
    assert found == {"AN": ["Ann Lee", "Anton"], "%": ["%nn"], "ann ": ["Ann Lee"], "_": []}
    assert await listed(graph, domain, EntityFilter(type="PLACE")) == ["%nn", "Anton"]
    (lee,) = (await graph.list_entities(domain.tenant, EntityFilter(name_prefix="ann"), size=5, position=None)).items
    assert lee.aliases == ("Ann",)
    assert lee.mention_count == 1


async def test_an_entity_has_its_facts_and_mentions_newest_first(graph: GraphService, domain: Domain) -> None:
    enricher = Enricher(domain)
    texts = [f"text {n}" for n in range(25)]
    enricher.extractor.answers = {
        text: facts(("Ann", "VISITED", f"Place {n}"), ("Bob", "SAW", "Ann")) for n, text in enumerate(texts)
    }
    for text in texts:
        await domain.memories.create(domain.tenant, NewMemory(ALICE, text))
    await enricher.run_all()
    (ann,) = (await graph.list_entities(domain.tenant, EntityFilter(name_prefix="ann"), size=5, position=None)).items
    detail = await graph.get_entity(domain.tenant, ann.id)
    assert detail.entity == ann
    assert ann.mention_count == 25
    assert len(detail.memory_ids) == 20
    assert list(detail.memory_ids) == sorted(detail.memory_ids, reverse=True)
    assert len(detail.relationships) == 26
    assert [one.id for one in detail.relationships] == sorted((one.id for one in detail.relationships), reverse=True)
    seen = next(one for one in detail.relationships if one.predicate == "SAW")
    assert len(seen.memory_ids) == 20


async def test_what_another_tenant_has_is_not_there(graph: GraphService, domain: Domain) -> None:
    (ann, _) = await chain(domain, "ann", "bob")
    other = await domain.new_tenant()
    for tenant, entity_id in ((other, ann), (domain.tenant, EntityId(new_id()))):
        with pytest.raises(MemoroError) as refusal:
            await graph.get_entity(tenant, entity_id)
        assert refusal.value.reason is Reason.ENTITY_NOT_FOUND
    assert (await graph.list_entities(other, EntityFilter(), size=5, position=None)).items == []
    for walk in (Walk(ALICE, [ann]), Walk(ALICE, entity_names=["ann"])):
        with pytest.raises(MemoroError) as refusal:
            await graph.traverse(other, walk)
        assert refusal.value.reason is Reason.ENTITY_NOT_FOUND
        with pytest.raises(MemoroError):
            await graph.traverse(domain.tenant, replace(walk, user_id=UserId("bob")))


async def test_a_walk_goes_as_deep_as_asked_and_the_way_asked(graph: GraphService, domain: Domain) -> None:
    ids = await chain(domain, *"abcdefg")
    middle = Walk(ALICE, [ids[3]], max_depth=2)
    assert depths(await graph.traverse(domain.tenant, middle)) == {"d": 0, "c": 1, "e": 1, "b": 2, "f": 2}
    outgoing = replace(middle, direction=Direction.OUTGOING, max_depth=5)
    assert depths(await graph.traverse(domain.tenant, outgoing)) == {"d": 0, "e": 1, "f": 2, "g": 3}
    incoming = await graph.traverse(domain.tenant, replace(middle, direction=Direction.INCOMING, max_depth=1))
    assert depths(incoming) == {"d": 0, "c": 1}
    assert edges(incoming) == {("c", "KNOWS", "d")}
    assert incoming.truncated is False


async def test_circles_and_loops_are_walked_once(graph: GraphService, domain: Domain) -> None:
    a, b, c = await add_entities(domain.database, domain.tenant, ALICE, ["a", "b", "c"])
    await add_facts(domain.database, domain.tenant, ALICE, [(a, b), (b, c), (c, a), (b, a)])
    subgraph = await graph.traverse(domain.tenant, Walk(ALICE, [a], max_depth=5, direction=Direction.OUTGOING))
    assert depths(subgraph) == {"a": 0, "b": 1, "c": 2}
    assert len(subgraph.edges) == 4


async def test_a_walk_begins_at_ids_and_at_names_of_all_kinds(graph: GraphService, domain: Domain) -> None:
    enricher = Enricher(domain)
    enricher.extractor.answers = {"text": facts(("Ann Lee", "KNOWS", "Bob"), ("Ann", "KNOWS", "Carl"))}
    await domain.memories.create(domain.tenant, NewMemory(ALICE, "text"))
    await enricher.run()
    subgraph = await graph.traverse(domain.tenant, Walk(ALICE, entity_names=["ANN's", "nobody"], include_memories=True))
    assert depths(subgraph) == {"Ann Lee": 0, "Bob": 1, "Carl": 1}
    assert [memory.text for memory in subgraph.memories] == ["text"]
    bob = next(node.entity.id for node in subgraph.nodes if node.entity.name == "Bob")
    walk = Walk(ALICE, [bob, EntityId(new_id())], ["ann lee"], max_depth=1)
    assert depths(await graph.traverse(domain.tenant, walk)) == {"Ann Lee": 0, "Bob": 0, "Carl": 1}
    assert (await graph.traverse(domain.tenant, walk)).memories == ()


async def test_a_walk_keeps_to_predicates_and_to_its_time(graph: GraphService, domain: Domain) -> None:
    a, b, c, d = await add_entities(domain.database, domain.tenant, ALICE, ["a", "b", "c", "d"])
    day = timedelta(days=1)
    for target, predicate, begin, end in (
        (b, "LIVES_IN", START, START + 10 * day),
        (c, "LIVES_IN", START + 10 * day, None),
        (d, "LIKES", START, None),
    ):
        await add_facts(
            domain.database, domain.tenant, ALICE, [(a, target)], predicate=predicate, valid_from=begin, valid_to=end
        )

    async def reached(as_of: datetime | None, *predicates: str) -> set[str]:
        walk = Walk(ALICE, [a], predicates=predicates, as_of=as_of)
        return set(depths(await graph.traverse(domain.tenant, walk))) - {"a"}

    assert await reached(None) == {"c", "d"}
    assert await reached(None, "LIVES_IN") == {"c"}
    assert await reached(None, "LIKES", "LIVES_IN") == {"c", "d"}
    assert await reached(None, "HATES") == set()
    assert await reached(START - day) == set()
    assert await reached(START) == {"b", "d"}
    assert await reached(START + 10 * day - timedelta(microseconds=1)) == {"b", "d"}
    assert await reached(START + 10 * day) == {"c", "d"}


async def test_what_superseding_ended_is_seen_as_of_then(graph: GraphService, domain: Domain) -> None:
    enricher = Enricher(domain)
    enricher.extractor.answers = {place: fact("Ann", "LIVES_IN", place) for place in ("Lyon", "Nice")}
    for days, place in enumerate(("Lyon", "Nice")):
        new = NewMemory(ALICE, place, occurred_at=START + timedelta(days=days))
        await domain.memories.create(domain.tenant, new)
        await enricher.run()
    walk = Walk(ALICE, entity_names=["ann"])
    assert edges(await graph.traverse(domain.tenant, walk)) == {("Ann", "LIVES_IN", "Nice")}
    then = await graph.traverse(domain.tenant, replace(walk, as_of=START + timedelta(hours=1)))
    assert edges(then) == {("Ann", "LIVES_IN", "Lyon")}
    assert then.edges[0].superseded_by is not None


async def test_a_walk_stops_at_so_many_nodes_and_says_so(graph: GraphService, domain: Domain) -> None:
    center, *others = await add_entities(domain.database, domain.tenant, ALICE, [f"e{n}" for n in range(21)])
    await add_facts(domain.database, domain.tenant, ALICE, [(center, other) for other in others])
    cut = await graph.traverse(domain.tenant, Walk(ALICE, [center], max_nodes=20))
    assert (len(cut.nodes), cut.truncated) == (20, True)
    assert {edge.target_id for edge in cut.edges} == {node.entity.id for node in cut.nodes[1:]}
    whole = await graph.traverse(domain.tenant, Walk(ALICE, [center], max_nodes=21))
    assert (len(whole.nodes), whole.truncated) == (21, False)
    starts = await graph.traverse(domain.tenant, Walk(ALICE, others[:15], max_nodes=5))
    assert (len(starts.nodes), starts.truncated) == (5, True)


async def test_a_hub_costs_no_more_than_the_bounds_allow(graph: GraphService, domain: Domain) -> None:
    hub, one = await add_entities(domain.database, domain.tenant, ALICE, ["hub", "one"])
    others = await add_entities(domain.database, domain.tenant, ALICE, [f"leaf {n}" for n in range(20_000)])
    await add_facts(domain.database, domain.tenant, ALICE, [(one, hub), *((hub, other) for other in others)])
    walk = Walk(ALICE, [one], max_depth=5, max_nodes=100)
    await graph.traverse(domain.tenant, walk)
    began = time.perf_counter()
    subgraph = await graph.traverse(domain.tenant, walk)
    took = time.perf_counter() - began
    assert (len(subgraph.nodes), len(subgraph.edges), subgraph.truncated) == (100, 99, True)
    assert took < 1.0
    detail = await asyncio.wait_for(graph.get_entity(domain.tenant, hub), 5)
    assert len(detail.relationships) == 100


@pytest.mark.parametrize(
    ("walk", "field"),
    [
        (Walk(ALICE), "entity_ids"),
        (Walk(ALICE, [EntityId(new_id())] * 21), "entity_ids"),
        (Walk(ALICE, entity_names=["a"] * 21), "entity_names"),
        (Walk(ALICE, entity_names=["a"], max_depth=0), "max_depth"),
        (Walk(ALICE, entity_names=["a"], max_depth=6), "max_depth"),
        (Walk(ALICE, entity_names=["a"], max_nodes=0), "max_nodes"),
        (Walk(ALICE, entity_names=["a"], max_nodes=501), "max_nodes"),
    ],
)
async def test_walks_out_of_bounds_are_refused(graph: GraphService, domain: Domain, walk: Walk, field: str) -> None:
    with pytest.raises(MemoroError) as refusal:
        await graph.traverse(domain.tenant, walk)
    assert refusal.value.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in refusal.value.violations] == [field]
