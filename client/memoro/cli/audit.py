"""`memoro admin audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from memoro.cli.options import moment
from memoro.cli.session import Session, connected

_EVENT = {
    "event_time": "time",
    "method": "method",
    "code": "code",
    "reason": "reason",
    "actor_api_key_id": "key",
    "actor_subject": "subject",
    "tenant_id": "tenant",
    "request": "request",
}


@connected
def audit(
    session: Session,
    *,
    tenant: Annotated[str, typer.Option("--tenant", help="Only what was about the tenant of this id.")] = "",
    method: Annotated[str, typer.Option(help="Only calls of this method: AdminService/CreateApiKey.")] = "",
    since: Annotated[str | None, typer.Option(help="Not before, in ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Before, in ISO 8601.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 50,
) -> None:
    """Shows what operators did or tried, and what was done to credentials, newest first."""
    events = session.client.admin.audit(
        tenant_id=tenant,
        method=method,
        from_time=None if since is None else moment(since),
        until_time=None if until is None else moment(until),
        limit=limit,
    )
    session.output.records(events, _EVENT, empty="no events")
