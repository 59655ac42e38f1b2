"""Deciding about calls: from leases where there are any, else by the buckets that all servers share, else alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from functools import partial
from typing import Final

from memoro_core.errors import MemoroError
from memoro_core.ids import TenantId
from memoro_core.limits.asked import AskedCall, ask_for, renewal_of, return_of, units_refused
from memoro_core.limits.breaker import MAX_UNDER_WAY, Asking, Reply
from memoro_core.limits.counts import LimitCounts
from memoro_core.limits.known import KnownTenant, KnownTenants
from memoro_core.limits.leases import LeaseGroup
from memoro_core.limits.local import LocalBuckets
from memoro_core.limits.model import Ask, Verdict
from memoro_core.limits.ports import BucketStore, ServerRegister
from memoro_core.limits.units import DailyUnits
from memoro_core.tasks import end_task

_MAX_PAYERS: Final = 10_000
_BEAT: Final = 1.0
"""Seconds between two signs of life, and between two savings of units."""


class SharedLimiter:
    """A `Limiter`, working while its block is entered.

    `timeout`: seconds for which a call may wait for the shared buckets. `servers`: how many there are at least;
    without a `register`, this process is none of them.
    """

    def __init__(
        self, buckets: BucketStore, units: DailyUnits, register: ServerRegister | None, *, timeout: float, servers: int
    ) -> None:
        self._buckets = buckets
        self._units = units
        self._register = register
        self._timeout = timeout
        self._least_servers = servers
        self._known = KnownTenants()
        self._local = LocalBuckets()
        self._askings: dict[str, Asking] = {}
        self._counting: dict[LeaseGroup, KnownTenant] = {}
        self._payers: dict[int, tuple[Ask, LeaseGroup, int, LeaseGroup | None, int]] = {}
        self._task: asyncio.Task[None] | None = None
        self.counts = LimitCounts(servers=servers)

    async def __aenter__(self) -> SharedLimiter:
        self._task = asyncio.create_task(self._keep_house())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            await end_task(self._task)
        for asking in self._askings.values():
            await asking.close()
        with suppress(MemoroError, TimeoutError):
            async with asyncio.timeout(_BEAT):
                if self._register is not None:
                    await self._register.leave()
        self._book()
        await self._units.save(away=False)

    def decide_now(self, ask: Ask) -> Verdict | None:
        """Takes from leases only where they pay for all of the call.

        Where the same question has been paid for before, and nothing need be renewed, little is looked at: what is not
        in the processor's cache is most of what a decision costs.
        """
        payer, now = self._payers.get(id(ask)), time.monotonic()
        if payer is None or payer[0] is not ask:
            return self._pay(ask, now)
        _, group, weight, user, of_user = payer
        if group.tokens - weight < group.low or now >= group.renew_at:
            return self._pay(ask, now)
        verdict = group.verdict
        if user is not None:
            if user.tokens - of_user < user.low or now >= user.renew_at:
                return self._pay(ask, now)
            user.tokens -= of_user
            user.spent += of_user
            if user.share < group.share:
                verdict = user.verdict
        group.tokens -= weight
        group.spent += weight
        self.counts.leased += 1
        return verdict

    def _pay(self, ask: Ask, now: float) -> Verdict | None:
        tenant = self._known.by_id.get(ask.tenant_id)
        if tenant is None or tenant.version != ask.limits.version:
            tenant = self._known.admit(ask, now)
        groups = list(self._known.groups_of(tenant, ask, now))
        if not all(group.pays(weight, now) for group, weight in groups):
            return self._remembered(groups, now)
        for group, weight in groups:
            group.pay(weight)
        if any(group.is_due(now) for group, _ in groups):
            self._renew(tenant, [group for group, _ in groups if group.limited])
        if len(groups) <= 2:
            if len(self._payers) >= _MAX_PAYERS:
                self._payers.clear()
            self._payers[id(ask)] = (ask, *groups[0], *(groups[1] if len(groups) == 2 else (None, 0)))
        self.counts.leased += 1
        return min((group for group, _ in groups), key=lambda group: group.share).verdict

    async def decide(self, ask: Ask) -> Verdict:
        verdict = self.decide_now(ask)
        if verdict is not None:
            return verdict
        tenant, day = self._known.by_id[ask.tenant_id], None
        if tenant.daily_units is not None:
            day = self._units.today()
            await self._units.load(tenant.id, day, timeout=self._timeout)
        asking = self._asking_of(tenant.id)
        if not asking.away and (coming := self._coming(tenant, ask)) is not None:
            asking.hurry(coming)
            await asyncio.wait([coming])
            verdict = self.decide_now(ask)
            if verdict is not None:
                return verdict
            # Its policy may have changed.
            tenant = self._known.by_id[ask.tenant_id]
        if asking.away:
            return await self._decide_alone(tenant, ask, day)
        call = ask_for(
            tenant,
            self._known.groups_of(tenant, ask, time.monotonic()),
            self._units,
            day,
            partial(self._local.carry, tenant.id),
        )
        if not call.asked:
            self.counts.leased += 1
            return call.verdict()
        try:
            reply = await call.by(asking, urgent=True)
        except BaseException:
            self._undo(call)
            raise
        if reply is None:
            self._undo(call)
            return await self._decide_alone(tenant, ask, day)
        verdict = call.settle(*reply, self._units)
        if not verdict.allowed and tenant.groups[ask.method_class].tokens >= ask.weight:
            # What is left may be in a lease that has come in the meantime.
            paid = self.decide_now(ask)
            if paid is not None and paid.allowed:
                return paid
        self.counts.shared += 1
        return self._decided(call, verdict)

    # --- with the shared buckets ---------------------------------------------------------------------------------

    def _asking_of(self, tenant_id: TenantId) -> Asking:
        shard = self._buckets.shard_of(tenant_id)
        asking = self._askings.get(shard)
        if asking is None:
            probe = partial(self._buckets.ping, shard)
            self._askings[shard] = asking = Asking(self._buckets, probe, timeout=self._timeout)
        return asking

    def _coming(self, tenant: KnownTenant, ask: Ask) -> asyncio.Future[Reply] | None:
        """The lease that is under way of a group that has too little for the call."""
        now = time.monotonic()
        for group, weight in self._known.groups_of(tenant, ask, now):
            if group.coming is not None and not group.pays(weight, now):
                return group.coming
        return None

    def _decided(self, call: AskedCall, verdict: Verdict) -> Verdict:
        if not verdict.allowed:
            self.counts.refusals[verdict.refused_by] += 1
        for asked in call.asked:
            if asked.group.counted:
                self._counting[asked.group] = call.tenant
        return verdict

    def _undo(self, call: AskedCall) -> None:
        call.undo()
        self._local.not_carried(call.tenant.id, call.carried)

    def _remembered(self, groups: Iterable[tuple[LeaseGroup, int]], now: float) -> Verdict | None:
        """The refusal of the longest wait, of those that have come before."""
        worst: Verdict | None = None
        for group, weight in groups:
            if group.refusal is None or group.pays(weight, now):
                continue
            verdict = group.refusal.again(weight, now)
            if verdict is not None and (worst is None or _wait(verdict) > _wait(worst)):
                worst = verdict
        if worst is not None:
            self.counts.leased += 1
            self.counts.refusals[worst.refused_by] += 1
        return worst

    def _renew(self, tenant: KnownTenant, groups: Iterable[LeaseGroup]) -> None:
        asking = self._asking_of(tenant.id)
        if asking.away:
            for group in groups:
                group.rest()
            return
        day = None if tenant.daily_units is None else self._units.today()
        if call := renewal_of(tenant, groups, self._units, day, partial(self._local.carry, tenant.id)):
            self._send(asking, call)

    def _send(self, asking: Asking, call: AskedCall) -> None:
        call.by(asking, urgent=False).add_done_callback(partial(self._answered, call))

    def _answered(self, call: AskedCall, future: asyncio.Future[Reply]) -> None:
        reply = None if future.cancelled() else future.result()
        if reply is None:
            self._undo(call)
        else:
            self._decided(call, call.settle(*reply, self._units))

    # --- without them --------------------------------------------------------------------------------------------

    async def _decide_alone(self, tenant: KnownTenant, ask: Ask, day: date | None) -> Verdict:
        if day is None:
            return self._alone(tenant, ask, pays_units=False)
        group = tenant.groups[ask.method_class]
        if group.pays(ask.weight, time.monotonic()):
            # The lease pays for the units too.
            return self._alone(tenant, ask, pays_units=False)
        assert tenant.daily_units is not None
        if not await self._units.take(tenant.id, day, ask.weight, maximum=tenant.daily_units, timeout=self._timeout):
            verdict = units_refused(tenant.daily_units, self._units.used(tenant.id, day), self._units)
            self.counts.local += 1
            self.counts.refusals[verdict.refused_by] += 1
            return verdict
        verdict = self._alone(tenant, ask, pays_units=True)
        if not verdict.allowed:
            self._units.put_back(tenant.id, day, ask.weight)
        return verdict

    def _alone(self, tenant: KnownTenant, ask: Ask, *, pays_units: bool) -> Verdict:
        now = time.monotonic()
        groups = self._known.groups_of(tenant, ask, now)
        verdict = self._local.decide(tenant, groups, now, servers=self.counts.servers, pays_units=pays_units)
        self.counts.local += 1
        if not verdict.allowed:
            self.counts.refusals[verdict.refused_by] += 1
        return verdict

    # --- once a second -------------------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        with suppress(MemoroError, TimeoutError):
            async with asyncio.timeout(_BEAT):
                # So that no call waits for a connection to be made.
                await asyncio.gather(*(self._buckets.ping("") for _ in range(MAX_UNDER_WAY)))
        while True:
            with suppress(MemoroError, TimeoutError):
                async with asyncio.timeout(_BEAT):
                    if self._register is not None:
                        self.counts.servers = max(self._least_servers, await self._register.beat())
            self.counts.away = any(asking.away for asking in self._askings.values())
            self.counts.outages = sum(asking.opened for asking in self._askings.values())
            self._book()
            self._return_leases()
            await self._units.save(away=self.counts.away)
            await asyncio.sleep(_BEAT)

    def _book(self) -> None:
        """Counts as units what was spent of leases."""
        for group, tenant in self._counting.items():
            if group.day is not None and group.spent != group.booked:
                self._units.spend(tenant.id, group.day, group.spent - group.booked)
                group.booked = group.spent

    def _return_leases(self) -> None:
        """Hands back the units of leases that were not spent in their time."""
        now = time.monotonic()
        for group, tenant in list(self._counting.items()):
            if group.renewing or (group.tokens and now < group.good_until):
                continue
            del self._counting[group]
            asking = self._asking_of(tenant.id)
            if group.day is not None and (group.tokens or group.unspent) and not asking.away:
                self._send(
                    asking, return_of(tenant, group, self._units, group.day, partial(self._local.carry, tenant.id))
                )


def _wait(verdict: Verdict) -> float:
    return verdict.reset if verdict.retry_after is None else verdict.retry_after
