"""The command `memoro`. It needs the extra `cli`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; exits with 0, 1 for an error, 2 for a mistake in the arguments, or 130 for Ctrl-C."""
    try:
        from memoro.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit(f"error: the command memoro needs the package {error.name}: install the extra cli")
    run()
