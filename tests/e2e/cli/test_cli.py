"""The command `memoro` against a whole deployment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.dev import Dev
from tests.support.stacks import temporary_data_dir

pytestmark = pytest.mark.e2e


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_add_search_and_walk(dev: Dev) -> None:
    user = f"cli-{uuid.uuid4().hex[:8]}"
    [added] = lines(dev.memoro("add", "Anna Keller works at TechCorp.", "--user", user, "--wait", "--json"))
    assert added["job"]["state"] == "SUCCEEDED"
    [hit] = lines(dev.memoro("search", "Who is employed at TechCorp?", "--user", user, "--json"))
    assert hit["memory"]["id"] == added["memory"]["id"]
    assert "—WORKS_AT→ TechCorp" in dev.memoro("graph", "walk", "Anna Keller", "--user", user)
    assert "Anna Keller" in dev.memoro("graph", "entities", "--user", user)
    updates = lines(dev.memoro("jobs", "watch", added["job"]["id"], "--json"))
    assert updates[-1]["state"] == "SUCCEEDED"
    assert added["job"]["id"] in dev.memoro("jobs", "list", "--user", user)
    dev.memoro("memories", "delete", added["memory"]["id"])
    assert dev.memoro("memories", "list", "--user", user, "--json") == ""


def test_errors_and_their_exit_codes(dev: Dev) -> None:
    unknown = str(uuid.uuid4())
    assert dev.memoro("jobs", "get", unknown, code=1) == f"error: no job {unknown} in this tenant (JOB_NOT_FOUND)\n"
    assert "INVALID_FIELD" in dev.memoro("jobs", "get", "no-id", code=1)
    assert "SCOPE_MISSING" in dev.memoro("admin", "tenants", "list", code=1)
    assert "CREDENTIALS_INVALID" in dev.memoro("jobs", "list", code=1, api_key="memoro_x")
    assert "Missing option" in dev.memoro("add", "x", code=2)


def test_administration(dev: Dev) -> None:
    name = f"cli-{uuid.uuid4().hex[:8]}"

    def admin(*arguments: str) -> str:
        return dev.memoro("admin", *arguments, api_key=dev.admin_key)

    [tenant] = lines(admin("tenants", "create", name, "--tier", "pro", "--json"))
    assert name in admin("tenants", "list")
    [key] = lines(admin("keys", "create", tenant["id"], "--scope", "read", "--json"))
    assert dev.memoro("memories", "list", "--json", api_key=key["secret"]) == ""
    [rotated] = lines(admin("keys", "rotate", tenant["id"], key["api_key"]["id"], "--json"))
    assert rotated["replaced"]["expire_time"] is not None
    assert rotated["secret"] != key["secret"]
    [revoked] = lines(admin("keys", "revoke", tenant["id"], key["api_key"]["id"], "--json"))
    assert revoked["revoke_time"]


def test_workers_and_queues(dev: Dev) -> None:
    def admin(*arguments: str) -> list[Any]:
        return lines(dev.memoro("admin", *arguments, "--json", api_key=dev.admin_key))

    # A worker that has just started gives its first sign of life within seconds.
    deadline = time.monotonic() + 30
    while not (status := admin("workers")[0])["workers"] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert status["workers"]
    assert all(worker["concurrency"] >= 1 and worker["start_time"] for worker in status["workers"])
    assert {queue["name"] for queue in status["queues"]} >= {"free", "pro", "enterprise"}
    paused = admin("pause", "enterprise")
    assert [queue["name"] for queue in paused if queue["pause_time"]] == ["enterprise"]
    assert not any(queue["pause_time"] for queue in admin("resume", "enterprise"))
    assert "enterprise" in dev.memoro("admin", "workers", api_key=dev.admin_key)
    assert admin("clear", "enterprise", "--yes") == [{"cancelled": 0, "more": False}]
    unknown = str(uuid.uuid4())
    assert admin("requeue", "--tenant", unknown) == [{"requeued": 0, "skipped": 0, "more": False}]
    assert admin("trigger", "--tenant", unknown) == [{"released": 0, "due": 0}]
    assert "SCOPE_MISSING" in dev.memoro("admin", "workers", code=1)


def test_a_watch_of_all_jobs_until_ctrl_c(dev: Dev) -> None:
    user = f"cli-{uuid.uuid4().hex[:8]}"
    command = [sys.executable, "-m", "memoro.cli", "jobs", "watch", "--user", user, "--json"]
    added: list[Any] = []
    seen: list[Any] = []
    with subprocess.Popen(command, env=dev.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = process.stdout
        limit = threading.Timer(90, process.kill)
        limit.start()
        reading = threading.Thread(target=lambda: seen.extend(json.loads(line) for line in told))
        reading.start()
        # It may come too late for the first job, but not for all of them.
        while not any(update["state"] == "SUCCEEDED" for update in seen) and process.poll() is None:
            added += lines(dev.memoro("add", "Anna Keller works at TechCorp.", "--user", user, "--wait", "--json"))
        process.send_signal(signal.SIGINT)
        process.wait()
        reading.join()
        limit.cancel()
    assert process.returncode == 130
    jobs = [one["job"]["id"] for one in added]
    assert {update["job_id"] for update in seen} <= set(jobs)
    refused = dev.memoro("jobs", "retry", jobs[0], code=1)
    assert "JOB_NOT_RETRYABLE" in refused


def test_the_demonstration_on_a_deployment_that_runs(dev: Dev) -> None:
    shown = dev.memoro("demo", "--endpoint", dev.endpoint)
    assert "Everything as it should be." in shown
    assert all(f"{stage} succeeded 1/1" in " ".join(shown.split()) for stage in ("embed", "extract", "commit"))
    steps = lines(dev.memoro("demo", "--endpoint", dev.endpoint, "--json"))
    assert [step["step"] for step in steps if step["step"] != "progress"] == [
        *("connected", "prices", "added", "graph", "conversation", "search", "walk", "balance", "done")
    ]
    stages = {
        step["update"]["stage"]["stage"] for step in steps if step["step"] == "progress" and step["update"]["stage"]
    }
    assert stages == {"SCREEN", "EMBED", "EXTRACT", "RESOLVE", "COMMIT"}


def test_the_demonstration_fails_aloud(dev: Dev) -> None:
    assert "CREDENTIALS_INVALID" in dev.memoro("demo", "--endpoint", dev.endpoint, code=1, api_key="memoro_x")


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_data_dir() as made:
        yield made


def demonstration(folder: Path) -> subprocess.Popen[str]:
    """`memoro demo` with `folder` for its temporary files."""
    return subprocess.Popen(
        [sys.executable, "-m", "memoro.cli", "demo", "--json"],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_behind(folder: Path) -> list[str]:
    """Processes that have to do with the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            if str(folder) in command or str(folder) in process.environ().get("TMPDIR", ""):
                found.append(command)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demonstration_from_nothing_leaves_nothing(folder: Path) -> None:
    process = demonstration(folder)
    told, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    steps = {step["step"]: step for step in lines(told)}
    assert lines(told)[-1] == steps["done"]
    # What can't be paid is refused; what may be needed is set aside; what was needed is taken, and the rest given back.
    bound = steps["prices"]["estimate"]["amount"]
    assert (steps["refused"]["need"], steps["refused"]["have"]) == (bound, 0)
    given = steps["credits"]["added"]["balance"]["available"]
    assert (steps["held"]["balance"]["held"], steps["held"]["balance"]["available"]) == (bound, given - bound)
    charged = steps["settled"]["charged"]
    assert 0 < charged <= bound
    assert [entry["kind"] for entry in steps["settled"]["ledger"]] == ["SETTLEMENT", "HOLD", "GRANT"]
    assert steps["settled"]["balance"]["available"] == given - charged
    assert steps["settled"]["verified"]["valid"]
    assert steps["balance"]["balance"]["held"] == 0
    assert left_behind(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_demonstration_that_is_ended_leaves_nothing(folder: Path) -> None:
    process = demonstration(folder)
    assert process.stdout is not None
    assert "connected" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=80)
    assert process.returncode == 128 + signal.SIGTERM
    deadline = time.monotonic() + 5
    while left_behind(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_behind(folder) == []
    assert list(folder.iterdir()) == []
