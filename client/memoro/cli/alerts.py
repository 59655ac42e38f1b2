"""`memoro admin test-alert`."""

from __future__ import annotations

from typing import Annotated

import typer

from memoro.cli.options import choices
from memoro.cli.output import fail
from memoro.cli.session import Session, connected
from memoro.enums import AlertSeverity

_RESULT = {"channel": "channel", "delivered": "delivered", "problem": "problem"}


@connected
def send_test_alert(
    session: Session,
    *,
    severity: Annotated[
        AlertSeverity | None, choices(AlertSeverity, help="Decides which channels take it. Default: warning.")
    ] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="What it says.")] = "",
) -> None:
    """Sends an alert over each channel that is set up; exits with 1 when none took it."""
    results = session.client.admin.test_alert(severity, message=message)
    session.output.records(results, _RESULT, empty="no channels")
    if not any(result.delivered for result in results):
        raise fail("no channel took the alert")
