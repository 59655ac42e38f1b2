"""Names of entities: which spellings are one name, and which names may be one person's."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_NAME_LENGTH: Final = 256
MAX_LABEL_LENGTH: Final = 64

_SPACE: Final = re.compile(r"\s+")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")
_POSSESSIVE: Final = re.compile(r"(?<=\w)['\u2019]s$|(?<=s)['\u2019]$")
_EDGES: Final = " \"'`\u2018\u2019\u201c\u201d.,;:!?()[]{}<>*"
_NOT_LABEL: Final = re.compile(r"[^A-Z0-9]+")


def clean_name(text: str) -> str:
    """A name fit to be shown and stored: one line, single spaces, 256 characters at most; empty if nothing is left."""
    return _SPACE.sub(" ", _UNPRINTABLE.sub(" ", text)).strip()[:MAX_NAME_LENGTH].rstrip()


def clean_label(text: str) -> str:
    """A type or predicate in upper snake case, 64 characters at most; empty if nothing is left."""
    return _NOT_LABEL.sub("_", text.upper()).strip("_")[:MAX_LABEL_LENGTH].rstrip("_")


def normalized(name: str) -> str:
    """What spellings of one name have in common: case, width, spaces, surrounding marks and the possessive are gone.

    Normalising twice changes nothing. A name of nothing but marks stays as it is, but for case and width.
    """
    folded = _folded(clean_name(name))
    while True:
        bare = _POSSESSIVE.sub("", folded).strip(_EDGES)
        bare = _SPACE.sub(" ", bare)
        if not bare or bare == folded:
            return bare or folded
        folded = bare


def first_name(normalized_name: str) -> str | None:
    """The first of several words of a normalised name; None when it is but one word."""
    first, space, _ = normalized_name.partition(" ")
    return first if space else None


def _folded(text: str) -> str:
    # Unicode's own recipe for caseless matching of compatible characters (NFKC_Casefold).
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold())
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text.casefold())).strip()
