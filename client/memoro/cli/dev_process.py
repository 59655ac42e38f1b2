"""A deployment of its own for the demonstration: `memoro dev` as a child, on free ports and a passing folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_ORDERLY_STOP = 60.0
_FORCED_STOP = 15.0
_LINES_OF_LOG = 12


class DevFailed(Exception):
    """`memoro dev` did not start; the message holds the end of what it said."""


@contextmanager
def dev_process() -> Iterator[dict[str, Any]]:
    """What a running `memoro dev` announces (`endpoint`, `api_key`, …). Raises DevFailed.

    At the end it is stopped and its folder removed.
    """
    with (
        _termination_as_exit(),
        tempfile.TemporaryDirectory(prefix="memoro-demo-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile("w+") as log,
    ):
        # In a session of its own: Ctrl-C is for this process, which then stops the child in order.
        child = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "memoro.cli", "dev", "--data-dir", str(Path(folder) / "data"), "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        assert child.stdout is not None
        try:
            line = child.stdout.readline()
            if not line.startswith("{"):
                child.wait(_ORDERLY_STOP)
                raise DevFailed(f"memoro dev did not start: {_end_of(log)}")
            yield json.loads(line)
        finally:
            _stop(child)
            child.stdout.close()


def _stop(child: subprocess.Popen[str]) -> None:
    # A first signal stops it in order, a second one at once.
    for patience in (_ORDERLY_STOP, _FORCED_STOP):
        child.terminate()
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        return
    child.kill()
    child.wait()


def _end_of(log: IO[str]) -> str:
    log.seek(0)
    return " | ".join(log.read().strip().splitlines()[-_LINES_OF_LOG:])


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """Lets `finally` run, and so the child end, when this process is told to end."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    former = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
