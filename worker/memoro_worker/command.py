"""`memoro worker`."""

from __future__ import annotations

from typing import Annotated

import typer

from memoro_worker.__main__ import main


def worker(
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Worker processes. Default: MEMORO_WORKER_PROCESSES, or 1.")
    ] = None,
) -> None:
    """Runs a worker until SIGTERM or Ctrl-C. Its settings are environment variables; see docs/operations.md."""
    raise typer.Exit(main([] if processes is None else ["--processes", str(processes)]))
