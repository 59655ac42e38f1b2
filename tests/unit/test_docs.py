"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
