"""Very many calls at one moment: each gets an answer of ours."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc

from memoro.v1 import jobs_service_pb2
from memoro_core.ids import new_id
from tests.support.deployment import Deployment

CALLS = 3000


async def test_a_burst_of_calls_is_answered_whole(deployment: Deployment) -> None:
    caller = await deployment.caller()
    request = jobs_service_pb2.GetJobRequest(job_id=str(new_id()))
    outcomes = await asyncio.gather(*(caller.call("JobsService/GetJob", request, timeout=60) for _ in range(CALLS)))
    assert Counter((outcome.code, outcome.info.reason) for outcome in outcomes) == {
        (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND"): CALLS
    }
