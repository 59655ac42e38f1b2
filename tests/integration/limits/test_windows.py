"""Limits over four processes, through two changes of policy and a restart of Redis, by the checker of logs."""

from __future__ import annotations

from benchmarks.limit_log import Entry, Reign, check
from benchmarks.limit_run import run
from memoro_core.limits.bucket import SECOND
from memoro_core.limits.model import Rate
from tests.support.stacks import StackFactory

EVER = 1 << 62


async def test_no_window_has_more_than_its_limit_allows(stack_factory: StackFactory) -> None:
    outcome = await run(await stack_factory(), calls=40_000, processes=4, pause=0.004)
    assert outcome.failures == 0
    assert outcome.calls == 40_000
    assert outcome.admitted > 20_000
    assert min(outcome.decided.values()) > 0
    assert outcome.found.clean <= 0
    assert outcome.found.with_outage <= 0


def test_the_checker_finds_the_worst_window() -> None:
    small, large = Rate(60, 5), Rate(120, 8)
    entries = [Entry(0, 5), Entry(SECOND, 1), Entry(2 * SECOND, 1)]
    reigns = [Reign(small, 0, EVER)]
    assert check(entries, reigns, []).clean == 0
    assert check([*entries, Entry(2 * SECOND + 1, 1)], reigns, []).clean > 0.9
    # One burst more where Redis was away, and no more than that.
    again = [*entries, Entry(3 * SECOND, 6)]
    assert check(again, reigns, []).clean == 5
    assert check(again, reigns, [(2 * SECOND + 1, 3 * SECOND - 1)]).clean <= 1
    assert check(again, reigns, []).with_outage <= 0
    assert check([*again, Entry(3 * SECOND, 6)], reigns, []).with_outage > 0
    # At a change the larger burst counts, and only the smaller one when it is over.
    changing = [Reign(large, 0, 2 * SECOND), Reign(small, SECOND, EVER)]
    assert check([Entry(0, 8), Entry(SECOND + 1, 2)], changing, []).clean <= 0
    assert check([Entry(0, 8), Entry(SECOND + 1, 3)], changing, []).clean > 0
    assert check([Entry(3 * SECOND, 6)], changing, []).clean == 1
