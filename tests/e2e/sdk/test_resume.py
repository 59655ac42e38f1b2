"""A watch over a server that is killed."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from memoro import AsyncClient, JobState
from memoro.cli.conversation import sample_conversation
from tests.support.dev import Dev, running_dev

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def servers(dev: Dev) -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process(dev.process.pid).children(recursive=True)
        if "memoro_server" in process.cmdline()
    ]


async def test_a_watch_outlasts_the_death_of_its_server() -> None:
    with running_dev() as dev:
        async with AsyncClient(dev.endpoint, api_key=dev.api_key) as client:
            messages = sample_conversation().messages * 20
            added = await client.memories.add_conversation(
                user_id="ann", conversation_id="long", messages=messages, timeout=30
            )
            sequences, killed = [], False
            async with asyncio.timeout(90):
                async for update in added.job.watch():
                    sequences.append(update.sequence)
                    if update.stage is not None and not killed:
                        killed = True
                        for process in servers(dev):
                            process.kill()
            assert killed
            assert added.job.latest is not None
            assert added.job.latest.state is JobState.SUCCEEDED
            assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
            assert (await added.job.result()).memories == len(messages)
            assert len([memory async for memory in client.memories.list(user_id="ann")]) == len(messages)
