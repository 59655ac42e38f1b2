"""What a decision of the limiter adds to a bare echo call; and whether limits hold over four processes.

First: the processor time that the server's process spends on a call, with a decision in front of it that is paid from
leases, against the same echo without one. Then: a million decisions about one hot tenant by four processes, while its
policy changes twice and Redis is killed and started again; a checker of the log looks for a window of time, of any
length, in which more was admitted than burst and rate allow. It passes if both do.
"""

from __future__ import annotations

import argparse
import asyncio
from statistics import median
from typing import Final

import psutil

from benchmarks.add import burst
from benchmarks.deployment import open_deployment, running
from benchmarks.limit_run import Outcome, run
from benchmarks.report import Result, publish, table
from memoro_core.embedded.ports import free_port

TARGET: Final = 1.03
PROCESSES: Final = 4


async def main(rounds: int = 9, seconds: float = 2.0, calls: int = 1_000_000, pause: float = 0.001) -> Result:
    """Interleaves bursts on the echo and on the echo with a limiter; then the run of many processes."""
    async with open_deployment() as deployment:
        ports = free_port(), free_port()
        async with (
            running("benchmarks.echo_server", str(ports[0])) as echo,
            running("benchmarks.limits_server", str(ports[1]), environment=deployment.environment) as limited,
            running("benchmarks.keep_awake"),
        ):
            servers = {"echo": (echo, ports[0]), "with a decision": (limited, ports[1])}
            for process, port in servers.values():
                await _cost(process, port, 1.0)
            costs: dict[str, list[float]] = {name: [] for name in servers}
            for number in range(rounds):
                for name in sorted(servers, reverse=bool(number % 2)):
                    costs[name].append(await _cost(*servers[name], seconds))
        outcome = await run(deployment.stack, calls=calls, processes=PROCESSES, pause=pause)
    value, floor = median(costs["with a decision"]), median(costs["echo"])
    # Each round's own ratio: what the machine does meanwhile concerns both.
    ratio = median(one / other for one, other in zip(costs["with a decision"], costs["echo"], strict=True))
    rows = [(name, f"{median(one):.1f}", f"{min(one):.1f}", f"{max(one):.1f}") for name, one in costs.items()]
    print(table("Processor time of a call in microseconds", ("", "median", "least", "most"), rows))
    print(_table(outcome))
    held = not outcome.failures and outcome.found.clean <= 0 and outcome.found.with_outage <= 0
    return Result("limits", value, floor, ratio, TARGET, ratio <= TARGET and held)


async def _cost(process: psutil.Process, port: int, seconds: float) -> float:
    """Microseconds of processor time a call."""
    return 1e6 / (await burst(process, f"127.0.0.1:{port}", "", seconds, 64)).per_core_second


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
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--pause", type=float, default=0.001)
    options = parser.parse_args()
    publish(asyncio.run(main(options.rounds, options.seconds, options.calls, options.pause)))
