"""Health and metrics over HTTP, asked by a real client and by rude ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest_asyncio
from prometheus_client import CollectorRegistry, Counter

from memoro_core.errors import unavailable
from memoro_core.ops import http as ops
from memoro_core.ops.http import OpsServer


class Switch:
    """A dependency that a test turns off."""

    def __init__(self) -> None:
        self.well = True
        self.hangs = False

    async def check(self) -> None:
        if self.hangs:
            await asyncio.sleep(3600)
        if not self.well:
            raise unavailable("database")


@pytest_asyncio.fixture
async def switch() -> Switch:
    return Switch()


@pytest_asyncio.fixture
async def server(switch: Switch) -> AsyncIterator[OpsServer]:
    registry = CollectorRegistry()
    Counter("calls", "Calls", ["method"], registry=registry).labels("Get").inc(3)

    async def always() -> None:
        return None

    async with OpsServer("127.0.0.1", 0, {"redis": always, "database": switch.check}, registry) as running:
        yield running


@pytest_asyncio.fixture
async def client(server: OpsServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as opened:
        yield opened


async def test_a_process_that_is_well_says_so(client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz", "/readyz?verbose=1"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "failed": []})
        assert answer.headers["cache-control"] == "no-store"


async def test_readiness_follows_the_checks_and_names_no_cause(client: httpx.AsyncClient, switch: Switch) -> None:
    switch.well = False
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready", "failed": ["database"]})
    assert (await client.get("/healthz")).status_code == 200
    switch.well = True
    assert (await client.get("/readyz")).status_code == 200


async def test_a_check_that_hangs_has_failed(client: httpx.AsyncClient, switch: Switch) -> None:
    switch.hangs = True
    async with asyncio.timeout(ops.CHECK_TIMEOUT + 3):
        assert (await client.get("/readyz")).json()["failed"] == ["database"]


async def test_metrics_are_in_the_format_that_was_asked_for(client: httpx.AsyncClient) -> None:
    plain = await client.get("/metrics")
    assert 'calls_total{method="Get"} 3.0' in plain.text
    assert plain.headers["content-type"].startswith("text/plain")
    opened = await client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    assert opened.text.endswith("# EOF\n")


async def test_other_pages_and_methods_are_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).status_code == 404
    assert (await client.get("/metrics/../etc")).status_code == 404
    assert (await client.post("/healthz", content=b"x")).status_code == 405
    head = await client.head("/healthz")
    assert (head.status_code, head.content) == (200, b"")


async def test_what_is_no_http_gets_no_answer_and_hurts_nobody(server: OpsServer, client: httpx.AsyncClient) -> None:
    for rude in (b"\r\n\r\n", b"\xff" * 64 + b"\r\n\r\n", b"GET /healthz HTTP/1.1\r\n" + b"x" * 100_000, b"GET"):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(rude)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        assert not answer or answer.startswith((b"HTTP/1.1 405", b"HTTP/1.1 404"))
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    assert (await client.get("/healthz")).status_code == 200


async def test_an_open_connection_does_not_hold_the_stop() -> None:
    async with OpsServer("127.0.0.1", 0, {}, CollectorRegistry()) as running:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            await running.__aexit__(None, None, None)
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
