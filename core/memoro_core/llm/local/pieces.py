"""Cuts a text into pieces that the pipeline reads in a short, bounded time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MAX_TEXT_CHARS: Final = 65_536
PIECE_CHARS: Final = 1_500

# "((((((" and the like cost the tokenizer quadratic time and carry nothing.
_RUN: Final = re.compile(r"([^\w\s])\1{3,}|([_])\2{3,}")
_SENTENCE_END: Final = re.compile(r"[.!?…][\"'”’)]*\s+|\n\s*")


def split_pieces(text: str, *, limit: int = PIECE_CHARS) -> Iterator[str]:
    """Pieces of at most `limit` characters, in order, cut after a paragraph or sentence where there is one.

    Runs of one punctuation mark or symbol are shortened to three, and what lies beyond MAX_TEXT_CHARS is left out.
    """
    text = _RUN.sub(lambda match: match.group()[:3], text[:MAX_TEXT_CHARS])
    start = 0
    while start < len(text):
        end = min(start + limit, len(text))
        if end < len(text):
            end = _cut(text, start, end)
        piece = text[start:end].strip()
        if piece:
            yield piece
        start = end


def _cut(text: str, start: int, end: int) -> int:
    ends = [match.end() for match in _SENTENCE_END.finditer(text, start, end)]
    if ends and ends[-1] > start:
        return ends[-1]
    space = text.rfind(" ", start, end)
    return space + 1 if space > start else end
