"""The form that a model's extraction must have, and what can be saved of one that does not have it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from memoro_core.llm.dates import absolute_date
from memoro_core.llm.model import ExtractedEntity, ExtractedRelationship

MAX_ENTITIES: Final = 64
MAX_RELATIONSHIPS: Final = 128
MAX_NAME_CHARS: Final = 120
_MAX_SYMBOL_CHARS: Final = 64
_MAX_ALIASES: Final = 8
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\s]+")
_NOT_SYMBOL: Final = re.compile(r"[^A-Z0-9]+")


def _name(value: object) -> object:
    return _UNPRINTABLE.sub(" ", value).strip()[:MAX_NAME_CHARS].strip() if isinstance(value, str) else value


def _symbol(value: object) -> object:
    if not isinstance(value, str):
        return value
    return _NOT_SYMBOL.sub("_", value.upper()).strip("_")[:_MAX_SYMBOL_CHARS].strip("_")


def _moment(value: object) -> datetime | None:
    """A date that can't be read is left out: the fact holds without it."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return absolute_date(value)


def _share(value: object) -> object:
    return min(max(value, 0.0), 1.0) if isinstance(value, int | float) and value == value else value  # noqa: PLR0124


Name = Annotated[str, BeforeValidator(_name), Field(min_length=1)]
Symbol = Annotated[str, BeforeValidator(_symbol), Field(min_length=1)]


class _Item(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class AnsweredEntity(_Item):
    """One entity of an answer."""

    name: Name
    type: Symbol
    aliases: list[Name] = Field(default_factory=list)


class AnsweredRelationship(_Item):
    """One relationship of an answer."""

    source: Name
    predicate: Symbol
    target: Name
    confidence: Annotated[float, BeforeValidator(_share)] = Field(default=1.0, ge=0.0, le=1.0)
    valid_from: Annotated[datetime | None, BeforeValidator(_moment)] = None
    valid_to: Annotated[datetime | None, BeforeValidator(_moment)] = None


class Answer(_Item):
    """A whole answer."""

    entities: list[AnsweredEntity]
    relationships: list[AnsweredRelationship]


@dataclass(frozen=True, slots=True)
class Salvage:
    """What an answer held: its complete and valid items, and why that is not all of it (None: it is all)."""

    answer: Answer
    problem: str | None

    def __bool__(self) -> bool:
        return bool(self.answer.entities or self.answer.relationships)


ItemT = TypeVar("ItemT", bound=_Item)

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["entities", "relationships"],
    "properties": {
        "entities": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "type", "aliases"],
                "properties": {
                    "name": {"type": "string"},
                    "type": {"type": "string"},
                    "aliases": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
        "relationships": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["source", "predicate", "target", "confidence", "valid_from", "valid_to"],
                "properties": {
                    "source": {"type": "string"},
                    "predicate": {"type": "string"},
                    "target": {"type": "string"},
                    "confidence": {"type": "number"},
                    "valid_from": {"type": ["string", "null"]},
                    "valid_to": {"type": ["string", "null"]},
                },
            },
        },
    },
}
"""What the endpoint is told to keep to. It is written out because strict mode takes only part of JSON Schema."""


def read_answer(content: str) -> Salvage:
    """Reads a model's answer, around which there may be a code fence or chatter, and which may be cut off anywhere.

    Of an answer that is not as it should be, the items that are complete and valid are kept.
    """
    start = content.find("{")
    if start < 0:
        return Salvage(_empty(), "there is no JSON object in it")
    end, last_item = _landmarks(content, start)
    whole = end is not None
    try:
        # What follows the last complete item is cut off, so that no half-written value is taken for a whole one.
        found = from_json(content[start : end if end is not None else last_item], allow_partial=not whole)
    except ValueError as error:
        return Salvage(_empty(), f"it is not valid JSON: {error}")
    if whole:
        try:
            return Salvage(Answer.model_validate(found), None)
        except ValidationError as error:
            return Salvage(_valid_items(found), _describe(error))
    return Salvage(_valid_items(found), "it is cut off")


def to_graph(answer: Answer) -> tuple[tuple[ExtractedEntity, ...], tuple[ExtractedRelationship, ...], bool]:
    """The entities and relationships of an answer, and whether some were left out because there were too many.

    Each name stands once; a relationship's ends are brought to the names of the entities, by alias too, and an end that
    is no entity becomes one of type TOPIC.
    """
    graph = _Graph()
    for entity in answer.entities:
        graph.add(entity.name, entity.type, entity.aliases)
    for relationship in answer.relationships:
        graph.relate(relationship)
    entities = tuple(ExtractedEntity(name, kind, aliases) for name, kind, aliases in graph.entities.values())
    return entities, tuple(graph.relationships.values()), graph.cut


@dataclass(slots=True)
class _Graph:
    entities: dict[str, tuple[str, str, tuple[str, ...]]] = field(default_factory=dict)
    relationships: dict[tuple[str, str, str], ExtractedRelationship] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    cut: bool = False

    def add(self, name: str, kind: str, aliases: list[str] | None = None) -> str | None:
        key = name.casefold()
        if key in self.names:
            return self.names[key]
        if len(self.entities) >= MAX_ENTITIES:
            self.cut = True
            return None
        others = {alias.casefold(): alias for alias in aliases or () if alias.casefold() not in self.names}
        others.pop(key, None)
        kept = dict(list(others.items())[:_MAX_ALIASES])
        self.entities[key] = (name, kind, tuple(kept.values()))
        self.names |= dict.fromkeys((key, *kept), name)
        return name

    def relate(self, found: AnsweredRelationship) -> None:
        if len(self.relationships) >= MAX_RELATIONSHIPS:
            self.cut = True
            return
        source, target = self.add(found.source, "TOPIC"), self.add(found.target, "TOPIC")
        if source is None or target is None or source == target:
            return
        self.relationships.setdefault(
            (source, found.predicate, target),
            ExtractedRelationship(source, found.predicate, target, found.confidence, found.valid_from, found.valid_to),
        )


def _empty() -> Answer:
    return Answer(entities=[], relationships=[])


def _valid_items(found: object) -> Answer:
    return Answer(
        entities=_valid(AnsweredEntity, found, "entities"),
        relationships=_valid(AnsweredRelationship, found, "relationships"),
    )


def _valid(kind: type[ItemT], found: object, name: str) -> list[ItemT]:
    items = found.get(name) if isinstance(found, dict) else None
    kept: list[ItemT] = []
    for item in items if isinstance(items, list) else ():
        try:
            kept.append(kind.model_validate(item))
        except ValidationError:
            continue  # an item that does not hold water is left out; the caller is told that the answer had a problem
    return kept


def _describe(error: ValidationError) -> str:
    """Where the answer differs from the schema, without repeating its words."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)[:5]
    return "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems)


def _landmarks(content: str, start: int) -> tuple[int | None, int]:
    """Where the object that begins at `start` ends (None: it does not), and where its last complete item ends."""
    depth = 0
    quoted = escaped = False
    last_item = start + 1
    for index in range(start, len(content)):
        character = content[index]
        if quoted:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                quoted = False
        elif character == '"':
            quoted = True
        elif character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
            if depth == 0:
                return index + 1, last_item
            if depth <= 2:
                last_item = index + 1
    return None, last_item
