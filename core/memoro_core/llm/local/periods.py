"""Reads when a clause held: "in 2006", "since May 2019", "until 2020"."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Self

from memoro_core.llm.dates import absolute_date
from memoro_core.llm.local.denotation import Denotation

if TYPE_CHECKING:
    from spacy.tokens import Token


@dataclass(frozen=True, slots=True)
class Period:
    """The absolute dates of a clause, both ends open unless it names them."""

    start: datetime | None = None
    end: datetime | None = None

    @classmethod
    def of(cls, denotation: Denotation, *heads: Token) -> Self:
        """The period that the prepositions under any of `heads` tell."""
        start = end = None
        for head in heads:
            for word, token in denotation.prepositional(head):
                node = denotation.mentions.at(token)
                if node is None or node.type != "DATE":
                    continue
                if word in {"until", "till", "before", "to"}:
                    end = absolute_date(node.name)
                elif word in {"in", "on", "since", "from"}:
                    start = absolute_date(node.name)
        return cls(start, end)
