"""Which names in the texts of one job mean the same entity, and what the texts say of it together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from memoro_core.graph.resolution import KnownEntity, Reading, names_to_find, resolve
from memoro_core.ids import MemoryId, new_id
from memoro_core.llm.model import ExtractedEntity, ExtractedRelationship, Extraction

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def person(name: str, *aliases: str) -> ExtractedEntity:
    return ExtractedEntity(name, "PERSON", aliases)


def reading(
    entities: Sequence[ExtractedEntity], relationships: Sequence[ExtractedRelationship] = (), at: datetime = NOON
) -> Reading:
    return Reading(MemoryId(new_id()), at, Extraction(entities, relationships, ()))


def keys(*readings: Reading, known: Sequence[KnownEntity] = ()) -> list[tuple[str, str]]:
    return [entity.key for entity in resolve(readings, known).entities]


def test_spellings_of_one_name_are_one_entity_that_all_their_memories_mention() -> None:
    readings = [reading([person("John Doe")]), reading([person("JOHN DOE's")]), reading([person(" john  doe")])]
    (entity,) = resolve(readings, ()).entities
    assert entity.key == ("PERSON", "john doe")
    assert entity.name == "John Doe"
    assert list(entity.memory_ids) == [one.memory_id for one in readings]


def test_a_first_name_means_the_one_person_who_has_it_whoever_is_named_first() -> None:
    assert keys(reading([person("John")]), reading([person("John Doe")])) == [("PERSON", "john doe")]


def test_a_first_name_that_two_persons_have_stays_an_entity_of_its_own() -> None:
    both = [reading([person("John Doe"), person("John Smith"), person("John")])]
    assert keys(*both) == [("PERSON", "john"), ("PERSON", "john doe"), ("PERSON", "john smith")]


def test_a_first_name_that_was_used_for_one_person_is_not_taken_for_that_one_when_another_has_it_too() -> None:
    known = [
        KnownEntity("PERSON", "John Doe", "john"),
        KnownEntity("PERSON", "John Doe", "john doe"),
        KnownEntity("PERSON", "John Smith", "john smith"),
    ]
    assert keys(reading([person("John")]), known=known) == [("PERSON", "john")]


def test_a_first_name_never_means_what_is_no_person() -> None:
    paris_texas = ExtractedEntity("Paris Texas", "PLACE")
    assert keys(reading([paris_texas, person("Paris")])) == [("PERSON", "paris"), ("PLACE", "paris texas")]


def test_a_known_alias_leads_to_its_entity_under_the_name_it_has_there() -> None:
    known = [KnownEntity("ORGANIZATION", "International Business Machines", "ibm")]
    (entity,) = resolve([reading([ExtractedEntity("IBM", "ORGANIZATION")])], known).entities
    assert entity.key == ("ORGANIZATION", "international business machines")
    assert entity.name == "International Business Machines"
    assert list(entity.other_names) == ["IBM"]
    assert set(entity.aliases) == {"international business machines", "ibm"}


def test_types_keep_entities_of_one_name_apart_unless_one_of_them_says_nothing() -> None:
    apple = [ExtractedEntity("Apple", "ORGANIZATION"), ExtractedEntity("Apple", "PRODUCT")]
    assert keys(reading(apple)) == [("ORGANIZATION", "apple"), ("PRODUCT", "apple")]
    known = [KnownEntity("ORGANIZATION", "Apple", "apple")]
    assert keys(reading([ExtractedEntity("apple", "TOPIC")]), known=known) == [("ORGANIZATION", "apple")]


def test_a_fact_that_several_memories_state_is_one_with_the_earliest_start_and_the_best_confidence() -> None:
    entities = [person("Ann"), ExtractedEntity("Acme", "ORGANIZATION")]
    later = reading(entities, [ExtractedRelationship("Ann", "works at", "Acme", 0.9)], NOON + timedelta(days=9))
    earlier = reading(entities, [ExtractedRelationship("ann", "WORKS_AT", "ACME", 0.5)])
    (fact,) = resolve([later, earlier], ()).facts
    assert (fact.source, fact.predicate, fact.target) == (("PERSON", "ann"), "WORKS_AT", ("ORGANIZATION", "acme"))
    assert (fact.confidence, fact.valid_from, fact.valid_to) == (0.9, NOON, None)
    assert set(fact.memory_ids) == {later.memory_id, earlier.memory_id}


def test_a_fact_that_is_told_to_have_ended_never_begins_after_its_end() -> None:
    entities = [person("Ann"), ExtractedEntity("Acme", "ORGANIZATION")]
    ended = NOON - timedelta(days=900)
    told = reading(entities, [ExtractedRelationship("Ann", "WORKED_AT", "Acme", valid_to=ended)])
    (fact,) = resolve([told], ()).facts
    assert (fact.valid_from, fact.valid_to) == (ended, ended)


def test_facts_about_nothing_named_or_about_itself_are_left_out() -> None:
    relationships = [
        ExtractedRelationship("Ann", "KNOWS", "Bob"),
        ExtractedRelationship("Ann", "KNOWS", "ann"),
        ExtractedRelationship("Ann", "…", "Acme"),
    ]
    entities = [person("Ann"), ExtractedEntity("Acme", "ORGANIZATION"), ExtractedEntity(" ", "THING")]
    findings = resolve([reading(entities, relationships)], ())
    assert findings.facts == []
    assert len(findings.entities) == 2


def test_what_has_to_be_looked_up() -> None:
    names = names_to_find(
        [reading([person("John", "Johnny Boy"), person("Ann Lee"), ExtractedEntity("X1", "PRODUCT")])]
    )
    assert names.names == ["ann lee", "john", "johnny boy", "x1"]
    assert names.first_names == ["john"]
