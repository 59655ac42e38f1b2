"""Adds a conversation and asks about it, with the blocking client.

MEMORO_ENDPOINT and MEMORO_API_KEY say where and who; `memoro dev` prints both.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from memoro import Client, JobFailed, MemoryFilter, Message, NotFound, Role

USER = "sync-client"
FILE = Path(__file__).with_name("conversation.json")


def main() -> None:
    document = json.loads(FILE.read_text("utf-8"))
    messages = [
        Message(
            text=message["text"],
            role=Role.USER,
            speaker=message["speaker"],
            occurred_at=datetime.fromisoformat(message["occurred_at"]),
        )
        for message in document["messages"]
    ]
    with Client.from_env() as client:
        added = client.memories.add_conversation(
            user_id=USER, conversation_id=document["conversation_id"], messages=messages
        )
        try:
            result = added.job.result(timeout=120)
        except JobFailed as error:
            raise SystemExit(f"error: {error}") from error
        print(f"{result.memories} messages, {result.entities} entities, {result.relationships} relationships")

        of_conversation = MemoryFilter(conversation_id=document["conversation_id"])
        for question in ("What is Tomas allergic to?", "Where does Ines live?", "When is the pottery class?"):
            print(question)
            for hit in client.memories.search(question, user_id=USER, filter=of_conversation, limit=2):
                print(f"  {hit.memory.speaker}: {hit.memory.text}")

        people = [entity.name for entity in client.graph.entities(user_id=USER, type="PERSON", limit=10)]
        print("people:", ", ".join(people))

        # What is added can be taken away again, with all that only it has stated.
        client.memories.delete(added.memories[0].id)
        try:
            client.memories.get(added.memories[0].id)
        except NotFound as error:
            print(error)


if __name__ == "__main__":
    main()
