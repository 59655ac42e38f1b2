"""Which names in the texts of one job mean the same entity, and what the texts state about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from memoro_core.graph.names import clean_label, clean_name, first_name, normalized
from memoro_core.ids import MemoryId
from memoro_core.llm.model import ExtractedEntity, ExtractedRelationship, Extraction

EntityKey = tuple[str, str]
"""Type and normalised name: what an entity of a user is unique by."""

PERSON: Final = "PERSON"
VAGUE_TYPES: Final = frozenset({"CONCEPT", "ENTITY", "MISC", "OBJECT", "OTHER", "THING", "TOPIC", "UNKNOWN"})
"""Types that say too little to keep two entities of one name apart."""
MAX_ALIASES: Final = 16
"""More other names than that for one thing in one text are a provider's mistake."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found in one memory."""

    memory_id: MemoryId
    occurred_at: datetime
    extraction: Extraction


@dataclass(frozen=True, slots=True)
class KnownEntity:
    """An entity that the user's graph has already, under one of its names (`alias`, normalised)."""

    type: str
    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class NamesToFind:
    """Names to look up in the user's graph: as they stand, and as first names of persons. All normalised, sorted."""

    names: Sequence[str]
    first_names: Sequence[str]


@dataclass(frozen=True, slots=True)
class FoundEntity:
    """An entity that the texts mention; it may be known already. `aliases` are its names in them, normalised."""

    key: EntityKey
    name: str
    other_names: Sequence[str]
    aliases: Sequence[str]
    memory_ids: Sequence[MemoryId]


@dataclass(frozen=True, slots=True)
class FoundFact:
    """A fact that the texts state. `valid_to` None: it holds from `valid_from` on."""

    source: EntityKey
    predicate: str
    target: EntityKey
    confidence: float
    valid_from: datetime
    valid_to: datetime | None
    memory_ids: Sequence[MemoryId]


@dataclass(frozen=True, slots=True)
class Findings:
    """What the texts of one job say together: each entity and each fact once, sorted by key."""

    entities: Sequence[FoundEntity]
    facts: Sequence[FoundFact]


def names_to_find(readings: Iterable[Reading]) -> NamesToFind:
    """What must be known of the user's graph to resolve these readings."""
    mentions = [mention for reading in readings for mention in _mentions(reading)]
    return NamesToFind(
        sorted({alias for mention in mentions for alias in mention.aliases}),
        sorted({m.key[1] for m in mentions if m.key[0] == PERSON and first_name(m.key[1]) is None}),
    )


def resolve(readings: Sequence[Reading], known: Iterable[KnownEntity]) -> Findings:
    """Merges what was found with itself and with what is known.

    A name means the entity that has it; a person's first name means the one person whose full name begins with it.
    Wherever that leaves a choice, the name stays an entity of its own.
    """
    directory = _Directory(known)
    mentions = [(reading, mention) for reading in readings for mention in _mentions(reading)]
    # Full names first, so that a first name finds its person wherever in the job that one is named in full.
    for _, mention in sorted(mentions, key=lambda pair: first_name(pair[1].key[1]) is None):
        directory.add(mention)
    entities: dict[EntityKey, _Entity] = {}
    facts: dict[tuple[EntityKey, str, EntityKey, datetime | None], _Fact] = {}
    by_reading: dict[MemoryId, dict[str, EntityKey]] = {}
    for reading, mention in mentions:
        key = directory.key_of(mention)
        by_reading.setdefault(reading.memory_id, {}).update(dict.fromkeys(mention.aliases, key))
        entity = entities.setdefault(key, _Entity(directory.name_of(key)))
        entity.add(mention, reading.memory_id)
    for reading in readings:
        keys = by_reading.get(reading.memory_id, {})
        for relationship in reading.extraction.relationships:
            source, target = keys.get(normalized(relationship.source)), keys.get(normalized(relationship.target))
            predicate = clean_label(relationship.predicate)
            if source is None or target is None or source == target or not predicate:
                continue
            fact = facts.setdefault((source, predicate, target, relationship.valid_to), _Fact())
            fact.add(relationship, reading)
    return Findings(
        [entities[key].found(key) for key in sorted(entities)],
        [
            FoundFact(source, predicate, target, fact.confidence, fact.start(), end, tuple(fact.memory_ids))
            for (source, predicate, target, end), fact in sorted(facts.items(), key=lambda item: _order(item[0]))
        ],
    )


@dataclass(frozen=True, slots=True)
class _Mention:
    key: EntityKey
    names: tuple[str, ...]
    aliases: tuple[str, ...]


@dataclass(slots=True)
class _Entity:
    name: str
    names: dict[str, None] = field(default_factory=dict)
    aliases: dict[str, None] = field(default_factory=dict)
    memory_ids: dict[MemoryId, None] = field(default_factory=dict)

    def add(self, mention: _Mention, memory_id: MemoryId) -> None:
        self.names.update(dict.fromkeys(mention.names))
        self.aliases.update(dict.fromkeys(mention.aliases))
        self.memory_ids[memory_id] = None

    def found(self, key: EntityKey) -> FoundEntity:
        others = [name for name in self.names if normalized(name) != key[1]]
        return FoundEntity(key, self.name, others, list(dict.fromkeys((key[1], *self.aliases))), list(self.memory_ids))


@dataclass(slots=True)
class _Fact:
    confidence: float = 0.0
    starts: list[datetime] = field(default_factory=list)
    memory_ids: dict[MemoryId, None] = field(default_factory=dict)

    def add(self, relationship: ExtractedRelationship, reading: Reading) -> None:
        start = relationship.valid_from or reading.occurred_at
        # One that says only until when it held began before that, nobody knows when.
        self.starts.append(start if relationship.valid_to is None else min(start, relationship.valid_to))
        self.confidence = max(self.confidence, min(1.0, max(0.0, relationship.confidence)))
        self.memory_ids[reading.memory_id] = None

    def start(self) -> datetime:
        return min(self.starts)


class _Directory:
    """Every entity by each of its names: the known ones, and those that the job adds."""

    def __init__(self, known: Iterable[KnownEntity]) -> None:
        self._by_alias: dict[str, dict[EntityKey, None]] = {}
        self._persons: dict[str, dict[EntityKey, None]] = {}
        self._names: dict[EntityKey, str] = {}
        for entity in known:
            self._enter((entity.type, normalized(entity.name)), entity.name, (entity.alias,))

    def add(self, mention: _Mention) -> None:
        """Enters a mention under the entity that it means, or as a new one."""
        key = self.key_of(mention)
        self._enter(key, self._names.get(key, mention.names[0]), mention.aliases)

    def name_of(self, key: EntityKey) -> str:
        return self._names[key]

    def key_of(self, mention: _Mention) -> EntityKey:
        if mention.key in self._names:
            return mention.key
        kind, name = mention.key
        candidates = {key for key in self._by_alias.get(name, ()) if _compatible(key[0], kind)}
        if kind == PERSON and first_name(name) is None:
            candidates |= self._persons.get(name, {}).keys()
        return candidates.pop() if len(candidates) == 1 else mention.key

    def _enter(self, key: EntityKey, name: str, aliases: Sequence[str]) -> None:
        self._names.setdefault(key, name)
        for alias in (key[1], *aliases):
            self._by_alias.setdefault(alias, {})[key] = None
        if key[0] == PERSON and (first := first_name(key[1])) is not None:
            self._persons.setdefault(first, {})[key] = None


def _mentions(reading: Reading) -> Iterator[_Mention]:
    for entity in reading.extraction.entities:
        mention = _mention(entity)
        if mention is not None:
            yield mention


def _mention(entity: ExtractedEntity) -> _Mention | None:
    names = tuple(filter(None, map(clean_name, (entity.name, *entity.aliases[:MAX_ALIASES]))))
    kind = clean_label(entity.type)
    if not clean_name(entity.name) or not kind:
        return None
    aliases = tuple(dict.fromkeys(filter(None, map(normalized, names))))
    return _Mention((kind, aliases[0]), names, aliases) if aliases else None


def _compatible(one: str, other: str) -> bool:
    return one == other or one in VAGUE_TYPES or other in VAGUE_TYPES


def _order(key: tuple[EntityKey, str, EntityKey, datetime | None]) -> tuple[EntityKey, str, EntityKey, float]:
    source, predicate, target, end = key
    return source, predicate, target, end.timestamp() if end else float("inf")
