"""The SDK against a whole deployment."""

from __future__ import annotations

import ast
import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from memoro import (
    AsyncClient,
    Client,
    Conflict,
    FailedPrecondition,
    Health,
    InvalidArgument,
    JobState,
    MemoroError,
    MemoryFilter,
    MemoryHandle,
    MemoryKind,
    MemoryStatus,
    NewMemory,
    NotFound,
    PermissionDenied,
    ProcessingMode,
    Scope,
    TenantState,
    Unauthenticated,
)
from memoro.cli.conversation import sample_conversation
from tests.support.dev import Dev

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]
TEXT = "John Doe bought an iPhone 15 from Apple Store. He works at TechCorp."


@pytest_asyncio.fixture
async def client(dev: Dev) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(dev.endpoint, api_key=dev.api_key) as connected:
        yield connected


@pytest.fixture
def user() -> str:
    return f"user-{uuid.uuid4().hex[:12]}"


async def test_a_text_becomes_a_graph(client: AsyncClient, user: str) -> None:
    added = await client.memories.create(user_id=user, text=TEXT, metadata={"n": 1})
    # Found by its words from the first moment on.
    assert [hit.memory.id for hit in await client.memories.search("iPhone", user_id=user)] == [added.memory.id]
    updates = [update async for update in added.job.watch(timeout=60)]
    assert [update.sequence for update in updates] == list(
        range(updates[0].sequence, updates[0].sequence + len(updates))
    )
    assert updates[-1].state is JobState.SUCCEEDED
    result = await added.job.result()
    assert result.memories == 1
    assert result.entities >= 4

    names = {entity.name async for entity in client.graph.entities(user_id=user)}
    assert names >= {"John Doe", "iPhone 15", "Apple Store", "TechCorp"}
    graph = await client.graph.traverse(user_id=user, entity_names=["john doe"], include_memories=True)
    facts = {(edge.source_name, edge.predicate, edge.target_name) for edge in graph.edges}
    assert facts >= {("John Doe", "BOUGHT", "iPhone 15"), ("John Doe", "WORKS_AT", "TechCorp")}
    assert [memory.id for memory in graph.memories] == [added.memory.id]
    john = next(node.entity for node in graph.nodes if node.entity.name == "John Doe")
    assert (await client.graph.entity(john.id)).memory_ids == (added.memory.id,)

    [hit] = await client.memories.search("Who has a new phone?", user_id=user, explain=True)
    assert hit.memory.status is MemoryStatus.READY
    assert sum(arm.contribution for arm in hit.explanation) == pytest.approx(hit.score, abs=1e-6)


def test_the_blocking_client_does_the_same(dev: Dev, user: str) -> None:
    conversation = sample_conversation()
    with Client(dev.endpoint, api_key=dev.api_key) as client:
        added = client.memories.add_conversation(user_id=user, conversation_id="talk", messages=conversation.messages)
        assert added.job.result(timeout=90).memories == len(conversation.messages)
        [best, *_] = client.memories.search("What is Tomas allergic to?", user_id=user, limit=3)
        assert "pecans" in best.memory.text or "walnuts" in best.memory.text
        fits = MemoryFilter(kinds=(MemoryKind.MESSAGE,), occurred_from=datetime(2025, 3, 20, tzinfo=UTC))
        second = list(client.memories.list(user_id=user, filter=fits))
        assert len(second) == 12
        assert {memory.conversation_id for memory in second} == {"talk"}
        assert client.health("memoro.v1.JobsService") is Health.SERVING
        assert added.job.id in {job.id for job in client.jobs.list(user_id=user, states=[JobState.SUCCEEDED])}


async def test_repeating_a_call_does_the_work_once(client: AsyncClient, user: str) -> None:
    request_id = uuid.uuid4().hex
    first, again = [
        await client.memories.create(user_id=user, text="I like tea.", request_id=request_id) for _ in range(2)
    ]
    assert (first.memory.id, first.job.id) == (again.memory.id, again.job.id)
    with pytest.raises(InvalidArgument) as caught:
        await client.memories.create(user_id=user, text="I like coffee.", request_id=request_id)
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_a_batch_has_a_verdict_for_each(client: AsyncClient, user: str) -> None:
    good, bad = await client.memories.create_batch([NewMemory(user, "I like tea."), NewMemory(user, " ")])
    assert isinstance(good, MemoryHandle)
    assert isinstance(bad, InvalidArgument)
    assert bad.violations[0].field.endswith("text")
    await good.job.result(timeout=60)


async def test_a_memory_changes_and_goes(client: AsyncClient, user: str) -> None:
    added = await client.memories.create(user_id=user, text="I like tea.", processing_mode=ProcessingMode.SYNC)
    assert added.memory.status is MemoryStatus.READY
    changed = await client.memories.update(added.memory.id, metadata={"k": "v"}, etag=added.memory.etag)
    assert changed.memory.metadata == {"k": "v"}
    with pytest.raises(Conflict):
        await client.memories.update(added.memory.id, metadata={}, etag=added.memory.etag)
    renewed = await client.memories.update(added.memory.id, text="I like coffee.")
    assert renewed.job is not None
    await renewed.job.result(timeout=60)
    with pytest.raises(FailedPrecondition) as caught:
        await renewed.job.cancel()
    assert caught.value.reason == "JOB_NOT_CANCELLABLE"
    await client.memories.delete(added.memory.id)
    with pytest.raises(NotFound):
        await client.memories.get(added.memory.id)


async def test_tenants_and_keys(dev: Dev, client: AsyncClient, user: str) -> None:
    async with AsyncClient(dev.endpoint, api_key=dev.admin_key) as operator:
        tenant = await operator.admin.tenants.create(f"t-{uuid.uuid4().hex[:12]}", tier="pro")
        created = await operator.admin.keys.create(tenant.id, scopes=[Scope.READ])
        assert created.secret is not None
        async with AsyncClient(dev.endpoint, api_key=created.secret) as reader:
            assert [memory async for memory in reader.memories.list()] == []
            with pytest.raises(PermissionDenied) as caught:
                await reader.memories.create(user_id=user, text="x")
            assert caught.value.metadata["scope"] == "write"
            ours = await client.memories.create(user_id=user, text="I like tea.")
            with pytest.raises(NotFound):
                await reader.memories.get(ours.memory.id)
            with pytest.raises(NotFound):
                await reader.jobs.handle(ours.job.id).result(timeout=10)
            assert (await operator.admin.tenants.suspend(tenant.id)).state is TenantState.SUSPENDED
            await operator.admin.tenants.resume(tenant.id)
            await operator.admin.keys.revoke(tenant.id, created.api_key.id)
            async with asyncio.timeout(5):
                while True:
                    try:
                        _ = [memory async for memory in reader.memories.list()]
                    except Unauthenticated:
                        break
                    await asyncio.sleep(0.1)
    async with AsyncClient(dev.endpoint) as nobody:
        with pytest.raises(Unauthenticated) as missing:
            await nobody.jobs.get(str(uuid.uuid4()))
        assert missing.value.reason == "CREDENTIALS_MISSING"


async def test_the_guide_works_as_it_stands(
    dev: Dev, client: AsyncClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORO_ENDPOINT", dev.endpoint)
    monkeypatch.setenv("MEMORO_API_KEY", dev.api_key)
    text = (ROOT / "docs" / "sdk.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    names: dict[str, Any] = {"__name__": "guide", "AsyncClient": AsyncClient}
    async with AsyncClient(dev.endpoint, api_key=dev.admin_key) as admin:
        # The first block connects to servers that are not there.
        for block in blocks[1:]:
            source = block.replace('"ann"', f'"{user}"').replace('"acme"', f'"{user[:20]}"')
            source = source.replace(
                '"127.0.0.1:50051", api_key="memoro_…"', f'"{dev.endpoint}", api_key="{dev.api_key}"'
            )
            code = compile(source, "docs/sdk.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            names.update(client=client, admin=admin)
            running = eval(code, names)
            if running is not None:
                await running
    assert not isinstance(names["verdict"], MemoryHandle)
    assert isinstance(names["verdict"], MemoroError)
