"""`memoro webhooks`."""

from __future__ import annotations

from typing import Annotated

import typer

from memoro.cli.options import choices, moment
from memoro.cli.session import Session, connected
from memoro.enums import DeliveryState, WebhookEventType
from memoro.types import NewWebhookSecret

app = typer.Typer(no_args_is_help=True, help="Tells URLs of what has happened, signed.")

EndpointId = Annotated[str, typer.Argument(help="The endpoint's id.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")]

_ENDPOINT = {
    "id": "id",
    "url": "url",
    "state": "state",
    "event_types": "events",
    "description": "description",
    "failing_since": "failing since",
    "create_time": "created",
}
_DELIVERY = {
    "event_id": "event",
    "endpoint_id": "endpoint",
    "event_type": "type",
    "state": "state",
    "attempt": "attempt",
    "response_status": "answer",
    "error": "error",
    "create_time": "happened",
    "next_attempt_time": "next attempt",
}


def _show_secret(session: Session, made: NewWebhookSecret) -> None:
    told = f"secret: {made.secret}" if made.secret else "the secret was shown by the first call with this request id"
    session.output.record(made, f"endpoint {made.endpoint.id}\n{told}")


@app.command("create")
@connected
def create(
    session: Session,
    url: Annotated[str, typer.Argument(help="Where to post events.")],
    *,
    event: Annotated[
        list[WebhookEventType] | None, choices(WebhookEventType, help="May be given again. Default: every type.")
    ] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
) -> None:
    """Creates an endpoint; its secret is shown this once."""
    _show_secret(session, session.client.webhooks.create(url, event_types=event or (), description=description))


@app.command("list")
@connected
def list_endpoints(session: Session, *, limit: Limit = 50) -> None:
    """Lists endpoints, newest first."""
    session.output.records(session.client.webhooks.list(limit=limit), _ENDPOINT, empty="no endpoints")


@app.command("delete")
@connected
def delete(session: Session, endpoint_id: EndpointId) -> None:
    """Deletes an endpoint with its deliveries."""
    session.client.webhooks.delete(endpoint_id)
    session.output.record({"endpoint_id": endpoint_id, "deleted": True}, f"endpoint {endpoint_id} is deleted")


@app.command("rotate")
@connected
def rotate(session: Session, endpoint_id: EndpointId) -> None:
    """Makes a new secret, shown this once; the one before it signs beside it for 24 hours."""
    _show_secret(session, session.client.webhooks.rotate(endpoint_id))


@app.command("deliveries")
@connected
def deliveries(
    session: Session,
    *,
    to: Annotated[str, typer.Option(help="Only to the endpoint of this id.")] = "",
    state: Annotated[list[DeliveryState] | None, choices(DeliveryState, help="May be given again.")] = None,
    since: Annotated[str | None, typer.Option(help="Of events from this time on, in ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Of events before this time, in ISO 8601.")] = None,
    limit: Limit = 50,
) -> None:
    """Lists what was sent and is to be sent, newest event first."""
    found = session.client.webhooks.deliveries(
        endpoint_id=to,
        states=state or (),
        created_from=moment(since) if since else None,
        created_until=moment(until) if until else None,
        limit=limit,
    )
    session.output.records(found, _DELIVERY, empty="no deliveries")


@app.command("redeliver")
@connected
def redeliver(
    session: Session, event_id: Annotated[str, typer.Argument(help="The event's id.")], endpoint_id: EndpointId
) -> None:
    """Sends an event to an endpoint anew, at once."""
    session.output.records([session.client.webhooks.redeliver(event_id, endpoint_id)], _DELIVERY)
