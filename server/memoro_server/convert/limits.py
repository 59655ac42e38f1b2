"""Limits, and the tiers that have them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from memoro.v1 import admin_pb2
from memoro_core.limits.model import Limits, Rate
from memoro_core.tenancy.model import Tier, TierName
from memoro_server.convert.scalars import from_time, from_version, to_duration

_RATES: Final = ("requests", "reads", "writes", "searches", "user_requests")
_NUMBERS: Final = ("daily_units", "open_streams", "relation_detections", "max_memories", "max_bytes")
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_limits(message: admin_pb2.Limits) -> Limits:
    """What is limited; what is not set is not."""
    return Limits(**{field.name: _limit(value) for field, value in message.ListFields()})


def from_limits(limits: Limits) -> admin_pb2.Limits:
    """The other way round."""
    message = admin_pb2.Limits(**{name: getattr(limits, name) for name in _NUMBERS})
    for name in _RATES:
        rate: Rate | None = getattr(limits, name)
        if rate is not None:
            getattr(message, name).MergeFrom(admin_pb2.RateLimit(per_minute=rate.per_minute, burst=rate.burst))
    return message


def from_limits_or_none(limits: Limits) -> admin_pb2.Limits | None:
    """The same; None for a field that stays unset when nothing is limited."""
    return None if limits == Limits() else from_limits(limits)


def to_tier(message: admin_pb2.Tier) -> Tier:
    """The tier as it is to be; the version and the time are not the caller's."""
    return Tier(
        name=TierName(message.name),
        limits=to_limits(message.limits),
        shadow=message.shadow,
        weight=message.weight,
        tenant_in_flight=message.tenant_in_flight,
        user_in_flight=message.user_in_flight,
        kept_succeeded=to_duration(message, "kept_succeeded"),
        kept_failed=to_duration(message, "kept_failed"),
        version=0,
        updated_at=_NEVER,
    )


def from_tier(tier: Tier) -> admin_pb2.Tier:
    """A tier as operators see it."""
    return admin_pb2.Tier(
        name=tier.name,
        limits=from_limits(tier.limits),
        shadow=tier.shadow,
        weight=tier.weight,
        tenant_in_flight=tier.tenant_in_flight,
        user_in_flight=tier.user_in_flight,
        kept_succeeded=_duration(tier.kept_succeeded),
        kept_failed=_duration(tier.kept_failed),
        etag=from_version(tier.version),
        update_time=from_time(tier.updated_at),
    )


def _limit(value: Any) -> Any:
    return Rate(value.per_minute, value.burst) if isinstance(value, admin_pb2.RateLimit) else value


def _duration(interval: timedelta | None) -> Duration | None:
    if interval is None:
        return None
    return Duration(seconds=interval.days * 86_400 + interval.seconds, nanos=interval.microseconds * 1000)
