"""Tells English from what the English pipeline would only mangle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

_FEWEST_WORDS: Final = 4
_KNOWN_SHARE: Final = 0.5


class EnglishWords:
    """The base forms of English that the pipeline's lemmatizer knows."""

    def __init__(self, nlp: Language) -> None:
        lemmatizer: Any = nlp.get_pipe("lemmatizer")
        index = lemmatizer.lookups.get_table("lemma_index")
        self._words = frozenset(word for kind in ("noun", "verb", "adj", "adv") for word in index[kind])

    def fit(self, doc: Doc) -> bool:
        """Whether the text is English: most of its lower-case words are known, or it has too few to tell."""
        words = [token for token in doc if token.is_alpha and token.is_lower and len(token.text) > 1]
        if len(words) < _FEWEST_WORDS:
            return not any(token.is_alpha and not token.is_ascii for token in doc) or bool(words)
        known = sum(token.is_stop or token.lower_ in self._words or token.lemma_ in self._words for token in words)
        return known >= _KNOWN_SHARE * len(words)
