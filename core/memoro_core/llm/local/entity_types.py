"""Decides what kind of thing a name is, from the pipeline's label, its words and its place in the sentence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from memoro_core.llm.local.lexicon import (
    EVENT_WORDS,
    GIVEN_NAMES,
    KIN,
    ORGANIZATION_ENDINGS,
    ORGANIZATION_WORDS,
    PETS,
    PLACE_WORDS,
    WORK_WORDS,
    word_set,
)

if TYPE_CHECKING:
    from spacy.tokens import Span, Token

LABELS: Final = {
    "PERSON": "PERSON",
    "ORG": "ORGANIZATION",
    "GPE": "PLACE",
    "LOC": "PLACE",
    "FAC": "PLACE",
    "PRODUCT": "PRODUCT",
    "EVENT": "EVENT",
    "WORK_OF_ART": "WORK",
    "LAW": "TOPIC",
    "NORP": "GROUP",
    "LANGUAGE": "LANGUAGE",
    "DATE": "DATE",
}
"""The pipeline's labels that become entities; numbers, amounts and times of day do not."""

_ACQUIRING: Final = word_set(
    """
    buy get own order purchase sell use wear drive install download repair fix release
    """
)
_ANIMATE: Final = word_set(
    """
    admire adopt ask believe bring call come cook cry decide dream drink eat enjoy feel forget give go hate hear
    help hope hug invite know laugh learn leave like live love marry meet miss move need play prefer promise
    read remember reply say see send sing sleep smile speak study suggest swim talk teach tell thank think
    travel try visit wait walk want watch wish work worry write
    """
)
_OFFICERS: Final = word_set("ceo cfo coo cto founder cofounder co-founder chairman chairwoman employee")
_INNER_CAPITAL: Final = re.compile(r"[a-z][A-Z]")

_KINDS: Final = (
    ("PERSON", KIN),
    ("ANIMAL", PETS),
    ("ORGANIZATION", ORGANIZATION_WORDS),
    ("PLACE", PLACE_WORDS),
    ("WORK", WORK_WORDS),
    ("EVENT", EVENT_WORDS),
)


def entity_type(span: Span, label: str | None) -> str:
    """The entity type of a name; `label` is the pipeline's (None: it saw no name there)."""
    words = [token.lower_.rstrip(".") for token in span]
    if label == "DATE":
        return "DATE"
    if (told := _told_by_noun(span.root)) is not None:
        return told
    if label != "PERSON" and words[0] in GIVEN_NAMES and len(words) <= 3 and not _organization_words(words):
        return "PERSON" if label is not None or len(words) > 1 or not _is_thing(span) else "PRODUCT"
    if _organization_words(words):
        return "ORGANIZATION"
    if label in {None, "PERSON", "ORG", "GPE", "NORP"} and _is_thing(span):
        return "PRODUCT"
    if label == "GPE" and _employs(span.root):
        return "ORGANIZATION"
    if label is not None:
        return LABELS[label]
    return _guess(span, words)


def _told_by_noun(root: Token) -> str | None:
    """The type that the noun beside a name tells: "his company SpaceX", "two cats named Oscar and Bailey"."""
    nouns = [child for child in root.children if child.dep_ == "compound" and child.pos_ == "NOUN"]
    while root.dep_ == "conj" and root.head is not root:
        root = root.head
    if root.dep_ == "appos":
        nouns.append(root.head)
    elif root.dep_ == "oprd":
        nouns.append(root.head.head)
    for noun in nouns:
        for kind, listed in _KINDS:
            if noun.pos_ == "NOUN" and noun.lemma_.lower() in listed:
                return kind
    return None


def _employs(root: Token) -> bool:
    if root.dep_ != "pobj":
        return False
    return root.head.lower_ == "at" or (root.head.lower_ == "of" and root.head.head.lemma_.lower() in _OFFICERS)


def _organization_words(words: list[str]) -> bool:
    last = words[-1]
    return (
        last in ORGANIZATION_WORDS
        or (len(words) > 1 and words[0] in {"university", "bank", "museum", "institute", "ministry"})
        or (len(last) > 6 and last.endswith(ORGANIZATION_ENDINGS))
    )


def _is_thing(span: Span) -> bool:
    """Things have a number ("iPhone 15", "Model 3"), or an indefinite article ("a Tesla")."""
    root = span.root
    before = span.doc[span.start - 1].lower_ if span.start else ""
    if before in {"a", "an"}:
        return root.dep_ in {"dobj", "conj", "appos", "pobj"} and root.head.lemma_ != "be"
    numbered = len(span) > 1 and any(character.isdigit() for character in span[-1].text)
    return numbered and not span[-1].text.startswith(("19", "20"))


def _guess(span: Span, words: list[str]) -> str:
    root = span.root
    for kind, listed in _KINDS[2:]:
        if words[-1] in listed:
            return kind
    if words[0] in GIVEN_NAMES or words[0] in {"mr", "mrs", "ms", "dr", "miss", "prof"}:
        return "PERSON"
    if _bought(root) or _INNER_CAPITAL.search(span.text) or any(word[-1].isdigit() for word in words if len(word) > 1):
        return "PRODUCT"
    return _guess_by_role(root)


def _bought(root: Token) -> bool:
    return (root.dep_ == "dobj" and root.head.lemma_ in _ACQUIRING) or (
        root.dep_ == "nsubjpass" and root.head.lemma_ in {"release", "launch", "buy", "sell"}
    )


def _guess_by_role(root: Token) -> str:
    if root.dep_ in {"dobj", "nsubjpass"} and root.head.lemma_ in {"found", "establish", "acquire", "join", "run"}:
        return "ORGANIZATION"
    if root.dep_ == "nsubj" and root.head.lemma_ in _ANIMATE:
        return "PERSON"
    if root.dep_ == "pobj":
        return {"at": "ORGANIZATION", "in": "PLACE", "near": "PLACE"}.get(root.head.lower_, "TOPIC")
    return "TOPIC"
