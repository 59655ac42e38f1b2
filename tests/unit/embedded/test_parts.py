"""The parts of the embedded servers that need no server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from memoro_core.embedded import account, guard
from memoro_core.embedded.account import Account, let_in, let_read, service_account
from memoro_core.embedded.errors import NoServiceAccountError, PortTakenError, StartFailedError
from memoro_core.embedded.leftovers import end_leftovers, services_of
from memoro_core.embedded.ports import PORTS, free_port, is_free, remembered_port, wait_until_free
from memoro_core.embedded.private_file import kept_secret, write_private
from memoro_core.embedded.process import MARK, end, spawn
from memoro_core.embedded.readiness import is_ready
from memoro_core.embedded.server_log import TAIL, ServerLog
from memoro_core.processes import LONGEST_PAUSE, STEADY, Pause

STRANGER = Account(uid=54321, gid=54321)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_error_says_its_docstring_and_the_detail() -> None:
    assert str(StartFailedError("Because.")) == "A server did not start. Because."


def test_a_taken_port_is_not_free_and_another_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert not is_free(taken)
        assert free_port(taken) in PORTS
    assert free_port(taken) == taken


async def test_waiting_for_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    asyncio.get_running_loop().call_later(0.2, server.close)
    assert await wait_until_free(port) == port
    monkeypatch.setattr("memoro_core.embedded.ports.PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortTakenError):
        await wait_until_free(port)


@pytest.mark.parametrize(("text", "port"), [("15001\n", 15001), ("", None), ("x", None), ("0", None), ("65536", None)])
def test_a_remembered_port(tmp_path: Path, text: str, port: int | None) -> None:
    (tmp_path / "port").write_text(text)
    assert remembered_port(tmp_path / "port") == port
    assert remembered_port(tmp_path / "none") is None


def test_private_files_are_private_from_the_first_moment_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert (file.read_text(), mode(file)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [file]
    assert kept_secret(file) == "new"
    made = kept_secret(tmp_path / "other")
    assert len(made) == 32
    assert kept_secret(tmp_path / "other") == made


def test_a_log_tells_of_the_latest_start_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ServerLog(tmp_path / "a.log")
    assert log.tail() == ""
    for words in ("first", "second"):
        log.begin()
        with log.open() as descriptor:
            os.write(descriptor, words.encode())
        assert log.tail() == words
    with log.open() as descriptor:
        os.write(descriptor, b"x" * 2 * TAIL)
    assert log.tail() == "x" * TAIL
    monkeypatch.setattr("memoro_core.embedded.server_log.LARGEST", 1)
    log.begin()
    assert (tmp_path / "a.log.1").exists()
    assert log.tail() == ""


def test_pauses_double_up_to_a_limit_and_begin_again_after_steady_running() -> None:
    pause = Pause()
    assert [pause.after(0) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, LONGEST_PAUSE, LONGEST_PAUSE]
    assert pause.after(STEADY) == 0.2


def test_a_stranger_is_let_in_without_being_let_look(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "a").chmod(0o700)
    let_in(STRANGER, inner)
    assert mode(tmp_path / "a") == 0o701
    assert mode(inner) == 0o755


def test_a_stranger_is_let_read_a_tree_and_run_what_can_be_run(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "tool").touch(mode=0o700)
    (tree / "text").touch(mode=0o600)
    (tree / "link").symlink_to(tmp_path / "nowhere")
    tree.chmod(0o700)
    let_read(STRANGER, tree)
    assert [mode(tree / name) for name in (".", "bin/tool", "text")] == [0o705, 0o705, 0o604]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses a user")
def test_without_a_way_to_make_a_user_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "ACCOUNT", "memoro-test-missing")
    monkeypatch.setattr(account, "FALLBACK", "memoro-test-missing-too")
    monkeypatch.setattr("shutil.which", lambda *_args, **_kwargs: None)
    with pytest.raises(NoServiceAccountError, match="ordinary user"):
        service_account(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses a user")
def test_data_of_an_ordinary_user_stay_that_users(tmp_path: Path) -> None:
    os.chown(tmp_path, STRANGER.uid, STRANGER.gid)
    assert service_account(tmp_path) == STRANGER


@pytest.mark.skipif(os.geteuid() == 0, reason="root runs it as another")
def test_an_ordinary_user_runs_it_himself(tmp_path: Path) -> None:
    assert service_account(tmp_path) is None


async def test_a_child_ignores_the_terminal_and_ends_with_its_session(tmp_path: Path) -> None:
    script = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    out = tmp_path / "out"
    with out.open("wb") as stream:
        process = await spawn(
            [sys.executable, "-c", script],
            mark=tmp_path,
            environment=os.environ,
            output=stream.fileno(),
            death_signal=signal.SIGTERM,
        )
    async with asyncio.timeout(10):
        while not out.read_text().endswith("\n"):
            await asyncio.sleep(0.02)
    grandchild = int(out.read_text())
    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    assert {found.pid for found in services_of(tmp_path)} == {process.pid, grandchild}
    await end(process, ((signal.SIGTERM, 5.0),))
    assert process.returncode == -signal.SIGTERM
    async with asyncio.timeout(5):
        while alive(grandchild):
            await asyncio.sleep(0.02)


async def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(600)"
    )
    out = tmp_path / "out"
    with out.open("wb") as stream:
        process = await spawn(
            [sys.executable, "-c", script],
            mark=tmp_path,
            environment={},
            output=stream.fileno(),
            death_signal=signal.SIGTERM,
        )
    async with asyncio.timeout(10):
        while not out.read_text():
            await asyncio.sleep(0.02)
    await end(process, ((signal.SIGTERM, 0.2),))
    assert process.returncode == -signal.SIGKILL


def test_leftovers_are_ended_however_stubborn(tmp_path: Path) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], env={MARK: str(tmp_path)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = services_of(tmp_path)
        assert [one.pid for one in found] == [process.pid]
        started = time.monotonic()
        end_leftovers(found, ((signal.SIGTERM, 0.2),))
        assert time.monotonic() - started < 3
        assert process.wait() == -signal.SIGKILL
    assert services_of(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_the_guard_does_not_start_what_has_no_parent_any_more(tmp_path: Path) -> None:
    arguments = ["1", str(int(signal.SIGTERM)), "-1", "-1", "touch", str(tmp_path / "made")]
    done = subprocess.run([sys.executable, "-I", "-S", guard.__file__, *arguments], check=False)
    assert done.returncode == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("answer", "ready"), [(b"HTTP/1.1 200 OK\r\n\r\n", True), (b"HTTP/1.1 503 No\r\n\r\n", False), (b"", False)]
)
async def test_readiness(answer: bytes, ready: bool) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await is_ready(port) is ready
    server.close()
    await server.wait_closed()
    assert not await is_ready(port)


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
