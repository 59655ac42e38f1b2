"""What was found when the deployment was looked at."""

from __future__ import annotations

from typing import Final

from memoro.v1 import admin_pb2
from memoro_core.diagnosis.model import Diagnosis, Verdict

_STATUSES: Final = {
    Verdict.OK: admin_pb2.DIAGNOSIS_STATUS_OK,
    Verdict.WARNING: admin_pb2.DIAGNOSIS_STATUS_WARNING,
    Verdict.FAILED: admin_pb2.DIAGNOSIS_STATUS_FAILED,
}


def from_diagnosis(diagnosis: Diagnosis) -> admin_pb2.Diagnosis:
    """A diagnosis as operators see it."""
    return admin_pb2.Diagnosis(check=diagnosis.check, status=_STATUSES[diagnosis.verdict], message=diagnosis.message)
