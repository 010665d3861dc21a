"""The emotion that a free answer names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from study.common.groups import EMOTIONS
from study.evaluation.answer_parser import emotion_of
from tests import REPO


@pytest.mark.parametrize(
    ("answer", "emotion"),
    [
        ("joy", "joy"),
        (" Joy.\n", "joy"),
        ("The speaker expresses sadness, not joy.", "invalid"),
        ("sad", "sadness"),
        ("She is ANGRY, very angry.", "anger"),
        ("neutral, joy, surprise, anger, sadness, disgust, fear", "invalid"),
        ("ｊｏｙ", "joy"),
        ("ang", "invalid"),
        ("They enjoy it, fearlessly", "invalid"),
        ("NEUTRAL", "neutral"),
        ("joy_", "invalid"),
        ("", "invalid"),
        ("???", "invalid"),
    ],
)
def test_answer_names_one_emotion_or_is_invalid(answer, emotion):
    assert emotion_of(answer, EMOTIONS) == emotion


def test_label_words_of_other_languages():
    japanese = ("中立", "喜び", "驚き", "怒り", "悲しみ", "嫌悪", "恐れ")
    assert emotion_of("話者は喜びを感じています。", japanese) == "joy"
    german = ("neutral", "Freude", "Überraschung", "Ärger", "Trauer", "Ekel", "Angst")
    assert emotion_of("Das ist überraschung", german) == "surprise"
    assert emotion_of("Verärgert", german) == "anger" and emotion_of("Ärgerlich", german) == "invalid"
    assert emotion_of("彼は怒っている", german) == "anger"
    assert emotion_of("U\u0308berraschung", german) == "surprise"  # decomposed
    assert emotion_of("sad", german) == emotion_of("Trauer!", german) == "sadness"
    nested = ("neutral", "joy", "joyful surprise", "anger", "anger at it", "disgust", "fear")
    assert emotion_of("joyful surprise", nested) == "surprise" and emotion_of("anger at it", nested) == "sadness"


def test_parser_and_metrics_load_no_torch():
    code = "import sys, study.evaluation.answer_parser; sys.exit(any(m in sys.modules for m in ('torch', 'datasets')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == 0
