"""The tenants and users that a process has lately decided about."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from memoro_core.ids import TenantId, UserId
from memoro_core.limits.leases import LeaseGroup, LimitedBucket
from memoro_core.limits.model import Ask, Limits, MethodClass, Rate

REQUESTS: Final = "requests"
USER_REQUESTS: Final = "user_requests"
DAILY_UNITS: Final = "daily_units"
_MAX_TENANTS: Final = 50_000
_MAX_USERS: Final = 50_000


class KnownTenant:
    """A tenant under one version of its policy: a lease group for each class of calls, and for each user."""

    __slots__ = ("daily_units", "groups", "id", "user_rate", "users", "version")

    def __init__(self, ask: Ask, now: float) -> None:
        limits = ask.limits.limits
        self.id = ask.tenant_id
        self.version = ask.limits.version
        self.daily_units = limits.daily_units
        self.user_rate = limits.user_requests
        self.users: OrderedDict[UserId, LeaseGroup] = OrderedDict()
        self.groups = {
            method_class: LeaseGroup(_buckets(limits, method_class), units=limits.daily_units, now=now)
            for method_class in MethodClass
        }

    def level_of(self, bucket: LimitedBucket, now: float) -> int:
        """The level of a bucket at least, as far as any group knows."""
        if bucket.limit == USER_REQUESTS:
            user = self.users.get(UserId(bucket.name.partition(":")[2]))
            return user.level_of(bucket.name, now) if user else 0
        return max(group.level_of(bucket.name, now) for group in self.groups.values())


class KnownTenants:
    """Those that have called, but not too many: the least recent are forgotten, with what was leased for them."""

    def __init__(self) -> None:
        self.by_id: OrderedDict[TenantId, KnownTenant] = OrderedDict()
        self._users = 0

    def admit(self, ask: Ask, now: float) -> KnownTenant:
        """The tenant under the policy that the call comes with; what was leased under another is to be handed back."""
        tenant, before = KnownTenant(ask, now), self.by_id.get(ask.tenant_id)
        if before is not None:
            self._users -= len(before.users)
            for method_class, group in tenant.groups.items():
                group.succeed(before.groups[method_class], now)
        self.by_id[ask.tenant_id] = tenant
        while len(self.by_id) > _MAX_TENANTS:
            self._forget_one()
        return tenant

    def groups_of(self, tenant: KnownTenant, ask: Ask, now: float) -> Iterator[tuple[LeaseGroup, int]]:
        """The groups of which the call takes something, and how much; first the one that counts units."""
        self.by_id.move_to_end(tenant.id)
        yield tenant.groups[ask.method_class], ask.weight
        if tenant.user_rate is not None:
            for user, weight in ask.users.items():
                group = tenant.users.get(user)
                if group is None:
                    group = self._admit_user(tenant, user, tenant.user_rate, now)
                else:
                    tenant.users.move_to_end(user)
                yield group, weight

    def _admit_user(self, tenant: KnownTenant, user: UserId, rate: Rate, now: float) -> LeaseGroup:
        bucket = LimitedBucket(USER_REQUESTS, f"{USER_REQUESTS}:{user}", rate)
        group = LeaseGroup([bucket], units=None, now=now)
        tenant.users[user] = group
        self._users += 1
        while self._users > _MAX_USERS and len(self.by_id) > 1:
            self._forget_one()
        if self._users > _MAX_USERS:
            tenant.users.popitem(last=False)
            self._users -= 1
        return group

    def _forget_one(self) -> None:
        _, forgotten = self.by_id.popitem(last=False)
        self._users -= len(forgotten.users)


def _buckets(limits: Limits, method_class: MethodClass) -> list[LimitedBucket]:
    buckets = [LimitedBucket(REQUESTS, REQUESTS, limits.requests)] if limits.requests else []
    rate = {
        MethodClass.READ: limits.reads,
        MethodClass.WRITE: limits.writes,
        MethodClass.SEARCH: limits.searches,
        MethodClass.ADMIN: None,
    }[method_class]
    if rate:
        buckets.append(LimitedBucket(method_class.value, method_class.value, rate))
    return buckets
