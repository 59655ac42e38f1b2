"""Ranking: what each arm of the search says of the candidates, and one score out of it all. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from memoro_core.ids import ConversationId
from memoro_core.memory.model import ArmScore
from memoro_core.memory.question_time import asks_when, named_time, tells_time
from memoro_core.memory.search_ports import Candidate

Scores = NDArray[np.float64]
"""One number per candidate, in their order."""

SITTING: Final = timedelta(days=1)
"""Turns of one conversation further apart in time than this are not beside each other."""

_ASKS: Final = re.compile(r"\?[\s\"'\u201d\u2019)]*(?:\[[^\[\]]*\]\s*)?$")
_NAME_PART: Final = re.compile(r"[^\W_]+")


class Arm(StrEnum):
    """A way to tell how much a memory bears on a question."""

    VECTOR = "vector"
    LEXICAL = "lexical"
    RELATED = "related"
    NEIGHBOUR = "neighbour"
    SPEAKER = "speaker"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each arm counts; 0 switches it off. Found by ablation on conversations between people.

    The first three look at what a memory says, each measured against its best candidate: their share of the evidence.
    The others are given on top of that: `before` and `after` are what the turn before and the turn after lend of their
    evidence, `answer` what a turn that asks lends to the one that answers it; `speaker` is for having said it oneself,
    `day` for having said it at a time that the question names, `when` for telling a time when that is asked for.
    """

    vector: float = 0.25
    lexical: float = 0.2
    related: float = 0.55
    before: float = 0.2
    after: float = 0.2
    answer: float = 0.3
    speaker: float = 0.4
    day: float = 0.3
    when: float = 0.2


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with its score, from 0 to 1, which is the sum of its arms' contributions."""

    candidate: Candidate
    score: float
    arms: Sequence[ArmScore]


@dataclass(frozen=True, slots=True)
class _Opinion:
    """What one arm says: its own measure, and what it adds to the score before that is brought to between 0 and 1."""

    arm: Arm
    raw: Scores
    adds: Scores
    ranks: bool
    ceiling: float


class Ranking:
    """Candidates, best first; equal ones newest first. What makes up a score is worked out when it is asked for."""

    def __init__(self, candidates: Sequence[Candidate], opinions: Sequence[_Opinion]) -> None:
        self._candidates = candidates
        self._opinions = opinions
        self._ceiling = sum(opinion.ceiling for opinion in opinions)
        total = np.sum([opinion.adds for opinion in opinions], axis=0) / self._ceiling if opinions else np.zeros(0)
        self._order = np.argsort(-total, kind="stable")
        self._scores = np.minimum(total[self._order], 1.0)

    def count(self, min_score: float = 0.0) -> int:
        """How many score at least so much, and more than nothing."""
        return int(np.count_nonzero((self._scores >= min_score) & (self._scores > 0)))

    def part(self, start: int, end: int) -> Sequence[Ranked]:
        """Those from `start` up to, but not including, `end`."""
        ranks = {opinion.arm: _ranks(opinion.raw) for opinion in self._opinions if opinion.ranks}
        return [
            Ranked(self._candidates[place], float(score), self._arms(int(place), ranks))
            for place, score in zip(self._order[start:end], self._scores[start:end], strict=True)
        ]

    def _arms(self, place: int, ranks: Mapping[Arm, NDArray[np.intp]]) -> Sequence[ArmScore]:
        scores = [
            ArmScore(
                opinion.arm,
                float(opinion.raw[place]),
                int(ranks[opinion.arm][place]) if opinion.ranks else 0,
                float(opinion.adds[place]) / self._ceiling,
            )
            for opinion in self._opinions
        ]
        return [score for score in scores if score.contribution > 0]


def rank(question: str, candidates: Sequence[Candidate], related: Scores | None, weights: Weights) -> Ranking:
    """Ranks candidates by what every arm says of them.

    `related` says how near each candidate's words come to the question's; None when nothing can tell.
    """
    if not candidates:
        return Ranking((), ())
    # The order that they come in must not tell in anything.
    order = sorted(range(len(candidates)), key=lambda place: candidates[place].memory_id.int, reverse=True)
    candidates = [candidates[place] for place in order]
    related = None if related is None else related[order]
    evidence = _evidence(candidates, related, weights)
    said = np.sum([opinion.adds for opinion in evidence], axis=0) if evidence else np.zeros(len(candidates))
    opinions = [
        *evidence,
        _neighbours(candidates, said, weights),
        _speakers(question, candidates, weights.speaker),
        *_times(question, candidates, weights),
    ]
    opinions = [opinion for opinion in opinions if opinion.ceiling > 0]
    return Ranking(candidates if opinions else (), opinions)


def relatedness(
    question_words: Sequence[str],
    candidate_words: Sequence[Sequence[str]],
    rows: Mapping[str, int],
    table: NDArray[np.float32],
) -> Scores:
    """How near each candidate's words come to the question's: the mean, over the question's words, of the best cosine
    with any of the candidate's, the rarer words counting more.

    `rows` says in which row of `table`, shape (words, dimensions), each word has its unit vector.
    """
    total = len(candidate_words)
    spoken = [place for place, words in enumerate(candidate_words) if words]
    if not question_words or not spoken:
        return np.zeros(total)
    asked = table[[rows[word] for word in question_words]]
    flat = np.fromiter((rows[word] for place in spoken for word in candidate_words[place]), dtype=np.intp)
    starts = np.cumsum([0, *(len(candidate_words[place]) for place in spoken[:-1])])
    nearness = np.maximum(asked @ table.T, 0.0)[:, flat]
    best = np.zeros((len(question_words), total))
    best[:, spoken] = np.maximum.reduceat(nearness, starts, axis=1)
    texts = [set(words) for words in candidate_words]
    found_in = np.array([sum(word in text for text in texts) for word in question_words])
    rarity = np.log1p((total - found_in + 0.5) / (found_in + 0.5))
    return np.asarray(rarity @ best / rarity.sum(), dtype=np.float64)


def is_named(speaker: str | None, question: str) -> bool:
    """Whether a question names a speaker, by any part of the name."""
    return speaker is not None and not _name_parts(question).isdisjoint(_name_parts(speaker))


def _evidence(candidates: Sequence[Candidate], related: Scores | None, weights: Weights) -> list[_Opinion]:
    vector = np.array([max(0.0, candidate.similarity or 0.0) for candidate in candidates])
    lexical = np.array([candidate.lexical for candidate in candidates])
    opinions = [(Arm.VECTOR, vector, weights.vector), (Arm.LEXICAL, lexical, weights.lexical)]
    if related is not None:
        opinions.append((Arm.RELATED, related, weights.related))
    total = sum(weight for _, _, weight in opinions)
    if total <= 0:
        return []
    return [
        _Opinion(arm, raw, _normalized(raw) * weight / total, True, weight / total) for arm, raw, weight in opinions
    ]


def _neighbours(candidates: Sequence[Candidate], said: Scores, weights: Weights) -> _Opinion:
    """What the turns beside a memory lend it: they are about the same, and a question is answered by the next turn."""
    places: dict[tuple[ConversationId, int], int] = {
        (candidate.conversation_id, candidate.position): place
        for place, candidate in enumerate(candidates)
        if candidate.conversation_id is not None
    }
    lent = np.zeros(len(candidates))
    for place, candidate in enumerate(candidates):
        if candidate.conversation_id is None:
            continue
        for step, weight in ((-1, weights.before), (1, weights.after)):
            other = places.get((candidate.conversation_id, candidate.position + step))
            if other is None or abs(candidates[other].occurred_at - candidate.occurred_at) > SITTING:
                continue
            asks = step < 0 and _ASKS.search(candidates[other].excerpt) is not None
            lent[place] += said[other] * (weight + (weights.answer if asks else 0.0))
    return _Opinion(Arm.NEIGHBOUR, lent, lent, False, weights.before + weights.after + weights.answer)


def _speakers(question: str, candidates: Sequence[Candidate], weight: float) -> _Opinion:
    asked_of = {speaker: is_named(speaker, question) for speaker in {candidate.speaker for candidate in candidates}}
    raw = np.array([float(asked_of[candidate.speaker]) for candidate in candidates])
    return _Opinion(Arm.SPEAKER, raw, raw * weight, False, weight if raw.any() else 0.0)


def _times(question: str, candidates: Sequence[Candidate], weights: Weights) -> list[_Opinion]:
    time, asks = named_time(question), asks_when(question)
    raw, adds, ceiling = np.zeros(len(candidates)), np.zeros(len(candidates)), 0.0
    if time is not None:
        raw = np.array([time.closeness(candidate.occurred_at) for candidate in candidates])
        adds, ceiling = raw * weights.day, weights.day
    if asks:
        tells = np.array([float(tells_time(candidate.excerpt)) for candidate in candidates])
        raw, adds, ceiling = np.maximum(raw, tells), adds + tells * weights.when, ceiling + weights.when
    return [_Opinion(Arm.TIME, raw, adds, False, ceiling)]


def _normalized(raw: Scores) -> Scores:
    highest = raw.max()
    return raw / highest if highest > 0 else np.zeros(len(raw))


def _ranks(raw: Scores) -> NDArray[np.intp]:
    """The place of each among those that an arm found, from 1; 0 for those that it did not find."""
    ranks = np.empty(len(raw), dtype=np.intp)
    ranks[np.argsort(-raw, kind="stable")] = np.arange(1, len(raw) + 1)
    return np.where(raw > 0, ranks, 0)


def _name_parts(text: str) -> set[str]:
    return {part for part in _NAME_PART.findall(text.casefold()) if len(part) > 1}
