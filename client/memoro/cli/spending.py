"""`memoro billing`, for operators: what providers charge, daily budgets, prices, and the proof of a ledger."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from memoro.cli.amounts import Credits, MicroCredits, amount, token_price
from memoro.cli.billing_tables import show_breakers, show_costs, show_price_table
from memoro.cli.options import RequestId, chosen, day, moment
from memoro.cli.output import fail
from memoro.cli.session import Session, connected
from memoro.enums import AiOperation, BudgetScope

OfTenant = Annotated[str, typer.Option("--tenant", help="Of the tenant of this id. Default: of the deployment.")]


@connected
def costs(
    session: Session,
    date: Annotated[str, typer.Argument(metavar="[DATE]", help="The day. Default: today.")] = "",
    *,
    tenant: Annotated[str, typer.Option("--tenant", help="Only of the tenant of this id.")] = "",
    recent: Annotated[int, typer.Option(min=1, max=100, help="How many of the latest calls to show.")] = 20,
) -> None:
    """Shows what a day's AI work has cost, the latest calls, and what the house has earned."""
    told = session.client.admin.ai_costs(day(date) if date else None, tenant_id=tenant, recent=recent)
    show_costs(session.output, told)


@connected
def breaker(
    session: Session,
    *,
    tenant: OfTenant = "",
    user: Annotated[str, typer.Option("--user", "-u", help="With --reset: of this user of the tenant.")] = "",
    reset: Annotated[
        bool, typer.Option("--reset", help="Gives the budget as much again as it has for a day; deferred jobs run.")
    ] = False,
    request_id: RequestId = None,
) -> None:
    """Shows how the daily budgets stand, or resets one of them."""
    if user and not (tenant and reset):
        raise ValueError("--user goes with --tenant and --reset")
    if request_id and not reset:
        raise ValueError("--request-id goes with --reset")
    if not reset:
        show_breakers(session.output, session.client.admin.breakers(tenant))
        return
    scope = BudgetScope.USER if user else BudgetScope.TENANT if tenant else BudgetScope.DEPLOYMENT
    now = session.client.admin.reset_breaker(scope, tenant_id=tenant, user_id=user, request_id=request_id)
    show_breakers(session.output, [now])


@connected
def budget(
    session: Session,
    *,
    tenant: OfTenant = "",
    each_user: Annotated[bool, typer.Option("--each-user", help="For each single user of the tenant.")] = False,
    credits: Credits = None,
    micro_credits: MicroCredits = None,
    none: Annotated[bool, typer.Option("--none", help="No limit.")] = False,
    request_id: RequestId = None,
) -> None:
    """Sets how much may be spent in a day, 0 to let nothing run that costs."""
    limit = amount(credits, micro_credits)
    if (limit is None) != none:
        raise ValueError("give --credits, --micro-credits or --none")
    if each_user and not tenant:
        raise ValueError("--each-user goes with --tenant")
    scope = BudgetScope.USER if each_user else BudgetScope.TENANT if tenant else BudgetScope.DEPLOYMENT
    now = session.client.admin.set_budget(scope, limit, tenant_id=tenant, request_id=request_id)
    show_breakers(session.output, [now] if now else [])


@connected
def price(
    session: Session,
    provider: Annotated[str, typer.Argument(help="Who runs the model: local or openai.")],
    model: Annotated[str, typer.Argument(help="Its name, as the provider spells it.")],
    operation: Annotated[AiOperation, chosen(AiOperation, help="For what.")],
    *,
    token_in: Annotated[
        str, typer.Option("--input", metavar="DOLLARS", help="For a million tokens that go in, e.g. 0.15.")
    ],
    token_out: Annotated[str, typer.Option("--output", metavar="DOLLARS", help="For a million tokens that come out.")],
    fee: Annotated[
        str | None,
        typer.Option(metavar="CREDITS", help="What a tenant pays beyond that for each text, without margin."),
    ] = None,
    fee_micro_credits: Annotated[int | None, typer.Option(min=0, help="The same in micro-credits.")] = None,
    starts: Annotated[str | None, typer.Option("--from", help="From then on, in ISO 8601. Default: now.")] = None,
    request_id: RequestId = None,
) -> None:
    """Sets what an operation of a model costs, from a time on."""
    made = session.client.admin.set_price(
        provider,
        model,
        operation,
        input_price=token_price("--input", token_in),
        output_price=token_price("--output", token_out),
        fee=amount(fee, fee_micro_credits, "--fee", "--fee-micro-credits") or 0,
        valid_from=None if starts is None else moment(starts),
        request_id=request_id,
    )
    show_price_table(session.output, [made])


@connected
def verify(
    session: Session,
    tenant_id: Annotated[str, typer.Argument(metavar="[TENANT_ID]", help="The tenant's id.")] = "",
    *,
    all_tenants: Annotated[bool, typer.Option("--all", help="The ledgers of all tenants.")] = False,
) -> None:
    """Checks a tenant's ledger, or all, and exits with 1 if anything is wrong, or if not all of it could be checked."""
    if bool(tenant_id) == all_tenants:
        raise ValueError("give a TENANT_ID or --all")
    if not all_tenants:
        if problem := _verified(session, tenant_id):
            raise fail(problem)
        return
    count = wrong = 0
    for tenant in session.client.admin.tenants.list():
        count += 1
        session.output.say(escape(f"{tenant.id} {tenant.name}"))
        if problem := _verified(session, tenant.id):
            session.output.say(escape(f"  error: {problem}"))
            wrong += 1
    if wrong:
        raise fail(f"{wrong} of {count} ledgers {'is not as it' if wrong == 1 else 'are not as they'} should be")


def _verified(session: Session, tenant_id: str) -> str:
    """Checks a ledger and tells of it; what is wrong, empty for nothing."""
    found = session.client.admin.verify_ledger(tenant_id)
    session.output.json_line({"tenant_id": tenant_id, **asdict(found)})
    if not found.valid:
        where = f"entry {found.first_invalid_sequence}" if found.first_invalid_sequence else "the balance"
        return f"{where} is wrong: {found.problem}"
    if not found.complete:
        return f"there was time for {found.entries} entries only, which are as they were made"
    head = f"; the last one's hash is {found.head_hash.hex()}" if found.head_hash else ""
    session.output.say(f"{found.entries} entries are as they were made, and so is the balance{head}")
    return ""
