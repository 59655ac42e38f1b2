"""Reads relationships off verbs: who did what to whom, where, with what, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from memoro_core.llm.local.copulas import read_copula
from memoro_core.llm.local.denotation import Denotation, coordinated
from memoro_core.llm.local.graph import GraphBuilder, Node
from memoro_core.llm.local.lexicon import SKIPPED_PREPOSITIONS
from memoro_core.llm.local.periods import Period
from memoro_core.llm.local.predicates import (
    follower_words,
    is_negated,
    is_passive,
    is_past,
    modal,
    snake,
    verb_words,
)
from memoro_core.llm.local.verbs import past, present

if TYPE_CHECKING:
    from spacy.tokens import Token

_CONDITIONS: Final = frozenset({"if", "unless", "whether", "lest"})
_CLAUSES: Final = frozenset({"ROOT", "conj", "ccomp", "advcl", "relcl", "acl", "parataxis", "dep", "pcomp"})
_OBJECTS: Final = frozenset({"dobj", "attr", "oprd"})
_LINKING: Final = frozenset({"from", "at", "in", "to", "with", "for", "on", "by", "near", "alongside"})
"""Prepositions that, though the parser hangs them on the object, tell about the verb: "bought it from …"."""
_REPORTED: Final = 0.8
_POSSIBLE: Final = 0.8
_MAX_CHAIN: Final = 3


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb with the verbs that rule it, outermost first: "wants to buy" is (wants, buy)."""

    chain: tuple[Token, ...]

    @property
    def head(self) -> Token:
        """The verb that has the objects."""
        return self.chain[-1]

    def words(self) -> list[str]:
        """The verbs' words after the rule of `predicates`, the denial in front."""
        first, *followers = self.chain
        words = ["not"] if any(is_negated(verb) for verb in self.chain) else []
        if followers and first.lower_ in {"going", "gon"} and follower_words(followers[0])[0] == "to":
            words += ["will", *follower_words(followers[0])[1:]]
            followers = followers[1:]
        else:
            words += verb_words(first)
        for verb in followers:
            words += follower_words(verb)
        return words

    def confidence(self) -> float:
        """Lower for what is possible or reported rather than stated."""
        stated = 1.0 if modal(self.chain[0]) in (None, "will", "can") else _POSSIBLE
        return stated * (_REPORTED if self.chain[0].dep_ == "ccomp" else 1.0)


def read_clauses(sentence: list[Token], denotation: Denotation, graph: GraphBuilder) -> None:
    """Adds the relationships that the sentence's verbs state. Questions and conditions state nothing."""
    if next((token.text for token in reversed(sentence) if not token.is_space), "") == "?":
        return
    for token in sentence:
        if token.pos_ not in {"VERB", "AUX"} or token.dep_ not in _CLAUSES or _is_conditional(token):
            continue
        subjects = subjects_of(token, denotation)
        for verb in _chains(token):
            if verb.head.lemma_ == "be" and len(verb.chain) == 1:
                read_copula(token, subjects, denotation, graph, verb.confidence())
            else:
                _read_verb(verb, subjects, denotation, graph)


def subjects_of(verb: Token, denotation: Denotation) -> tuple[Node, ...]:
    """Who the clause is about, also where it leaves that unsaid: "… and lives in Boston"."""
    for _ in range(_MAX_CHAIN + 1):
        for child in verb.children:
            if child.dep_ in {"nsubj", "nsubjpass"}:
                return denotation.of_all(child)
        if verb.dep_ == "acl":
            return denotation.of_all(verb.head)
        if verb.dep_ not in {"conj", "advcl", "pcomp"} or (verb.dep_ != "conj" and verb.tag_ != "VBG"):
            return ()
        verb = verb.head if verb.dep_ != "pcomp" else verb.head.head
        if verb.pos_ not in {"VERB", "AUX"}:
            return ()
    return ()


def _chains(verb: Token) -> Iterator[Verb]:
    """The verb itself, and the verb with each one that it rules, "wants to buy a car and see Rome" giving two more."""
    pending: list[tuple[Token, ...]] = [(verb,)]
    while pending:
        chain = pending.pop(0)
        yield Verb(chain)
        last = chain[-1]
        # Of "asked Bob to buy it" nobody has bought anything; "is to go" is no more than "is".
        if len(chain) == _MAX_CHAIN or last.lemma_ == "be" or any(child.dep_ == "dobj" for child in last.children):
            continue
        for child in last.children:
            if child.dep_ == "xcomp" and child.pos_ in {"VERB", "AUX"}:
                pending.extend((*chain, part) for part in coordinated(child) if part.pos_ in {"VERB", "AUX"})


def _read_verb(verb: Verb, subjects: tuple[Node, ...], denotation: Denotation, graph: GraphBuilder) -> None:
    head, words, confidence = verb.head, verb.words(), verb.confidence()
    passive = is_passive(head) and len(verb.chain) == 1
    period = Period.of(denotation, head)
    direct = [token for token in head.children if token.dep_ in _OBJECTS]
    objects = [node for token in direct for node in denotation.of_all(token, exclude=subjects)]
    agents = [
        node
        for word, token in denotation.prepositional(head)
        if passive and word == "by"
        for node in denotation.of_all(token, exclude=subjects)
        if node.type != "DATE"
    ]
    active = _active_words(head)
    for agent in agents:
        for node in objects or subjects:
            graph.relate(agent, snake(*active), node, confidence, period=period)
        for subject in subjects if objects else ():
            graph.relate(agent, snake(*active, "to"), subject, confidence, period=period)
    if head.dep_ == "acl" and head.lemma_ in {"name", "call", "nickname"}:
        return  # "a cat named Oscar": the names have taken the noun's place
    for subject in subjects:
        for node in objects:
            if not passive:
                graph.relate(subject, snake(*words), node, confidence, period=period)
        for word, node in _circumstances(head, direct, subjects, denotation):
            if not (passive and node in agents):
                graph.relate(subject, snake(*words, word), node, confidence, period=period)
        if not objects and len(verb.chain) > 1:
            _relate_activity(verb, subject, denotation, graph, confidence)


def _relate_activity(verb: Verb, subject: Node, denotation: Denotation, graph: GraphBuilder, confidence: float) -> None:
    """ "Loves hiking": the verb that is ruled is itself what is loved."""
    if verb.head.tag_ != "VBG" or any(token.dep_ in {"dobj", "prep", "xcomp"} for token in verb.head.children):
        return
    activities = [denotation.mentions.phrase(part) for part in coordinated(verb.head)]
    for activity in activities:
        if activity is not None:
            graph.relate(subject, snake(*Verb(verb.chain[:-1]).words()), activity, confidence)


def _circumstances(
    head: Token, direct: list[Token], subjects: tuple[Node, ...], denotation: Denotation
) -> Iterator[tuple[str, Node]]:
    for child in head.children:
        if child.dep_ == "dative" and child.pos_ != "ADP":
            yield from (("to", node) for node in denotation.of_all(child, exclude=subjects))
    for word, token in denotation.prepositional(head):
        if word.split()[0] not in SKIPPED_PREPOSITIONS:
            yield from ((word, node) for node in denotation.of_all(token, exclude=subjects))
    for noun in (part for token in direct for part in coordinated(token)):
        for word, token in denotation.prepositional(noun):
            if word in _LINKING:
                yield from ((word, node) for node in denotation.of_all(token, exclude=subjects) if node.named)


def _active_words(verb: Token) -> list[str]:
    lemma = verb.lemma_.lower()
    denial = ["not"] if is_negated(verb) else []
    helper = modal(verb)
    if helper is not None:
        return [*denial, helper, lemma]
    return [*denial, past(lemma) if verb.dep_ == "acl" or is_past(verb) else present(lemma)]


def _is_conditional(verb: Token) -> bool:
    """Whether the clause, or one around it, hangs on an "if"."""
    for child in verb.children:
        if child.dep_ == "advcl" and _has_condition(child):
            return True
    token = verb
    while True:
        if _has_condition(token):
            return True
        if token.dep_ == "ROOT" or token.head is token:
            return False
        token = token.head


def _has_condition(verb: Token) -> bool:
    return any(child.dep_ == "mark" and child.lower_ in _CONDITIONS for child in verb.children)
