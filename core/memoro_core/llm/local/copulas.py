"""Reads relationships off "be": what someone is, where, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from memoro_core.llm.local.denotation import Denotation, coordinated
from memoro_core.llm.local.graph import GraphBuilder, Node
from memoro_core.llm.local.lexicon import SKIPPED_PREPOSITIONS
from memoro_core.llm.local.periods import Period
from memoro_core.llm.local.predicates import is_negated, is_past, modal, snake
from memoro_core.llm.local.roles import relate_role

if TYPE_CHECKING:
    from spacy.tokens import Token

_WORKPLACE: Final = frozenset({"at", "for", "with"})


def read_copula(
    verb: Token, subjects: tuple[Node, ...], denotation: Denotation, graph: GraphBuilder, confidence: float
) -> None:
    """Adds what a clause around a form of "be" states of its subjects."""
    if any(child.dep_ == "expl" for child in verb.children):
        return
    _Copula(verb, subjects, denotation, graph, confidence).read()


class _Copula:
    def __init__(
        self, verb: Token, subjects: tuple[Node, ...], denotation: Denotation, graph: GraphBuilder, confidence: float
    ) -> None:
        self._verb = verb
        self._subjects = subjects
        self._denotation = denotation
        self._graph = graph
        self._confidence = confidence
        self._denial = ["not"] if is_negated(verb) else []
        complements = (child for child in verb.children if child.dep_ in {"attr", "acomp"})
        self._period = Period.of(denotation, verb, *complements)
        helper = modal(verb)
        self._be = [helper, "be"] if helper is not None else ["was"] if is_past(verb) else ["is"]

    def read(self) -> None:
        for child in self._verb.children:
            if child.dep_ in {"attr", "acomp", "dobj"}:
                for complement in coordinated(child):
                    self._read_complement(complement)
        role = self._role()
        for word, token in self._denotation.prepositional(self._verb):
            if word.split()[0] in SKIPPED_PREPOSITIONS:
                continue
            things = self._denotation.of_all(token, exclude=self._subjects)
            if role is not None and word in _WORKPLACE:
                self._state_role(role, word, things)
            else:
                self._state([*self._be, word], things)

    def _role(self) -> str | None:
        """The one common noun that the subjects are said to be: "a chef"."""
        roles = [child for child in self._verb.children if child.dep_ == "attr" and child.pos_ == "NOUN"]
        phrase = self._denotation.mentions.phrase(roles[0], singular=True) if len(roles) == 1 else None
        return phrase.name if phrase is not None else None

    def _read_complement(self, token: Token) -> None:
        named = self._denotation.mentions.at(token)
        if named is not None:
            self._read_name(named)
        elif token.pos_ in {"NOUN", "PROPN", "PRON"}:
            self._read_role(token)
        elif token.pos_ in {"ADJ", "VERB"}:
            for word, thing in self._denotation.prepositional(token):
                self._state([token.lower_, word], self._denotation.of_all(thing, exclude=self._subjects))

    def _read_name(self, named: Node) -> None:
        """ "My favourite band is Radiohead", "The capital of France is Paris", "That man is John"."""
        subject = next((child for child in self._verb.children if child.dep_ == "nsubj"), None)
        if subject is not None and subject.pos_ == "NOUN" and self._denotation.mentions.at(subject) is None:
            if subject.lower_ == "name":
                self._read_naming(subject, named)
                return
            if relate_role(
                named, subject, self._denotation, self._graph, confidence=self._confidence, naming=self._role_words
            ):
                return
        if not self._denial and len(self._subjects) == 1 and named.type == "PERSON":
            self._introduce(subject, named)
        self._state(self._be, (named,))

    def _introduce(self, subject: Token | None, named: Node) -> None:
        if subject is not None and subject.lower_ == "i":
            self._denotation.referents.introduce(named.name)

    def _read_naming(self, subject: Token, named: Node) -> None:
        """ "My name is Anna" tells who "I" is; "my dog's name is Max" whose dog Max is."""
        for owner in subject.children:
            if owner.dep_ != "poss" or self._denial:
                continue
            if owner.lower_ == "my":
                self._denotation.referents.introduce(named.name)
            else:
                relate_role(
                    named, owner, self._denotation, self._graph, confidence=self._confidence, naming=self._role_words
                )

    def _read_role(self, noun: Token) -> None:
        for subject in self._subjects:
            relate_role(
                subject, noun, self._denotation, self._graph, confidence=self._confidence, naming=self._role_words
            )
            phrase = self._denotation.mentions.phrase(noun, singular=True)
            if phrase is not None and not self._denotation.owners(noun):
                predicate = snake(*self._denial, *self._be, "a")
                self._graph.relate(subject, predicate, phrase, self._confidence)

    def _state_role(self, role: str, word: str, things: tuple[Node, ...]) -> None:
        for subject in self._subjects:
            for thing in things:
                if thing.named:
                    self._graph.relate(subject, self._role_words(role, word), thing, self._confidence)

    def _role_words(self, role: str, preposition: str) -> str:
        tense = [] if self._be == ["is"] else self._be
        return snake(*self._denial, *tense, role, preposition)

    def _state(self, words: list[str], targets: tuple[Node, ...]) -> None:
        for subject in self._subjects:
            for target in targets:
                self._graph.relate(subject, snake(*self._denial, *words), target, self._confidence, period=self._period)
