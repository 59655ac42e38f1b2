"""MemoryService: the graph."""

from __future__ import annotations

from memoro.v1 import memory_service_pb2 as pb
from memoro_core.graph.service import GraphService
from memoro_core.ids import EntityId
from memoro_server.call import Call
from memoro_server.convert.graph import from_entity, from_relationship, to_entity_filter, to_walk
from memoro_server.convert.memory import from_memory
from memoro_server.convert.pages import PageSpot
from memoro_server.convert.scalars import to_id


class GraphServicer:
    """The calls of MemoryService that are about entities and facts."""

    def __init__(self, graph: GraphService) -> None:
        self._graph = graph

    async def ListEntities(self, request: pb.ListEntitiesRequest, call: Call) -> pb.ListEntitiesResponse:
        spot = PageSpot(request, call)
        page = await self._graph.list_entities(
            call.tenant_id, to_entity_filter(request), size=spot.size, position=spot.position
        )
        return pb.ListEntitiesResponse(
            entities=[from_entity(entity) for entity in page.items], next_page_token=spot.token(page.next_position)
        )

    async def GetEntity(self, request: pb.GetEntityRequest, call: Call) -> pb.GetEntityResponse:
        detail = await self._graph.get_entity(call.tenant_id, EntityId(to_id(request.entity_id, "entity_id")))
        return pb.GetEntityResponse(
            entity=from_entity(detail.entity),
            relationships=[from_relationship(fact) for fact in detail.relationships],
            memory_ids=[str(memory_id) for memory_id in detail.memory_ids],
        )

    async def TraverseGraph(self, request: pb.TraverseGraphRequest, call: Call) -> pb.TraverseGraphResponse:
        reached = await self._graph.traverse(call.tenant_id, to_walk(request))
        return pb.TraverseGraphResponse(
            nodes=[pb.GraphNode(entity=from_entity(node.entity), depth=node.depth) for node in reached.nodes],
            edges=[from_relationship(fact) for fact in reached.edges],
            memories=[from_memory(memory) for memory in reached.memories],
            truncated=reached.truncated,
        )
