"""What a model is sent: the text as data, whatever it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from memoro_core.llm.model import ExtractionSource
from memoro_core.llm.prompts import EXTRACTION, extraction_messages, repair_messages


@given(st.text(), st.none() | st.text(max_size=20), st.lists(st.text(max_size=20), max_size=10))
def test_a_text_stays_inside_its_json_string(text: str, speaker: str | None, preceding: list[str]) -> None:
    system, user = extraction_messages(ExtractionSource(text, speaker=speaker, preceding=preceding))

    assert system == {"role": "system", "content": EXTRACTION}
    data = json.loads(user["content"])
    assert data["text"] == text
    assert data["speaker"] == speaker
    assert data["preceding"] == preceding[-6:]


def test_the_time_is_told() -> None:
    source = ExtractionSource("Yesterday.", occurred_at=datetime(2026, 3, 1, tzinfo=UTC))

    assert json.loads(extraction_messages(source)[1]["content"])["occurred_at"] == "2026-03-01T00:00:00+00:00"


def test_a_repair_shows_the_answer_and_its_problem_within_limits() -> None:
    asked = extraction_messages(ExtractionSource("Hello."))

    messages = repair_messages(asked, "x" * 100_000, "it is {not} valid JSON")

    assert messages[:2] == asked
    assert [message["role"] for message in messages[2:]] == ["assistant", "user"]
    assert len(messages[2]["content"]) == 16_000
    assert "it is {not} valid JSON" in messages[3]["content"]
