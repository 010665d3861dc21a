"""Errors between the parts of a plan are found before anything runs."""

from __future__ import annotations

import pandas as pd

from search_spaces import ablation
from study.config.presets import TINY
from study.config.settings import ControlSplit, Parallelism, Settings
from study.data.corpora import Corpus
from study.data.corpus_checks import corpus_errors, split_errors
from study.planning.validation import baseline_errors

LANGUAGES = ("en", "de")
HALF = Settings().with_overrides({**TINY, "control.fraction": 0.5})


def corpus(n_dialogues: int) -> Corpus:
    """Women and men take turns in dialogues of four, in both languages and every split."""
    rows = [
        {
            "utterance_id": f"{language}-{split}-{d}-{u}", "split": split, "dialogue": f"{split}-{d}",
            "language": language, "gender": ("female", "male")[u % 2], "transcript": "words",
        }
        for language in LANGUAGES
        for split in ("train", "dev", "test")
        for d in range(n_dialogues)
        for u in range(4)
    ]  # fmt: skip
    return Corpus("made up", pd.DataFrame(rows), (), (), (), "hash")


def test_control_split_that_would_empty_dev_is_an_error():
    assert split_errors(corpus(1), ControlSplit()) == []
    errors = split_errors(corpus(1), ControlSplit(fraction=0.5))
    assert len(errors) == 2 and all("control.fraction" in message and "dev would lack" in message for message in errors)
    assert split_errors(corpus(8), ControlSplit(fraction=0.5)) == []


def test_batch_larger_than_the_corpus_is_an_error():
    settings = HALF.with_overrides({"optimisation.batch_size": 128})
    (message,) = corpus_errors(corpus(8), settings)
    assert "optimisation.batch_size: 128 is more than the 64 training examples" in message
    from_train = HALF.with_overrides({"optimisation.batch_size": 64, "control.source": "train"})
    (message,) = corpus_errors(corpus(8), from_train)  # half of them control
    assert "optimisation.batch_size: 64 is more than the 32" in message


def test_arms_are_checked_with_the_fixed_settings():
    def errors_of(settings):
        return baseline_errors(ablation(LANGUAGES, settings), settings, Parallelism(), LANGUAGES)

    assert errors_of(HALF) == []
    missing = errors_of(HALF.with_overrides({"control.fraction": 0.0}))
    assert len(missing) == 3 and all("held-out" in f and "control.fraction" in f for f in missing)
    duplicate = errors_of(HALF.with_overrides({"loss.power": 1}))
    assert duplicate == ["--set: with these settings 'power 1' and \"paper's setting\" are the same configuration"]
    tolerant = errors_of(HALF.with_overrides({"loss.fairness_weight.tolerance": 0.3}))
    assert tolerant == []
