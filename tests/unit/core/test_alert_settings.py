"""Settings of alerts: what can't work is refused at start, and no secret is told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from memoro_core.settings import Settings, problems_of

EMAIL = {
    "MEMORO_ALERT_CHANNELS": "email",
    "MEMORO_ALERT_SMTP_HOST": "smtp.example.com",
    "MEMORO_ALERT_EMAIL_FROM": "memoro@example.com",
    "MEMORO_ALERT_EMAIL_TO": "ops@example.com, boss@example.com",
}
WEBHOOK = {"MEMORO_ALERT_SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/sEcReT"}
BOT = {"MEMORO_ALERT_SLACK_TOKEN": "xoxb-sEcReT", "MEMORO_ALERT_SLACK_CHANNEL": "#ops"}
SLACK = {"MEMORO_ALERT_CHANNELS": "slack"}


def made(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_nothing_has_to_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = made(monkeypatch, {})
    assert settings.alert_channels == ()
    assert (settings.alert_queue_waiting, settings.alert_queue_failed) == (100, 10)


@pytest.mark.parametrize(
    "variables",
    [EMAIL, {**SLACK, **WEBHOOK}, {**SLACK, **BOT}, {**EMAIL, **BOT, "MEMORO_ALERT_CHANNELS": "slack,email"}],
)
def test_what_works(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    settings = made(monkeypatch, variables)
    assert "sEcReT" not in repr(settings)
    assert list(settings.alert_channels) in (["email"], ["slack"], ["slack", "email"])


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({"MEMORO_ALERT_CHANNELS": "pager"}, "email"),
        ({"MEMORO_ALERT_CHANNELS": '["email'}, "alert_channels"),
        ({**EMAIL, "MEMORO_ALERT_CHANNELS": "email,email"}, "twice"),
        ({**EMAIL, "MEMORO_ALERT_SMTP_HOST": ""}, "needs MEMORO_ALERT_SMTP_HOST"),
        ({**EMAIL, "MEMORO_ALERT_EMAIL_TO": " , "}, "needs MEMORO_ALERT_SMTP_HOST"),
        ({**EMAIL, "MEMORO_ALERT_EMAIL_TO": "ops"}, "an address like"),
        ({**EMAIL, "MEMORO_ALERT_EMAIL_TO": "Ops <ops@example.com>"}, "an address like"),
        ({**EMAIL, "MEMORO_ALERT_EMAIL_FROM": "a@example.com\r\nBcc: b@example.com"}, "an address like"),
        ({**EMAIL, "MEMORO_ALERT_SMTP_USER": "memoro"}, "set both or neither"),
        ({**EMAIL, "MEMORO_ALERT_EMAIL_SEVERITY": "LOUD"}, "WARNING"),
        (SLACK, "needs MEMORO_ALERT_SLACK_WEBHOOK_URL"),
        ({**SLACK, "MEMORO_ALERT_SLACK_TOKEN": "xoxb-sEcReT"}, "MEMORO_ALERT_SLACK_CHANNEL"),
        ({**SLACK, **WEBHOOK, **BOT}, "or MEMORO_ALERT_SLACK_TOKEN"),
        ({"MEMORO_ALERT_RETENTION": "3600"}, "alert_retention"),
    ],
)
def test_what_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], advice: str) -> None:
    with pytest.raises(ValidationError, match=advice) as refused:
        made(monkeypatch, variables)
    assert "sEcReT" not in "".join(problems_of(refused.value))


@pytest.mark.parametrize("text", ["email,slack", " email , slack,", '["email","slack"]'])
def test_lists_have_commas_or_are_json(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    settings = made(monkeypatch, {**EMAIL, **WEBHOOK, "MEMORO_ALERT_CHANNELS": text})
    assert settings.alert_channels == ("email", "slack")
    assert settings.alert_email_to == ("ops@example.com", "boss@example.com")
