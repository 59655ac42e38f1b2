"""Times in questions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.memory.question_time import NamedTime, asks_when, named_time, tells_time


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What did Ann do on 3 May 2023?", NamedTime(2023, 5, 3)),
        ("Who called on May 3rd, 2023?", NamedTime(2023, 5, 3)),
        ("Who called on the 21st of October?", NamedTime(None, 10, 21)),
        ("What happened on 2024-02-29?", NamedTime(2024, 2, 29)),
        ("What did they plan in Sept. 2023?", NamedTime(2023, 9, None)),
        ("What did they do in July?", NamedTime(None, 7, None)),
        ("Which books came out in 2019?", NamedTime(2019, None, None)),
        ("What may happen to the march of the ants?", None),
        ("How many of the 12 eggs are left?", None),
        ("", None),
    ],
)
def test_named_times(question: str, expected: NamedTime | None) -> None:
    assert named_time(question) == expected


@pytest.mark.parametrize(
    ("question", "asks"),
    [
        ("When did Ann move?", True),
        ("Since what year has she lived there?", True),
        ("How long has she lived there?", True),
        ("And when will it be?", True),
        ("What does she do when she is sad?", False),
        ("Where did she go?", False),
    ],
)
def test_questions_for_a_time(question: str, asks: bool) -> None:
    assert asks_when(question) is asks


def test_texts_that_tell_a_time() -> None:
    assert tells_time("We met two weeks ago")
    assert tells_time("See you on Fridays")
    assert not tells_time("I like tea")


def test_closeness_is_whole_on_the_day_fades_after_it_and_is_nothing_before() -> None:
    day = NamedTime(2023, 5, 3)
    noon = datetime(2023, 5, 3, 12, tzinfo=UTC)
    assert day.closeness(noon) == 1.0
    assert day.closeness(noon - timedelta(days=1)) == 1.0
    assert day.closeness(noon - timedelta(days=3)) == 0.0
    fading = [day.closeness(noon + timedelta(days=days)) for days in range(2, 40)]
    assert fading == sorted(fading, reverse=True)
    assert 0 < fading[2] < 1
    assert fading[-1] == 0


def test_a_month_without_a_year_is_that_of_any_year() -> None:
    july = NamedTime(None, 7, None)
    assert july.closeness(datetime(2020, 7, 31, tzinfo=UTC)) == 1.0
    assert 0 < july.closeness(datetime(2021, 8, 5, tzinfo=UTC)) < 1
    assert july.closeness(datetime(2021, 5, 1, tzinfo=UTC)) == 0
    assert NamedTime(None, 12, None).closeness(datetime(2022, 1, 5, tzinfo=UTC)) > 0


@given(
    st.text() | st.from_regex(r"in (january|may|31 december|feb 30),? (1999|2100)", fullmatch=True),
    st.datetimes(timezones=st.just(UTC)),
)
def test_any_question_and_any_moment_give_a_share(question: str, moment: datetime) -> None:
    time = named_time(question)
    if time is not None:
        assert 0 <= time.closeness(moment) <= 1


def test_a_day_that_no_calendar_has_is_close_to_nothing() -> None:
    assert NamedTime(2023, 2, 30).closeness(datetime(2023, 3, 1, tzinfo=UTC)) == 0
    assert NamedTime(None, 12, None).closeness(datetime(9999, 12, 31, tzinfo=UTC)) == 0
