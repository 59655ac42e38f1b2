"""Embeddings over HTTP, with all that can go wrong on the way."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import numpy as np
import pytest

from memoro_core.errors import ProviderError
from memoro_core.ids import JobId, new_id
from memoro_core.llm.model import Embeddings, Operation
from memoro_core.llm.openai import OpenAIEmbeddingProvider, OpenAIEndpoint
from memoro_core.llm.openai.embedding import MAX_INPUTS, MAX_REQUEST_BYTES, SAFE_INPUT_BYTES
from memoro_core.tracing import attempt_span
from tests.fakes.openai_server import FakeOpenAI, Fault, count_tokens, embed


def spent(found: Embeddings | ProviderError) -> int:
    return sum(usage.input_tokens for usage in found.usage)


async def fail(provider: OpenAIEmbeddingProvider, *texts: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.embed(texts or ["some private text"])
    return caught.value


async def test_vectors_usage_and_model(server: FakeOpenAI, embedding: OpenAIEmbeddingProvider) -> None:
    texts = ["Alice met Bob.", "Rome is hot."]

    found = await embedding.embed(texts)

    for text, vector in zip(texts, found.vectors, strict=True):
        np.testing.assert_allclose(vector, embed(text, server.dimensions), atol=1e-6)
        assert vector.dtype == np.float32
    (usage,) = found.usage
    assert (usage.provider, usage.model, usage.operation) == ("openai", "text-embedding-test", Operation.EMBED)
    assert usage.input_tokens == server.billed == sum(map(count_tokens, texts))
    assert "dimensions" not in server.requests[0].body


async def test_requests_go_on_with_the_trace_of_the_run_that_makes_them(
    server: FakeOpenAI, embedding: OpenAIEmbeddingProvider
) -> None:
    async def run(number: int) -> None:
        with attempt_span(f"00-{number:032x}-b7ad6b7169203331-01", kind="k", job_id=JobId(new_id()), attempt=1):
            await embedding.embed([f"text {number}"])

    await asyncio.gather(run(1), run(2))
    await run(3)
    await embedding.embed(["text 4"])

    traces = [request.headers.get("traceparent", "")[3:35] for request in server.requests]
    assert traces == [f"{1:032x}", f"{3:032x}", ""]


async def test_models_that_know_it_are_told_their_dimensions(server: FakeOpenAI, endpoint: OpenAIEndpoint) -> None:
    provider = OpenAIEmbeddingProvider(endpoint, model="text-embedding-3-small", dimensions=8)

    (vector,) = (await provider.embed(["hello"])).vectors
    await provider.close()

    assert vector.shape == (8,)
    assert server.requests[0].body["dimensions"] == 8


async def test_calls_of_many_jobs_share_a_request(server: FakeOpenAI, embedding: OpenAIEmbeddingProvider) -> None:
    calls = [[f"text {job}-{index}" for index in range(1 + job % 3)] for job in range(50)]

    results = await asyncio.gather(*(embedding.embed(texts) for texts in calls))

    assert server.count("embeddings") == 1
    for texts, found in zip(calls, results, strict=True):
        assert len(found.vectors) == len(texts)
        for text, vector in zip(texts, found.vectors, strict=True):
            np.testing.assert_allclose(vector, embed(text, server.dimensions), atol=1e-6)
    assert sum(map(spent, results)) == server.billed


async def test_calls_a_moment_apart_share_a_request(server: FakeOpenAI, embedding: OpenAIEmbeddingProvider) -> None:
    first = asyncio.create_task(embedding.embed(["one"]))
    for _ in range(20):  # turns of the event loop, not time
        await asyncio.sleep(0)
    second = asyncio.create_task(embedding.embed(["two"]))
    await asyncio.gather(first, second)

    assert server.requests[0].body["input"] == ["one", "two"]


async def test_requests_keep_to_their_limits(server: FakeOpenAI, embedding: OpenAIEmbeddingProvider) -> None:
    many = [f"text {index}" for index in range(2 * MAX_INPUTS + 10)]
    large = ["word " * 2000] * 40

    found = await asyncio.gather(embedding.embed(many), embedding.embed(large))

    assert [len(one.vectors) for one in found] == [len(many), len(large)]
    np.testing.assert_allclose(found[0].vectors[-1], embed(many[-1], server.dimensions), atol=1e-6)
    for request in server.requests:
        inputs = request.body["input"]
        assert len(inputs) <= MAX_INPUTS
        assert sum(len(text.encode()) for text in inputs) <= MAX_REQUEST_BYTES
    assert len(server.requests) <= 6


async def test_while_all_slots_are_taken_calls_gather(server: FakeOpenAI, endpoint: OpenAIEndpoint) -> None:
    provider = OpenAIEmbeddingProvider(endpoint, model="m", dimensions=server.dimensions)
    server.delay = 0.1
    tasks = []
    for index in range(60):
        tasks.append(asyncio.create_task(provider.embed([f"text {index}"])))
        await asyncio.sleep(0.006)
    await asyncio.gather(*tasks)
    await provider.close()

    assert server.most_running <= 4
    assert server.count("embeddings") < 30


async def test_one_poisoned_input_fails_alone(server: FakeOpenAI, embedding: OpenAIEmbeddingProvider) -> None:
    server.reject = "POISON"
    calls = [f"text {index}" for index in range(16)]
    calls[5] = "POISON"

    results = await asyncio.gather(*(embedding.embed([text]) for text in calls), return_exceptions=True)

    failed = [index for index, found in enumerate(results) if isinstance(found, BaseException)]
    assert failed == [5]
    error = results[5]
    assert isinstance(error, ProviderError)
    assert not error.retryable
    assert error.metadata == {"http_status": "400", "provider_code": "invalid_input"}
    assert server.count("embeddings") <= 10
    assert sum(spent(found) for found in results if isinstance(found, Embeddings)) == server.billed


async def test_a_text_too_long_for_the_model_is_cut(server: FakeOpenAI, embedding: OpenAIEmbeddingProvider) -> None:
    server.max_input_bytes = SAFE_INPUT_BYTES

    found = await asyncio.gather(embedding.embed(["é" * 60_000]), embedding.embed(["short"]))

    assert [len(one.vectors) for one in found] == [1, 1]
    assert max(len(text.encode()) for text in server.requests[0].body["input"]) <= 24_000


async def test_odd_texts_are_sent_as_something(server: FakeOpenAI, embedding: OpenAIEmbeddingProvider) -> None:
    found = await embedding.embed(["", "\ud800", "🎉"])

    assert len(found.vectors) == 3
    assert server.requests[0].body["input"] == [" ", "?", "🎉"]


async def test_no_texts_no_request(server: FakeOpenAI, embedding: OpenAIEmbeddingProvider) -> None:
    found = await embedding.embed([])

    assert (list(found.vectors), list(found.usage), server.requests) == ([], [], [])


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (Fault(status=429, headers={"retry-after": "7"}), 7.0),
        (Fault(status=429, headers={"retry-after-ms": "1500"}), 1.5),
        (Fault(status=429), None),
        (Fault(status=500), None),
        (Fault(status=503, headers={"retry-after": "2"}), 2.0),
        (Fault(status=408), None),
        (Fault(drop=True), None),
    ],
)
async def test_what_may_pass_is_retryable_and_sent_once(
    server: FakeOpenAI, embedding: OpenAIEmbeddingProvider, fault: Fault, wait: float | None
) -> None:
    server.script("embeddings", fault)

    error = await fail(embedding)

    assert error.retryable
    assert error.retry_after == wait
    assert server.count("embeddings") == 1
    assert len((await embedding.embed(["again"])).vectors) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_what_will_not_pass_is_not_retryable(
    server: FakeOpenAI, embedding: OpenAIEmbeddingProvider, status: int
) -> None:
    server.script("embeddings", Fault(status=status))

    error = await fail(embedding)

    assert not error.retryable
    assert error.retry_after is None
    assert error.metadata["http_status"] == str(status)


async def test_a_hanging_endpoint_times_out(server: FakeOpenAI) -> None:
    server.script("embeddings", Fault(hang=30))
    async with OpenAIEndpoint(api_key=server.api_key, base_url=server.base_url, timeout=0.2) as endpoint:
        provider = OpenAIEmbeddingProvider(endpoint, model="m", dimensions=server.dimensions)
        error = await fail(provider)
        await provider.close()

    assert error.retryable
    assert "in time" in error.message


async def test_nobody_at_the_address() -> None:
    async with OpenAIEndpoint(api_key="k", base_url="http://127.0.0.1:9/v1", timeout=2.0) as endpoint:
        provider = OpenAIEmbeddingProvider(endpoint, model="m", dimensions=8)
        error = await fail(provider)
        await provider.close()

    assert error.retryable
    assert "connection" in error.message


@pytest.mark.parametrize(
    "fault",
    [
        Fault(embeddings=[[1.0, 2.0]]),
        Fault(embeddings=[]),
        Fault(embeddings=[[1.0] * 64, [1.0] * 64]),
        Fault(embeddings=[[float("nan")] * 64]),
        Fault(embeddings=["?"]),
        Fault(embeddings=[None]),
        Fault(body="<html>oops</html>"),
        Fault(body="[]"),
        Fault(body='{"data": [{"index": 0, "embed'),
    ],
)
async def test_invalid_responses(server: FakeOpenAI, embedding: OpenAIEmbeddingProvider, fault: Fault) -> None:
    server.script("embeddings", fault)

    error = await fail(embedding)

    assert not error.retryable
    assert "invalid response" in error.message
    assert spent(error) == server.billed


async def test_a_spoilt_vector_spoils_its_own_call_only(server: FakeOpenAI, embedding: OpenAIEmbeddingProvider) -> None:
    server.script("embeddings", Fault(embeddings=[[1.0] * 64, [1.0] * 3, [1.0] * 64]))

    results: list[Any] = await asyncio.gather(*(embedding.embed([text]) for text in "abc"), return_exceptions=True)

    assert [isinstance(found, Embeddings) for found in results] == [True, False, True]
    assert sum(map(spent, results)) == server.billed > 0


async def test_what_the_rest_of_a_failed_call_cost_is_told(
    server: FakeOpenAI, embedding: OpenAIEmbeddingProvider
) -> None:
    server.script("embeddings", Fault(), Fault(status=500))

    error = await fail(embedding, *(f"text {index}" for index in range(MAX_INPUTS + 1)))

    assert error.retryable
    assert spent(error) == server.billed > 0


async def test_a_failed_request_fails_all_its_callers_apart(
    server: FakeOpenAI, embedding: OpenAIEmbeddingProvider
) -> None:
    server.script("embeddings", Fault(status=429, headers={"retry-after": "3"}))

    results = await asyncio.gather(*(embedding.embed([text]) for text in "abc"), return_exceptions=True)

    assert all(isinstance(error, ProviderError) and error.retry_after == 3.0 for error in results)
    assert len({id(error) for error in results}) == 3


async def test_a_cancelled_caller_does_not_hurt_the_others(
    server: FakeOpenAI, embedding: OpenAIEmbeddingProvider
) -> None:
    server.delay = 0.05
    waiting = asyncio.create_task(embedding.embed(["gone before it is sent"]))
    going = asyncio.create_task(embedding.embed(["stays"]))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0.03)
    sent = asyncio.create_task(embedding.embed(["gone while under way"]))
    await asyncio.sleep(0.02)
    sent.cancel()

    assert len((await going).vectors) == 1
    assert len((await embedding.embed(["later"])).vectors) == 1
    assert all("gone before" not in text for request in server.requests for text in request.body["input"])


async def test_close_turns_callers_away(server: FakeOpenAI, endpoint: OpenAIEndpoint) -> None:
    provider = OpenAIEmbeddingProvider(endpoint, model="m", dimensions=server.dimensions)
    server.delay = 10
    sent = asyncio.create_task(provider.embed(["sent"]))
    await asyncio.sleep(0.05)
    queued = asyncio.create_task(provider.embed(["queued"]))
    await asyncio.sleep(0)
    await provider.close()

    for task in (sent, queued):
        with pytest.raises(ProviderError) as caught:
            await task
        assert caught.value.retryable
    assert (await fail(provider)).retryable


@pytest.mark.parametrize("fault", [Fault(status=400), Fault(status=500), Fault(status=429), Fault(body="no")])
async def test_no_secret_and_no_text_leaks(
    server: FakeOpenAI, embedding: OpenAIEmbeddingProvider, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    server.script("embeddings", fault)
    with caplog.at_level(logging.DEBUG):
        error = await fail(embedding, "a confidential note")
        assert not logging.getLogger("openai").isEnabledFor(logging.DEBUG), "older SDKs log whole requests there"

    told = "".join(traceback.format_exception(error)) + repr(error.metadata) + caplog.text
    assert "very-secret" not in told
    assert "confidential" not in told


async def test_a_wrong_key_is_refused_without_being_shown(server: FakeOpenAI) -> None:
    async with OpenAIEndpoint(api_key="sk-wrong-key", base_url=server.base_url) as endpoint:
        provider = OpenAIEmbeddingProvider(endpoint, model="m", dimensions=server.dimensions)
        error = await fail(provider)
        await provider.close()

    assert not error.retryable
    assert error.metadata["provider_code"] == "invalid_api_key"
    assert "sk-wrong" not in "".join(traceback.format_exception(error))
