"""What goes into a provider and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""One embedding: shape (dimensions,), unit length."""


class Operation(StrEnum):
    """What a provider was asked to do; prices are per operation."""

    EMBED = "embed"
    EXTRACT = "extract"


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """Which model made a vector. Vectors of different models are never compared."""

    provider: str
    name: str
    dimensions: int

    @property
    def key(self) -> str:
        """How the model is named beside each stored vector, e.g. `local/wordllama-l2-supercat@256`."""
        return f"{self.provider}/{self.name}@{self.dimensions}"


@dataclass(frozen=True, slots=True)
class Usage:
    """What one provider call used, as the provider counted it, failed calls included; or the most that one may use.

    `items` are the texts it was about; a call that asks again about the same text has none. `unaccounted`: the provider
    did not tell all of it, and may charge for more.
    """

    provider: str
    model: str
    operation: Operation
    input_tokens: int
    output_tokens: int = 0
    items: int = 1
    unaccounted: bool = False


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per text, in the order of the texts, and what they cost together."""

    vectors: Sequence[Vector]
    usage: Sequence[Usage]


@dataclass(frozen=True, slots=True)
class ExtractionSource:
    """One text to find facts in, with what helps to read it.

    `speaker` said it (None: nobody in particular); `preceding` are the turns just before it, oldest first,
    as "speaker: text", for pronouns and ellipsis only: facts come from `text` alone.
    """

    text: str
    speaker: str | None = None
    occurred_at: datetime | None = None
    preceding: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ExtractedEntity:
    """Something named in the text. `type` is upper snake case: PERSON, ORGANIZATION, PLACE, PRODUCT, EVENT, TOPIC …"""

    name: str
    type: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExtractedRelationship:
    """`source` PREDICATE `target`; both are names in the same extraction; the predicate is upper snake case."""

    source: str
    predicate: str
    target: str
    confidence: float = 1.0
    valid_from: datetime | None = None
    valid_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Extraction:
    """The graph of one text. `partial` says that something was left out: a cut-off answer, or a limit reached."""

    entities: Sequence[ExtractedEntity]
    relationships: Sequence[ExtractedRelationship]
    usage: Sequence[Usage]
    partial: bool = False
