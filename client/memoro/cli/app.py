"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from memoro.cli import admin, billing, graph, jobs, memories, webhooks
from memoro.cli.demo import demo
from memoro.cli.plugins import add_plugins
from memoro.version import __version__


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def build() -> typer.Typer:
    """The command line, with what other packages bring along."""
    # Pretty tracebacks show local variables, and a key may be among them.
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

    @app.callback()
    def memoro(
        version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
    ) -> None:
        """Remembers things for other services."""

    app.command("add")(memories.add)
    app.command("search")(memories.search)
    app.add_typer(memories.app, name="memories")
    app.add_typer(graph.app, name="graph")
    app.add_typer(jobs.app, name="jobs")
    app.add_typer(billing.app, name="billing")
    app.add_typer(webhooks.app, name="webhooks")
    app.add_typer(admin.app, name="admin")
    app.command("demo")(demo)
    add_plugins(app)
    return app


def run() -> None:
    """Runs the command that the arguments name, and exits."""
    build()(prog_name="memoro")
