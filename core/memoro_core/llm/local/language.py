"""Tells English from what the English pipeline would only mangle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Token

_FEWEST_WORDS: Final = 4
_KNOWN_SHARE: Final = 0.5
_LONG: Final = 4


class EnglishWords:
    """The base forms of English that the pipeline's lemmatizer knows."""

    def __init__(self, nlp: Language) -> None:
        lemmatizer: Any = nlp.get_pipe("lemmatizer")
        index = lemmatizer.lookups.get_table("lemma_index")
        self._words = frozenset(word for kind in ("noun", "verb", "adj", "adv") for word in index[kind])

    def fit(self, doc: Doc) -> bool:
        """Whether the text is English, or has too few words to tell.

        More than half of its lower-case words must be known. Function words count twice; other short words do not
        count, since those of most languages are words of English too.
        """
        words = [token for token in doc if token.is_alpha and token.is_lower and len(token.text) > 1]
        if len(words) < _FEWEST_WORDS:
            return bool(words) or all(token.is_ascii for token in doc if token.is_alpha)
        functional = sum(token.is_stop for token in words)
        known = sum(len(token.text) >= _LONG and self.know(token) for token in words if not token.is_stop)
        return 2 * functional + known > _KNOWN_SHARE * len(words)

    def know(self, token: Token) -> bool:
        """Whether the word, written small, is an English one that is no name."""
        return token.lower_ in self._words or token.lemma_ in self._words
