"""`memoro dev` with stubs for its children: `python run_stub_dev.py DATA_DIR PORT OPS_PORT STUB_DIR [SERVER...]`."""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path

from memoro_core.embedded.dev import DevKeys, DevOptions, run_dev
from memoro_core.settings import Settings

STUB = str(Path(__file__).with_name("stub_service.py"))


async def provision(settings: Settings, stored: DevKeys | None) -> DevKeys:
    return stored or DevKeys(api_key=secrets.token_hex(8), admin_key=secrets.token_hex(8))


def main() -> int:
    data_dir, port, ops_port, stubs, *server = sys.argv[1:]
    options = DevOptions(
        data_dir=Path(data_dir),
        port=int(port),
        ops_port=int(ops_port),
        worker_ops_port=0,
        server_command=tuple(server) or (sys.executable, STUB, "server", stubs),
        worker_command=(sys.executable, STUB, "worker", stubs),
    )
    return asyncio.run(run_dev(options, provision))


if __name__ == "__main__":
    sys.exit(main())
