"""Evidence recall: of the turns that answer a question, how many are among the first hits of a search for it.

The whole service at work: conversations go in through the SDK, a worker enriches them, and questions are asked as they
stand. No model judges anything. The floor is the same search with nothing but BM25, over the same memories.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from statistics import fmean, quantiles
from typing import Final

from benchmarks.conversations import CATEGORIES, DATA_SETTING, Conversation, Question, load_conversations
from benchmarks.deployment import Deployment, open_deployment, running_server, running_worker
from benchmarks.report import Result, publish, skip, table
from memoro import AsyncClient, Message
from memoro_core.container import open_container
from memoro_core.ids import TenantId, UserId
from memoro_core.llm.local import LocalEmbeddingProvider
from memoro_core.memory.model import SearchQuery
from memoro_core.memory.ranking import Weights
from memoro_core.memory.search import SearchService
from memoro_core.memory.words import WordVectors
from memoro_core.postgres.search_store import PostgresSearchStore
from memoro_core.settings import Settings

DEPTHS: Final = (5, 10, 20)
DEPTH: Final = 10
TARGET: Final = 0.68
BM25_ONLY: Final = Weights(**{field.name: float(field.name == "lexical") for field in fields(Weights)})
JOB_TIMEOUT: Final = 600.0

Ask = Callable[[Conversation, Question], Awaitable[Sequence[str]]]
"""Asks a question; the names of the turns that are found, best first."""


@dataclass(frozen=True, slots=True)
class Score:
    """Recall of one question at each depth, and how long the answer took."""

    category: int
    recall: Sequence[float]
    seconds: float


async def main(*, ablate: bool = False) -> Result | None:
    """The measured recall at 10; None when there is no data to measure it on."""
    conversations = load_conversations()
    if conversations is None:
        return None
    # One process of the worker and one of the server: what counts here is what they find.
    async with (
        open_deployment() as deployment,
        running_server(deployment) as (_, endpoint),
        running_worker(deployment),
        AsyncClient(endpoint, api_key=deployment.api_key) as client,
    ):
        began = time.perf_counter()
        await _ingest(client, conversations)
        turns = sum(len(session) for one in conversations for session in one.sessions)
        took = time.perf_counter() - began

        async def ask(conversation: Conversation, question: Question) -> Sequence[str]:
            hits = await client.memories.search(question.text, user_id=conversation.name, limit=DEPTHS[-1])
            return [hit.memory.metadata["dia_id"] for hit in hits]

        scores = await _ask_all(ask, conversations)
        variants = _ablations() if ablate else {"BM25 alone": BM25_ONLY}
        others = await _ask_otherwise(deployment, conversations, variants)
    print(f"{turns} turns enriched in {took:.1f} s\n")
    print(table("Evidence recall", ("questions", "asked", *(f"@{depth}" for depth in DEPTHS)), _by_category(scores)))
    print(table("Search", ("", *(f"@{depth}" for depth in DEPTHS), "p50 ms", "p95 ms"), _by_variant(scores, others)))
    value, floor = _at(scores, DEPTH), _at(others["BM25 alone"], DEPTH)
    return Result("recall", value, floor, value / floor, TARGET, value >= TARGET)


async def _ingest(client: AsyncClient, conversations: Sequence[Conversation]) -> None:
    jobs = []
    for conversation in conversations:
        for number, session in enumerate(conversation.sessions, 1):
            messages = [
                Message(turn.text, speaker=turn.speaker, occurred_at=turn.occurred_at, metadata={"dia_id": turn.name})
                for turn in session
            ]
            stored = await client.memories.add_conversation(
                user_id=conversation.name, conversation_id=f"session-{number}", messages=messages
            )
            jobs.append(stored.job)
    for job in jobs:
        await job.result(timeout=JOB_TIMEOUT)


async def _ask_all(ask: Ask, conversations: Sequence[Conversation]) -> Sequence[Score]:
    scores: list[Score] = []
    for conversation in conversations:
        for question in conversation.questions:
            began = time.perf_counter()
            found = await ask(conversation, question)
            took = time.perf_counter() - began
            recall = [len(question.evidence.intersection(found[:depth])) / len(question.evidence) for depth in DEPTHS]
            scores.append(Score(question.category, recall, took))
    return scores


async def _ask_otherwise(
    deployment: Deployment, conversations: Sequence[Conversation], variants: dict[str, Weights]
) -> dict[str, Sequence[Score]]:
    """The same questions with other weights, which no caller can set: in this process, over the same memories."""
    settings = Settings.model_validate(
        {"database_url": deployment.stack.database_url, "redis_url": deployment.stack.redis_url}
    )
    embedder = LocalEmbeddingProvider()
    async with open_container(settings) as container:
        tenant_id = (await container.authenticator.authenticate(f"Bearer {deployment.api_key}")).tenant_id
        store = PostgresSearchStore(container.database, exact_limit=settings.exact_search_limit)
        words = WordVectors(embedder)
        results: dict[str, Sequence[Score]] = {}
        for name, weights in variants.items():
            search = SearchService(store, embedder, words, weights=weights)
            results[name] = await _ask_all(partial(_ask, search, tenant_id), conversations)
    await embedder.close()
    return results


async def _ask(
    search: SearchService, tenant_id: TenantId, conversation: Conversation, question: Question
) -> Sequence[str]:
    query = SearchQuery(UserId(conversation.name), question.text, limit=DEPTHS[-1])
    return [str(hit.memory.metadata["dia_id"]) for hit in (await search.search(tenant_id, query)).hits]


def _ablations() -> dict[str, Weights]:
    """BM25 alone, everything, and everything but one: what an arm is worth is what is missed without it."""
    whole = Weights()
    without = {f"without {field.name}": replace(whole, **{field.name: 0.0}) for field in fields(whole)}
    return {"BM25 alone": BM25_ONLY, "in process": whole, **without}


def _at(scores: Sequence[Score], depth: int) -> float:
    return fmean(score.recall[DEPTHS.index(depth)] for score in scores)


def _recalls(scores: Sequence[Score]) -> tuple[str, ...]:
    return tuple(f"{_at(scores, depth):.3f}" for depth in DEPTHS)


def _by_category(scores: Sequence[Score]) -> Sequence[tuple[str, ...]]:
    rows = [(name, [score for score in scores if score.category == category]) for category, name in CATEGORIES.items()]
    return [(name, str(len(some)), *_recalls(some)) for name, some in [*rows, ("all", scores)] if some]


def _by_variant(scores: Sequence[Score], others: dict[str, Sequence[Score]]) -> Sequence[tuple[str, ...]]:
    rows = []
    for name, some in {"over gRPC": scores, **others}.items():
        cuts = quantiles((score.seconds * 1000 for score in some), n=20)
        rows.append((name, *_recalls(some), f"{cuts[9]:.1f}", f"{cuts[18]:.1f}"))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ablate", action="store_true", help="also without each arm in turn")
    result = asyncio.run(main(ablate=parser.parse_args().ablate))
    if result is None:
        skip("recall", TARGET, f"no conversations here; {DATA_SETTING} says where they are")
    else:
        publish(result)
