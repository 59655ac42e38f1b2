"""Entities, facts and walks."""

from __future__ import annotations

from typing import Final

from memoro.v1 import graph_pb2, memory_service_pb2
from memoro_core.errors import invalid_field
from memoro_core.graph.model import Direction, Entity, EntityFilter, Relationship, Walk
from memoro_core.ids import EntityId, UserId
from memoro_server.convert.scalars import from_time, from_time_or_none, to_id, to_time

_DIRECTION_OF: Final = {
    memory_service_pb2.DIRECTION_UNSPECIFIED: Direction.BOTH,
    memory_service_pb2.DIRECTION_OUTGOING: Direction.OUTGOING,
    memory_service_pb2.DIRECTION_INCOMING: Direction.INCOMING,
}
_DEFAULT_DEPTH: Final = 2
_DEFAULT_NODES: Final = 100


def to_entity_filter(request: memory_service_pb2.ListEntitiesRequest) -> EntityFilter:
    """Which entities a list asks for."""
    return EntityFilter(
        user_id=UserId(request.user_id) if request.user_id else None,
        type=request.type or None,
        name_prefix=request.name_prefix,
    )


def to_walk(request: memory_service_pb2.TraverseGraphRequest) -> Walk:
    """The walk that is asked for. Raises INVALID_FIELD when it has nowhere to begin."""
    if not request.entity_ids and not request.entity_names:
        raise invalid_field("entity_names", "must name an entity to begin at, unless entity_ids does")
    return Walk(
        user_id=UserId(request.user_id),
        entity_ids=[EntityId(to_id(text, f"entity_ids[{index}]")) for index, text in enumerate(request.entity_ids)],
        entity_names=list(request.entity_names),
        max_depth=request.max_depth or _DEFAULT_DEPTH,
        predicates=list(request.predicates),
        direction=_DIRECTION_OF[request.direction],
        as_of=to_time(request, "as_of"),
        max_nodes=request.max_nodes or _DEFAULT_NODES,
        include_memories=request.include_memories,
    )


def from_entity(entity: Entity) -> graph_pb2.Entity:
    """An entity as callers see it."""
    return graph_pb2.Entity(
        id=str(entity.id),
        user_id=entity.user_id,
        type=entity.type,
        name=entity.name,
        aliases=entity.aliases,
        mention_count=entity.mention_count,
        create_time=from_time(entity.created_at),
        update_time=from_time(entity.updated_at),
    )


def from_relationship(fact: Relationship) -> graph_pb2.Relationship:
    """A fact as callers see it."""
    return graph_pb2.Relationship(
        id=str(fact.id),
        source_entity_id=str(fact.source_id),
        source_name=fact.source_name,
        predicate=fact.predicate,
        target_entity_id=str(fact.target_id),
        target_name=fact.target_name,
        confidence=fact.confidence,
        memory_ids=[str(memory_id) for memory_id in fact.memory_ids],
        valid_from=from_time(fact.valid_from),
        valid_to=from_time_or_none(fact.valid_to),
        superseded_by="" if fact.superseded_by is None else str(fact.superseded_by),
        create_time=from_time(fact.created_at),
    )
