"""Parse a free answer: find the emotion that it names, if it names exactly one. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from study.common.groups import EMOTIONS
from study.data.corpora.label_maps import EMOTION_WORDS, normalised
from study.evaluation.metrics import INVALID


def emotion_of(answer: str, labels: Sequence[str]) -> str:
    """Return the emotion that an answer names, by its label word or by another common word ("sad", "wütend").

    It is "invalid" if the answer names no emotion, or several, since choosing one would be a guess. Negation is not
    understood. Case does not matter. A word in a script with cases must stand alone; Japanese does not separate words.
    Of two words that begin at the same position, the longer one counts.

    Args:
        labels: the label word of each emotion, in the order of ``EMOTIONS``.

    >>> labels = ("neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear")
    >>> [emotion_of(text, labels) for text in ("Joy", "She sounds angry.", "It is anger, or fear.", "They enjoy it")]
    ['joy', 'anger', 'invalid', 'invalid']
    """
    emotion_by_word, pattern = _emotion_words(tuple(labels))
    named = {emotion_by_word[match[0]] for match in pattern.finditer(normalised(answer))}
    return named.pop() if len(named) == 1 else INVALID


@cache
def _emotion_words(labels: tuple[str, ...]) -> tuple[dict[str, str], re.Pattern[str]]:
    """Return the emotion of each word, and a pattern that matches the words, longer ones first."""
    emotion_by_word = EMOTION_WORDS | {
        normalised(label.strip()): emotion for emotion, label in zip(EMOTIONS, labels, strict=True)
    }
    patterns = [
        (_boundary(word[0]) + re.escape(word) + _boundary(word[-1]))
        for word in sorted(emotion_by_word, key=len, reverse=True)
    ]
    return emotion_by_word, re.compile("|".join(patterns))


def _boundary(letter: str) -> str:
    """Return the pattern of a word boundary beside a letter that has cases, else nothing."""
    return r"\b" if letter.upper() != letter.lower() else ""
