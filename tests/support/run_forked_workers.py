"""Workers that start in no time: forked from a process that has done once all that takes time the first time.

A line of settings (`MEMORO_… …`) on the standard input starts one, with `worker-<pid>` as its key for the provider; its
process id is a line on the standard output. They end with the standard input.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from contextlib import suppress
from functools import cache
from unittest.mock import patch

import memoro_worker.process  # noqa: F401 - a worker would import it when it begins
from memoro_core.container import open_container
from memoro_core.errors import ProviderError
from memoro_core.llm.model import ExtractionSource
from memoro_core.llm.openai import OpenAIEmbeddingProvider, OpenAIEndpoint, OpenAIExtractionProvider
from memoro_core.settings import Settings
from memoro_worker.__main__ import main

FORKED_WORKERS = __file__
_NOBODY = "http://127.0.0.1:9/v1"


async def warm_up() -> None:
    """Opens and closes what a worker opens, and asks a provider that is not there."""
    async with open_container(Settings(), takes_jobs=False):
        pass
    async with OpenAIEndpoint(api_key="nobody", base_url=_NOBODY) as endpoint:
        embedding = OpenAIEmbeddingProvider(endpoint, model="none", dimensions=1)
        with suppress(ProviderError):
            await embedding.embed(["nothing"])
        with suppress(ProviderError):
            await OpenAIExtractionProvider(endpoint, model="none").extract(ExtractionSource("nothing"))
        await embedding.close()


def serve() -> None:
    """Forks until the standard input ends."""
    asyncio.run(warm_up())
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
    # Each takes the certificates of the machine from the disk, which nobody here needs.
    with patch("ssl.create_default_context", cache(ssl.create_default_context)):
        serve()
