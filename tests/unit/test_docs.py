"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memoro.v1 import (
    admin_service_pb2,
    billing_service_pb2,
    jobs_service_pb2,
    memory_service_pb2,
    webhooks_service_pb2,
)
from memoro_core.errors import Reason
from memoro_core.settings import Settings

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations.md"


def documented_settings() -> set[str]:
    text = OPERATIONS.read_text("utf-8").partition("## Settings")[2]
    return set(re.findall(r"`(MEMORO_[A-Z_]+|OPENAI_API_KEY)`", text))


def test_every_setting_is_documented_and_no_other() -> None:
    existing = {
        "OPENAI_API_KEY" if name == "openai_api_key" else f"MEMORO_{name.upper()}" for name in Settings.model_fields
    }
    assert documented_settings() == existing


@pytest.mark.parametrize("document", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text("utf-8")):
        assert (document.parent / target).exists(), target


def test_every_method_and_every_reason_is_in_the_description_of_the_contract() -> None:
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    methods = {
        method.name
        for module in (
            memory_service_pb2,
            jobs_service_pb2,
            billing_service_pb2,
            admin_service_pb2,
            webhooks_service_pb2,
        )
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert {name for name in methods | set(Reason) if f"`{name}`" not in text} == set()
