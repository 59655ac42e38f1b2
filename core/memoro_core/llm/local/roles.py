"""Reads relationships off nouns: possession, kinship, roles, appositions and places within places."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from memoro_core.llm.local.denotation import Denotation, coordinated
from memoro_core.llm.local.graph import GraphBuilder, Node
from memoro_core.llm.local.lexicon import BELONGINGS, KIN
from memoro_core.llm.local.predicates import snake

if TYPE_CHECKING:
    from spacy.tokens import Token

_ROLE_PREPOSITIONS: Final = frozenset({"of", "at", "in", "for", "to", "from", "with"})
_LOCATING: Final = frozenset({"in", "at", "near"})
_LOCATED: Final = frozenset({"ORGANIZATION", "PLACE", "EVENT"})
_OWNED_GUESS: Final = 0.7

_STATED: Final = 0.9

RoleNaming = Callable[[str, str], str]
"""Makes a predicate of a role and its preposition: ("CEO", "of") → CEO_OF."""


def relate_role(
    holder: Node,
    noun: Token,
    denotation: Denotation,
    graph: GraphBuilder,
    *,
    confidence: float = _STATED,
    naming: RoleNaming = snake,
) -> bool:
    """Adds that `holder` is the noun's role to someone: "John's sister", "the CEO of Apple"; False when to nobody."""
    phrase = denotation.mentions.phrase(noun)
    role = phrase.name if phrase is not None else noun.lower_
    related = False
    for owner in denotation.owners(noun):
        graph.relate(holder, naming(role, "of"), owner, confidence)
        related = True
    for word, token in denotation.prepositional(noun):
        if word not in _ROLE_PREPOSITIONS:
            continue
        for node in denotation.of_all(token, exclude=(holder,)):
            if node.named and node.type != "DATE":
                graph.relate(holder, naming(role, word), node, confidence)
                related = True
    return related


def read_nouns(sentence: list[Token], denotation: Denotation, graph: GraphBuilder) -> None:
    """Adds the relationships that the sentence's nouns state by themselves."""
    for token in sentence:
        if token.pos_ not in {"NOUN", "PROPN"}:
            continue
        named = denotation.mentions.at(token)
        if named is None:
            _read_common(token, denotation, graph)
        else:
            _read_named(token, named, denotation, graph)


def _read_common(noun: Token, denotation: Denotation, graph: GraphBuilder) -> None:
    names = denotation.names_of(noun)
    for name in names:
        if not relate_role(name, noun, denotation, graph):
            phrase = denotation.mentions.phrase(noun, singular=True)
            if phrase is not None:
                graph.relate(name, "IS_A", phrase, _STATED)
    if names or noun.dep_ in {"attr", "appos"} or _is_equated(noun):
        return
    relative = denotation.kin(noun)
    for owner in denotation.owners(noun):
        if relative is not None:
            graph.relate(relative, snake(noun.lemma_, "of"), owner, _STATED)
        elif noun.lemma_.lower() in BELONGINGS and (phrase := denotation.mentions.phrase(noun)) is not None:
            graph.relate(owner, "HAS", phrase, _OWNED_GUESS)


def _read_named(token: Token, named: Node, denotation: Denotation, graph: GraphBuilder) -> None:
    owners = denotation.owners(token)
    for child in token.children:
        if child.dep_ == "appos":
            _read_apposition(named, child, denotation, graph)
        elif child.dep_ == "compound" and child.pos_ == "NOUN" and denotation.mentions.at(child) is None:
            _read_title(named, child, owners, denotation, graph)
            owners = ()
    if named.type not in {"PERSON", "DATE"}:
        for owner in owners:
            graph.relate(owner, "HAS", named, _STATED)
    if named.type in _LOCATED:
        for word, place in denotation.prepositional(token):
            node = denotation.mentions.at(place)
            if word in _LOCATING and node is not None and node.type == "PLACE":
                graph.relate(named, "LOCATED_IN", node, _STATED)


def _read_title(
    named: Node, noun: Token, owners: tuple[Node, ...], denotation: Denotation, graph: GraphBuilder
) -> None:
    """ "Our dog Rex", "the singer Adele"."""
    phrase = denotation.mentions.phrase(noun, singular=True)
    if phrase is None:
        return
    for owner in owners:
        graph.relate(named, snake(phrase.name, "of"), owner, _STATED)
    if not owners and named.type in {"PERSON", "ANIMAL"}:
        graph.relate(named, "IS_A", phrase, _STATED)


def _read_apposition(named: Node, token: Token, denotation: Denotation, graph: GraphBuilder) -> None:
    other = denotation.mentions.at(token)
    if other is not None:
        if named.type == "PLACE" and other.type == "PLACE":
            graph.relate(named, "LOCATED_IN", other, _STATED)
        return
    for noun in coordinated(token):
        relate_role(named, noun, denotation, graph)
        phrase = denotation.mentions.phrase(noun, singular=True)
        if noun.pos_ == "NOUN" and phrase is not None and not denotation.owners(noun):
            graph.relate(named, "IS_A", phrase, _STATED)


def _is_equated(noun: Token) -> bool:
    """Whether a clause around "be" says which one it is: "my band is Radiohead" is read there."""
    if noun.dep_ == "poss" and noun.head.lower_ == "name":
        return True
    return noun.dep_ == "nsubj" and noun.head.lemma_ == "be" and noun.lemma_.lower() not in KIN
