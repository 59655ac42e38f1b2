"""Which fields an update names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from memoro_core.errors import invalid_field


class _Update(Protocol):
    @property
    def update_mask(self) -> FieldMask: ...


def fields_to_change(request: _Update, changeable: Sequence[str]) -> frozenset[str]:
    """The fields that `update_mask` names; for an empty mask, all that are set.

    Raises INVALID_FIELD for a path that is none of `changeable`, and when there is nothing to change.
    """
    assert isinstance(request, Message)
    named = frozenset(request.update_mask.paths)
    choices = ", ".join(changeable)
    if not named <= set(changeable):
        raise invalid_field("update_mask", f"may name only {choices}")
    changed = named or frozenset(field for field in changeable if request.HasField(field))
    if not changed:
        raise invalid_field("update_mask", f"names nothing, and none of {choices} is set")
    return changed
