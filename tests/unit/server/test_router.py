"""What is served by whom, checked when the server starts."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from memoro.v1 import jobs_service_pb2 as pb
from memoro_core.errors import MemoroError, Reason
from memoro_server.call import Call, Method
from memoro_server.interceptors.deadline import DeadlineInterceptor
from memoro_server.policy import POLICIES
from memoro_server.router import Router
from tests.support.interception import GET_JOB, JOBS, ScriptedJobs


def scripted() -> ScriptedJobs:
    async def unary(request: Any, call: Call) -> Any:
        return None

    async def stream(request: Any, call: Call) -> Any:
        yield None

    return ScriptedJobs(unary, stream)


def test_every_method_of_a_service_is_served() -> None:
    assert set(Router({JOBS: (scripted(),)}, ()).methods) == {path for path in POLICIES if "JobsService" in path}


def test_a_method_without_a_servicer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"GetJob has 0 servicers"):
        Router({JOBS: (object(),)}, ())


def test_a_method_with_two_servicers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"GetJob has 2 servicers"):
        Router({JOBS: (scripted(), scripted())}, ())


def test_a_method_without_a_policy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoro_server.router.POLICIES", {})
    with pytest.raises(ValueError, match=r"GetJob has no policy"):
        Router({JOBS: (scripted(),)}, ())


def test_a_callable_that_would_run_in_a_thread_is_refused() -> None:
    class Sync(ScriptedJobs):
        def GetJob(self, request: Any, call: Call) -> Any:  # noqa: N802
            return None

    servicer = Sync(scripted()._unary, scripted()._stream)
    with pytest.raises(ValueError, match=r"GetJob is not served by an async function"):
        Router({JOBS: (servicer,)}, ())


class Remaining:
    """A call's context, of which only the time that remains is known."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def time_remaining(self) -> float | None:
        return self._seconds


async def test_a_call_whose_deadline_has_passed_does_nothing() -> None:
    async def never(request: Any, call: Call) -> bytes:
        raise AssertionError("reached")

    method = Method(GET_JOB, POLICIES[GET_JOB], pb.GetJobRequest)
    context: Any = Remaining(0.0)
    with pytest.raises(MemoroError) as caught:
        await DeadlineInterceptor().wrap(method, never)(b"", Call(method, context))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


@pytest.mark.parametrize("seconds", [0.02, None, 1e9])
async def test_a_deadline_is_the_callers_or_the_longest(seconds: float | None) -> None:
    async def slow(request: Any, call: Call) -> bytes:
        await asyncio.sleep(5)
        return b""

    method = Method(GET_JOB, dataclasses.replace(POLICIES[GET_JOB], longest_deadline=0.05), pb.GetJobRequest)
    context: Any = Remaining(seconds)
    with pytest.raises(MemoroError) as caught:
        await DeadlineInterceptor().wrap(method, slow)(b"", Call(method, context))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
