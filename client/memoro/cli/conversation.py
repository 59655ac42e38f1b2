"""Conversations in files, such as `examples/conversation.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from memoro.enums import Role
from memoro.types import Message


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as a file tells it."""

    conversation_id: str
    messages: tuple[Message, ...]


def read_conversation(path: Path) -> Conversation:
    """The conversation in a file.

    The file holds an object with `conversation_id` and `messages`: objects with `text`, and optionally `role`,
    `speaker`, `occurred_at` (ISO 8601 with an offset) and `metadata`. Raises ValueError that names the fault, OSError.
    """
    return _conversation(path.read_text("utf-8"), path.name)


def sample_conversation() -> Conversation:
    """The conversation that comes with the SDK."""
    return _conversation((files("memoro.cli") / "conversation.json").read_text("utf-8"), "conversation.json")


def _conversation(text: str, name: str) -> Conversation:
    try:
        document = json.loads(text)
        conversation_id, messages = document["conversation_id"], document["messages"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{name}: expected an object with conversation_id and messages: {error}") from error
    return Conversation(conversation_id, tuple(_message(one, f"{name}: message {n}") for n, one in enumerate(messages)))


def _message(document: Any, where: str) -> Message:
    known = {"text", "role", "speaker", "occurred_at", "metadata"}
    if not isinstance(document, dict) or not isinstance(document.get("text"), str):
        raise ValueError(f"{where}: expected an object with a text")
    if unknown := set(document) - known:
        raise ValueError(f"{where}: no such field: {', '.join(sorted(unknown))}")
    try:
        return Message(
            text=document["text"],
            role=Role(document["role"].upper()) if "role" in document else None,
            speaker=document.get("speaker", ""),
            occurred_at=datetime.fromisoformat(document["occurred_at"]) if "occurred_at" in document else None,
            metadata=document.get("metadata"),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
