"""`memoro billing`: what tenants have, have used and would pay, and giving them credits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from memoro.cli import spending
from memoro.cli.amounts import Credits, MicroCredits, amount, in_words
from memoro.cli.billing_tables import show_balance, show_estimate, show_ledger, show_prices, show_usage
from memoro.cli.conversation import read_conversation
from memoro.cli.options import RequestId, choices, day, moment
from memoro.cli.session import Session, connected
from memoro.enums import LedgerEntryKind, UsageDimension

app = typer.Typer(no_args_is_help=True, help="Shows what is paid from, used and charged; operators also set it.")
_OPERATORS = "For operators, whose key has the scope admin"

TenantId = Annotated[str, typer.Argument(help="The tenant's id.")]
OfTenant = Annotated[str, typer.Option("--tenant", help="Of the tenant of this id, for operators. Default: your own.")]
Note = Annotated[str, typer.Option(help="For people, e.g. the number of an invoice.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")]


@app.command("balance")
@connected
def balance(session: Session, *, tenant: OfTenant = "") -> None:
    """Shows what is available, what jobs hold, and where the rest has gone."""
    show_balance(session.output, session.client.billing.balance(tenant))


@app.command("ledger")
@connected
def ledger(
    session: Session,
    *,
    tenant: OfTenant = "",
    kind: Annotated[list[LedgerEntryKind] | None, choices(LedgerEntryKind, help="May be given again.")] = None,
    job: Annotated[str, typer.Option(help="Only what the job of this id caused.")] = "",
    since: Annotated[str | None, typer.Option(help="From this time on, in ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time, in ISO 8601.")] = None,
    limit: Limit = 50,
) -> None:
    """Lists what has moved money, newest first."""
    entries = session.client.billing.ledger(
        tenant,
        kinds=kind or (),
        job_id=job,
        created_from=moment(since) if since else None,
        created_until=moment(until) if until else None,
        limit=limit,
    )
    show_ledger(session.output, entries)


@app.command("usage")
@connected
def usage(
    session: Session,
    *,
    tenant: OfTenant = "",
    from_day: Annotated[
        str, typer.Option("--from", metavar="DATE", help="The first day. Default: 30 days before the last.")
    ] = "",
    to_day: Annotated[str, typer.Option("--to", metavar="DATE", help="The last day. Default: today.")] = "",
    user: Annotated[str, typer.Option("--user", "-u", help="Only of this user.")] = "",
    by: Annotated[
        list[UsageDimension] | None,
        choices(UsageDimension, help="What to sum up by; may be given again. Default: day, operation and model."),
    ] = None,
    limit: Limit = 500,
) -> None:
    """Sums up what was used, and what was charged for it."""
    used = session.client.billing.usage(
        tenant,
        from_day=day(from_day) if from_day else None,
        to_day=day(to_day) if to_day else None,
        user_id=user,
        group_by=by or (),
        limit=limit,
    )
    show_usage(session.output, used)


@app.command("estimate")
@connected
def estimate(
    session: Session,
    text: Annotated[str | None, typer.Argument(help="What would be added; - reads standard input.")] = None,
    *,
    conversation: Annotated[
        Path | None,
        typer.Option(help="A file with a conversation, instead of a text.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Tells the most that it may cost to add a text or a conversation, without adding it."""
    if conversation is not None:
        if text is not None:
            raise ValueError("--conversation does not go with TEXT")
        most = session.client.billing.estimate_conversation(read_conversation(conversation).messages)
    elif text is not None:
        most = session.client.billing.estimate(sys.stdin.read() if text == "-" else text)
    else:
        raise ValueError("give a TEXT or a --conversation")
    show_estimate(session.output, most)


@app.command("prices")
@connected
def prices(
    session: Session,
    *,
    provider: Annotated[str, typer.Option(help="Only of this provider.")] = "",
    model: Annotated[str, typer.Option(help="Only of this model.")] = "",
    all_times: Annotated[
        bool, typer.Option("--all", help="Also those that no longer hold, and those that do not hold yet.")
    ] = False,
    limit: Limit = 500,
) -> None:
    """Lists what models cost."""
    listed = session.client.billing.prices(provider=provider, model=model, all_times=all_times, limit=limit)
    show_prices(session.output, listed)


@app.command("add", rich_help_panel=_OPERATORS)
@connected
def add(
    session: Session,
    tenant_id: TenantId,
    *,
    credits: Credits = None,
    micro_credits: MicroCredits = None,
    priority: Annotated[int, typer.Option(min=0, max=100, help="The lowest is used up first.")] = 0,
    expires: Annotated[
        str | None, typer.Option(help="What is not used by then is lost, in ISO 8601. Default: never.")
    ] = None,
    note: Note = "",
    request_id: RequestId = None,
) -> None:
    """Gives credits to a tenant."""
    given = amount(credits, micro_credits)
    if given is None:
        raise ValueError("give --credits or --micro-credits")
    added = session.client.billing.add_credits(
        tenant_id,
        given,
        priority=priority,
        expire_time=None if expires is None else moment(expires),
        note=note,
        request_id=request_id,
    )
    available = in_words(added.balance.available)
    session.output.record(added, f"gave {in_words(added.grant.amount)}; {available} are available now")


@app.command("set", rich_help_panel=_OPERATORS)
@connected
def set_balance(
    session: Session,
    tenant_id: TenantId,
    *,
    credits: Credits = None,
    micro_credits: MicroCredits = None,
    low_credits: Annotated[
        str | None, typer.Option(metavar="DECIMAL", help="Below so much the tenant is told by webhook; 0: never.")
    ] = None,
    low_micro_credits: Annotated[int | None, typer.Option(min=0, help="The same in micro-credits.")] = None,
    note: Note = "",
    request_id: RequestId = None,
) -> None:
    """Brings what is available to an amount, by an entry that tells the difference."""
    available = amount(credits, micro_credits)
    low = amount(low_credits, low_micro_credits, "--low-credits", "--low-micro-credits")
    if available is None and low is None:
        raise ValueError("give --credits or --low-credits, or the same in micro-credits")
    found = session.client.billing.set_balance(
        tenant_id, available=available, low_balance=low, note=note, request_id=request_id
    )
    show_balance(session.output, found)


for command in (spending.costs, spending.breaker, spending.budget, spending.price, spending.verify):
    app.command(rich_help_panel=_OPERATORS)(command)
