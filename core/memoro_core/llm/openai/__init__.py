"""Any endpoint that speaks the OpenAI protocol, through the official SDK."""

from memoro_core.llm.openai.embedding import OpenAIEmbeddingProvider
from memoro_core.llm.openai.endpoint import OpenAIEndpoint
from memoro_core.llm.openai.extraction import OpenAIExtractionProvider

__all__ = ["OpenAIEmbeddingProvider", "OpenAIEndpoint", "OpenAIExtractionProvider"]
