"""`memoro admin doctor`, and the same from Python."""

from __future__ import annotations

from memoro import AsyncClient, DiagnosisStatus
from memoro.v1 import admin_pb2, admin_service_pb2
from tests.support.scripted_server import scripted_server
from tests.unit.cli.conftest import CommandLine


def test_the_doctor_fails_with_what_it_finds(memoro: CommandLine) -> None:
    good = admin_pb2.Diagnosis(check="tls", status=admin_pb2.DIAGNOSIS_STATUS_OK, message="on")
    poor = admin_pb2.Diagnosis(check="redis", status=admin_pb2.DIAGNOSIS_STATUS_WARNING, message="evicts")
    bad = admin_pb2.Diagnosis(check="row-level-security", status=admin_pb2.DIAGNOSIS_STATUS_FAILED, message="off")
    memoro.server.script(
        "DiagnoseDeployment", admin_service_pb2.DiagnoseDeploymentResponse(diagnoses=[bad, poor, good])
    )
    told = memoro("admin", "doctor", code=1)
    assert [line.split() for line in told.stdout.splitlines()[1:]] == [
        ["FAILED", "row-level-security", "off"],
        ["WARNING", "redis", "evicts"],
        ["OK", "tls", "on"],
    ]
    assert told.stderr == ""
    assert [line["status"] for line in memoro.json("admin", "doctor", code=1)] == ["FAILED", "WARNING", "OK"]
    memoro.server.script("DiagnoseDeployment", admin_service_pb2.DiagnoseDeploymentResponse(diagnoses=[poor, good]))
    memoro("admin", "doctor")


async def test_diagnoses_are_told_as_they_come() -> None:
    new = admin_pb2.Diagnosis(check="later", status=99, message="made by a newer server")  # type: ignore[arg-type]
    with scripted_server() as server:
        server.script("DiagnoseDeployment", admin_service_pb2.DiagnoseDeploymentResponse(diagnoses=[new]))
        async with AsyncClient(server.endpoint, api_key="mk") as client:
            [told] = await client.admin.diagnose()
    assert (told.check, told.status, told.message) == ("later", DiagnosisStatus.UNKNOWN, "made by a newer server")
