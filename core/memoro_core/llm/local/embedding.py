"""Sentence vectors from static word vectors that ship in a wheel: no network, no accelerator, microseconds a text."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from memoro_core.errors import ProviderError
from memoro_core.llm.model import EmbeddingModel, Embeddings, Operation, Usage, Vector
from memoro_core.llm.ports import Admit

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DIMENSIONS: Final = 256
MAX_TEXT_CHARS: Final = 65_536
INLINE_CHARS: Final = 1_024
"""Up to so many characters, a call takes well under a millisecond: less than going to a thread and back."""
_BLOCK_TOKENS: Final = 32_768
_MODEL: Final = EmbeddingModel("local", "wordllama-l2-supercat", DIMENSIONS)


@dataclass(frozen=True, slots=True)
class _WordVectors:
    tokenizer: Tokenizer
    table: NDArray[np.float32]

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """The mean of the vectors of each text's tokens, at unit length."""
        encoded = self.tokenizer.encode_batch([text[:MAX_TEXT_CHARS] for text in texts], add_special_tokens=False)
        vectors: list[Vector] = []
        tokens = 0
        for encoding in encoded:
            ids = np.asarray(encoding.ids, dtype=np.intp)
            tokens += len(ids)
            vectors.append(_unit(self._sum(ids)))
        return Embeddings(vectors, (_usage(tokens, len(texts)),))

    def _sum(self, ids: NDArray[np.intp]) -> NDArray[np.float32]:
        total = np.zeros(DIMENSIONS, dtype=np.float32)
        for start in range(0, len(ids), _BLOCK_TOKENS):
            total += self.table[ids[start : start + _BLOCK_TOKENS]].sum(axis=0, dtype=np.float32)
        return total


class LocalEmbeddingProvider:
    """Vectors of 256 dimensions. The weights are loaded with the first call. `close` must be awaited.

    A text is cut at 65,536 characters. One without any token has the first axis as its vector, since a zero vector
    has no direction to compare.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._vectors: _WordVectors | None = None

    @property
    def model(self) -> EmbeddingModel:
        """The model that every vector of this provider comes from."""
        return _MODEL

    async def embed(self, texts: Sequence[str], *, admit: Admit | None = None) -> Embeddings:
        """One unit vector per text, in order. Short calls run at once, longer ones in a thread."""
        if admit is not None:
            await admit()
        loop = asyncio.get_running_loop()
        vectors = self._vectors
        if vectors is None:
            vectors = self._vectors = await loop.run_in_executor(self._executor, self._load)
        if sum(map(len, texts)) <= INLINE_CHARS and len(texts) <= INLINE_CHARS // 64:
            return vectors.embed(texts)
        return await loop.run_in_executor(self._executor, vectors.embed, texts)

    def bound(self, texts: Sequence[str]) -> Usage:
        """A token per byte of each text, and one for its beginning."""
        return _usage(sum(len(text[:MAX_TEXT_CHARS].encode(errors="replace")) + 1 for text in texts), len(texts))

    async def close(self) -> None:
        """Ends the thread after the call under way."""
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)

    def _load(self) -> _WordVectors:
        # A second first call waits here behind the one that loads.
        return self._vectors if self._vectors is not None else load_word_vectors()


def load_word_vectors() -> _WordVectors:
    """Reads the weights that the wheel carries; never the network. Takes about half a second."""
    with _logging_untouched():
        try:
            import wordllama  # half a second that only the local provider should cost
        except ImportError as error:
            raise ProviderError(
                "the local embedding provider is not installed: install memoro-service[local]", retryable=False
            ) from error
        # The tokenizer lies in the package's own folder, where the package itself does not look.
        model = wordllama.WordLlama.load(
            dim=DIMENSIONS, cache_dir=Path(wordllama.__file__).parent, disable_download=True
        )
    model.tokenizer.no_padding()
    table: NDArray[np.float32] = model.embedding
    return _WordVectors(model.tokenizer, table)


@contextmanager
def _logging_untouched() -> Iterator[None]:
    """Importing wordllama configures the root logger; this takes that back."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in set(root.handlers) - set(handlers):
            root.removeHandler(handler)


def _usage(tokens: int, texts: int) -> Usage:
    return Usage(_MODEL.provider, _MODEL.name, Operation.EMBED, tokens, items=texts)


def _unit(vector: NDArray[np.float32]) -> Vector:
    length = float(np.linalg.norm(vector))
    if length == 0.0:
        vector = np.zeros(DIMENSIONS, dtype=np.float32)
        vector[0] = 1.0
        return vector
    return (vector / np.float32(length)).astype(np.float32)
