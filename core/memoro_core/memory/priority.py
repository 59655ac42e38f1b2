"""How soon a job runs when its caller does not say."""

from __future__ import annotations

from dataclasses import dataclass

from memoro_core.jobs.model import Priority


@dataclass(frozen=True, slots=True)
class PriorityRule:
    """High for conversations of more than `long_conversation` messages, low for texts under `short_text` characters."""

    long_conversation: int = 20
    short_text: int = 40

    def for_text(self, text: str) -> Priority:
        """The priority of a text on its own."""
        return Priority.LOW if len(text) < self.short_text else Priority.NORMAL

    def for_conversation(self, messages: int) -> Priority:
        """The priority of so many messages."""
        return Priority.HIGH if messages > self.long_conversation else Priority.NORMAL
