"""The command as a process: what it needs, what it loads, and what other packages add to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from memoro.v1 import jobs_pb2, jobs_service_pb2
from tests.support.scripted_server import scripted_server

PLUGINS = {
    "hello": "hello_plugin:hello",
    "group": "hello_plugin:app",
    "broken": "broken_plugin:run",
}
HELLO = '''
import sys
from typing import Annotated
import typer

app = typer.Typer()

def hello(name: str, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
    """Greets."""
    print("HELLO" if loud else "hello", name)
    if name == "nobody":
        raise typer.Exit(3)

@app.command()
def one() -> None:
    print("one")

@app.command()
def two() -> None:
    print("two")
'''


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which another distribution brings commands along."""
    (tmp_path / "hello_plugin.py").write_text(HELLO)
    (tmp_path / "broken_plugin.py").write_text("import a_package_that_is_not_there\n")
    metadata = tmp_path / "plugins-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins\nVersion: 1.0\n")
    entries = "".join(f"{name} = {value}\n" for name, value in PLUGINS.items())
    (metadata / "entry_points.txt").write_text(f"[memoro.commands]\n{entries}")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "120"}


def memoro(environment: dict[str, str], *arguments: str, code: int = 0) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "memoro.cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == code, run.stdout + run.stderr
    return run.stdout + run.stderr


def test_other_packages_bring_commands_along(environment: dict[str, str]) -> None:
    listed = memoro(environment, "--help")
    assert all(name in listed for name in PLUGINS)
    assert memoro(environment, "hello", "ann", "--loud") == "HELLO ann\n"
    assert "memoro hello" in memoro(environment, "hello", "--help")
    assert "Greets." in memoro(environment, "hello", "--help")
    assert memoro(environment, "hello", "nobody", code=3) == "hello nobody\n"
    assert memoro(environment, "group", "two") == "two\n"
    assert "no-such-option" in memoro(environment, "hello", "ann", "--no-such-option", code=2)


def test_a_command_that_lacks_a_package_breaks_alone(environment: dict[str, str]) -> None:
    told = memoro(environment, "broken", code=1)
    assert told == "error: the command broken needs a_package_that_is_not_there, which is not installed\n"


def test_the_sdk_loads_neither_the_service_nor_the_command_line() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import memoro, sys; print(*sorted(sys.modules))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split()
    tops = {name.partition(".")[0] for name in loaded}
    assert "memoro.client" in loaded
    assert not tops & {"memoro_core", "memoro_server", "memoro_worker", "typer", "rich", "pydantic"}
    assert "memoro.cli" not in loaded


def test_without_the_extra_the_command_says_what_it_needs(tmp_path: Path) -> None:
    script = "import sys; sys.modules['typer'] = None\nfrom memoro.cli import main\nmain()"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert run.stderr == "error: the command memoro needs the package typer: install the extra cli\n"


def test_no_server_is_told_in_one_line() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "memoro.cli", "jobs", "get", "j1", "--endpoint", "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    [line] = [one for one in run.stderr.splitlines() if "error:" in one]
    assert line.startswith("error: 127.0.0.1:1: ")
    assert "UNAVAILABLE" in line


def test_ctrl_c_ends_a_watch_of_all_jobs(environment: dict[str, str]) -> None:
    with scripted_server() as server:
        server.script("ListJobs", jobs_service_pb2.ListJobsResponse())
        snapshot = jobs_service_pb2.WatchJobsResponse(snapshot=jobs_pb2.Job(id="j1", sequence=1), sequence=1)
        server.script("WatchJobs", [snapshot, lambda *_: server.stopping.wait(30)])
        process = subprocess.Popen(
            [sys.executable, "-m", "memoro.cli", "jobs", "watch", "--json", "--endpoint", server.endpoint],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        # What is told is not held back in a buffer.
        assert json.loads(process.stdout.readline())["job_id"] == "j1"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert (process.returncode, errors) == (130, "")


def test_the_version_is_told(environment: dict[str, str]) -> None:
    from memoro import __version__

    assert memoro(environment, "--version") == f"{__version__}\n"
