"""What a word of a parsed sentence stands for: names, topics, and the people and things behind pronouns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from memoro_core.llm.local.graph import MAX_NAME_CHARS, Node
from memoro_core.llm.local.lexicon import KIN
from memoro_core.llm.local.mentions import Mentions
from memoro_core.llm.local.referents import Referents

if TYPE_CHECKING:
    from spacy.tokens import Token

_NAMING: Final = frozenset({"name", "call", "nickname", "title", "dub"})
_RELATIVE: Final = frozenset({"WDT", "WP", "WP$"})
_MAX_DEPTH: Final = 4
_MAX_COORDINATED: Final = 16


class Denotation:
    """Looks words up in the names of one parsed text and in what was read before it."""

    def __init__(self, mentions: Mentions, referents: Referents, offset: int) -> None:
        self.mentions = mentions
        self.referents = referents
        self._offset = offset

    def position(self, token: Token) -> int:
        """Where the token stands in reading order over all pieces of the text."""
        return self._offset + token.i

    def of_all(self, token: Token, *, exclude: Sequence[Node] = ()) -> tuple[Node, ...]:
        """What the word and the words coordinated with it stand for, each once."""
        found: dict[str, Node] = {}
        for part in coordinated(token):
            for node in self.of(part, exclude=exclude):
                found.setdefault(node.name.casefold(), node)
        return tuple(found.values())

    def of(self, token: Token, *, exclude: Sequence[Node] = (), depth: int = 0) -> tuple[Node, ...]:
        """What one word stands for; empty when it says nothing outside its sentence."""
        if depth > _MAX_DEPTH:
            return ()
        if (node := self.mentions.at(token)) is not None:
            return (node,)
        if token.tag_ in _RELATIVE:
            antecedent = _antecedent(token)
            return self.of(antecedent, exclude=exclude, depth=depth + 1) if antecedent is not None else ()
        if token.pos_ == "PRON" or token.tag_ == "PRP$":
            return self.referents.resolve(token, self.position(token), exclude=exclude)
        if token.pos_ not in {"NOUN", "PROPN"} and token.tag_ not in {"VBG", "NN", "NNS"}:
            return ()
        if names := self.names_of(token):
            return names
        if (relative := self.kin(token, depth=depth)) is not None:
            return (relative,)
        phrase = self.mentions.phrase(token)
        return (phrase,) if phrase is not None else ()

    def names_of(self, noun: Token) -> tuple[Node, ...]:
        """The names that a common noun is given in its place: "my brother Tom", "two cats named Oscar and Bailey"."""
        found: list[Node] = []
        for child in noun.children:
            if child.dep_ == "appos":
                found.extend(self._named(child))
            elif child.dep_ == "acl" and child.lemma_ in _NAMING:
                for name in child.children:
                    if name.dep_ in {"oprd", "dobj", "attr"}:
                        found.extend(self._named(name))
        return tuple(found)

    def kin(self, noun: Token, *, depth: int = 0) -> Node | None:
        """A particular person told by kinship or role alone: "my sister" → "Caroline's sister"."""
        if noun.lemma_.lower() not in KIN:
            return None
        for owner in self.owners(noun, depth=depth):
            name = f"{owner.name}'s {noun.lower_}"
            if len(name) <= MAX_NAME_CHARS:
                return Node(name, "GROUP" if noun.tag_ == "NNS" else "PERSON", certainty=owner.certainty)
        return None

    def owners(self, noun: Token, *, depth: int = 0) -> tuple[Node, ...]:
        """Who the noun belongs to: "my …", "John's …", "Alice and Bob's …"."""
        for child in noun.children:
            inside = self.mentions.at(noun)
            if child.dep_ == "poss" and (inside is None or self.mentions.at(child) is not inside):
                return tuple(node for part in coordinated(child) for node in self.of(part, depth=depth + 1))
        return ()

    def prepositional(self, head: Token) -> Iterator[tuple[str, Token]]:
        """Each preposition under `head` with its object: "out of" is one preposition."""
        for child in head.children:
            if child.dep_ in {"prep", "dative", "agent"} and child.pos_ in {"ADP", "SCONJ", "PART", "VERB", "ADV"}:
                yield from _objects(child, child.lower_)

    def _named(self, token: Token) -> Iterator[Node]:
        for part in coordinated(token):
            node = self.mentions.at(part)
            if node is not None and node.type != "DATE":
                yield node


def coordinated(token: Token) -> list[Token]:
    """The word and all that are joined to it by "and", "or" and commas, in order."""
    found = [token]
    for part in found:
        listed = part.pos_ == "PROPN" and any(child.dep_ == "cc" for child in part.children)
        for child in part.children:
            # The parser takes the second of three listed names for an apposition of the first.
            joins = child.dep_ == "conj" or (listed and child.dep_ == "appos" and child.pos_ == "PROPN")
            if joins and len(found) < _MAX_COORDINATED:
                found.append(child)
    return found


def is_subject(token: Token) -> bool:
    """Whether the word, or the one that it is coordinated with, is a subject."""
    for _ in range(8):
        if token.dep_ != "conj":
            break
        token = token.head
    return token.dep_ in {"nsubj", "nsubjpass"}


def _objects(preposition: Token, words: str) -> Iterator[tuple[str, Token]]:
    for child in preposition.children:
        if child.dep_ == "pobj":
            yield words, child
        elif child.dep_ == "prep":
            yield from _objects(child, f"{words} {child.lower_}")


def _antecedent(relative: Token) -> Token | None:
    token = relative
    for _ in range(8):
        if token.dep_ == "relcl":
            return token.head
        if token.head is token:
            return None
        token = token.head
    return None
