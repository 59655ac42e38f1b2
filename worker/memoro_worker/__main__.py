"""`python -m memoro_worker`: a worker from the settings in the environment."""

from __future__ import annotations

import argparse
import asyncio
import sys

import uvloop
from pydantic import ValidationError

from memoro_core.logs import configure_logging
from memoro_core.settings import Settings, problems_of


def main(arguments: list[str] | None = None) -> int:
    """Works until SIGTERM or SIGINT; the exit code: 0, 1 when the worker can't run, 2 for bad settings."""
    parser = argparse.ArgumentParser(prog="python -m memoro_worker", description="The Memoro worker.")
    parser.add_argument("--processes", type=int, help="worker processes (default: MEMORO_WORKER_PROCESSES, 1)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        settings = Settings() if options.processes is None else Settings(worker_processes=options.processes)
    except ValidationError as error:
        sys.stderr.write("".join(f"{problem}\n" for problem in problems_of(error)))
        return 2
    configure_logging(settings)
    if settings.worker_processes > 1:
        from memoro_worker.supervisor import Supervisor

        return uvloop.run(Supervisor(settings).run())
    return uvloop.run(_work(settings, child=options.child))


async def _work(settings: Settings, *, child: bool) -> int:
    from memoro_worker.process import work

    stop = asyncio.Event()
    if child:
        # The parent never writes; the end of the pipe is the end of the parent.
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    return await work(settings, stop)


if __name__ == "__main__":
    sys.exit(main())
