"""Commands that other packages bring along, through entry points in the group `memoro.commands`.

The entry point's name is the command's; its value is `module:object`, where the object is a `typer.Typer` or a function
that typer can make a command of. It is imported when the command is called and not before, so that `memoro --help`
stays fast and a package that lacks one of its dependencies breaks its own command alone.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

from memoro.cli.output import fail

GROUP = "memoro.commands"

# What a package can't say before it is imported.
_SHORT_HELP = {
    "dev": "A whole deployment on this machine, until Ctrl-C.",
    "serve": "Runs a server.",
    "worker": "Runs a worker.",
    "migrate": "Brings the database to the current schema.",
}


def add_plugins(app: typer.Typer) -> None:
    """Adds a command for each entry point of the group, in the order of their names."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        # The plugin's own parser reads the arguments, `--help` among them.
        app.command(
            entry.name,
            help=_SHORT_HELP.get(entry.name, f"Comes with {entry.dist.name if entry.dist else entry.module}."),
            rich_help_panel="Service",
            add_help_option=False,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_runner(entry))


def _runner(entry: EntryPoint) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        try:
            loaded: Any = entry.load()
        except ModuleNotFoundError as error:
            raise fail(f"the command {entry.name} needs {error.name}, which is not installed") from error
        plugin = loaded
        if not isinstance(loaded, typer.Typer):
            plugin = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            plugin.command()(loaded)
        typer.main.get_command(plugin).main(args=context.args, prog_name=context.command_path)

    return run
