"""Servers and workers in processes of their own, and what they log."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from memoro_core.settings import Settings


@asynccontextmanager
async def running(module: str, settings: Settings, log: Path, **variables: str) -> AsyncIterator[None]:
    """A process as its operator has it, with its lines in a file."""
    environment = {
        **os.environ,
        "MEMORO_DATABASE_URL": str(settings.database_url),
        "MEMORO_REDIS_URL": str(settings.redis_url),
        "MEMORO_EXTRACTION_PROVIDER": "none",
        **variables,
    }
    with log.open("wb") as lines:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, env=environment, stdout=DEVNULL, stderr=lines
        )
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def lines_of(log: Path, **fields: Any) -> list[dict[str, Any]]:
    """The log lines that have these fields."""
    lines = [json.loads(line) for line in log.read_bytes().splitlines() if line.startswith(b"{")]
    return [line for line in lines if fields.items() <= line.items()]
