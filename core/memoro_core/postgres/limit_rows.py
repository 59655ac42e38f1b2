"""Limits as columns hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from memoro_core.limits.model import Limits

_LIMITS: Final = TypeAdapter(Limits)


def limits_of(column: Mapping[str, Any]) -> Limits:
    """The limits in a column: an object with those that are set."""
    return _LIMITS.validate_python(column)


def to_limits_json(limits: Limits) -> Mapping[str, Any]:
    """The other way round."""
    column: Mapping[str, Any] = _LIMITS.dump_python(limits, exclude_none=True)
    return column
