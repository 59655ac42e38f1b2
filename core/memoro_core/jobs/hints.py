"""What a hint to workers is: a few jobs that wait, in one of two classes."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

HINT_SIZE: Final = 16
"""Jobs that one hint names at most."""


class HintClass(StrEnum):
    """Why workers hear of a job. Workers keep slots free for fresh hints that they don't give to the backlog."""

    FRESH = "fresh"
    """Accepted just now, of a tenant that is below its cap."""
    BACKLOG = "backlog"
    """Chosen by the scheduler among all that wait."""
