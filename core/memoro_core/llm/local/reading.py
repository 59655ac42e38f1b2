"""Reads one text, piece after piece, into a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoro_core.llm.local.clauses import read_clauses
from memoro_core.llm.local.denotation import Denotation, coordinated, is_subject
from memoro_core.llm.local.graph import GraphBuilder, Node
from memoro_core.llm.local.language import EnglishWords
from memoro_core.llm.local.mentions import Mentions
from memoro_core.llm.local.referents import Referents
from memoro_core.llm.local.roles import read_nouns

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token


class Reading:
    """What has been read of one text so far. Pieces come in order: first those of `remember`, then those of `read`."""

    def __init__(self, speaker: str | None, english: EnglishWords) -> None:
        self._english = english
        self.graph = GraphBuilder()
        self._referents = Referents(speaker)
        self._position = 0

    def remember(self, doc: Doc, speaker: str | None = None) -> None:
        """Notes who and what an earlier turn named, for pronouns only; `speaker` said it."""
        self._referents.begin_sentence()
        if speaker is not None:
            self._referents.note(Node(speaker, "PERSON"), position=self._position, is_subject=True)
            self._position += 1
        self._read(doc, keep=False)

    def read(self, doc: Doc, *, relations: bool = True) -> None:
        """Adds the names in a piece of the text itself and, unless told not to, its relationships."""
        self._read(doc, keep=True, relations=relations)

    def _read(self, doc: Doc, *, keep: bool, relations: bool = False) -> None:
        mentions = Mentions(doc, self._english)
        denotation = Denotation(mentions, self._referents, self._position)
        if keep:
            for _, node in mentions:
                if node.type != "DATE":  # a date is an entity only where something is related to it
                    self.graph.add(node)
        for sentence in doc.sents:
            self._referents.begin_sentence()
            tokens = list(sentence)
            self._note(tokens, denotation, kin=keep)
            if relations:
                read_clauses(tokens, denotation, self.graph)
                read_nouns(tokens, denotation, self.graph)
        self._position += len(doc)

    def _note(self, sentence: list[Token], denotation: Denotation, *, kin: bool) -> None:
        seen = None
        for token in sentence:
            node = denotation.mentions.at(token)
            if node is not None and node is seen:
                continue
            seen = node
            if node is None and kin and token.pos_ == "NOUN" and not denotation.names_of(token):
                node = denotation.kin(token)  # "my sister" may be the next "she"
            if node is None:
                continue
            root = denotation.mentions.root(token)
            self._referents.note(node, position=denotation.position(token), is_subject=is_subject(root))
            if any(child.dep_ == "conj" for child in root.children):
                group = [found for part in coordinated(root) if (found := denotation.mentions.at(part)) is not None]
                self._referents.note_group(group)
