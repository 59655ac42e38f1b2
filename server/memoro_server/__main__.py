"""`python -m memoro_server`: a server from the settings in the environment."""

from __future__ import annotations

import argparse
import socket
import sys

import uvloop
from pydantic import ValidationError

from memoro_core.logs import configure_logging
from memoro_core.settings import Settings, problems_of


def main(arguments: list[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; the exit code: 0, 1 when the server can't run, 2 for bad settings."""
    parser = argparse.ArgumentParser(prog="python -m memoro_server", description="The Memoro server.")
    parser.add_argument("--processes", type=int, help="server processes on one port (default: MEMORO_PROCESSES, 1)")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        settings = Settings() if options.processes is None else Settings(processes=options.processes)
    except ValidationError as error:
        sys.stderr.write("".join(f"{problem}\n" for problem in problems_of(error)))
        return 2
    configure_logging(settings)
    if options.child is None and settings.processes > 1:
        from memoro_server.supervisor import Supervisor  # the one that never loads gRPC

        return uvloop.run(Supervisor(settings).run())
    from memoro_server.process import serve

    if options.child is None:
        return uvloop.run(serve(settings))
    with socket.socket(fileno=options.child) as parent:
        parent.setblocking(False)
        return uvloop.run(serve(settings, parent))


if __name__ == "__main__":
    sys.exit(main())
