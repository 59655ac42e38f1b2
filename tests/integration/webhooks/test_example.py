"""The receiver that the documents show does what they say."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from pathlib import Path

from memoro_core.outbound.sender import open_sender
from memoro_core.webhooks.secrets import new_secret
from tests.integration.webhooks.conftest import Delivering, Webhooks
from tests.support.jobs import until

DOCUMENT = Path(__file__).parents[3] / "docs" / "webhooks.md"


async def test_the_receiver_of_the_documents(webhooks: Webhooks, delivering: Delivering, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    endpoint, secret = await webhooks.service.create(webhooks.domain.tenant, f"http://127.0.0.1:{port}/", (), "")
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    program = tmp_path / "receiver.py"
    program.write_text(code.replace("whsec_…", secret).replace("8000", str(port)))
    assert secret in program.read_text()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        await until(lambda: _listens(port))
        await webhooks.ended_job()
        async with delivering():
            assert (await asyncio.wait_for(process.stdout.readline(), 20)).startswith(b"job.succeeded {")
            await until(lambda: _answered(webhooks, 204))
        forged = {"webhook-id": "e", "webhook-timestamp": "0", "webhook-signature": f"v1,{new_secret()[6:]}"}
        async with open_sender(allow_private=True) as sender:
            assert (await sender.post(endpoint.url, forged, b"{}")).status == 401
    finally:
        process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def _answered(webhooks: Webhooks, status: int) -> bool:
    return [one.response_status for one in await webhooks.deliveries()] == [status]
