"""What pronouns stand for: the speaker, the last matching person, the last group, the last thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from memoro_core.llm.local.graph import Node
from memoro_core.llm.local.lexicon import (
    FEMININE_KIN,
    FEMININE_NAMES,
    FEMININE_TITLES,
    MASCULINE_KIN,
    MASCULINE_NAMES,
    MASCULINE_TITLES,
    word_set,
)

if TYPE_CHECKING:
    from spacy.tokens import Token


class Gender(Enum):
    """The gender that a name or an earlier pronoun gives away."""

    FEMININE = "feminine"
    MASCULINE = "masculine"


_FIRST: Final = word_set("i me my mine myself")
_FIRST_PLURAL: Final = word_set("we us our ours ourselves")
_PERSONAL: Final = {
    **dict.fromkeys(("he", "him", "his"), Gender.MASCULINE),
    **dict.fromkeys(("she", "her", "hers"), Gender.FEMININE),
}
_PLURAL: Final = word_set("they them their theirs")
_NEUTER: Final = word_set("it its")
REACHING_BACK: Final = frozenset(_PERSONAL) | _PLURAL
"""The pronouns for which it is worth reading the turns before. "It" is too often nothing that was named."""

_LIVING: Final = frozenset({"PERSON", "ANIMAL"})
_THINGS: Final = frozenset({"ANIMAL", "PRODUCT", "ORGANIZATION", "PLACE", "EVENT", "WORK"})
_GUESSED: Final = 0.9
_SHARED: Final = 0.8
_NEUTER_GUESS: Final = 0.6


@dataclass(slots=True)
class _Candidate:
    node: Node
    sentence: int
    position: int
    is_subject: bool
    gender: Gender | None


class Referents:
    """Remembers who and what was named, in reading order, and answers pronouns.

    A person of the latest sentence that has a fitting one wins; in it, one whose gender is known to fit, then a
    grammatical subject, then the latest. "It" is the last thing named in this sentence or the one before.
    """

    def __init__(self, speaker: str | None) -> None:
        self._self = Node(speaker, "PERSON") if speaker else None
        self._people: list[_Candidate] = []
        self._things: list[_Candidate] = []
        self._group: tuple[Node, ...] = ()
        self._sentence = 0

    @property
    def speaker(self) -> Node | None:
        """Who says "I"; None when nobody knows."""
        return self._self

    def introduce(self, name: str) -> None:
        """The text said "my name is …": from here on "I" is that person, unless the speaker was given."""
        if self._self is None:
            self._self = Node(name, "PERSON")

    def begin_sentence(self) -> None:
        """What is noted from here on belongs to the next sentence."""
        self._sentence += 1

    def note(self, node: Node, *, position: int, is_subject: bool) -> None:
        """A name was read at `position`, in reading order."""
        candidate = _Candidate(node, self._sentence, position, is_subject, None)
        if node.type in _LIVING:
            candidate.gender = self._known_gender(node.name) or gender_of(node.name)
            self._people.append(candidate)
        if node.type in _THINGS:
            self._things.append(candidate)

    def note_group(self, nodes: Sequence[Node]) -> None:
        """Several people were named together ("Alice and Bob"): they are the next "they"."""
        people = tuple(node for node in nodes if node.type == "PERSON")
        if len(people) > 1:
            self._group = people

    def resolve(self, pronoun: Token, position: int, *, exclude: Sequence[Node] = ()) -> tuple[Node, ...]:
        """What the pronoun at `position` stands for, never one of `exclude`; empty when nothing fits."""
        word = pronoun.lower_
        if word in _FIRST:
            return (self._self,) if self._self is not None else ()
        if word in _FIRST_PLURAL:
            return (replace(self._self, certainty=_SHARED),) if self._self is not None else ()
        excluded = {node.name.casefold() for node in exclude}
        if (gender := _PERSONAL.get(word)) is not None:
            return self._person(gender, position, excluded)
        if word in _PLURAL:
            return tuple(
                replace(node, certainty=_SHARED) for node in self._group if node.name.casefold() not in excluded
            )
        if word in _NEUTER:
            return self._thing(position, excluded)
        return ()

    def _person(self, gender: Gender, position: int, excluded: set[str]) -> tuple[Node, ...]:
        speaker = self._self.name.casefold() if self._self is not None else None
        fitting = [
            candidate
            for candidate in self._people
            if candidate.position < position
            and candidate.gender in (None, gender)
            and candidate.node.name.casefold() not in excluded
            and candidate.node.name.casefold() != speaker
        ]
        if not fitting:
            return ()
        best = max(
            fitting, key=lambda found: (found.sentence, found.gender is gender, found.is_subject, found.position)
        )
        best.gender = gender
        return (replace(best.node, certainty=min(best.node.certainty, _GUESSED)),)

    def _thing(self, position: int, excluded: set[str]) -> tuple[Node, ...]:
        for found in reversed(self._things):
            near = found.sentence >= self._sentence - 1
            if near and found.position < position and found.node.name.casefold() not in excluded:
                return (replace(found.node, certainty=_NEUTER_GUESS),)
        return ()

    def _known_gender(self, name: str) -> Gender | None:
        for candidate in reversed(self._people):
            if candidate.gender is not None and candidate.node.name == name:
                return candidate.gender
        return None


def gender_of(name: str) -> Gender | None:
    """What a person's name, title or kinship ("Ann's sister") tells about gender; None when nothing."""
    words = name.casefold().replace(".", "").split()
    if "'s " in name:
        words = words[-1:]
        feminine, masculine = FEMININE_KIN, MASCULINE_KIN
    else:
        words = words[:1]
        feminine, masculine = FEMININE_NAMES | FEMININE_TITLES, MASCULINE_NAMES | MASCULINE_TITLES
    if not words:
        return None
    if words[0] in feminine:
        return Gender.FEMININE
    return Gender.MASCULINE if words[0] in masculine else None
