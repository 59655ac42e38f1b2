"""`memoro dev`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from memoro_core.embedded.dev import DevOptions, run_dev
from memoro_core.embedded.provision import provision_dev
from memoro_core.logs import configure_logging
from memoro_core.settings import Settings, problems_of


def dev(
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept; made when missing.")] = Path(".memoro"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The gRPC port; 0 for any free one.")] = 50051,
    ops_port: Annotated[int, typer.Option(min=0, max=65535, help="The server's operations port.")] = 8081,
    worker_ops_port: Annotated[int, typer.Option(min=0, max=65535, help="The worker's operations port.")] = 8082,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Server processes.")] = 1,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
) -> None:
    """Runs a whole deployment on this machine: PostgreSQL, Redis, a server and a worker, until Ctrl-C.

    Once it serves, it prints one line of JSON with `endpoint`, `ops`, `database_url`, `redis_url`, `api_key` (of the
    tenant dev) and `admin_key`. The keys are the same at the next start on the same folder.
    """
    try:
        configure_logging(Settings(log_format="console"))
    except ValidationError as error:
        sys.stderr.write("".join(f"error: {problem}\n" for problem in problems_of(error)))
        raise typer.Exit(2) from None
    options = DevOptions(
        data_dir=data_dir,
        port=port,
        ops_port=ops_port,
        worker_ops_port=worker_ops_port,
        processes=processes,
        workers=workers,
    )
    raise typer.Exit(asyncio.run(run_dev(options, provision_dev)))
