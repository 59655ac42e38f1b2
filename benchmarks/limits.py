"""What a decision of the limiter adds to a bare echo call; and whether limits hold over four processes.

First: the processor time that the server's process spends on a call, with a decision in front of it that is paid from
leases, against the same echo without one in the same process. Then: a million decisions about one hot tenant by four
processes, while its policy changes twice and Redis is killed and started again; a checker of the log looks for a window
of time, of any length, in which more was admitted than burst and rate allow. It passes if both do.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Final

from benchmarks.deployment import open_deployment, running
from benchmarks.limit_run import Outcome, run
from benchmarks.limits_server import BARE, LIMITED
from benchmarks.report import Result, publish, table
from benchmarks.turns import Target, middle, take_turns
from memoro_core.embedded.ports import free_port

TARGET: Final = 1.03
PROCESSES: Final = 4


async def main(turns: int = 50, seconds: float = 1.0, calls: int = 1_000_000, pause: float = 0.001) -> Result:
    """Turns of the echo and of the echo with a limiter; then the run of many processes."""
    async with open_deployment() as deployment:
        port = free_port()
        async with (
            running("benchmarks.limits_server", str(port), environment=deployment.environment) as server,
            running("benchmarks.keep_awake"),
        ):
            targets = {method: Target(f"127.0.0.1:{port}", method, server.pid) for method in (BARE, LIMITED)}
            costs = await take_turns(targets, turns=turns, seconds=seconds)
        rows = [(name, f"{middle(one):.1f}", f"{min(one):.1f}", f"{max(one):.1f}") for name, one in costs.items()]
        print(table("Processor time of a call in microseconds", ("", "middle half", "least", "most"), rows), flush=True)
        outcome = await run(deployment.stack, calls=calls, processes=PROCESSES, pause=pause)
    value, floor = middle(costs[LIMITED]), middle(costs[BARE])
    ratio = value / floor
    print(_table(outcome))
    held = not outcome.failures and outcome.found.clean <= 0 and outcome.found.with_outage <= 0
    return Result("limits", value, floor, ratio, TARGET, ratio <= TARGET and held)


def _table(outcome: Outcome) -> str:
    return table(
        f"Limits over {PROCESSES} processes",
        (
            "calls",
            "from leases",
            "by Redis",
            "alone",
            "failed",
            "weight admitted",
            "seconds",
            "seconds alone, the restart apart",
            "above the limit",
            "the same with the restart",
        ),
        [
            (
                f"{outcome.calls}",
                *(f"{outcome.decided[kind]}" for kind in ("leased", "shared", "local")),
                f"{outcome.failures}",
                f"{outcome.admitted}",
                f"{outcome.seconds:.1f}",
                f"{outcome.alone:.1f}",
                f"{max(0.0, outcome.found.clean):.1f}",
                f"{max(0.0, outcome.found.with_outage):.1f}",
            )
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--pause", type=float, default=0.001)
    options = parser.parse_args()
    publish(asyncio.run(main(options.turns, options.seconds, options.calls, options.pause)))
