"""Workers that start in no time: forked from a process that has everything in memory, and has opened nothing.

A line of settings (`MEMORO_… …`) on the standard input starts one, with `worker-<pid>` as its key for the provider; its
process id is a line on the standard output. They end with the standard input.
"""

from __future__ import annotations

import os
import signal
import sys

import memoro_core.llm.openai
import memoro_worker.process
from memoro_worker.__main__ import main

FORKED_WORKERS = __file__
LOADED = (memoro_core.llm.openai, memoro_worker.process)
"""What a worker would import when it needs it."""


def serve() -> None:
    """Forks until the standard input ends."""
    children: set[int] = set()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become_worker(line.split())
        children.add(child)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        while ended := _ended():
            children.discard(ended)
    for child in children:
        os.kill(child, signal.SIGKILL)


def become_worker(variables: list[str]) -> None:
    """Works until it is killed."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for variable in variables:
        name, _, value = variable.partition("=")
        os.environ[name] = value
    os.environ["OPENAI_API_KEY"] = f"worker-{os.getpid()}"
    os._exit(main([]))


def _ended() -> int:
    """A child that has ended; 0 when there is none."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0]
    except ChildProcessError:
        return 0


if __name__ == "__main__":
    serve()
