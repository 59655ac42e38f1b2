"""Turns tiers and limits into messages, and messages into them."""

from __future__ import annotations

from typing import Any

from memoro import types
from memoro.v1 import admin_pb2
from memoro.wire import duration, time_of

_RATES = ("requests", "reads", "writes", "searches", "user_requests")
_NUMBERS = ("daily_units", "open_streams", "relation_detections", "max_memories", "max_bytes")


def limits(message: admin_pb2.Limits) -> types.Limits:
    return types.Limits(**{field.name: _limit(value) for field, value in message.ListFields()})


def limits_message(item: types.Limits) -> admin_pb2.Limits:
    message = admin_pb2.Limits(**{name: getattr(item, name) for name in _NUMBERS})
    for name in _RATES:
        rate: types.RateLimit | None = getattr(item, name)
        if rate is not None:
            getattr(message, name).MergeFrom(admin_pb2.RateLimit(per_minute=rate.per_minute, burst=rate.burst))
    return message


def tier(message: admin_pb2.Tier) -> types.Tier:
    return types.Tier(
        name=message.name,
        limits=limits(message.limits),
        shadow=message.shadow,
        weight=message.weight,
        tenant_in_flight=message.tenant_in_flight,
        user_in_flight=message.user_in_flight,
        kept_succeeded=message.kept_succeeded.ToTimedelta() if message.HasField("kept_succeeded") else None,
        kept_failed=message.kept_failed.ToTimedelta() if message.HasField("kept_failed") else None,
        etag=message.etag,
        update_time=time_of(message, "update_time"),
    )


def tier_message(item: types.Tier) -> admin_pb2.Tier:
    return admin_pb2.Tier(
        name=item.name,
        limits=limits_message(item.limits),
        shadow=item.shadow,
        weight=item.weight,
        tenant_in_flight=item.tenant_in_flight,
        user_in_flight=item.user_in_flight,
        kept_succeeded=duration(item.kept_succeeded),
        kept_failed=duration(item.kept_failed),
        etag=item.etag,
    )


def _limit(value: Any) -> Any:
    return types.RateLimit(value.per_minute, value.burst) if isinstance(value, admin_pb2.RateLimit) else value
