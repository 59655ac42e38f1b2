"""`memoro admin doctor`."""

from __future__ import annotations

import typer

from memoro.cli.session import Session, connected
from memoro.enums import DiagnosisStatus

_DIAGNOSIS = {"status": "status", "check": "check", "message": "found"}


@connected
def doctor(session: Session) -> None:
    """Looks at the deployment: roles, row-level security, TLS, keys, versions. Exits with 1 if anything is FAILED."""
    diagnoses = session.client.admin.diagnose()
    session.output.records(diagnoses, _DIAGNOSIS)
    if any(diagnosis.status is DiagnosisStatus.FAILED for diagnosis in diagnoses):
        raise typer.Exit(1)
