"""`memoro dev` brings back whatever is killed, itself included."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import memoro
from tests.support.stacks import temporary_data_dir

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]
WITHIN = 60.0


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_data_dir() as made:
        yield made


@contextmanager
def dev(folder: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    with (folder / "log").open("a+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "memoro.cli", "dev", "--data-dir", str(folder / "data"), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, (folder / "log").read_text()[-3000:]
            yield process, json.loads(line)
        finally:
            process.terminate()
            process.wait(WITHIN)
            process.stdout.close()


def processes(root: int, name: Callable[[list[str]], bool]) -> list[psutil.Process]:
    """Those of a process's descendants whose command line fits; the outermost ones first."""
    found = []
    for child in psutil.Process(root).children(recursive=True):
        try:
            if name(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def program(command: list[str]) -> str:
    return Path(command[0].split()[0]).name if command and command[0] else ""


def add_and_wait(line: dict[str, str], text: str) -> None:
    """Adds a memory and waits for its job, trying again while the service comes back."""
    end = time.monotonic() + WITHIN
    with memoro.Client(line["endpoint"], api_key=line["api_key"]) as client:
        while True:
            try:
                added = client.memories.create(user_id="u", text=text, request_id=text.replace(" ", "-"), timeout=5)
                assert added.job.result(timeout=30).memories == 1
            except (memoro.Unavailable, memoro.DeadlineExceeded):
                assert time.monotonic() < end, "it did not come back"
                time.sleep(0.2)
            else:
                return


def test_each_part_is_brought_back_after_kill_9(folder: Path) -> None:
    parts: dict[str, Callable[[list[str]], bool]] = {
        "server": lambda command: "memoro_server" in command,
        "worker": lambda command: "memoro_worker" in command,
        "PostgreSQL": lambda command: program(command) == "postgres" and "-D" in command,
        "Redis": lambda command: program(command) in {"redis-server", "valkey-server"},
    }
    with dev(folder) as (process, line):
        add_and_wait(line, "before anything")
        for name, fits in parts.items():
            victims = processes(process.pid, fits)
            assert victims, name
            for victim in victims:
                victim.send_signal(signal.SIGKILL)
            add_and_wait(line, f"after the {name}")
        with memoro.Client(line["endpoint"], api_key=line["api_key"]) as client:
            assert len(list(client.memories.list(user_id="u"))) == len(parts) + 1


def test_a_killed_supervisor_leaves_nothing_that_its_next_start_can_not_take_over(folder: Path) -> None:
    with dev(folder) as (process, first):
        add_and_wait(first, "kept")
        process.kill()
        process.wait(WITHIN)
    with dev(folder) as (_, second):
        assert (second["api_key"], second["admin_key"]) == (first["api_key"], first["admin_key"])
        with memoro.Client(second["endpoint"], api_key=second["api_key"]) as client:
            assert [memory.text for memory in client.memories.list(user_id="u")] == ["kept"]
        add_and_wait(second, "and going on")
