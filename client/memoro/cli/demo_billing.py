"""The demonstration's money: what things cost, what is set aside while a job waits, and what is taken when it ends."""

from __future__ import annotations

import time

from rich.markup import escape

from memoro.cli.amounts import in_words
from memoro.cli.billing_tables import show_balance, show_ledger, show_price_table
from memoro.cli.output import Output, describe
from memoro.enums import AiOperation
from memoro.errors import InsufficientCredits, PermissionDenied
from memoro.sync_client import Client, JobHandle
from memoro.types import Estimate

CREDITS = 100_000_000
FEE = 1_000
_TOKEN_PRICES = {AiOperation.EMBED: (20_000, 0), AiOperation.EXTRACT: (150_000, 600_000)}
"""In micro-dollars for a million tokens, as a provider may charge."""

_EVERYWHERE = 2.0
"""Seconds after which a new price holds, and a queue is paused, in every process."""
_PATIENCE = 20.0


class Paying:
    """Shows what the demonstration costs. With `operator`, the deployment is its own, and it sees to real prices."""

    def __init__(self, client: Client, operator: Client | None, output: Output, user: str) -> None:
        self._client = client
        self._operator = operator
        self._output = output
        self._user = user

    def prepare(self, text: str) -> list[str]:
        """Shows what a text costs; on a deployment of its own also that nothing is done without credits, and gets some.

        Returns what is not as it should be.
        """
        estimate = self._client.billing.estimate(text) if self._operator is None else self._priced(text)
        used = {(line.provider, line.model, line.operation) for line in estimate.lines}
        listed = self._client.billing.prices()
        prices = [one for one in listed.prices if (one.provider, one.model, one.operation) in used]
        self._output.json_line({"step": "prices", "prices": prices, "estimate": estimate})
        if not self._output.as_json:
            show_price_table(self._output, prices, brief=True)
            self._output.say(f"\nA text of {len(text)} characters costs at most {in_words(estimate.amount)}.")
        if self._operator is None:
            return []
        return [*self._refused(text), *self._add_credits(self._operator)]

    def hold(self, job: JobHandle) -> list[str]:
        """Shows what is set aside for the job that waits, and lets it run."""
        if self._operator is None:
            return []
        balance = self._client.billing.balance()
        self._output.json_line({"step": "held", "balance": balance})
        if not self._output.as_json:
            held, available = in_words(balance.held), in_words(balance.available)
            self._output.say(f"While the job waits, {held} are held for it, and {available} are available.\n")
        self._operator.admin.resume_queue()
        bound = job.latest.cost_bound if job.latest else 0
        return [] if 0 < bound == balance.held else [f"{in_words(bound)} held, but {in_words(balance.held)}"]

    def settle(self, job: JobHandle) -> list[str]:
        """Shows what was taken for the job that has ended, and checks it."""
        if self._operator is None:
            return []
        entries = list(self._client.billing.ledger())
        balance = self._client.billing.balance()
        proof = self._operator.admin.verify_ledger(balance.tenant_id)
        charged = job.latest.usage.charged if job.latest else 0
        self._output.json_line(
            {"step": "settled", "charged": charged, "ledger": entries, "balance": balance, "verified": proof}
        )
        if not self._output.as_json:
            self._output.say(f"\nIt has cost {in_words(charged)}; the rest was given back. The ledger, newest first:\n")
            show_ledger(self._output, entries, brief=True)
        missing = []
        if not 0 < charged == balance.spent:
            missing.append(f"a charge: the job says {in_words(charged)}, the balance {in_words(balance.spent)}")
        if balance.held or balance.available != balance.granted - charged:
            missing.append("the rest of what was set aside")
        if not (proof.valid and proof.complete):
            missing.append(f"a sound ledger: {proof.problem}")
        return missing

    def close(self) -> None:
        """Shows what is left, to a key that may see it."""
        try:
            balance = self._client.billing.balance()
        except PermissionDenied:
            self._output.say("This key may not see the balance.")
            return
        self._output.json_line({"step": "balance", "balance": balance})
        if not self._output.as_json:
            show_balance(self._output, balance)

    def _priced(self, text: str) -> Estimate:
        """Sets prices on what is free, holds back jobs, and waits until both are known everywhere."""
        operator = self._operator
        assert operator is not None, "prices are set on a deployment of its own alone"
        operator.admin.pause_queue()
        for line in self._client.billing.estimate(text).lines:
            tokens_in, tokens_out = _TOKEN_PRICES.get(line.operation, (0, 0))
            operator.admin.set_price(
                line.provider, line.model, line.operation, input_price=tokens_in, output_price=tokens_out, fee=FEE
            )
        time.sleep(_EVERYWHERE)
        deadline = time.monotonic() + _PATIENCE
        while True:
            estimate = self._client.billing.estimate(text)
            if estimate.amount or time.monotonic() > deadline:
                return estimate
            time.sleep(_EVERYWHERE / 10)

    def _refused(self, text: str) -> list[str]:
        try:
            self._client.memories.create(user_id=self._user, text=text)
        except InsufficientCredits as error:
            self._output.json_line({"step": "refused", "need": error.need, "have": error.have})
            self._output.say(f"\nWithout credits it is refused: {escape(describe(error))}")
            return []
        return ["a refusal of what can't be paid"]

    def _add_credits(self, operator: Client) -> list[str]:
        tenant_id = self._client.billing.balance().tenant_id
        added = operator.billing.add_credits(tenant_id, CREDITS, note="for the demonstration")
        self._output.json_line({"step": "credits", "added": added})
        self._output.say(f"\nSo an operator gives {in_words(added.grant.amount)}.")
        return [] if added.balance.available == CREDITS else [f"{in_words(CREDITS)} after they were given"]
