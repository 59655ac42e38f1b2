"""The command line, run in this process against a server that follows a script."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from memoro.cli.app import build
from tests.support.scripted_server import ScriptedServer, scripted_server


@dataclass(frozen=True)
class CommandLine:
    """Runs `memoro` with arguments; its endpoint and key are in the environment."""

    server: ScriptedServer

    def __call__(self, *arguments: str, code: int = 0, stdin: str | None = None) -> Result:
        environment = {"MEMORO_ENDPOINT": self.server.endpoint, "MEMORO_API_KEY": "mk_cli", "COLUMNS": "160"}
        result = CliRunner().invoke(build(), arguments, env=environment, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    def json(self, *arguments: str, code: int = 0) -> list[Any]:
        """The lines of JSON that a command prints."""
        return [json.loads(line) for line in self(*arguments, "--json", code=code).stdout.splitlines()]


@pytest.fixture
def memoro() -> Iterator[CommandLine]:
    with scripted_server() as server:
        yield CommandLine(server)
