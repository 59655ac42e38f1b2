"""Workers are killed while they find entities and facts, of which an hour lets each user have only so many.

A slot is taken in a transaction of its own, before the provider is asked; whoever dies between it and the end of the
job leaves the slot behind. Then the next attempt must find it and take no other, unless its hour is over.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from asyncpg import Record
from pydantic_core import from_json

from benchmarks.outcome import ledger_stands
from tests.chaos.conftest import SEED
from tests.fakes.openai_server import Moment, Request
from tests.support.chaos_checks import violations_of_jobs
from tests.support.doomed_scene import Scene, open_scene
from tests.support.jobs import until
from tests.support.passing_time import HOUR, PassingTime, limited

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(120),
]

PER_HOUR = 5
MEMORIES = {"alice": 24, "bob": 13}
"""How many each user has: more than three hours let her have, and more than two let him."""
DOOMED = 3
KILLS = 14
SHORTEST_STEP, LONGEST_STEP = timedelta(minutes=15), timedelta(minutes=45)
"""Between these is the time that passes at once."""
PAUSES = (0.2, 0.7)
HURRIED = 0.25
"""How often an operator lets all go, whether its turn has come or not."""
_JOBS = """
    SELECT memories.text, memories.user_id, jobs.job_id, jobs.kind, jobs.attempt, jobs.result,
           ARRAY(SELECT created_at FROM job_events
                 WHERE job_events.tenant_id = $1 AND job_events.job_id = jobs.job_id
                   AND (event -> 'result' ->> 'relate_job_id' IS NOT NULL OR seq > 1 AND event ->> 'state' = 'DEFERRED')
           ) AS turned_away
    FROM jobs
    JOIN memories ON memories.tenant_id = jobs.tenant_id AND memories.memory_id = jobs.memory_ids[1]
    WHERE jobs.tenant_id = $1
    """
_FACTS = """
    SELECT fact.user_id, source.name AS source, fact.predicate, target.name AS target,
           (SELECT array_agg(text ORDER BY text)
            FROM relationship_sources JOIN memories USING (tenant_id, memory_id)
            WHERE tenant_id = $1 AND relationship_id = fact.relationship_id) AS stated
    FROM relationships AS fact
    JOIN entities AS source ON source.tenant_id = $1 AND source.entity_id = fact.source_entity_id
    JOIN entities AS target ON target.tenant_id = $1 AND target.entity_id = fact.target_entity_id
    WHERE fact.tenant_id = $1
    """
_MENTIONS = """
    SELECT text, array_agg(name ORDER BY name) AS names
    FROM mentions
    JOIN memories USING (tenant_id, memory_id)
    JOIN entities USING (tenant_id, entity_id)
    WHERE tenant_id = $1
    GROUP BY text
    """


@dataclass
class Witness:
    """Notes by the test's own time when the provider is asked what is in a text, and lets workers die meanwhile."""

    scene: Scene
    time: PassingTime
    asked: defaultdict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))

    async def watch(self, moment: Moment, request: Request) -> None:
        if "chat" in request.path:
            if moment is Moment.CAME:
                self.asked[_text_of(request)].append(await self.time.now())
            await self.scene.workers.watch(moment, request)


@pytest_asyncio.fixture
async def scene() -> AsyncIterator[Scene]:
    print(f"MEMORO_CHAOS_SEED={SEED}")  # shown with what fails
    async with open_scene(Random(SEED), kills=KILLS) as opened:
        yield opened


async def test_workers_that_die_while_they_relate_exceed_no_hour_and_build_each_graph_once(scene: Scene) -> None:
    (tenant,), lots = scene.tenants, scene.random
    time = await limited(scene.owner, tenant, PER_HOUR)
    witness = Witness(scene, time)
    await scene.start(DOOMED)
    scene.provider.watch = witness.watch
    people = [user_id for user_id, count in MEMORIES.items() for _ in range(count)]
    texts = {f"Friend{number:03d} works at Acme in Lyon.": user_id for number, user_id in enumerate(people)}
    await asyncio.gather(*(scene.accept(tenant, user_id, text) for text, user_id in texts.items()))
    await until(lambda: some_wait(scene))
    while await scene.under_way():
        await asyncio.sleep(lots.uniform(*PAUSES))
        await time.let_pass(SHORTEST_STEP + lots.random() * (LONGEST_STEP - SHORTEST_STEP))
        if lots.random() < HURRIED:
            await time.hurry()
    await scene.workers.settle()
    await time.let_pass(timedelta())

    owner = scene.owner
    assert await violations_of_jobs(owner, tenant) == []
    assert await ledger_stands(scene.settings, tenant)
    jobs = await owner.fetch(_JOBS, tenant)
    check_slots(jobs, time, witness)
    check_graph(await owner.fetch(_FACTS, tenant), await owner.fetch(_MENTIONS, tenant), texts)
    # The limit did bite, and the kills did hit what they were meant for.
    asked_again = sum(len(times) > 1 for times in witness.asked.values())
    left = sum(job["kind"] == "memory.relate" for job in jobs)
    put_off = sum(len(job["turned_away"]) for job in jobs) - left
    killed = scene.workers.killed
    print(f"{killed} killed, {asked_again} texts read again, {left} left to later jobs, {put_off} runs put off")
    assert killed >= KILLS // 2
    assert asked_again > 0


async def some_wait(scene: Scene) -> bool:
    """Whether more than an hour's jobs are left to later ones."""
    count: int = await scene.owner.fetchval("SELECT count(*) FROM jobs WHERE kind = 'memory.relate'")
    return count > PER_HOUR


def check_slots(jobs: Sequence[Record], time: PassingTime, witness: Witness) -> None:
    """No hour had more than its slots, and a text was read under a slot only, and by one job to the end."""
    assert time.violations() == []
    slots, of_text = time.of_job(), defaultdict[str, list[Record]](list)
    for job in jobs:
        of_text[job["text"]].append(job)
        for moment in job["turned_away"]:
            valid = [slot for slot in slots.get(job["job_id"], ()) if timedelta() <= time.at(moment) - slot.at < HOUR]
            assert not valid, f"job {job['job_id']} had a slot and was turned away at {time.at(moment)}: {valid}"
    assert of_text.keys() == witness.asked.keys()
    for text, asked in witness.asked.items():
        attempts = sum(job["attempt"] for job in of_text[text])
        results = {job["job_id"]: from_json(job["result"]) for job in of_text[text]}
        taken = [slot.at for job_id in results for slot in slots.get(job_id, ())]
        # Time may have passed between the slot and the request.
        assert all(any(at <= moment <= at + HOUR + LONGEST_STEP for at in taken) for moment in asked), (
            text,
            asked,
            taken,
        )
        assert len(asked) <= attempts, text
        (finder,) = [job_id for job_id, result in results.items() if result["entities"]]
        assert finder in slots, text
        left_to = [result["relate_job_id"] for result in results.values() if result.get("relate_job_id")]
        assert left_to == [str(finder)] * (len(results) - 1), text


def check_graph(facts: Sequence[Record], mentions: Sequence[Record], texts: Mapping[str, str]) -> None:
    """Every text has said once what it says, and nothing is there that none says."""
    expected: defaultdict[tuple[Any, ...], list[str]] = defaultdict(list)
    for text, user_id in texts.items():
        friend = text.split()[0]
        expected[user_id, friend, "RELATED_TO", "Acme"].append(text)
        expected[user_id, "Acme", "RELATED_TO", "Lyon"].append(text)
    stated = Counter((fact["user_id"], fact["source"], fact["predicate"], fact["target"]) for fact in facts)
    assert stated == Counter(expected.keys())
    for fact in facts:
        assert fact["stated"] == expected[fact["user_id"], fact["source"], fact["predicate"], fact["target"]]
    assert {row["text"]: row["names"] for row in mentions} == {
        text: ["Acme", text.split()[0], "Lyon"] for text in texts
    }


def _text_of(request: Request) -> str:
    asked = next(message["content"] for message in request.body["messages"] if message["role"] == "user")
    text: str = from_json(asked)["text"]
    return text
