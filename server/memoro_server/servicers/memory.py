"""MemoryService: storing, changing and finding memories."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from structlog.contextvars import bind_contextvars

from memoro.v1 import memory_service_pb2 as pb
from memoro_core.errors import MemoroError, invalid_field
from memoro_core.ids import MemoryId, UserId
from memoro_core.jobs.model import Job
from memoro_core.memory.model import ProcessingMode, SearchQuery
from memoro_core.memory.search import SearchService
from memoro_core.memory.service import MemoryService
from memoro_server.call import Call
from memoro_server.convert.idempotency import idempotency_of
from memoro_server.convert.jobs import from_job
from memoro_server.convert.memory import (
    from_created,
    from_memory,
    from_search_hit,
    to_items,
    to_memory_filter,
    to_memory_patch,
    to_new_conversation,
    to_new_memory,
    to_processing_mode,
)
from memoro_server.convert.pages import PageSpot
from memoro_server.convert.scalars import to_id, to_version
from memoro_server.rules import Rules
from memoro_server.status import internal_error, item_error

_CREATE: Final = "/memoro.v1.MemoryService/CreateMemory"
_DEFAULT_HITS: Final = 10
_MAX_HITS: Final = 100
_MAX_DEPTH: Final = 200
"""How many hits deep pages reach."""


class MemoryServicer:
    """The calls of MemoryService that are about memories."""

    def __init__(self, memories: MemoryService, search: SearchService, rules: Rules) -> None:
        self._memories = memories
        self._search = search
        self._rules = rules
        self._logger = structlog.get_logger("memoro.server")

    async def CreateMemory(self, request: pb.CreateMemoryRequest, call: Call) -> pb.CreateMemoryResponse:
        accepted = await self._memories.create(
            call.tenant_id,
            to_new_memory(request),
            idempotency=idempotency_of(_CREATE, request),
            processing=to_processing_mode(request),
            quota=call.principal.limits.quota,
        )
        _follow(accepted.job)
        return from_created(accepted)

    async def BatchCreateMemories(
        self, request: pb.BatchCreateMemoriesRequest, call: Call
    ) -> pb.BatchCreateMemoriesResponse:
        # Together, so that the domain stores them together.
        results = await asyncio.gather(*(self._create_item(item, call) for item in to_items(request)))
        bind_contextvars(job_ids=[result.created.job.id for result in results if result.created.job.id])
        return pb.BatchCreateMemoriesResponse(results=results)

    async def AddConversation(self, request: pb.AddConversationRequest, call: Call) -> pb.AddConversationResponse:
        accepted = await self._memories.add_conversation(
            call.tenant_id,
            to_new_conversation(request),
            idempotency=idempotency_of(call.method.path, request),
            quota=call.principal.limits.quota,
        )
        _follow(accepted.job)
        return pb.AddConversationResponse(
            memories=[from_memory(memory) for memory in accepted.memories],
            job=None if accepted.job is None else from_job(accepted.job),
        )

    async def GetMemory(self, request: pb.GetMemoryRequest, call: Call) -> pb.GetMemoryResponse:
        memory = await self._memories.get(call.tenant_id, MemoryId(to_id(request.memory_id, "memory_id")))
        return pb.GetMemoryResponse(memory=from_memory(memory))

    async def ListMemories(self, request: pb.ListMemoriesRequest, call: Call) -> pb.ListMemoriesResponse:
        spot = PageSpot(request, call)
        page = await self._memories.list_memories(
            call.tenant_id,
            UserId(request.user_id) if request.user_id else None,
            to_memory_filter(request.filter),
            size=spot.size,
            position=spot.position,
        )
        return pb.ListMemoriesResponse(
            memories=[from_memory(memory) for memory in page.items], next_page_token=spot.token(page.next_position)
        )

    async def UpdateMemory(self, request: pb.UpdateMemoryRequest, call: Call) -> pb.UpdateMemoryResponse:
        accepted = await self._memories.update(
            call.tenant_id,
            MemoryId(to_id(request.memory_id, "memory_id")),
            to_memory_patch(request),
            idempotency=idempotency_of(call.method.path, request),
            quota=call.principal.limits.quota,
        )
        _follow(accepted.job)
        return pb.UpdateMemoryResponse(
            memory=from_memory(accepted.memory), job=None if accepted.job is None else from_job(accepted.job)
        )

    async def DeleteMemory(self, request: pb.DeleteMemoryRequest, call: Call) -> pb.DeleteMemoryResponse:
        await self._memories.delete(
            call.tenant_id,
            MemoryId(to_id(request.memory_id, "memory_id")),
            version=to_version(request.etag),
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.DeleteMemoryResponse()

    async def SearchMemories(self, request: pb.SearchMemoriesRequest, call: Call) -> pb.SearchMemoriesResponse:
        spot = PageSpot(request, call, default=_DEFAULT_HITS, maximum=_MAX_HITS)
        offset = _offset(spot)
        result = await self._search.search(
            call.tenant_id,
            SearchQuery(
                user_id=UserId(request.user_id),
                text=request.query,
                filter=to_memory_filter(request.filter),
                limit=min(spot.size, _MAX_DEPTH - offset),
                offset=offset,
                min_score=request.min_score,
            ),
        )
        reached = offset + len(result.hits)
        more = result.more and reached < _MAX_DEPTH
        return pb.SearchMemoriesResponse(
            hits=[from_search_hit(hit, explain=request.explain) for hit in result.hits],
            next_page_token=spot.token((str(reached),) if more else None),
        )

    async def _create_item(self, request: pb.CreateMemoryRequest, call: Call) -> pb.BatchCreateMemoriesResult:
        try:
            self._rules.check(request)
            # The method of the single call, so that an item sent again on its own is the same request.
            accepted = await self._memories.create(
                call.tenant_id,
                to_new_memory(request),
                idempotency=idempotency_of(_CREATE, request),
                processing=ProcessingMode.ASYNC,
                quota=call.principal.limits.quota,
            )
        except MemoroError as error:
            return pb.BatchCreateMemoriesResult(error=item_error(error))
        except Exception:
            # The others are stored or about to be: their verdicts must reach the caller.
            self._logger.exception("unexpected error of an item", method=call.method.path)
            return pb.BatchCreateMemoriesResult(error=item_error(internal_error(call.request_id)))
        return pb.BatchCreateMemoriesResult(created=from_created(accepted))


def _follow(job: Job | None) -> None:
    """Puts the job into the call's log line, from which its worker's lines are found."""
    if job is not None:
        bind_contextvars(job_id=str(job.id))


def _offset(spot: PageSpot) -> int:
    if spot.position is None:
        return 0
    text = spot.position[0] if spot.position else ""
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) < _MAX_DEPTH:
        raise invalid_field("page_token", "is not a token of this search")
    return int(text)
