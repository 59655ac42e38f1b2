"""Memories: adding, reading, changing and finding what users say and write."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import datetime
from typing import Any

from memoro import convert, methods, paging, requests, wire
from memoro.enums import Priority, ProcessingMode
from memoro.errors import Code, FieldViolation, MemoroError, error_of
from memoro.jobs import AsyncJobHandle
from memoro.transport import Transport
from memoro.types import ConversationHandle, Memory, MemoryFilter, MemoryHandle, Message, NewMemory, SearchHit
from memoro.v1 import jobs_pb2, memory_service_pb2

_LARGEST_SEARCH_PAGE = 100


class AsyncMemories:
    """The memories of the tenant's users.

    Each call that changes something takes a `request_id` that makes it safe to repeat; without one the client makes
    one for the call. `timeout` is in seconds.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(
        self,
        *,
        user_id: str,
        text: str,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: datetime | None = None,
        priority: Priority | None = None,
        processing_mode: ProcessingMode | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> MemoryHandle[AsyncJobHandle]:
        """Stores a text, at most 64 KiB, and queues its enrichment; with SYNC, answers after the enrichment.

        Once it returns, the memory is durable, can be read, and is found by its words.
        """
        request = requests.new_memory(NewMemory(user_id, text, metadata, occurred_at, priority, request_id))
        request.processing_mode = wire.enum_number(ProcessingMode, processing_mode)
        if timeout is None and processing_mode is ProcessingMode.SYNC:
            timeout = methods.SYNC_DEADLINE
        return self._memory_handle(await self._transport.unary(methods.CREATE_MEMORY, request, timeout))

    async def create_batch(
        self, items: Iterable[NewMemory], *, timeout: float | None = None
    ) -> tuple[MemoryHandle[AsyncJobHandle] | MemoroError, ...]:
        """Stores 1 to 100 texts; for each, in order, its handle, or the error for which it alone was refused."""
        request = memory_service_pb2.BatchCreateMemoriesRequest(requests=map(requests.new_memory, items))
        response = await self._transport.unary(methods.BATCH_CREATE_MEMORIES, request, timeout)
        return tuple(
            _item_error(result.error) if result.HasField("error") else self._memory_handle(result.created)
            for result in response.results
        )

    async def add_conversation(
        self,
        *,
        user_id: str,
        conversation_id: str,
        messages: Iterable[Message],
        priority: Priority | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> ConversationHandle[AsyncJobHandle]:
        """Stores 1 to 500 messages of a new or known conversation, one memory each, with one job for all."""
        request = memory_service_pb2.AddConversationRequest(
            request_id=requests.request_id_or_new(request_id),
            user_id=user_id,
            conversation_id=conversation_id,
            messages=map(requests.message, messages),
            priority=wire.enum_number(Priority, priority),
        )
        response = await self._transport.unary(methods.ADD_CONVERSATION, request, timeout)
        return ConversationHandle(
            memories=tuple(convert.memory(memory) for memory in response.memories), job=self._job_handle(response.job)
        )

    async def get(self, memory_id: str, *, timeout: float | None = None) -> Memory:
        """One memory. Raises NotFound."""
        request = memory_service_pb2.GetMemoryRequest(memory_id=memory_id)
        return convert.memory((await self._transport.unary(methods.GET_MEMORY, request, timeout)).memory)

    def list(
        self,
        *,
        user_id: str = "",
        filter: MemoryFilter | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Memory, None]:
        """Memories, newest first, of one user or of all."""
        request = memory_service_pb2.ListMemoriesRequest(user_id=user_id, filter=requests.memory_filter(filter))
        return paging.items(
            self._transport,
            methods.LIST_MEMORIES,
            request,
            lambda response: response.memories,
            convert.memory,
            limit=limit,
            timeout=timeout,
        )

    async def update(
        self,
        memory_id: str,
        *,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: datetime | None = None,
        etag: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> MemoryHandle[AsyncJobHandle | None]:
        """Changes what is given and leaves the rest; `metadata` takes the place of the old as a whole.

        The job is None when the change needs no enrichment. Raises NotFound, or Conflict when the memory no longer has
        the `etag`.
        """
        given = {"text": text, "metadata": metadata, "occurred_at": occurred_at}
        request = memory_service_pb2.UpdateMemoryRequest(
            request_id=requests.request_id_or_new(request_id),
            memory_id=memory_id,
            text=text,
            metadata=wire.struct("metadata", metadata),
            occurred_at=wire.timestamp("occurred_at", occurred_at),
            etag=etag,
        )
        request.update_mask.paths.extend(name for name, value in given.items() if value is not None)
        response = await self._transport.unary(methods.UPDATE_MEMORY, request, timeout)
        job = self._job_handle(response.job) if response.HasField("job") else None
        return MemoryHandle(convert.memory(response.memory), job)

    async def delete(
        self, memory_id: str, *, etag: str = "", request_id: str | None = None, timeout: float | None = None
    ) -> None:
        """Deletes a memory and what it alone stated. Raises NotFound, or Conflict when it no longer has the `etag`."""
        request = memory_service_pb2.DeleteMemoryRequest(
            request_id=requests.request_id_or_new(request_id), memory_id=memory_id, etag=etag
        )
        await self._transport.unary(methods.DELETE_MEMORY, request, timeout)

    async def search(
        self,
        query: str,
        *,
        user_id: str,
        filter: MemoryFilter | None = None,
        limit: int = 10,
        min_score: float = 0.0,
        explain: bool = False,
        timeout: float | None = None,
    ) -> tuple[SearchHit, ...]:
        """The user's memories that bear on a question, best first, at most `limit` of at most 200.

        With `explain`, each hit says where its score comes from.
        """
        request = memory_service_pb2.SearchMemoriesRequest(
            user_id=user_id,
            query=query,
            filter=requests.memory_filter(filter),
            min_score=min_score,
            explain=explain,
        )
        hits = paging.items(
            self._transport,
            methods.SEARCH_MEMORIES,
            request,
            lambda response: response.hits,
            convert.search_hit,
            limit=limit,
            largest_page=_LARGEST_SEARCH_PAGE,
            timeout=timeout,
        )
        return tuple([hit async for hit in hits])

    def _memory_handle(self, response: memory_service_pb2.CreateMemoryResponse) -> MemoryHandle[AsyncJobHandle]:
        return MemoryHandle(convert.memory(response.memory), self._job_handle(response.job))

    def _job_handle(self, job: jobs_pb2.Job) -> AsyncJobHandle:
        return AsyncJobHandle(self._transport, job.id, convert.job(job))


def _item_error(error: memory_service_pb2.ItemError) -> MemoroError:
    return error_of(
        Code.of_number(error.code),
        error.message,
        reason=error.reason,
        metadata=error.metadata,
        violations=[FieldViolation(bad.field, bad.description) for bad in error.field_violations],
    )
