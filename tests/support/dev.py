"""A whole deployment as `memoro dev` starts it, for tests that come to it as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.stacks import temporary_data_dir

STOPS_WITHIN = 60.0


@dataclass(frozen=True)
class Dev:
    """What `memoro dev` announced, and its process."""

    endpoint: str
    ops: str
    database_url: str
    redis_url: str
    api_key: str
    admin_key: str
    process: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a program that uses it."""
        return {**os.environ, "MEMORO_ENDPOINT": self.endpoint, "MEMORO_API_KEY": self.api_key}

    def run(
        self, *command: str, code: int = 0, timeout: float = 90.0, environment: Mapping[str, str] | None = None
    ) -> str:
        """What a program prints that uses it; it must exit with `code`."""
        done = subprocess.run(
            command,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def memoro(self, *arguments: str, code: int = 0, api_key: str | None = None) -> str:
        """What a command of `memoro` prints."""
        return self.run(
            *(sys.executable, "-m", "memoro.cli", *arguments),
            code=code,
            environment={} if api_key is None else {"MEMORO_API_KEY": api_key},
        )


@contextmanager
def running_dev(environment: Mapping[str, str] | None = None) -> Iterator[Dev]:
    """`memoro dev` on free ports in a folder of its own, stopped and removed at the end."""
    with temporary_data_dir() as folder, (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "memoro.cli", "dev", "--data-dir", str(folder / "data"), "--port", "0"],
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            log.seek(0)
            assert line, log.read()[-2000:]
            announced = json.loads(line)
            yield Dev(**announced, process=process)
        finally:
            process.terminate()
            process.wait(STOPS_WITHIN)
            process.stdout.close()
