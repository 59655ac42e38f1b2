"""Watches over a server that is killed."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict

import psutil
import pytest

from memoro import AsyncClient, JobState, JobUpdate, Unavailable
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


async def accepted_job(client: AsyncClient, text: str) -> str:
    """The job of a text, as soon as a server takes it."""
    request_id = uuid.uuid4().hex
    async with asyncio.timeout(60):
        while True:
            try:
                return (await client.memories.create(user_id="ann", text=text, request_id=request_id)).job.id
            except Unavailable:
                await asyncio.sleep(0.2)


async def test_a_watch_of_all_jobs_outlasts_the_deaths_of_its_server() -> None:
    with running_dev() as dev:
        async with AsyncClient(dev.endpoint, api_key=dev.api_key) as client:
            told: dict[str, list[JobUpdate]] = defaultdict(list)
            token = ""
            begun = asyncio.Event()

            async def follow() -> None:
                nonlocal token
                async with client.jobs.watch_all(resume_token=token) as watch:
                    token = watch.resume_token
                    begun.set()
                    async for update in watch:
                        told[update.job_id].append(update)
                        token = watch.resume_token

            following = asyncio.ensure_future(follow())
            async with asyncio.timeout(30):
                await begun.wait()
            jobs: list[str] = []
            for text in ("Ann moved to Lyon.", "Ann plays the cello.", "Ann likes tea.", "Ann lives in Rome."):
                jobs.append(await accepted_job(client, text))
                if len(jobs) == 2:
                    for process in servers(dev):
                        process.kill()
                elif len(jobs) == 3:
                    # The consumer itself goes and comes back, with the token that it has kept.
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
                    following = asyncio.ensure_future(follow())
            async with asyncio.timeout(90):
                while not all(any(update.state.ended for update in told[job]) for job in jobs):
                    assert not following.done()
                    await asyncio.sleep(0.05)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            for job in jobs:
                sequences = [update.sequence for update in told[job]]
                # The one that was being dealt with when the consumer went may come again.
                assert sorted(set(sequences)) == list(range(1, sequences[-1] + 1))
                assert len(sequences) - len(set(sequences)) <= 1
                assert [update.state for update in told[job] if update.state.ended] == [JobState.SUCCEEDED]
            assert not any(update.after_gap for updates in told.values() for update in updates)
