"""The examples, run as their readers run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from memoro import Client, JobState
from tests.support.dev import Dev

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"


def test_quickstart(dev: Dev) -> None:
    told = dev.run(sys.executable, str(EXAMPLES / "quickstart.py"))
    assert "embed: succeeded" in told
    assert "John Doe WORKS_AT TechCorp" in told.splitlines()


def test_quickstart_tells_in_one_line_what_is_wrong(dev: Dev) -> None:
    told = dev.run(sys.executable, str(EXAMPLES / "quickstart.py"), code=1, environment={"MEMORO_API_KEY": "memoro_x"})
    assert told.startswith("error: ")
    assert "CREDENTIALS_INVALID" in told


def test_blocking_client(dev: Dev) -> None:
    told = dev.run(sys.executable, str(EXAMPLES / "sync_client.py"))
    assert told.startswith("24 messages, ")
    assert "walnuts" in told.lower()
    assert "Porto" in told
    assert "Thursdays at seven" in told
    assert "MEMORY_NOT_FOUND" in told


def test_following_all_jobs_goes_on_after_a_restart(dev: Dev, tmp_path: Path) -> None:
    place = tmp_path / "place"

    def followed(job_id: str) -> list[str]:
        """What the example tells, until it has told of the end of that job."""
        command = [sys.executable, str(EXAMPLES / "follow_jobs.py"), str(place)]
        with subprocess.Popen(command, env=dev.environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            # Ends it also when it does not tell what it should.
            limit = threading.Timer(60, process.kill)
            limit.start()
            told = []
            for line in process.stdout:
                told.append(line.strip())
                if told[-1] == f"{job_id} succeeded":
                    break
            process.send_signal(signal.SIGINT)
            process.wait()
            limit.cancel()
        assert process.returncode == 0, told
        return told

    with Client(dev.endpoint, api_key=dev.api_key) as client:
        # It is there before there is anything to tell.
        with client.jobs.watch_all() as watch:
            first = client.memories.create(user_id="follow", text="Ann moved to Lyon.").job
            for update in watch:
                place.write_text(watch.resume_token)
                if (update.job_id, update.state) == (first.id, JobState.QUEUED):
                    break
        first.result(timeout=60)
        assert followed(first.id)[-1] == f"{first.id} succeeded"
        # What happens while nobody follows is told afterwards, and what was told is not told again.
        second = client.memories.create(user_id="follow", text="Ann plays the cello.").job
        second.result(timeout=60)
        told = followed(second.id)
    assert [line for line in told if second.id in line] == [
        *(f"{second.id} {state}" for state in ("queued", "running", "succeeded"))
    ]
    assert f"{first.id} running" not in told


def test_the_conversation_is_one_file(dev: Dev) -> None:
    assert (EXAMPLES / "conversation.json").resolve() == ROOT / "client/memoro/cli/conversation.json"


@pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="Node.js is not here")
def test_node(dev: Dev, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    shutil.copytree(EXAMPLES / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    installed = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    if installed.returncode != 0:
        pytest.skip(f"the packages can't be had: {installed.stderr[-300:]}")
    protos = {"MEMORO_PROTOS": str(ROOT / "protos")}
    told = dev.run("node", str(folder / "client.js"), environment=protos)
    assert "STAGE_EMBED: STAGE_STATUS_SUCCEEDED" in told
    assert "JOB_STATE_SUCCEEDED" in told
    assert "iPhone 15" in told.splitlines()[-1]
    refused = dev.run("node", str(folder / "client.js"), code=1, environment={**protos, "MEMORO_API_KEY": "x"})
    assert refused.startswith("error: 16 UNAUTHENTICATED")


def test_grpcurl_session(dev: Dev, tmp_path: Path) -> None:
    """Every command of the page, by the shell, with grpcurl itself or else a generic client over reflection."""
    folder = tmp_path / "bin"
    folder.mkdir()
    if shutil.which("grpcurl") is None:
        shim = folder / "grpcurl"
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tests/support/grpcurl.py" "$@"\n')
        shim.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "ENDPOINT": dev.endpoint,
        "KEY": dev.api_key,
        "ADMIN_KEY": dev.admin_key,
    }
    text = (EXAMPLES / "grpcurl.md").read_text("utf-8")
    answers: list[list[Any]] = []
    blocks = r"^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?"
    for block, shown in re.findall(blocks, text, re.MULTILINE | re.DOTALL):
        parts = re.split(r"^(?=grpcurl )", re.sub(r"^export .*\n", "", block, flags=re.MULTILINE), flags=re.MULTILINE)
        commands = [part for part in parts if part]
        for number, command in enumerate(commands, 1):
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            # What the page shows is the answer to the last of them.
            expected = shown if number == len(commands) else ""
            assert done.returncode == (64 + 8 if "ResourceExhausted" in expected else 0), command + done.stderr
            assert _words(expected) <= _words(done.stdout + done.stderr), command + done.stdout + done.stderr
            documents = _documents(done.stdout)
            answers.append(documents)
            # What the page tells its reader to take from the answer.
            for document in documents:
                for kind in ("memory", "job", "tenant"):
                    if kind in document:
                        environment[f"{kind.upper()}_ID"] = document[kind]["id"]
                if "secret" in document:
                    environment["TENANT_KEY"] = document["secret"]
    (listed, described, health, created, watched, got, *_) = answers
    assert listed == described == []
    assert health == [{"status": "SERVING"}]
    assert watched[-1]["update"]["state"] == "JOB_STATE_SUCCEEDED"
    assert got[0]["memory"]["metadata"] == {"source": "grpcurl", "shown": True}
    assert created[0]["memory"]["id"] == got[0]["memory"]["id"]
    searched = next(one for documents in answers for one in documents if "hits" in one)
    assert "peanuts" in searched["hits"][0]["memory"]["text"]
    walked = next(one for documents in answers for one in documents if "edges" in one)
    assert "WORKS_AT" in {edge["predicate"] for edge in walked["edges"]}
    tenant = next(one for documents in reversed(answers) for one in documents if "tenant" in one)
    assert "limits" not in tenant["tenant"]


def _words(text: str) -> set[str]:
    """The names of trailers and all strings of JSON, without their numbers and however names are written."""
    words = re.findall(r"^[a-z][a-z-]+(?=: )|\"[^\"]*\"", text, re.MULTILINE)
    return {re.sub(r"[_.0-9]", "", word).lower() for word in words} - {"content-type"}


def _documents(text: str) -> list[Any]:
    """The JSON documents in a text, one after another; none in what is not JSON."""
    decoder = json.JSONDecoder()
    documents = []
    rest = text.strip()
    while rest.startswith("{"):
        document, end = decoder.raw_decode(rest)
        documents.append(document)
        rest = rest[end:].strip()
    return documents
