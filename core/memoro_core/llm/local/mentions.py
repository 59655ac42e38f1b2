"""Finds the names in a parsed text: what the pipeline recognised, and the proper nouns that it missed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from memoro_core.llm.dates import MONTHS, absolute_date
from memoro_core.llm.local.entity_types import LABELS, entity_type
from memoro_core.llm.local.graph import MAX_NAME_CHARS, Node
from memoro_core.llm.local.language import EnglishWords
from memoro_core.llm.local.lexicon import GIVEN_NAMES, NOT_NAMES, VAGUE_NOUNS, WEEKDAYS, word_set

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token

_NAME_PARTS: Final = frozenset({"compound", "nmod", "nummod", "flat"})
_ARGUMENTS: Final = word_set("nsubj nsubjpass dobj pobj attr acomp conj appos poss dative oprd")
_NUMBERS: Final = frozenset({"CARDINAL", "ORDINAL", "QUANTITY"})
_PHRASE_PARTS: Final = frozenset({"compound", "amod", "nmod"})
_MAX_PHRASE_WORDS: Final = 4
_WEAK_ADJECTIVES: Final = word_set(
    """
    own other many few more most several such same certain various whole little big good great nice lovely
    """
)


class Mentions:
    """The names of one parsed text, by token."""

    def __init__(self, doc: Doc, english: EnglishWords) -> None:
        self._english = english
        self._surnames = {
            name.lower_ for span in doc.ents if span.label_ == "PERSON" and len(span) > 1 for name in span
        }
        self._by_token: dict[int, Node] = {}
        self._roots: dict[int, Token] = {}
        self._ignored: set[int] = set()
        self._ordered: list[tuple[Span, Node]] = []
        for span, label in self._recognised(doc):
            self._keep(span, label)
        for span in self._missed(doc):
            self._keep(span, None)
        self._ordered.sort(key=lambda found: found[0].start)

    def __iter__(self) -> Iterator[tuple[Span, Node]]:
        return iter(self._ordered)

    def at(self, token: Token) -> Node | None:
        """The name that the token is part of."""
        return self._by_token.get(token.i)

    def root(self, token: Token) -> Token:
        """The head word of the name that the token is part of; the token itself outside names."""
        return self._roots.get(token.i, token)

    def phrase(self, noun: Token, *, singular: bool = False) -> Node | None:
        """A topic for a common noun with its modifiers ("adoption agencies"); None when it says too little."""
        vague = noun.lemma_.lower() in VAGUE_NOUNS or noun.lower_ in VAGUE_NOUNS
        if vague or noun.i in self._ignored or not noun.text.isalpha():
            return None
        words = [noun]
        while words[0].i > noun.sent.start and len(words) < _MAX_PHRASE_WORDS:
            token = noun.doc[words[0].i - 1]
            weak = token.lower_ in _WEAK_ADJECTIVES or not token.text.isalpha()
            if weak or token.dep_ not in _PHRASE_PARTS or token.head not in words:
                break
            words.insert(0, token)
        forms = [word.text if word.pos_ == "PROPN" or word.text.isupper() else word.lower_ for word in words]
        if singular and noun.tag_ == "NNS":
            forms[-1] = noun.lemma_.lower()
        name = " ".join(forms)
        return Node(name, "TOPIC", named=False, certainty=0.8) if 2 < len(name) <= MAX_NAME_CHARS else None

    def _keep(self, span: Span, label: str | None) -> None:
        kind = entity_type(span, label)
        if self._is_word(span, kind if label is None else label):
            return
        node = Node(_clean(span), kind, certainty=1.0 if label is not None else 0.9)
        self._ordered.append((span, node))
        self._by_token.update((token.i, node) for token in span)
        self._roots.update((token.i, span.root) for token in span)

    def _is_word(self, span: Span, kind: str) -> bool:
        """Whether it is no name, though capitalised: "LGBTQ" in "LGBTQ group", "Good" in "Good to see you"."""
        placed = span.root.dep_ in _ARGUMENTS
        if kind == "TOPIC":
            return not placed
        if kind not in {"PERSON", "NORP"} or len(span) > 1 or (placed and not span[0].is_sent_start):
            return False
        return span[0].lower_ not in GIVEN_NAMES | self._surnames and self._english.know(span[0])

    def _recognised(self, doc: Doc) -> Iterator[tuple[Span, str]]:
        for entity, label in _merged(doc):
            if label not in LABELS:
                if label not in _NUMBERS:
                    self._ignored.update(token.i for token in entity)
                continue
            span = _trim(entity)
            if span is None:
                continue
            if label == "DATE":
                if absolute_date(span.text) is None:
                    self._ignored.update(token.i for token in entity)
                else:
                    yield span, label
            elif _is_name(span):
                yield self._extend(span), label

    def _missed(self, doc: Doc) -> Iterator[Span]:
        start = None
        for index in range(len(doc) + 1):
            inside = index < len(doc) and self._is_free_name(doc[index])
            if inside and start is None:
                start = index
            elif not inside and start is not None:
                span = self._extend(doc[start:index])
                start = None
                if _is_name(span):
                    yield span

    def _is_free_name(self, token: Token) -> bool:
        return (
            token.pos_ == "PROPN"
            and token.i not in self._by_token
            and token.ent_type_ not in LABELS
            and token.i not in self._ignored
            and token.lower_ not in NOT_NAMES
            and token.lower_ not in WEEKDAYS
            and (token.lower_ not in MONTHS or token.lower_ == "may")
            and any(character.isalpha() for character in token.text)
        )

    def _extend(self, span: Span) -> Span:
        """The span with what else belongs to the name: "Tesla" + "Model 3", "iPhone" + "15"."""
        doc, start, end = span.doc, span.start, span.end
        while start > 0 and self._is_free_name(doc[start - 1]) and _joined(doc[start - 1], doc[start:end]):
            start -= 1
        while (
            end < len(doc)
            and _joined(doc[end], doc[start:end])
            and (
                self._is_free_name(doc[end])
                or (doc[end].like_num and doc[end].dep_ == "nummod" and doc[end].text[0].isdigit())
            )
        ):
            end += 1
        return doc[start:end]


def _merged(doc: Doc) -> list[tuple[Span, str]]:
    """The pipeline's entities and labels, a maker and its product ("Honda", "Civic") made one."""
    found: list[tuple[Span, str]] = []
    for entity in doc.ents:
        before = found[-1][0] if found else None
        adjoins = entity.label_ == "PRODUCT" and before is not None and before.end == entity.start
        if before is not None and adjoins and _joined(before.root, entity):
            found[-1] = (doc[before.start : entity.end], "PRODUCT")
        else:
            found.append((entity, entity.label_))
    return found


def _joined(token: Token, span: Span) -> bool:
    inside = range(span.start, span.end)
    if token.sent.start != span[0].sent.start:
        return False
    if token.dep_ in _NAME_PARTS and token.head.i in inside:
        return True
    return any(part.dep_ in _NAME_PARTS and part.head.i == token.i for part in span)


def _trim(span: Span) -> Span | None:
    start, end, doc = span.start, span.end, span.doc
    while start < end and (
        doc[start].pos_ in {"DET", "PUNCT", "SPACE", "SYM", "ADP", "INTJ"}
        or doc[start].tag_ in {"PRP$", "POS"}
        or doc[start].lower_ in NOT_NAMES
    ):
        start += 1
    while start < end and (doc[end - 1].pos_ in {"PUNCT", "SPACE", "SYM"} or doc[end - 1].tag_ == "POS"):
        end -= 1
    return doc[start:end] if start < end else None


def _is_name(span: Span) -> bool:
    text = span.text
    return (
        1 < len(text) <= MAX_NAME_CHARS
        and len(span) <= 8
        and any(character.isupper() for character in text)
        and not all(token.lower_ in NOT_NAMES or token.lower_ in WEEKDAYS for token in span)
    )


def _clean(span: Span) -> str:
    return " ".join(span.text.replace("’", "'").split()).strip("\"'“”‘’.,;:!?()[]{}*_-")
