"""Adds a text, watches the work on it, then searches and walks the graph, with the client for asyncio.

MEMORO_ENDPOINT and MEMORO_API_KEY say where and who; `memoro dev` prints both.
"""

from __future__ import annotations

import asyncio

from memoro import AsyncClient, MemoroError

USER = "quickstart"


async def main() -> None:
    async with AsyncClient.from_env() as client:
        # Once this returns the text is safe, and its words can be found. The rest is done by a job.
        added = await client.memories.create(
            user_id=USER,
            text="John Doe bought an iPhone 15 from Apple Store. He works at TechCorp.",
            metadata={"source": "quickstart"},
        )
        print(f"stored {added.memory.id}")

        # A watch goes on by itself when the server restarts or the connection breaks.
        # The first update is a snapshot, with all stages as they stand; the others tell of the stage that moved.
        async for update in added.job.watch():
            moved = update.snapshot.stages if update.snapshot else [update.stage] if update.stage else []
            for stage in moved:
                print(f"  {stage.stage.lower()}: {stage.status.lower()}")
        result = await added.job.result()
        print(f"found {result.entities} entities and {result.relationships} relationships")

        for hit in await client.memories.search("Who has a new phone?", user_id=USER, limit=3):
            print(f"{hit.score:.2f} {hit.memory.text}")

        graph = await client.graph.traverse(user_id=USER, entity_names=["John Doe"], max_depth=2)
        for edge in graph.edges:
            print(f"{edge.source_name} {edge.predicate} {edge.target_name}")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except MemoroError as error:
        raise SystemExit(f"error: {error}") from error
