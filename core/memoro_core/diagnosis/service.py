"""A look at the deployment, from one of its servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from memoro_core.clock import Clock
from memoro_core.diagnosis.database_rules import of_database
from memoro_core.diagnosis.model import Diagnosis, Setup, Skew, Verdict
from memoro_core.diagnosis.ports import DatabaseInspector, RedisInspector
from memoro_core.diagnosis.setup_rules import of_clocks, of_keys, of_redis, of_setup, redis_away
from memoro_core.errors import Code, MemoroError

_WORST_FIRST: Final = (Verdict.FAILED, Verdict.WARNING, Verdict.OK)


class DiagnosisService:
    """Asks what the deployment stands on; callers have shown the scope admin."""

    def __init__(self, database: DatabaseInspector, redis: RedisInspector, setup: Setup, clock: Clock) -> None:
        self._database = database
        self._redis = redis
        self._setup = setup
        self._clock = clock

    async def diagnose(self) -> Sequence[Diagnosis]:
        """What was found, the worst first. Redis may be away; raises UNAVAILABLE when PostgreSQL is."""
        setup = self._setup
        facts = await self._database.facts(dimensions=setup.dimensions)
        skews = [await self._skew("PostgreSQL", self._database.now)]
        found = [*of_database(facts, setup), *of_keys(facts.keys, setup), *of_setup(setup, self._clock.now())]
        try:
            found += of_redis(await self._redis.nodes())
            skews.append(await self._skew("Redis", self._redis.now))
        except MemoroError as error:
            if error.code is not Code.UNAVAILABLE:
                raise
            found.append(redis_away())
        found.append(of_clocks(skews))
        return sorted(found, key=lambda diagnosis: _WORST_FIRST.index(diagnosis.verdict))

    async def _skew(self, of: str, now: Callable[[], Awaitable[datetime]]) -> Skew:
        before = self._clock.now()
        theirs = await now()
        after = self._clock.now()
        return Skew(of, max(before - theirs, theirs - after, timedelta(0)))
