"""Token buckets in Redis: one script decides a call, one pipeline takes many calls there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

from redis.exceptions import NoScriptError

from memoro_core.errors import unavailable
from memoro_core.ids import TenantId
from memoro_core.limits.bucket import LEASE
from memoro_core.limits.ports import GroupAsk, Standing, Taken, Taking
from memoro_core.redis.client import UNREACHABLE, RedisClient, cluster_of, redis_errors
from memoro_core.redis.keys import limit_bucket, limit_units
from memoro_core.redis.script import Argument, Script

_script: Final = Script("limits")
_UNITS_KEPT: Final = 3 * 86_400
_HEAD: Final = 4
"""How much of an answer is not of groups or buckets."""


class RedisBuckets:
    """A `BucketStore`."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def take(self, takings: Sequence[Taking]) -> Sequence[Taken | None]:
        with redis_errors():
            answers = await self._run([(_keys(taking), _arguments(taking)) for taking in takings])
        if all(isinstance(answer, Exception) for answer in answers):
            raise unavailable("redis") from answers[0]
        return [
            None if isinstance(answer, Exception) else _taken(taking, answer)
            for taking, answer in zip(takings, answers, strict=True)
        ]

    def shard_of(self, tenant_id: TenantId) -> str:
        cluster = cluster_of(self._redis)
        if cluster is None:
            return ""
        try:
            node = cluster.get_node_from_key(limit_bucket(tenant_id, ""))
        except UNREACHABLE:
            # Not asked yet, or a slot that nobody holds.
            return ""
        return "" if node is None else node.name

    async def ping(self, shard: str) -> None:
        cluster = cluster_of(self._redis)
        with redis_errors():
            node = cluster.get_node(node_name=shard) if cluster is not None and shard else None
            if cluster is None or node is None:
                await self._redis.ping()
            else:
                await cluster.execute_command("PING", target_nodes=node)

    async def _run(self, calls: Sequence[tuple[list[str], list[Argument]]]) -> list[Any]:
        if len(calls) == 1:
            return [await _script(self._redis, *calls[0])]
        if cluster_of(self._redis) is not None:
            # A pipeline of a cluster waits for all its nodes; one that is away must not hold up the tenants of others.
            return await asyncio.gather(
                *(_script(self._redis, keys, arguments) for keys, arguments in calls), return_exceptions=True
            )
        answers = await self._pipeline(calls)
        if unknown := [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]:
            await _script.load(self._redis)
            again = await self._pipeline([calls[number] for number in unknown])
            for number, answer in zip(unknown, again, strict=True):
                answers[number] = answer
        return answers

    async def _pipeline(self, calls: Sequence[tuple[list[str], list[Argument]]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for keys, arguments in calls:
            pipeline.evalsha(_script.digest, len(keys), *keys, *arguments)
        return list(await pipeline.execute(raise_on_error=False))


def _keys(taking: Taking) -> list[str]:
    keys = [limit_bucket(taking.tenant_id, bucket.name) for group in taking.groups for bucket in group.buckets]
    if taking.units is not None:
        keys.append(limit_units(taking.tenant_id, taking.units.day))
    return keys


def _arguments(taking: Taking) -> list[Argument]:
    units = taking.units
    return [
        LEASE,
        *((units.maximum, units.floor, units.back) if units else (0, 0, 0)),
        _UNITS_KEPT,
        len(taking.groups),
        *chain.from_iterable(map(_group_arguments, taking.groups)),
    ]


def _group_arguments(group: GroupAsk) -> Iterable[Argument]:
    yield from (len(group.buckets), group.take, group.extra, len(group.back))
    yield from chain.from_iterable(group.back)
    for bucket in group.buckets:
        yield from (bucket.rate.per_minute, bucket.rate.burst, bucket.carried, bucket.carried_if_lost)


def _taken(taking: Taking, answer: Sequence[int]) -> Taken:
    at, passed, units, units_have_room = answer[:_HEAD]
    standings = answer[_HEAD + len(taking.groups) :]
    return Taken(
        at,
        bool(passed),
        units,
        bool(units_have_room),
        answer[_HEAD : _HEAD + len(taking.groups)],
        [Standing(level, wait) for level, wait in zip(standings[::2], standings[1::2], strict=True)],
    )
