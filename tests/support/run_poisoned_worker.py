"""A worker that kills itself whenever it begins with a job of the user `poison`."""

from __future__ import annotations

import os
import signal
import sys
from unittest.mock import patch

from memoro_core.jobs.model import JobEvent
from memoro_core.jobs.run_ports import RunContext
from memoro_core.memory.enrichment import EnrichmentHandler
from memoro_worker.__main__ import main

POISON = "poison"
POISONED_WORKER = __file__


class PoisonedHandler(EnrichmentHandler):
    """Enriches, except for what is deadly."""

    async def run(self, context: RunContext) -> JobEvent:
        if context.claim.job.user_id == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().run(context)


if __name__ == "__main__":
    with patch("memoro_core.container.jobs.EnrichmentHandler", PoisonedHandler):
        sys.exit(main([]))
