"""Faults drawn like cards, one after the other, while callers go on adding; those of one tenant beyond its hours.

Prints a line per fault and at the end what is not as it should be; exits with 1 if there is anything. The same seed
draws the same faults and pauses.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

from tests.support.chaos import Deployment, Owner, open_deployment
from tests.support.chaos_checks import violations
from tests.support.chaos_faults import FAULTS, Fault
from tests.support.chaos_load import Load
from tests.support.passing_time import HOUR, PassingTime, limited
from tests.support.stacks import temporary_data_dir, temporary_stack

TENANTS = 2
WORKERS = 3
LONGEST_PAUSE = 5.0
ADD_EVERY = 0.2
"""Seconds between two adds of a tenant: together less than what is left of the workers can do."""
ENDS_WITHIN = 180.0
PER_HOUR = 3
"""For how many jobs of a user entities and facts are found in an hour, in one of the tenants."""
HOURS_PASS_AFTER = (2.0, 6.0)
"""Seconds between two hours of that tenant: so many that what is added in one is about what one lets through."""


@dataclass
class Endurance:
    """One run."""

    deployment: Deployment
    loads: Sequence[Load]
    hours: PassingTime
    started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """A line with the seconds since the start."""
        print(f"{time.monotonic() - self.started:7.1f}  {text}", flush=True)

    async def run(self, seconds: float) -> bool:
        """Whether all was well."""
        lots = self.deployment.random
        async with self.hours.passing(Random(lots.getrandbits(64)), HOURS_PASS_AFTER):
            faults, found = await self._strike(seconds)
            await self.deployment.restore(workers=WORKERS)
            for load in self.loads:
                try:
                    await self.deployment.wait_until_ended(load, seconds=ENDS_WITHIN)
                except AssertionError as error:
                    found.append(str(error))
        for load in self.loads:
            found += await violations(self.deployment, load, crashed=True)
        await self.hours.let_pass(timedelta())
        found += self.hours.violations()
        for one in found:
            self.say(one)
        repeated = sum(load.repeated for load in self.loads)
        self.say(f"{faults} faults, {await self._progress()}, {repeated} calls repeated, {len(found)} violations")
        return not found

    async def _strike(self, seconds: float) -> tuple[int, list[str]]:
        """How many faults there were, and which of them did not come back."""
        lots = self.deployment.random
        faults = 0
        found: list[str] = []
        async with AsyncExitStack() as adding:
            for load in self.loads:
                await adding.enter_async_context(load.adding(pause=ADD_EVERY))
            deck: list[Fault] = []
            while time.monotonic() - self.started < seconds:
                # All have had their turn before one comes back.
                deck = deck or lots.sample(FAULTS, len(FAULTS))
                fault = deck.pop()
                faults += 1
                try:
                    hit = await fault.strike(self.deployment)
                except TimeoutError as error:
                    found.append(f"after {fault} something did not come back: {traceback.format_exception(error)}")
                    await self.deployment.restore(workers=WORKERS)
                    hit = "did not come back"
                self.say(f"{fault}: {hit}; {await self._progress()}")
                await asyncio.sleep(lots.uniform(0, LONGEST_PAUSE))
        return faults, found

    async def _progress(self) -> str:
        accepted = sum(len(load.accepted) for load in self.loads)
        ended = sum([await self.deployment.ended(load) for load in self.loads])
        return f"{accepted} jobs accepted, {ended} ended, {self.hours.passed // HOUR} hours"


async def endure(seconds: float, seed: int) -> bool:
    """Whether a deployment of its own endures so many seconds of faults."""
    async with AsyncExitStack() as opened:
        stack = await opened.enter_async_context(temporary_stack(durable=True))
        folder = opened.enter_context(temporary_data_dir())
        deployment = await opened.enter_async_context(open_deployment(stack, folder))
        deployment.random.seed(seed)
        await deployment.restore(workers=WORKERS)
        loads = [await opened.enter_async_context(deployment.load()) for _ in range(TENANTS)]
        # A connection of its own: it goes on while the others are asked something.
        owner = Owner(stack.owner_url)
        opened.push_async_callback(owner.close)
        hours = await limited(owner, loads[-1].tenant_id, PER_HOUR)
        return await Endurance(deployment, loads, hours).run(seconds)


def main() -> int:
    """The exit code: 0 when all was well, 1 when not."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.endurance", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="how long faults go on")
    parser.add_argument("--seed", type=int, help="draw the same lots as a run before")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    well = asyncio.run(endure(options.seconds, seed))
    print(f"{'all was well' if well else 'NOT all was well'}: seed {seed}", flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
