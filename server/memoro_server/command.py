"""`memoro serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from memoro_server.__main__ import main


def serve(
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Server processes on one port. Default: MEMORO_PROCESSES, or 1.")
    ] = None,
) -> None:
    """Runs a server until SIGTERM or Ctrl-C. Its settings are environment variables; see docs/operations.md."""
    raise typer.Exit(main([] if processes is None else ["--processes", str(processes)]))
