"""Long conversations with questions about them, read from a data set that is not part of the project."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

DATA_SETTING: Final = "MEMORO_BENCH_DATA"
DATA_FOLDER: Final = Path(__file__).resolve().parents[1].parent / "shared" / "bench"
DATA_FILE: Final = "locomo_dev.json"
CATEGORIES: Final = {1: "several turns", 2: "time", 3: "inference", 4: "one turn"}
"""The kinds of question that have an answer in the conversation."""

_TURN: Final = re.compile(r"D\d+:\d+")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one person said; `name` is how questions refer to it."""

    name: str
    speaker: str
    text: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its category, and the names of the turns that answer it."""

    text: str
    category: int
    evidence: frozenset[str]


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that two people said to each other, in sessions, and what may be asked about it."""

    name: str
    sessions: Sequence[Sequence[Turn]]
    questions: Sequence[Question]


def load_conversations() -> Sequence[Conversation] | None:
    """The conversations in MEMORO_BENCH_DATA (default: `../shared/bench`), None when there are none."""
    folder = Path(os.environ.get(DATA_SETTING, DATA_FOLDER))
    file = folder / DATA_FILE if folder.is_dir() else folder
    if not file.is_file():
        return None
    return [_conversation(sample) for sample in json.loads(file.read_text("utf-8"))]


def _conversation(sample: Mapping[str, Any]) -> Conversation:
    questions = [
        Question(one["question"], one["category"], frozenset(_TURN.findall(" ".join(one["evidence"]))))
        for one in sample["qa"]
        if one["category"] in CATEGORIES and one["evidence"]
    ]
    sessions = list(_sessions(sample["conversation"]))
    return Conversation(sample["sample_id"], sessions, [one for one in questions if one.evidence])


def _sessions(conversation: Mapping[str, Any]) -> Iterator[Sequence[Turn]]:
    number = 1
    while (began := conversation.get(f"session_{number}_date_time")) is not None:
        moment = datetime.strptime(began.replace(",", ""), "%I:%M %p on %d %B %Y").replace(tzinfo=UTC)
        turns = [
            Turn(turn["dia_id"], turn["speaker"], _text(turn), moment)
            for turn in conversation.get(f"session_{number}", ())
        ]
        if turns:
            yield turns
        number += 1


def _text(turn: Mapping[str, Any]) -> str:
    caption = turn.get("blip_caption")
    return f"{turn['text']} [shares a photo of {caption}]" if caption else str(turn["text"])
