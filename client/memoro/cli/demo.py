"""`memoro demo`: the main job from end to end, shown and checked."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from typing import Annotated

import typer
from rich.markup import escape

from memoro.cli.conversation import sample_conversation
from memoro.cli.demo_billing import Paying
from memoro.cli.dev_process import DevFailed, dev_process
from memoro.cli.graph import graph_tree
from memoro.cli.output import Output, fail
from memoro.cli.progress import follow_frames, show_frames
from memoro.cli.session import ApiKeyOption, CaFileOption, JsonOption, Session, errors_told, open_client
from memoro.cli.standing import standing
from memoro.sync_client import Client, JobHandle
from memoro.types import Relationship

TEXT = "John Doe bought an iPhone 15 from Apple Store. He works at TechCorp."
ENTITIES = {"John Doe", "iPhone 15", "Apple Store", "TechCorp"}
FACTS = {("John Doe", "BOUGHT", "iPhone 15"), ("John Doe", "WORKS_AT", "TechCorp")}
QUESTION = "What is Tomas allergic to?"
ANSWER = "Walnuts and pecans"


def demo(
    *,
    endpoint: Annotated[
        str | None, typer.Option(help="A deployment that runs already. Default: start one for the demonstration.")
    ] = None,
    api_key: ApiKeyOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pays, adds, watches, searches and walks, from nothing; exits with 1 if anything is not as it should be."""
    output = Output(as_json=as_json)
    with ExitStack() as stack:
        admin_key = ""
        if endpoint is None:
            output.say("Starting PostgreSQL, Redis, a server and a worker …")
            try:
                started = stack.enter_context(dev_process())
            except DevFailed as error:
                raise fail(str(error)) from error
            endpoint, api_key, ca_file = started["endpoint"], started["api_key"], None
            admin_key = started["admin_key"]
        stack.enter_context(errors_told(endpoint))
        client = stack.enter_context(open_client(endpoint, api_key, ca_file))
        # Prices are set and credits given on a deployment of its own alone: others have theirs.
        operator = stack.enter_context(open_client(endpoint, admin_key, ca_file)) if admin_key else None
        output.say(f"Connected to [bold]{endpoint}[/].")
        output.json_line({"step": "connected", "endpoint": endpoint})
        missing = _Demonstration(Session(client, output, endpoint), operator).run()
    if missing:
        raise fail("the demonstration did not find " + "; ".join(missing))
    output.json_line({"step": "done"})
    output.say("\n[green]Everything as it should be.[/] Start a deployment of your own: [bold]memoro dev[/]")


class _Demonstration:
    def __init__(self, session: Session, operator: Client | None) -> None:
        self._client = session.client
        self._output = session.output
        # A user of its own, so that it can run again on the same deployment.
        self._user = f"demo-{uuid.uuid4().hex[:8]}"
        self._paying = Paying(session.client, operator, session.output, self._user)

    def run(self) -> list[str]:
        """What should have been found and was not."""
        missing = [*self._prepare(), *self._add(), *self._converse(), *self._walk()]
        self._head("What is left")
        self._paying.close()
        return missing

    def _prepare(self) -> list[str]:
        self._head("What it costs")
        return self._paying.prepare(TEXT)

    def _add(self) -> list[str]:
        self._head("A text, watched on its way")
        self._output.say(f"  “{TEXT}”\n")
        added = self._client.memories.create(user_id=self._user, text=TEXT)
        self._output.json_line({"step": "added", "memory": added.memory, "job": added.job.latest})
        missing = self._paying.hold(added.job)
        self._follow(added.job)
        missing += self._paying.settle(added.job)
        return missing + self._graph()

    def _graph(self) -> list[str]:
        self._head("The graph of it")
        entities = list(self._client.graph.entities(user_id=self._user))
        facts = self._facts()
        self._output.json_line({"step": "graph", "entities": entities, "relationships": facts})
        if not self._output.as_json:
            self._output.records(entities, {"type": "type", "name": "name"})
            self._output.say()
            self._output.records(facts, {"source_name": "who", "predicate": "does", "target_name": "what"})
        found = {(fact.source_name, fact.predicate, fact.target_name) for fact in facts}
        return [
            *(f"the entity {name}" for name in sorted(ENTITIES - {entity.name for entity in entities})),
            *(f"the fact {' '.join(fact)}" for fact in sorted(FACTS - found)),
        ]

    def _facts(self) -> list[Relationship]:
        part = self._client.graph.traverse(user_id=self._user, entity_names=sorted(ENTITIES), max_depth=1)
        return list(part.edges)

    def _converse(self) -> list[str]:
        conversation = sample_conversation()
        self._head(f"A conversation of {len(conversation.messages)} messages")
        added = self._client.memories.add_conversation(
            user_id=self._user, conversation_id=conversation.conversation_id, messages=conversation.messages
        )
        self._output.json_line({"step": "conversation", "memories": len(added.memories), "job": added.job.latest})
        self._follow(added.job)

        self._head(f"A question: {QUESTION}")
        hits = self._client.memories.search(QUESTION, user_id=self._user, limit=3)
        self._output.json_line({"step": "search", "query": QUESTION, "hits": hits})
        if not self._output.as_json:
            columns = {"score": "score", "memory.speaker": "speaker", "memory.text": "text"}
            self._output.records(hits, columns)
        return [] if any(ANSWER in hit.memory.text for hit in hits) else [f"an answer to “{QUESTION}”"]

    def _walk(self) -> list[str]:
        self._head("A walk through the graph, from John Doe")
        part = self._client.graph.traverse(user_id=self._user, entity_names=["John Doe"], max_depth=2)
        self._output.json_line({"step": "walk", "graph": part})
        if not self._output.as_json:
            self._output.console.print(graph_tree(part))
        reached = {node.entity.name for node in part.nodes}
        return [f"a way from John Doe to {name}" for name in sorted(ENTITIES - reached)]

    def _follow(self, job: JobHandle) -> None:
        if self._output.as_json:
            for update in job.watch():
                self._output.json_line({"step": "progress", "update": update})
        else:
            show_frames(self._output, follow_frames(job))
        job.result()
        if job.latest is not None:
            self._output.say(f"[dim]{standing(job.latest)}[/]")

    def _head(self, text: str) -> None:
        self._output.say(f"\n[bold]── {escape(text)} ──[/]\n")
