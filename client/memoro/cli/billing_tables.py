"""Balances, ledgers, prices and budgets: tables for people, or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from memoro.cli.amounts import change, dollars_of_price, in_words, percent
from memoro.cli.output import Column, Output
from memoro.enums import LedgerAccount
from memoro.money import format_credits, format_dollars, format_nano_dollars
from memoro.types import AiCosts, Balance, Estimate, LedgerEntry, Price, PriceList, SpendBreaker, Usage


def _credits(name: str) -> Column:
    return lambda value: format_credits(getattr(value, name))


def _price(name: str) -> Column:
    return lambda value: dollars_of_price(getattr(value, name))


def _moved(account: LedgerAccount) -> Column:
    return lambda entry: change(entry.postings.get(account, 0))


def _cost(value: Any) -> str:
    return format_nano_dollars(value.cost_nano_dollars)


def _brief(columns: Mapping[Column, str]) -> dict[Column, str]:
    return {column: heading for column, heading in columns.items() if heading not in {"when", "job", "from"}}


@dataclass(frozen=True, slots=True)
class _Sum:
    name: str
    amount: int


_SUM: dict[Column, str] = {
    "name": "",
    _credits("amount"): "credits",
    lambda line: format_dollars(line.amount): "dollars",
}
_GRANT: dict[Column, str] = {
    "id": "id",
    _credits("remaining"): "credits left",
    _credits("amount"): "of",
    "priority": "priority",
    "expire_time": "expires",
    "create_time": "given",
    "note": "note",
}
_ENTRY: dict[Column, str] = {
    "sequence": "#",
    "create_time": "when",
    "kind": "kind",
    _moved(LedgerAccount.AVAILABLE): "available",
    _moved(LedgerAccount.HELD): "held",
    _credits("available_after"): "available after",
    _credits("held_after"): "held after",
    "job_id": "job",
    "note": "note",
}
_PRICE: dict[Column, str] = {
    "provider": "provider",
    "model": "model",
    "operation": "operation",
    _price("input_price"): "1M tokens in",
    _price("output_price"): "1M tokens out",
    _credits("fee"): "credits per text",
    "valid_from": "from",
}
_MODEL: dict[Column, str] = {"operation": "operation", "provider": "provider", "model": "model"}
_TOKENS: dict[Column, str] = {
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
    _cost: "provider's cost",
}
_USAGE: dict[Column, str] = {"day": "day", "user_id": "user", **_MODEL, "calls": "calls", "items": "texts", **_TOKENS}
_ESTIMATE: dict[Column, str] = {**_MODEL, "items": "texts", **_TOKENS}
_OPERATION: dict[Column, str] = {**_MODEL, "calls": "calls", **_TOKENS, "for_questions": "of searches"}
_CALL: dict[Column, str] = {
    "start_time": "began",
    "tenant_id": "tenant",
    "job_id": "job",
    "attempt": "attempt",
    "call": "call",
    **_MODEL,
    **_TOKENS,
    "presumed": "presumed",
}
_BREAKER: dict[Column, str] = {
    "scope": "budget of",
    "tenant_id": "tenant",
    "user_id": "user",
    "state": "state",
    _credits("limit"): "credits a day",
    _credits("reserved"): "reserved",
    _credits("spent"): "spent",
    lambda breaker: f"{breaker.percent_used:.1f} %": "used",
    "deferred_jobs": "deferred jobs",
    "open_time": "opened",
    "day_end_time": "day ends",
}


def show_balance(output: Output, balance: Balance) -> None:
    """What a tenant has, and its grants."""
    if output.as_json:
        output.json_line(balance)
        return
    names = ("available", "held", "granted", "spent", "expired", "refunded")
    lines = [_Sum(name, getattr(balance, name)) for name in names]
    if balance.low_balance:
        lines.append(_Sum("low below", balance.low_balance))
    output.records(lines, _SUM)
    if balance.grants:
        output.say()
        output.records(balance.grants, _GRANT)


def show_ledger(output: Output, entries: Iterable[LedgerEntry], *, brief: bool = False) -> None:
    """Entries of a ledger; in JSON a line each. `brief`: without their times and jobs."""
    output.records(entries, _brief(_ENTRY) if brief else _ENTRY, empty="no entries")


def show_usage(output: Output, usage: Usage) -> None:
    """What was used, and what it cost the tenant."""
    if output.as_json:
        output.json_line(usage)
        return
    output.records(usage.rows, _USAGE, empty="nothing was used")
    output.say(f"\ncharged: {in_words(usage.charged)}")


def show_estimate(output: Output, estimate: Estimate) -> None:
    """The most that a request may cost, and whether there is so much."""
    if output.as_json:
        output.json_line(estimate)
        return
    output.records(estimate.lines, _ESTIMATE, empty="nothing that costs")
    told = f"at most {in_words(estimate.amount)}, margin and fees included"
    short = "" if estimate.affordable else ", which is too little"
    output.say(f"\n{told}; {in_words(estimate.available)} are available{short}")


def show_prices(output: Output, listed: PriceList) -> None:
    """What models cost, and the margin."""
    if output.as_json:
        output.json_line(listed)
        return
    show_price_table(output, listed.prices)
    output.say(f"\nmargin on what providers charge: {percent(listed.margin_basis_points)}")


def show_price_table(output: Output, prices: Iterable[Price], *, brief: bool = False) -> None:
    """What models cost; in JSON a line each. `brief`: without since when."""
    output.records(prices, _brief(_PRICE) if brief else _PRICE, empty="no prices")


def show_breakers(output: Output, breakers: Iterable[SpendBreaker]) -> None:
    """Budgets and their breakers; in JSON a line each."""
    output.records(breakers, _BREAKER, empty="no daily budget")


def show_costs(output: Output, costs: AiCosts) -> None:
    """What a day has cost and brought the house."""
    if output.as_json:
        output.json_line(costs)
        return
    output.say(f"{costs.day}: the providers charge {format_nano_dollars(costs.cost_nano_dollars)}")
    sections: tuple[tuple[str, Iterable[Any], Mapping[Column, str]], ...] = (
        ("the budget", [costs.budget] if costs.budget else (), _BREAKER),
        ("by operation", costs.operations, _OPERATION),
        ("the latest calls", costs.recent_calls, _CALL),
        ("the house", [_Sum(account.lower(), amount) for account, amount in costs.house.items()], _SUM),
    )
    for heading, rows, columns in sections:
        if rows:
            output.say(f"\n[bold]{heading}[/]")
            output.records(rows, columns)
