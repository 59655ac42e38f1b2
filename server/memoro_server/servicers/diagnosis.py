"""AdminService: a look at the deployment."""

from __future__ import annotations

from memoro.v1 import admin_service_pb2 as pb
from memoro_core.diagnosis.service import DiagnosisService
from memoro_server.call import Call
from memoro_server.convert.diagnosis import from_diagnosis


class DiagnosisServicer:
    """The call of AdminService that is about the deployment as a whole."""

    def __init__(self, diagnosis: DiagnosisService) -> None:
        self._diagnosis = diagnosis

    async def DiagnoseDeployment(
        self, request: pb.DiagnoseDeploymentRequest, call: Call
    ) -> pb.DiagnoseDeploymentResponse:
        found = await self._diagnosis.diagnose()
        return pb.DiagnoseDeploymentResponse(diagnoses=[from_diagnosis(diagnosis) for diagnosis in found])
