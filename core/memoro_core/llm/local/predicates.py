"""Names relationships after the words that say them.

The rule, for a verb with its particle and preposition, all in upper snake case:

- past ("bought", "has bought", "was buying", "did not buy") → the simple past: BOUGHT; present → the third person
  singular: WORKS_AT, also for "I work", "is working", "has been working";
- a modal stays in front: CAN_SPEAK; "going to" is WILL; NOT_ in front of all that denies: NOT_VISITED;
- a passive with an agent is turned round ("was designed by X" → X DESIGNED it); without one, and for adjectives,
  the form of "be" is dropped: BORN_IN, MARRIED_TO, ALLERGIC_TO;
- a verb that rules another keeps it: WANTS_TO_BUY, LOVES_PLAYING;
- "be" with a noun is IS_A or WAS_A, with a name IS or WAS, with a preposition IS_IN or WAS_IN;
- a role or a kinship is its noun and preposition: CEO_OF, SISTER_OF, and WAS_CEO_OF in the past.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from memoro_core.llm.local.verbs import past, present

if TYPE_CHECKING:
    from spacy.tokens import Token

MAX_PREDICATE_CHARS: Final = 64
_NOT_LETTERS: Final = re.compile(r"[^a-z0-9]+")
_MODALS: Final = {"'ll": "will", "ll": "will", "wo": "will", "ca": "can", "'d": "would", "d": "would", "sha": "shall"}


def snake(*words: str) -> str:
    """Upper snake case of the words, cut to MAX_PREDICATE_CHARS at a word, without accents and marks."""
    plain = (unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode().lower() for word in words)
    parts = [part for word in plain for part in _NOT_LETTERS.split(word) if part]
    while len(parts) > 1 and sum(map(len, parts)) + len(parts) > MAX_PREDICATE_CHARS:
        parts.pop()
    return "_".join(parts).upper()[:MAX_PREDICATE_CHARS]


def auxiliaries(verb: Token) -> list[Token]:
    """The verb's auxiliaries; a coordinated verb without any of its own shares those of the first."""
    own = [child for child in verb.children if child.dep_ in {"aux", "auxpass"}]
    shares = verb.dep_ == "conj" and verb.tag_ in {"VB", "VBN", "VBG"} and verb.head.pos_ in {"VERB", "AUX"}
    if own or not shares or any(child.dep_ in {"nsubj", "nsubjpass"} for child in verb.children):
        return own
    return auxiliaries(verb.head)


def is_passive(verb: Token) -> bool:
    """Whether the verb's subject is what the verb acts on."""
    return verb.tag_ == "VBN" and (
        any(child.dep_ == "auxpass" for child in auxiliaries(verb))
        or any(child.dep_ in {"nsubjpass", "agent"} for child in verb.children)
        or verb.dep_ == "acl"
    )


def is_negated(verb: Token) -> bool:
    """Whether the clause denies: "not", "never", "no longer", "neither … nor"."""
    return any(
        child.dep_ == "neg"
        or (child.lower_ == "longer" and any(word.lower_ == "no" for word in child.children))
        or (child.dep_ == "nsubj" and any(word.lower_ in {"neither", "nobody", "no"} for word in child.children))
        for child in verb.children
    )


def is_past(verb: Token) -> bool:
    """Whether the clause speaks of the past; "has been working" still goes on."""
    helpers = auxiliaries(verb)
    words = {helper.lower_ for helper in helpers}
    if any(helper.tag_ == "VBD" for helper in helpers):
        return True
    if verb.tag_ == "VBD":
        return True
    return verb.tag_ == "VBN" and (bool(words & {"has", "have", "'ve", "'s"}) or not helpers)


def modal(verb: Token) -> str | None:
    """The verb's modal in full ("'ll" → "will"); None without one."""
    for helper in auxiliaries(verb):
        if helper.tag_ == "MD":
            return _MODALS.get(helper.lower_.replace("’", "'"), helper.lower_)
    return None


def verb_words(verb: Token) -> list[str]:
    """The verb's words in the form that the rule gives it, its particle after it."""
    lemma = verb.lemma_.lower()
    particles = [child.lower_ for child in verb.children if child.dep_ == "prt"]
    helper = modal(verb)
    if helper is not None:
        words = [helper, lemma]
    elif is_passive(verb) or (verb.tag_ == "VBD" and lemma != "be" and verb.text[0].isalpha()):
        words = [verb.lower_]
    elif is_past(verb):
        words = [past(lemma)]
    else:
        words = [present(lemma)]
    return words + particles


def follower_words(verb: Token) -> list[str]:
    """The words of a verb that another one rules: "to buy" → ["to", "buy"], "playing" → ["playing"]."""
    particles = [child.lower_ for child in verb.children if child.dep_ == "prt"]
    to = ["to"] if any(child.dep_ == "aux" and child.lower_ in {"to", "na"} for child in verb.children) else []
    return [*to, verb.lemma_.lower() if to else verb.lower_, *particles]
