"""`memoro graph`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.tree import Tree

from memoro.cli.memories import User
from memoro.cli.options import choices, moment
from memoro.cli.session import Session, connected
from memoro.enums import Direction
from memoro.types import Relationship, Subgraph

app = typer.Typer(no_args_is_help=True, help="Looks at who and what memories tell of.")

_COLUMNS = {"id": "id", "type": "type", "name": "name", "aliases": "also", "mention_count": "mentions"}


@app.command("entities")
@connected
def entities(
    session: Session,
    *,
    user: Annotated[str, typer.Option("--user", "-u", help="Only of this user.")] = "",
    type_: Annotated[str, typer.Option("--type", help="Only of this type, e.g. PERSON.")] = "",
    name: Annotated[str, typer.Option(help="Only those whose name begins so.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 50,
) -> None:
    """Lists entities by name."""
    found = session.client.graph.entities(user_id=user, type=type_, name_prefix=name, limit=limit)
    session.output.records(found, _COLUMNS, empty="no entities")


@app.command("walk")
@connected
def walk(
    session: Session,
    names: Annotated[list[str], typer.Argument(help="Where to begin: names of entities.")],
    *,
    user: User,
    depth: Annotated[int, typer.Option("--depth", "-d", min=1, max=5)] = 2,
    predicate: Annotated[list[str] | None, typer.Option(help="Only along this one; may be given again.")] = None,
    direction: Annotated[Direction | None, choices(Direction, help="Default: both ways.")] = None,
    as_of: Annotated[str | None, typer.Option(help="The facts of that time, in ISO 8601. Default: now.")] = None,
) -> None:
    """Walks the graph outwards from entities."""
    part = session.client.graph.traverse(
        user_id=user,
        entity_names=names,
        max_depth=depth,
        predicates=predicate or (),
        direction=direction,
        as_of=None if as_of is None else moment(as_of),
    )
    if session.output.as_json:
        session.output.json_line(part)
    elif not part.nodes:
        session.output.say("no such entity")
    else:
        session.output.console.print(graph_tree(part))


def graph_tree(part: Subgraph) -> Tree:
    """The walked part of a graph as a tree, each fact once, under the entity that was nearer to the beginning."""
    depth = {node.entity.id: node.depth for node in part.nodes}
    children: dict[str, list[Relationship]] = {node.entity.id: [] for node in part.nodes}
    for edge in part.edges:
        ends = [end for end in (edge.source_entity_id, edge.target_entity_id) if end in depth]
        if ends:
            children[min(ends, key=lambda end: depth[end])].append(edge)
    root = Tree("", hide_root=True)
    branches: dict[str, Tree] = {}
    for node in sorted(part.nodes, key=lambda node: node.depth):
        label = f"[bold]{escape(node.entity.name)}[/] [dim]{escape(node.entity.type)}[/]"
        branch = branches.get(node.entity.id) or root.add(label)
        for edge in children[node.entity.id]:
            outgoing = edge.source_entity_id == node.entity.id
            other_id, other = (
                (edge.target_entity_id, edge.target_name) if outgoing else (edge.source_entity_id, edge.source_name)
            )
            arrow = f"—{escape(edge.predicate)}→" if outgoing else f"←{escape(edge.predicate)}—"
            twig = branch.add(f"[cyan]{arrow}[/] [bold]{escape(other)}[/]")
            branches.setdefault(other_id, twig)
    return root
