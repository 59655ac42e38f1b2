"""What each arm says of the candidates, and that one score comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.ids import ConversationId, MemoryId, new_id
from memoro_core.memory.ranking import Arm, Ranked, Weights, rank, relatedness
from memoro_core.memory.search_ports import Candidate

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CHAT = ConversationId("chat")
QUESTION = "What does Ann like?"


def candidate(
    text: str = "I like tea.",
    *,
    speaker: str | None = None,
    position: int | None = None,
    at: datetime = NOON,
    similarity: float | None = None,
    lexical: float = 0.0,
) -> Candidate:
    return Candidate(
        MemoryId(new_id()),
        text,
        speaker,
        None if position is None else CHAT,
        position or 0,
        at,
        similarity,
        lexical,
    )


def ranked(question: str, candidates: Sequence[Candidate], related: Any = None) -> Sequence[Ranked]:
    return rank(question, candidates, related, Weights()).part(0, len(candidates))


def score_of(one: Candidate, ranking: Sequence[Ranked]) -> float:
    return next(ranked.score for ranked in ranking if ranked.candidate is one)


def arms_of(one: Candidate, ranking: Sequence[Ranked]) -> dict[str, float]:
    arms = next(ranked.arms for ranked in ranking if ranked.candidate is one)
    return {arm.arm: arm.contribution for arm in arms}


CANDIDATES = st.lists(
    st.builds(
        candidate,
        st.sampled_from(["I like tea.", "What do you like?", "We met last week [shares a photo of a cat]", ""]),
        speaker=st.sampled_from([None, "Ann", "Bob Lee"]),
        position=st.none() | st.integers(0, 5),
        at=st.datetimes(timezones=st.just(UTC)),
        similarity=st.none() | st.floats(-1, 1),
        lexical=st.floats(0, 50),
    ),
    max_size=12,
)


@given(
    st.sampled_from([QUESTION, "When did Bob meet Ann in May 2026?", "tea", "…"]), CANDIDATES, st.booleans(), st.data()
)
def test_scores_are_from_0_to_1_sums_of_contributions_and_sorted(
    question: str, candidates: list[Candidate], words: bool, data: st.DataObject
) -> None:
    shares = st.lists(st.floats(0, 1), min_size=len(candidates), max_size=len(candidates))
    related = np.array(data.draw(shares)) if words else None
    ranking = ranked(question, candidates, related)
    assert {one.candidate.memory_id for one in ranking} == {one.memory_id for one in candidates}
    for one in ranking:
        assert 0 <= one.score <= 1
        assert one.score == pytest.approx(sum(arm.contribution for arm in one.arms))
        assert all(arm.contribution > 0 for arm in one.arms)
    order = [(one.score, one.candidate.memory_id) for one in ranking]
    assert order == sorted(order, reverse=True)
    assert ranked(question, candidates[::-1], None if related is None else related[::-1]) == ranking


def test_no_candidates_no_hits() -> None:
    assert ranked(QUESTION, []) == []
    assert rank(QUESTION, [], None, Weights()).count() == 0


def test_equal_ones_come_newest_first() -> None:
    old, new = candidate(lexical=1.0), candidate(lexical=1.0)
    assert [one.candidate for one in ranked(QUESTION, [old, new])] == [new, old]


def test_an_arm_ranks_what_it_found_and_only_that() -> None:
    best, second, other = (
        candidate(similarity=0.9, lexical=1),
        candidate(similarity=0.1, lexical=3),
        candidate(lexical=2),
    )
    ranking = ranked(QUESTION, [best, second, other])
    ranks = {(one.candidate, arm.arm): arm.rank for one in ranking for arm in one.arms}
    assert ranks == {
        (best, "vector"): 1,
        (second, "vector"): 2,
        (second, "lexical"): 1,
        (other, "lexical"): 2,
        (best, "lexical"): 3,
    }


def test_an_answer_without_any_word_of_the_question_is_found_by_the_question_before_it() -> None:
    asked = candidate("What do you like?", position=4, lexical=3.0)
    answer, unrelated = candidate("Tea!", position=5), candidate("Rain.", position=9)
    ranking = ranked(QUESTION, [asked, answer, unrelated])
    assert arms_of(answer, ranking).keys() == {Arm.NEIGHBOUR}
    assert score_of(answer, ranking) > score_of(unrelated, ranking) == 0


def test_a_question_lends_more_to_its_answer_than_a_statement_to_what_follows_it() -> None:
    def lent(text: str) -> float:
        first, second = candidate(text, position=4, lexical=3.0), candidate("Tea!", position=5)
        return arms_of(second, ranked(QUESTION, [first, second]))[Arm.NEIGHBOUR]

    assert lent("What do you like?") > lent("I know what you like.") > 0
    assert lent('"What do you like?" [shares a photo of a cup]') == lent("What do you like?")


@pytest.mark.parametrize(
    ("position", "at"),
    [(6, NOON), (None, NOON), (5, NOON + timedelta(days=3))],
    ids=["two on", "no turn", "days later"],
)
def test_what_is_not_beside_a_hit_gets_nothing_from_it(position: int | None, at: datetime) -> None:
    hit, other = candidate(position=4, lexical=3.0), candidate(position=position, at=at)
    assert score_of(other, ranked(QUESTION, [hit, other])) == 0


def test_who_is_named_in_the_question_counts_more_for_what_they_said() -> None:
    ann, bob = candidate(speaker="Ann Lee", lexical=1.0), candidate(speaker="Bob", lexical=1.0)
    ranking = ranked(QUESTION, [ann, bob])
    assert ranking[0].candidate is ann
    assert Arm.SPEAKER in arms_of(ann, ranking)
    assert Arm.SPEAKER not in arms_of(bob, ranking)


def test_where_nobody_is_named_no_room_is_left_for_that_in_the_score() -> None:
    best = candidate(speaker="Ann", similarity=1.0, lexical=1.0)
    assert score_of(best, ranked("What is good?", [best])) > score_of(best, ranked("What?", [best])) - 1e-9
    named = arms_of(best, ranked("What does Ann like?", [best]))
    unnamed = arms_of(best, ranked("What is liked?", [best]))
    assert unnamed[Arm.VECTOR] > named[Arm.VECTOR]


def test_a_day_that_is_named_and_times_that_are_asked_for() -> None:
    then = candidate("I was there.", at=datetime(2026, 5, 3, tzinfo=UTC), lexical=1.0)
    tells = candidate("It was last week.", lexical=1.0)
    neither = candidate("Yes.", lexical=1.0)
    by_day = ranked("What happened on 3 May 2026?", [then, tells, neither])
    assert by_day[0].candidate is then
    assert Arm.TIME not in arms_of(tells, by_day)
    by_when = ranked("When was that?", [then, tells, neither])
    assert by_when[0].candidate is tells


def test_only_what_scores_something_and_enough_is_counted() -> None:
    ranking = rank(QUESTION, [candidate(lexical=lexical) for lexical in (4.0, 2.0, 0.0)], None, Weights())
    scores = [one.score for one in ranking.part(0, 3)]
    assert [ranking.count(), ranking.count(scores[0]), ranking.count(scores[1]), ranking.count(1.0)] == [2, 1, 2, 0]
    assert ranking.part(1, 2) == ranking.part(0, 3)[1:2]


def test_relatedness_is_the_mean_of_the_best_cosines_with_rare_words_counting_more() -> None:
    table = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    rows = {"tea": 0, "cup": 1, "mug": 2}
    scores = relatedness(["tea", "cup"], [["tea", "mug"], ["mug"], [], ["tea"]], rows, table)
    assert scores[2] == 0
    assert scores[0] > scores[3] > 0
    rarity = {"tea": np.log1p(2.5 / 2.5), "cup": np.log1p(4.5 / 0.5)}
    assert scores[0] == pytest.approx((rarity["tea"] + rarity["cup"] * 0.8) / sum(rarity.values()), rel=1e-5)
    assert list(relatedness([], [["tea"]], rows, table)) == [0]
    assert list(relatedness(["tea"], [[]], rows, table)) == [0]


def test_weights_of_nothing_find_nothing() -> None:
    nothing = Weights(0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert rank(QUESTION, [candidate(lexical=1.0)], None, nothing).count() == 0
