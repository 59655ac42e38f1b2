"""Words of texts, and how near words are to each other in meaning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from memoro_core.llm.model import Vector
from memoro_core.llm.ports import EmbeddingProvider

WORD_CACHE_SIZE: Final = 20_000
"""How many words' vectors are kept; at 256 dimensions they take 20 MB."""
MAX_WORD_LENGTH: Final = 40
MAX_WORDS: Final = 400
"""More words of one text than that are not looked at."""

_WORD: Final = re.compile(r"[^\W_]+")
_STOP_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """
        a about above after again against all am an and any are as at be because been before being below between
        both but by can could did do does doing didn doesn don down during each few for from further had hadn has
        hasn have having he her here hers herself him himself his how i if in into is it its itself just ll me more
        most my myself no nor not now of off on once only or other our ours ourselves out over own re s same shall
        she should so some such t than that the their theirs them themselves then there these they this those
        through to too under until up ve very was wasn we were what when where which while who whom whose why will
        with won would wouldn you your yours yourself yourselves
        """,
    )
)


def words_of(text: str) -> list[str]:
    """The words of a text that carry meaning, in lower case, each once, in order; 400 at most."""
    words = dict.fromkeys(_WORD.findall(text.lower()))
    return [word for word in words if 1 < len(word) <= MAX_WORD_LENGTH and word not in _STOP_WORDS][:MAX_WORDS]


class WordVectors:
    """Vectors of single words, from a provider that makes them in microseconds; the recent ones are kept."""

    def __init__(self, embedder: EmbeddingProvider, *, cache_size: int = WORD_CACHE_SIZE) -> None:
        self._embedder = embedder
        self._cache_size = cache_size
        self._kept: dict[str, Vector] = {}

    async def vectors(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (words, dimensions), in order. Raises ProviderError."""
        found = {word: self._kept[word] for word in words if word in self._kept}
        if missing := [word for word in dict.fromkeys(words) if word not in found]:
            embeddings = await self._embedder.embed(missing)
            fresh = dict(zip(missing, embeddings.vectors, strict=True))
            found.update(fresh)
            self._keep(fresh)
        if not words:
            return np.zeros((0, self._embedder.model.dimensions), dtype=np.float32)
        return np.stack([found[word] for word in words])

    def _keep(self, fresh: Mapping[str, Vector]) -> None:
        self._kept.update(fresh)
        # A dict keeps its order, so that these are the words that were first met the longest ago.
        for word in list(self._kept)[: max(0, len(self._kept) - self._cache_size)]:
            del self._kept[word]
