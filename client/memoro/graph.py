"""The graph: who and what the memories tell of, and how they belong together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from datetime import datetime

from memoro import convert, methods, paging, wire
from memoro.enums import Direction
from memoro.transport import Transport
from memoro.types import Entity, EntityFacts, Subgraph
from memoro.v1 import memory_service_pb2


class AsyncGraph:
    """The graphs of the tenant's users. `timeout` is in seconds."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def entities(
        self,
        *,
        user_id: str = "",
        type: str = "",
        name_prefix: str = "",
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Entity, None]:
        """Entities by name: of one user or of all, of one type (`PERSON`) or of every type."""
        request = memory_service_pb2.ListEntitiesRequest(user_id=user_id, type=type, name_prefix=name_prefix)
        return paging.items(
            self._transport,
            methods.LIST_ENTITIES,
            request,
            lambda response: response.entities,
            convert.entity,
            limit=limit,
            timeout=timeout,
        )

    async def entity(self, entity_id: str, *, timeout: float | None = None) -> EntityFacts:
        """One entity and what is known of it. Raises NotFound."""
        request = memory_service_pb2.GetEntityRequest(entity_id=entity_id)
        response = await self._transport.unary(methods.GET_ENTITY, request, timeout)
        return EntityFacts(
            entity=convert.entity(response.entity),
            relationships=tuple(convert.relationship(one) for one in response.relationships),
            memory_ids=tuple(response.memory_ids),
        )

    async def traverse(
        self,
        *,
        user_id: str,
        entity_ids: Iterable[str] = (),
        entity_names: Iterable[str] = (),
        max_depth: int = 0,
        predicates: Iterable[str] = (),
        direction: Direction | None = None,
        as_of: datetime | None = None,
        max_nodes: int = 0,
        include_memories: bool = False,
        timeout: float | None = None,
    ) -> Subgraph:
        """Walks a user's graph outwards from entities given by id or name, breadth first.

        At most `max_depth` steps (0 for 2, up to 5), along `predicates` (`WORKS_AT`; none for all), both ways without a
        `direction`, until `max_nodes` are found (0 for 100, up to 500); `as_of` walks the facts of that time.
        """
        request = memory_service_pb2.TraverseGraphRequest(
            user_id=user_id,
            entity_ids=entity_ids,
            entity_names=entity_names,
            max_depth=max_depth,
            predicates=predicates,
            direction=wire.enum_number(Direction, direction),
            as_of=wire.timestamp("as_of", as_of),
            max_nodes=max_nodes,
            include_memories=include_memories,
        )
        return convert.subgraph(await self._transport.unary(methods.TRAVERSE_GRAPH, request, timeout))
