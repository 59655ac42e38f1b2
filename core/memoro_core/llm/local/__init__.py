"""Models that run in this process, offline: static word vectors and graph extraction from a dependency parse."""

from memoro_core.llm.local.embedding import LocalEmbeddingProvider
from memoro_core.llm.local.extraction import LocalExtractionProvider

__all__ = ["LocalEmbeddingProvider", "LocalExtractionProvider"]
