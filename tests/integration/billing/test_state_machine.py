"""Money in PostgreSQL against a model in plain Python: whatever happens and breaks off, the two agree."""

from __future__ import annotations

import asyncio
import itertools
import os
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as profile
from hypothesis.stateful import run_state_machine_as_test

from memoro_core.postgres.database import open_database
from memoro_core.settings import Settings
from tests.support.credit_machine import CreditMachine

SEARCH = int(os.environ.get("HYPOTHESIS_EXAMPLES", "0"))
"""How many histories to try in a search for what is rare; one that fails is then cut down to what matters."""
START = datetime(2100, 1, 1, 9, tzinfo=UTC)
"""Of the deployment's budget it matters what others hold on the same day."""


@pytest.mark.slow
@pytest.mark.timeout(0 if SEARCH else 180)
def test_no_cent_appears_or_disappears(settings: Settings, owner_database_url: str) -> None:
    starts = (START + timedelta(days=400 * number) for number in itertools.count())
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as loop:
        opened = open_database(settings)
        database = loop.run(opened.__aenter__())
        try:
            run_state_machine_as_test(
                cast(type[CreditMachine], lambda: CreditMachine(loop, database, owner_database_url, next(starts))),
                settings=profile(
                    max_examples=SEARCH or 20,
                    phases=set(Phase) if SEARCH else set(Phase) - {Phase.shrink, Phase.explain},
                    stateful_step_count=40,
                    deadline=None,
                    print_blob=True,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            loop.run(opened.__aexit__(None, None, None))
