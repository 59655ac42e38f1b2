"""What the streams of hints are, and what their entries hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from memoro_core.jobs.hints import HintClass
from memoro_core.redis.keys import BACKLOG_STREAM, CUSTOM_STREAM, hint_stream
from memoro_core.tenancy.model import BUILT_IN_TIERS

DATA: Final = "data"
"""The field that holds the message."""
JOBS: Final = "jobs"
"""The field that says how many jobs the message names."""

STREAMS: Final[Mapping[HintClass, Sequence[str]]] = MappingProxyType(
    {
        HintClass.FRESH: (*(hint_stream(tier) for tier in BUILT_IN_TIERS), CUSTOM_STREAM),
        HintClass.BACKLOG: (BACKLOG_STREAM,),
    }
)
