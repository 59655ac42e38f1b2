"""One line per event, whoever logs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys, uuid
import structlog
from memoro_core.logs import configure_logging
from memoro_core.settings import Settings

configure_logging(Settings(log_format=sys.argv[1]))
log = structlog.get_logger("memoro.test")
with structlog.contextvars.bound_contextvars(job_id="j-1"):
    log.info("done", identifier=uuid.UUID(int=7), text="caf\\u00e9")
log.debug("hidden")
logging.getLogger("some.library").warning("from %s", "elsewhere")
logging.getLogger("asyncio").info("chatter")
try:
    secret = "hunter2"
    raise ValueError("broken")
except ValueError:
    log.exception("failed")
"""


def lines(log_format: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, log_format], capture_output=True, check=True, encoding="utf-8"
    )
    assert run.stdout == ""
    return run.stderr.splitlines()


def test_json_lines_say_what_where_and_when() -> None:
    done, library, failed = (json.loads(line) for line in lines("json"))
    assert done["timestamp"].endswith("Z")
    del done["timestamp"]
    assert done == {
        "event": "done",
        "job_id": "j-1",
        "level": "info",
        "logger": "memoro.test",
        "identifier": "00000000-0000-0000-0000-000000000007",
        "text": "café",
    }
    assert (library["event"], library["logger"], library["level"]) == ("from elsewhere", "some.library", "warning")
    assert failed["exception"][0]["exc_type"] == "ValueError"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_local_variables_are_not_logged(log_format: str) -> None:
    text = "\n".join(lines(log_format))
    assert "failed" in text
    assert "hunter2" not in text.replace('secret = "hunter2"', "")
    assert "hidden" not in text
    assert "chatter" not in text
