"""`memoro add`, `memoro search` and `memoro memories`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from memoro.cli.conversation import read_conversation
from memoro.cli.jobs import follow
from memoro.cli.options import choices, json_object, moment
from memoro.cli.session import Session, connected
from memoro.cli.standing import standing
from memoro.enums import JobState, Priority, ProcessingMode
from memoro.sync_client import JobHandle
from memoro.types import ConversationHandle, MemoryFilter, MemoryHandle

app = typer.Typer(no_args_is_help=True, help="Reads and deletes memories.")

User = Annotated[str, typer.Option("--user", "-u", help="Your own name for the user.")]
MemoryId = Annotated[str, typer.Argument(help="The memory's id.")]
OfConversation = Annotated[str, typer.Option("--conversation-id", help="Only of this conversation.")]
Metadata = Annotated[str | None, typer.Option("--metadata", help="A JSON object.")]

COLUMNS = {"id": "id", "status": "status", "speaker": "speaker", "occurred_at": "said at", "text": "text"}


@connected
def add(
    session: Session,
    text: Annotated[str | None, typer.Argument(help="What to remember; - reads standard input.")] = None,
    *,
    user: User,
    conversation: Annotated[
        Path | None,
        typer.Option(help="A file with a conversation, instead of a text.", exists=True, dir_okay=False),
    ] = None,
    metadata: Metadata = None,
    occurred_at: Annotated[str | None, typer.Option(help="When it was said, in ISO 8601. Default: now.")] = None,
    priority: Annotated[
        Priority | None, choices(Priority, help="How soon its job runs. Default: the server chooses.")
    ] = None,
    sync: Annotated[bool, typer.Option("--sync", help="Have the server do all the work in this call.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Follow the job to its end.")] = False,
    request_id: Annotated[str | None, typer.Option(help="Makes the call safe to repeat.")] = None,
) -> None:
    """Remembers a text or a conversation."""
    handle: MemoryHandle[JobHandle] | ConversationHandle[JobHandle]
    if conversation is not None:
        if any(value is not None for value in (text, metadata, occurred_at)) or sync:
            raise ValueError("--conversation goes with none of TEXT, --metadata, --occurred-at and --sync")
        read = read_conversation(conversation)
        handle = session.client.memories.add_conversation(
            user_id=user,
            conversation_id=read.conversation_id,
            messages=read.messages,
            priority=priority,
            request_id=request_id,
        )
        what = f"{len(handle.memories)} memories of conversation {read.conversation_id}"
    else:
        if text is None:
            raise ValueError("give a TEXT or a --conversation")
        handle = session.client.memories.create(
            user_id=user,
            text=sys.stdin.read() if text == "-" else text,
            metadata=json_object("--metadata", metadata),
            occurred_at=None if occurred_at is None else moment(occurred_at),
            priority=priority,
            processing_mode=ProcessingMode.SYNC if sync else None,
            request_id=request_id,
        )
        what = f"memory {handle.memory.id}"
    session.output.say(escape(f"stored {what}, job {handle.job.id}"))
    if wait or sync:
        follow(session, handle.job, quiet=session.output.as_json)
    elif handle.job.latest is not None and handle.job.latest.state is JobState.DEFERRED:
        session.output.say(escape(standing(handle.job.latest)))
    stored = {"memory": handle.memory} if isinstance(handle, MemoryHandle) else {"memories": handle.memories}
    session.output.json_line({**stored, "job": handle.job.latest})


@connected
def search(
    session: Session,
    query: Annotated[str, typer.Argument(help="The question, or any words.")],
    *,
    user: User,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200)] = 10,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Leave out hits that score less.")] = 0.0,
    conversation_id: OfConversation = "",
    metadata: Metadata = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say where each score comes from.")] = False,
) -> None:
    """Finds the memories that bear on a question, best first."""
    hits = session.client.memories.search(
        query,
        user_id=user,
        filter=_filter(conversation_id, metadata),
        limit=limit,
        min_score=min_score,
        explain=explain,
    )
    columns = {"score": "score", "memory.speaker": "speaker", "memory.occurred_at": "said at", "memory.text": "text"}
    session.output.records(hits, columns, empty="nothing found")
    if explain:
        for number, hit in enumerate(hits, 1):
            parts = ", ".join(f"{arm.arm} {arm.contribution:.3f} (raw {arm.raw:.3f})" for arm in hit.explanation)
            session.output.say(f"[dim]{number}: {parts}[/]")


@app.command("get")
@connected
def get(session: Session, memory_id: MemoryId) -> None:
    """Shows one memory."""
    session.output.records([session.client.memories.get(memory_id)], COLUMNS)


@app.command("list")
@connected
def list_memories(
    session: Session,
    *,
    user: Annotated[str, typer.Option("--user", "-u", help="Only of this user.")] = "",
    conversation_id: OfConversation = "",
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 50,
) -> None:
    """Lists memories, newest first."""
    found = session.client.memories.list(user_id=user, filter=_filter(conversation_id, metadata), limit=limit)
    session.output.records(found, COLUMNS, empty="no memories")


@app.command("delete")
@connected
def delete(session: Session, memory_id: MemoryId) -> None:
    """Deletes a memory and what it alone stated."""
    session.client.memories.delete(memory_id)
    session.output.record({"deleted": memory_id}, f"deleted memory {memory_id}")


def _filter(conversation_id: str, metadata: str | None) -> MemoryFilter:
    return MemoryFilter(conversation_id=conversation_id, metadata=json_object("--metadata", metadata))
