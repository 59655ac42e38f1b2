"""Limits on a real connection, with verdicts that a test scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2

from memoro.v1 import jobs_service_pb2 as pb
from memoro_core.errors import Reason, not_found
from memoro_core.ids import new_id
from memoro_core.limits.counts import LimitCounts
from memoro_core.limits.model import UNLIMITED, Ask, MethodClass, Verdict
from memoro_server.call import Call
from memoro_server.metrics import ServerMetrics
from tests.support.interception import GET_JOB, GOOD_KEY, WATCH_JOB, outcome_of

Serve = Callable[..., Any]

REQUEST = pb.GetJobRequest(job_id=str(new_id())).SerializeToString()
PASSED = Verdict(True, 120, 17, 51.2)
REFUSED = Verdict(False, 120, 0, 60.0, "reads", 0.5)
TOLD = {"ratelimit-limit": "120", "ratelimit-remaining": "17", "ratelimit-reset": "52"}


class Scripted:
    """A limiter of one verdict, which it gives at once or after a wait."""

    def __init__(self, verdict: Verdict, *, at_once: bool = True) -> None:
        self._verdict = verdict
        self._at_once = at_once
        self.counts = LimitCounts()
        self.asked: list[Ask] = []
        self.waited = 0

    def decide_now(self, ask: Ask) -> Verdict | None:
        self.asked.append(ask)
        return self._verdict if self._at_once else None

    async def decide(self, ask: Ask) -> Verdict:
        assert ask is self.asked[-1]
        self.waited += 1
        return self._verdict


async def _ok(request: Any, call: Call) -> pb.GetJobResponse:
    return pb.GetJobResponse()


async def _missing(request: Any, call: Call) -> Any:
    raise not_found(Reason.JOB_NOT_FOUND, "job", request.job_id)


async def _stream(request: Any, call: Call) -> AsyncIterator[pb.WatchJobResponse]:
    yield pb.WatchJobResponse(sequence=1)


def told(trailers: Any) -> dict[str, Any]:
    return {name: value for name, value in dict(trailers).items() if name.startswith("ratelimit-")}


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_call_is_asked_about_and_told_how_its_limits_stand(serve: Serve, at_once: bool) -> None:
    limiter = Scripted(PASSED, at_once=at_once)
    async with serve(_ok, limiter=limiter) as server:
        outcome = await server.call(GET_JOB, REQUEST)
    assert outcome.code is grpc.StatusCode.OK
    assert told(outcome.trailers) == TOLD
    assert outcome.trailers["x-request-id"]
    assert limiter.waited == (0 if at_once else 1)
    [ask] = limiter.asked
    assert (ask.method_class, ask.weight, ask.users) == (MethodClass.READ, 1, {})


async def test_a_call_that_fails_is_told_too(serve: Serve) -> None:
    async with serve(_missing, limiter=Scripted(PASSED)) as server:
        outcome = await server.call(GET_JOB, REQUEST)
    assert outcome.code is grpc.StatusCode.NOT_FOUND
    assert told(outcome.trailers) == TOLD
    assert outcome.trailers["x-request-id"]


async def test_a_stream_is_told_at_its_end(serve: Serve) -> None:
    async with serve(stream=_stream, limiter=Scripted(PASSED)) as server:
        watching = server.channel.unary_stream(WATCH_JOB)(REQUEST, metadata=GOOD_KEY, timeout=5)
        assert len([message async for message in watching]) == 1
        assert told(await watching.trailing_metadata()) == TOLD


async def test_who_has_no_limits_is_told_nothing(serve: Serve) -> None:
    async with serve(_ok, limiter=Scripted(UNLIMITED)) as server:
        assert told((await server.call(GET_JOB, REQUEST)).trailers) == {}


async def test_a_refused_call_goes_no_further(serve: Serve) -> None:
    # Without a script the servicer fails.
    async with serve(limiter=Scripted(REFUSED)) as server:
        outcome = await server.call(GET_JOB, REQUEST)
        assert server.value("memoro_limits_refused_total", tier="free", limit="reads", mode="refuse") == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.channel.unary_stream(WATCH_JOB)(REQUEST, metadata=GOOD_KEY, timeout=5).read()
        assert server.value("memoro_limits_refused_total", tier="free", limit="reads", mode="refuse") == 2
    for refused in (outcome, outcome_of(caught.value)):
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert dict(refused.info.metadata) == {"limit": "reads"}
        assert refused.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 500
        assert refused.detail(error_details_pb2.QuotaFailure).violations[0].subject == "reads"
        assert refused.trailers["grpc-retry-pushback-ms"] == "500"
        assert told(refused.trailers) == {**TOLD, "ratelimit-remaining": "0", "ratelimit-reset": "60"}


async def test_a_day_that_is_over_is_not_waited_for(serve: Serve) -> None:
    verdict = Verdict(False, 10_000, 0, 3600.0, "daily_units", None)
    async with serve(limiter=Scripted(verdict)) as server:
        outcome = await server.call(GET_JOB, REQUEST)
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DAILY_LIMIT")
    assert outcome.info.metadata["limit"] == "daily_units"
    assert len(outcome.info.metadata["reset_time"]) == len("2026-02-01T00:00:00Z")
    assert outcome.trailers["grpc-retry-pushback-ms"] == "-1"
    assert [detail.TypeName() for detail in outcome.status.details] == [
        "google.rpc.ErrorInfo",
        "google.rpc.QuotaFailure",
    ]


async def test_in_shadow_mode_nothing_is_refused_but_counted(serve: Serve) -> None:
    async with serve(_ok, limiter=Scripted(REFUSED), shadow=True) as server:
        assert (await server.call(GET_JOB, REQUEST)).code is grpc.StatusCode.OK
        assert server.value("memoro_limits_refused_total", tier="free", limit="reads", mode="shadow") == 1
        assert server.value("memoro_limits_refused_total", tier="free", limit="reads", mode="refuse") is None


async def test_only_a_caller_who_is_known_and_asks_for_something_takes_from_a_limit(serve: Serve) -> None:
    limiter = Scripted(PASSED)
    async with serve(_ok, limiter=limiter) as server:
        assert (await server.call(GET_JOB, REQUEST, metadata=())).code is grpc.StatusCode.UNAUTHENTICATED
        assert (await server.call(GET_JOB, b"\xff\xff")).code is grpc.StatusCode.INVALID_ARGUMENT
        assert limiter.asked == []
        # What breaks a rule of the contract has been looked at closely: it counts.
        outcome = await server.call(GET_JOB, pb.GetJobRequest(job_id="no id").SerializeToString())
        assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT
        assert len(limiter.asked) == 1
        assert told(outcome.trailers) == TOLD


def test_what_the_limiter_counts_is_told_once() -> None:
    metrics, counts = ServerMetrics(), LimitCounts(leased=5, shared=2, away=True)

    def decided(by: str) -> float | None:
        return metrics.registry.get_sample_value("memoro_limits_decisions_total", {"by": by})

    metrics.limits(counts)
    assert (decided("lease"), decided("redis"), decided("local")) == (5, 2, 0)
    assert metrics.registry.get_sample_value("memoro_limits_breaker_open") == 1
    counts.leased, counts.local, counts.away = 6, 3, False
    metrics.limits(counts)
    assert (decided("lease"), decided("redis"), decided("local")) == (6, 2, 3)
    assert metrics.registry.get_sample_value("memoro_limits_breaker_open") == 0
