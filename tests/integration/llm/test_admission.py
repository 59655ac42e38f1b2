"""Providers ask for leave at the last moment, and send nothing without it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from memoro_core.llm.model import ExtractionSource
from memoro_core.llm.openai import OpenAIEmbeddingProvider, OpenAIEndpoint, OpenAIExtractionProvider
from memoro_core.llm.ports import Admit
from tests.fakes.openai_server import FakeOpenAI


class Refused(Exception):
    """No leave is given."""


async def refuse() -> None:
    raise Refused


def noting(notes: list[str], name: str) -> Admit:
    """Gives leave, and notes for whom."""

    async def admit() -> None:
        notes.append(name)

    return admit


Call = Callable[[Admit], Awaitable[object]]


@pytest.fixture(params=["embed", "extract"])
def call(
    request: pytest.FixtureRequest, embedding: OpenAIEmbeddingProvider, extraction: OpenAIExtractionProvider
) -> Call:
    if request.param == "embed":
        return lambda admit: embedding.embed(["a text"], admit=admit)
    return lambda admit: extraction.extract(ExtractionSource("a text"), admit=admit)


async def test_without_leave_nothing_is_sent(server: FakeOpenAI, endpoint: OpenAIEndpoint, call: Call) -> None:
    for _ in range(5):
        with pytest.raises(Refused):
            await call(refuse)
    assert server.requests == []
    # And no slot is lost.
    await asyncio.wait_for(call(noting([], "")), 5)
    assert len(server.requests) == 1


async def test_who_waits_for_a_slot_has_not_asked_for_leave(
    server: FakeOpenAI, endpoint: OpenAIEndpoint, call: Call
) -> None:
    for _ in range(4):
        await endpoint.acquire()
    notes: list[str] = []
    waiting = asyncio.ensure_future(call(noting(notes, "waited")))
    await asyncio.sleep(0.1)
    assert (notes, server.requests) == ([], [])
    for _ in range(4):
        endpoint.release()
    await waiting
    assert notes == ["waited"]


async def test_of_a_shared_request_only_those_are_left_out_who_have_no_leave(
    server: FakeOpenAI, embedding: OpenAIEmbeddingProvider
) -> None:
    notes: list[str] = []
    results = await asyncio.gather(
        embedding.embed(["one"], admit=noting(notes, "one")),
        embedding.embed(["two"], admit=refuse),
        embedding.embed(["three"], admit=noting(notes, "three")),
        embedding.embed(["four"]),
        return_exceptions=True,
    )
    assert [isinstance(result, Refused) for result in results] == [False, True, False, False]
    assert notes == ["one", "three"]
    assert [request.body["input"] for request in server.requests] == [["one", "three", "four"]]


async def test_who_gives_up_while_leave_is_asked_for_sends_nothing(
    server: FakeOpenAI, embedding: OpenAIEmbeddingProvider
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        asked.set()
        await answer.wait()

    call = asyncio.ensure_future(embedding.embed(["a text"], admit=slowly))
    await asked.wait()
    call.cancel()
    await asyncio.wait([call])
    answer.set()
    await embedding.embed(["another"])
    assert [request.body["input"] for request in server.requests] == [["another"]]
