"""Settings that can't work are refused at start, with what to do."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from memoro_core.settings import Settings, problems_of


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORO_GRPC_PORT", "6000")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    settings = Settings()
    assert settings.grpc_port == 6000
    assert settings.openai_api_key is not None
    assert "sk-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({"MEMORO_TLS_CERT_FILE": "cert.pem"}, "set both or neither"),
        ({"MEMORO_TLS_CLIENT_CA_FILE": "ca.pem"}, "needs MEMORO_TLS_CERT_FILE"),
        ({"MEMORO_JOB_LEASE": "3", "MEMORO_JOB_HEARTBEAT": "2"}, "more than twice"),
        ({"MEMORO_EMBEDDING_PROVIDER": "openai"}, "needs OPENAI_API_KEY"),
        ({"MEMORO_GRPC_PORT": "70000"}, "grpc_port"),
        ({"MEMORO_TIME_ZONE": "Berlin"}, "no IANA time zone"),
        ({"MEMORO_RETENTION_SCHEDULE": "every day"}, "five fields"),
        ({"MEMORO_RETENTION_SCHEDULE": "0 25 * * *"}, "no cron expression"),
    ],
)
def test_what_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], advice: str) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=advice):
        Settings()


ISSUER = {"jwt_issuer": "https://login.example.com", "jwt_audience": "memoro"}


@pytest.mark.parametrize(
    "place",
    [
        "https://login.example.com/keys",
        "HTTPS://login.example.com/keys",
        "http://localhost:80/k",
        "http://[::1]/k",
        "/k.json",
    ],
)
def test_the_keys_of_an_issuer_are_at_a_safe_place(place: str) -> None:
    settings = Settings.model_validate({**ISSUER, "jwt_jwks": place})
    assert settings.jwt_jwks == place.replace("HTTPS", "https")


@pytest.mark.parametrize(
    "place", ["", "http://login.example.com/keys", "ftp://a/keys", "https://", "https://u:hunter2@a/keys", "file:///k"]
)
def test_the_keys_of_an_issuer_are_nowhere_else(place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({**ISSUER, "jwt_jwks": place})
    assert "hunter2" not in "".join(problems_of(caught.value))


def test_an_issuer_is_named_whole() -> None:
    with pytest.raises(ValidationError, match="set all or none"):
        Settings.model_validate(ISSUER)


@pytest.mark.parametrize("algorithms", ["HS256", "none", "RS256,HS512", ""])
def test_only_algorithms_with_public_keys_are_allowed(algorithms: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"jwt_algorithms": algorithms})
    assert Settings.model_validate({"jwt_algorithms": "ES384, EdDSA"}).jwt_algorithms == ("ES384", "EdDSA")
