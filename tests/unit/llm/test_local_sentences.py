"""Sentences, and the facts that must be found in them."""

from __future__ import annotations

import pytest

from memoro_core.llm.local import LocalExtractionProvider
from memoro_core.llm.model import ExtractionSource

# Each row: who speaks, the text, the triples that must be found, and words that no triple may hold.
SENTENCES: list[tuple[str | None, str, list[str], list[str]]] = [
    # tense and person
    (None, "Alice works at Initech.", ["Alice WORKS_AT Initech"], []),
    (None, "Alice is working at Initech.", ["Alice WORKS_AT Initech"], []),
    (None, "Alice has worked at Initech.", ["Alice WORKED_AT Initech"], []),
    (None, "Google acquired YouTube in 2006.", ["Google ACQUIRED YouTube", "Google ACQUIRED_IN 2006"], []),
    ("Caroline", "I love hiking and painting.", ["Caroline LOVES hiking", "Caroline LOVES painting"], []),
    (None, "Maria can speak Portuguese.", ["Maria CAN_SPEAK Portuguese"], []),
    ("Caroline", "We are going to visit Tokyo next month.", ["Caroline WILL_VISIT Tokyo"], []),
    # one verb under another
    (None, "Tom wants to buy a Nintendo Switch.", ["Tom WANTS_TO_BUY Nintendo Switch"], ["BOUGHT", " BUYS "]),
    (
        None,
        "Bob used to live in Madrid but now lives in Lisbon.",
        ["Bob USED_TO_LIVE_IN Madrid", "Bob LIVES_IN Lisbon"],
        ["Bob LIVES_IN Madrid"],
    ),
    # several subjects and objects
    (
        None,
        "Alice and Bob met Carol in Paris last Tuesday.",
        ["Alice MET Carol", "Bob MET Carol", "Alice MET_IN Paris", "Bob MET_IN Paris"],
        ["Tuesday"],
    ),
    (
        None,
        "Steve Jobs, Steve Wozniak, and Ronald Wayne founded Apple on April 1, 1976.",
        ["Steve Jobs FOUNDED Apple", "Steve Wozniak FOUNDED Apple", "Ronald Wayne FOUNDED Apple"],
        [],
    ),
    (
        "Caroline",
        "I bought a PlayStation 5 and an Xbox Series X at Best Buy.",
        ["Caroline BOUGHT PlayStation 5", "Caroline BOUGHT Xbox Series X", "Caroline BOUGHT_AT Best Buy"],
        [],
    ),
    # passive
    (None, "The Eiffel Tower was designed by Gustave Eiffel.", ["Gustave Eiffel DESIGNED Eiffel Tower"], []),
    (None, "Mary was born in Paris, France.", ["Mary BORN_IN Paris", "Paris LOCATED_IN France"], []),
    (None, "Peter was given a medal by the Queen.", ["Queen GAVE medal", "Queen GAVE_TO Peter"], ["Peter GAVE"]),
    (None, "The house is owned by Carlos Ortega.", ["Carlos Ortega OWNS house"], []),
    # "be"
    (None, "Sarah is a doctor at Mercy Hospital.", ["Sarah IS_A doctor", "Sarah DOCTOR_AT Mercy Hospital"], []),
    ("Ann", "My mother was a nurse.", ["Ann's mother WAS_A nurse", "Ann's mother MOTHER_OF Ann"], []),
    ("Ann", "My favourite band is Radiohead.", ["Radiohead FAVOURITE_BAND_OF Ann"], []),
    (None, "The capital of France is Paris.", ["Paris CAPITAL_OF France"], ["Paris IS "]),
    ("Ann", "I'm allergic to peanuts.", ["Ann ALLERGIC_TO peanuts"], []),
    (None, "Ben is married to Julia.", ["Ben MARRIED_TO Julia"], []),
    # possession, kinship, apposition, names given
    (None, "Tim Cook, the CEO of Apple, lives in Rome.", ["Tim Cook CEO_OF Apple", "Tim Cook LIVES_IN Rome"], []),
    (
        None,
        "John's sister Mary teaches maths at Oxford University.",
        ["Mary SISTER_OF John", "Mary TEACHES maths", "Mary TEACHES_AT Oxford University"],
        [],
    ),
    ("Caroline", "My brother Tom got a Tesla Model 3.", ["Tom BROTHER_OF Caroline", "Tom GOT Tesla Model 3"], []),
    (None, "Bob's company, Acme Corp, sells to NASA.", ["Acme Corp COMPANY_OF Bob", "Acme Corp SELLS_TO NASA"], []),
    (None, "Maria has two cats named Oscar and Bailey.", ["Maria HAS Oscar", "Maria HAS Bailey", "Oscar IS_A cat"], []),
    ("Ann", "My dog's name is Max.", ["Max DOG_OF Ann"], []),
    (None, "My name is Anna Smith. I live in Madrid.", ["Anna Smith LIVES_IN Madrid"], []),
    # relative and reported clauses
    (None, "Mary, who works at IBM, married Peter in 2015.", ["Mary WORKS_AT IBM", "Mary MARRIED Peter"], []),
    (None, "The book that Sarah wrote won the Booker Prize.", ["Sarah WROTE book", "book WON Booker Prize"], []),
    (None, "Sam told Lucy that Mark had left Microsoft.", ["Mark LEFT Microsoft", "Sam TOLD Lucy"], ["Sam LEFT"]),
    # pronouns
    (None, "John met Mary. She gave him a book.", ["Mary GAVE book", "Mary GAVE_TO John"], ["John GAVE"]),
    (None, "Mary met John. He gave her a watch.", ["John GAVE watch", "John GAVE_TO Mary"], ["Mary GAVE"]),
    (None, "Alice and Bob moved to Oslo. They love Norway.", ["Alice LOVES Norway", "Bob LOVES Norway"], []),
    # denial, doubt, questions
    (None, "John never visited Rome.", ["John NOT_VISITED Rome"], ["John VISITED"]),
    ("Caroline", "I don't like olives.", ["Caroline NOT_LIKES olives"], ["Caroline LIKES"]),
    (None, "Peter didn't stop in Leeds.", ["Peter NOT_STOPPED_IN Leeds"], ["Peter STOPPED"]),
    ("Caroline", "If I win the lottery, I will buy a Ferrari.", [], ["BUY", "WIN"]),
    (None, "Did John visit London?", [], ["John"]),
]


@pytest.mark.parametrize(("speaker", "text", "expected", "forbidden"), SENTENCES, ids=[row[1] for row in SENTENCES])
async def test_facts(
    extraction_provider: LocalExtractionProvider,
    speaker: str | None,
    text: str,
    expected: list[str],
    forbidden: list[str],
) -> None:
    found = await extraction_provider.extract(ExtractionSource(text, speaker=speaker))

    triples = [f"{one.source} {one.predicate} {one.target}" for one in found.relationships]
    assert [triple for triple in expected if triple not in triples] == [], triples
    assert [triple for triple in triples if any(word in triple for word in forbidden)] == []
    names = {entity.name for entity in found.entities}
    assert {end for one in found.relationships for end in (one.source, one.target)} <= names
    assert len(names) == len(found.entities)


async def test_the_promised_example(extraction_provider: LocalExtractionProvider) -> None:
    text = "John Doe bought an iPhone 15 from Apple Store. He works at TechCorp."

    found = await extraction_provider.extract(ExtractionSource(text))

    assert {(entity.name, entity.type) for entity in found.entities} == {
        ("John Doe", "PERSON"),
        ("iPhone 15", "PRODUCT"),
        ("Apple Store", "ORGANIZATION"),
        ("TechCorp", "ORGANIZATION"),
    }
    assert {(one.source, one.predicate, one.target) for one in found.relationships} == {
        ("John Doe", "BOUGHT", "iPhone 15"),
        ("John Doe", "BOUGHT_FROM", "Apple Store"),
        ("John Doe", "WORKS_AT", "TechCorp"),
    }


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        ("Dr. Smith treated Emma at St. Mary's Hospital.", "St. Mary's Hospital", "ORGANIZATION"),
        ("Samsung released the Galaxy S24 Ultra in January 2024.", "Galaxy S24 Ultra", "PRODUCT"),
        ("He drives a Honda Civic.", "Honda Civic", "PRODUCT"),
        ("Sophie plays in the London Symphony Orchestra.", "Sophie", "PERSON"),
        ("The CEO of Nvidia is Jensen Huang.", "Nvidia", "ORGANIZATION"),
        ("Our dog Rex loves the beach.", "Rex", "ANIMAL"),
        ("Elon Musk's company SpaceX launched Starship from Texas.", "SpaceX", "ORGANIZATION"),
        ("Emma flew to Sydney.", "Sydney", "PLACE"),
        ("She ran the Boston Marathon.", "Boston Marathon", "EVENT"),
    ],
)
async def test_types(extraction_provider: LocalExtractionProvider, text: str, name: str, kind: str) -> None:
    found = await extraction_provider.extract(ExtractionSource(text))

    assert (name, kind) in [(entity.name, entity.type) for entity in found.entities]
