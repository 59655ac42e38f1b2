"""Collects the entities and relationships of one text, within limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from memoro_core.llm.model import ExtractedEntity, ExtractedRelationship

if TYPE_CHECKING:
    from memoro_core.llm.local.periods import Period

MAX_ENTITIES: Final = 64
MAX_RELATIONSHIPS: Final = 128
MAX_NAME_CHARS: Final = 120


@dataclass(frozen=True, slots=True)
class Node:
    """What an expression stands for. `named` tells a name from a common noun; `certainty` is below 1 for a guess."""

    name: str
    type: str
    named: bool = True
    certainty: float = 1.0


@dataclass(slots=True)
class _Entity:
    name: str
    type: str
    named: bool
    aliases: dict[str, str]


class GraphBuilder:
    """Merges what is found into one entity per name and one relationship per triple.

    A part of a person's name that stands alone ("Doe") is an alias of the full name met before it.
    """

    def __init__(self) -> None:
        self._entities: dict[str, _Entity] = {}
        self._alias_of: dict[str, str] = {}
        self._edges: dict[tuple[str, str, str], ExtractedRelationship] = {}
        self.full = False
        """Something was left out because a limit was reached."""

    def add(self, node: Node) -> str | None:
        """The name under which the node stands in the graph; None when there is no room left."""
        key = node.name.casefold()
        key = self._alias_of.get(key, key)
        entity = self._entities.get(key)
        if entity is None:
            whole = self._whole_name(key) if node.type == "PERSON" else None
            if whole is not None:
                self._alias_of[key] = whole
                entity = self._entities[whole]
                entity.aliases.setdefault(key, node.name)
            elif len(self._entities) >= MAX_ENTITIES:
                self.full = True
                return None
            else:
                entity = self._entities[key] = _Entity(node.name, node.type, node.named, {})
        elif (node.named and not entity.named) or (entity.type == "TOPIC" and node.type != "TOPIC"):
            entity.type, entity.named = node.type, entity.named or node.named
        return entity.name

    def relate(
        self,
        source: Node,
        predicate: str,
        target: Node,
        confidence: float,
        *,
        period: Period | None = None,
    ) -> None:
        """Adds `source` PREDICATE `target` and both ends; a triple met again keeps its higher confidence.

        What relates two common nouns only ("dreams take time") is no fact about anyone, and is left out.
        """
        if not (source.named or target.named):
            return
        if len(self._edges) >= MAX_RELATIONSHIPS:
            self.full = True
            return
        ends = self.add(source), self.add(target)
        if ends[0] is None or ends[1] is None or ends[0] == ends[1]:
            return
        confidence = round(confidence * source.certainty * target.certainty, 3)
        key = (ends[0], predicate, ends[1])
        known = self._edges.get(key)
        if known is None or confidence > known.confidence:
            self._edges[key] = ExtractedRelationship(
                ends[0],
                predicate,
                ends[1],
                confidence,
                valid_from=period.start if period is not None else None,
                valid_to=period.end if period is not None else None,
            )

    def entities(self) -> tuple[ExtractedEntity, ...]:
        """Every entity, in the order in which it was first met."""
        return tuple(ExtractedEntity(e.name, e.type, tuple(e.aliases.values())) for e in self._entities.values())

    def relationships(self) -> tuple[ExtractedRelationship, ...]:
        """Every relationship, in the order in which it was first met."""
        return tuple(self._edges.values())

    def _whole_name(self, part: str) -> str | None:
        if " " in part:
            return None
        for key, entity in reversed(self._entities.items()):
            if entity.type != "PERSON" or "'s " in key:
                continue
            words = key.split()
            if len(words) > 1 and part in (words[0], words[-1]):
                return key
        return None
