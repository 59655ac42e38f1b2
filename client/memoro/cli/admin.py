"""`memoro admin`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from memoro.cli import alerts, audit, doctor, processing, tiers
from memoro.cli.options import choices, duration, moment
from memoro.cli.output import Column
from memoro.cli.session import Session, connected
from memoro.cli.tiers import limits_in_words, limits_of_json
from memoro.enums import Scope
from memoro.types import Tenant, TenantUsage

app = typer.Typer(no_args_is_help=True, help="Manages tenants, keys and processing; needs a key with the scope admin.")
tenants = typer.Typer(no_args_is_help=True, help="Teams and products, walled off from each other.")
keys = typer.Typer(no_args_is_help=True, help="Credentials of tenants.")
app.add_typer(tenants, name="tenants")
app.add_typer(keys, name="keys")
app.add_typer(tiers.app, name="tiers")
for command in (
    processing.workers,
    processing.pause,
    processing.resume,
    processing.requeue,
    processing.clear,
    processing.trigger,
):
    app.command()(command)
app.command()(audit.audit)
app.command("test-alert")(alerts.send_test_alert)
app.command()(doctor.doctor)

TenantId = Annotated[str, typer.Argument(help="The tenant's id.")]
KeyId = Annotated[str, typer.Argument(help="The key's id.")]
DisplayName = Annotated[str | None, typer.Option("--display-name", "--name", help="A name for people.")]
Tier = Annotated[str | None, typer.Option(help="Which limits apply: free, pro, enterprise or another tier.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")]

_TENANT: Mapping[Column, str] = {
    "id": "id",
    "name": "name",
    "display_name": "display name",
    "tier": "tier",
    "state": "state",
    "create_time": "created",
    (lambda tenant: limits_in_words(tenant.limits)): "limits of its own",
}
_KEY = {
    "id": "id",
    "prefix": "prefix",
    "display_name": "name",
    "scopes": "scopes",
    "create_time": "created",
    "expire_time": "ends",
    "revoke_time": "revoked",
}


def _stored(tenant: Tenant) -> str:
    usage = tenant.usage or TenantUsage()
    return f"{usage.memories:,} memories, {usage.bytes:,} bytes"


def _show(session: Session, tenant: Tenant) -> None:
    session.output.records([tenant], _TENANT)


@tenants.command("create")
@connected
def create_tenant(
    session: Session,
    name: Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens; unique.")],
    *,
    display_name: DisplayName = None,
    tier: Tier = None,
) -> None:
    """Creates a tenant."""
    _show(session, session.client.admin.tenants.create(name, display_name=display_name or "", tier=tier or ""))


@tenants.command("list")
@connected
def list_tenants(session: Session, *, limit: Limit = 50) -> None:
    """Lists tenants by name."""
    session.output.records(session.client.admin.tenants.list(limit=limit), _TENANT, empty="no tenants")


@tenants.command("get")
@connected
def get_tenant(session: Session, tenant_id: TenantId) -> None:
    """Shows one tenant, with what it has stored."""
    session.output.records([session.client.admin.tenants.get(tenant_id)], {**_TENANT, _stored: "stored"})


@tenants.command("update")
@connected
def update_tenant(
    session: Session,
    tenant_id: TenantId,
    *,
    display_name: DisplayName = None,
    tier: Tier = None,
    limits_json: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help='All limits of its own, e.g. \'{"requests": {"per_minute": 600, "burst": 120}}\'; {} for none.',
        ),
    ] = None,
) -> None:
    """Changes what is given."""
    if display_name is None and tier is None and limits_json is None:
        raise ValueError("give --display-name, --tier or --limits-json")
    limits = None if limits_json is None else limits_of_json("--limits-json", limits_json)
    _show(session, session.client.admin.tenants.update(tenant_id, display_name=display_name, tier=tier, limits=limits))


@tenants.command("suspend")
@connected
def suspend_tenant(session: Session, tenant_id: TenantId) -> None:
    """Refuses a tenant's calls from now on; its data stays."""
    _show(session, session.client.admin.tenants.suspend(tenant_id))


@tenants.command("resume")
@connected
def resume_tenant(session: Session, tenant_id: TenantId) -> None:
    """Lets a suspended tenant call again."""
    _show(session, session.client.admin.tenants.resume(tenant_id))


@keys.command("create")
@connected
def create_key(
    session: Session,
    tenant_id: TenantId,
    *,
    display_name: DisplayName = None,
    scope: Annotated[list[Scope] | None, choices(Scope, help="May be given again. Default: all but admin.")] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends, in ISO 8601. Default: never.")] = None,
) -> None:
    """Creates a key and shows its secret, this once."""
    created = session.client.admin.keys.create(
        tenant_id,
        display_name=display_name or "",
        scopes=scope or (),
        expire_time=None if expires is None else moment(expires),
    )
    if session.output.as_json:
        session.output.json_line(created)
        return
    session.output.records([created.api_key], _KEY)
    session.output.say(f"\nsecret, shown this once: [bold]{created.secret}[/]")


@keys.command("rotate")
@connected
def rotate_key(
    session: Session,
    tenant_id: TenantId,
    key_id: KeyId,
    *,
    overlap: Annotated[
        str, typer.Option(help="How long the old key goes on: 30s, 15m, 1h, 30d; 0 ends it now.")
    ] = "1h",
    expires: Annotated[str | None, typer.Option(help="When the new key ends, in ISO 8601. Default: never.")] = None,
) -> None:
    """Creates a key like another, shows its secret, this once, and lets the other end."""
    rotated = session.client.admin.keys.rotate(
        tenant_id,
        key_id,
        overlap=duration(overlap),
        expire_time=None if expires is None else moment(expires),
    )
    if session.output.as_json:
        session.output.json_line(rotated)
        return
    session.output.records([rotated.api_key, rotated.replaced], _KEY)
    session.output.say(f"\nsecret, shown this once: [bold]{rotated.secret}[/]")


@keys.command("list")
@connected
def list_keys(session: Session, tenant_id: TenantId, *, limit: Limit = 50) -> None:
    """Lists a tenant's keys, newest first, revoked ones included."""
    session.output.records(session.client.admin.keys.list(tenant_id, limit=limit), _KEY, empty="no keys")


@keys.command("revoke")
@connected
def revoke_key(session: Session, tenant_id: TenantId, key_id: KeyId) -> None:
    """Ends a key, for good."""
    session.output.records([session.client.admin.keys.revoke(tenant_id, key_id)], _KEY)
