"""What a corpus must hold so that a study can train and measure gaps on it."""

from __future__ import annotations

import pandas as pd

from study.common.groups import GENDERS, Modality
from study.config.settings import ControlSplit, Settings
from study.data.control_split import rows_of_splits
from study.data.corpora import Corpus


def corpus_errors(corpus: Corpus, settings: Settings) -> list[str]:
    """What the corpus lacks for these settings; empty when nothing."""
    errors = split_errors(corpus, settings.control) + transcript_errors(corpus, settings.modalities)
    examples = len(rows_of_splits(corpus.utterances, settings.control)["train"]) * len(settings.modalities)
    size = settings.optimisation.batch_size
    if settings.optimisation.epochs and size > examples:
        errors.append(f"optimisation.batch_size: {size} is more than the {examples} training examples; make it smaller")
    return errors


def split_errors(corpus: Corpus, control: ControlSplit) -> list[str]:
    """Every split needs both genders in some language, or there is no gap to train on or to measure; and the control
    split must leave, and have, both wherever its source has them."""
    table = corpus.utterances
    before, after = (
        {split: _with_both_genders(table.iloc[rows]) for split, rows in rows_of_splits(table, c).items()}
        for c in (ControlSplit(), control)
    )
    errors = [
        f"--corpus {corpus.name}: no language has both genders in {split}, so there is no gap to take"
        for split in ("train", "dev", "test")
        if not before[split]
    ]
    if control.fraction and not errors:
        for language in before[control.source]:
            lacking = [split for split in ("control", control.source) if language not in after[split]]
            if lacking:
                errors.append(
                    f"control.fraction: at {control.fraction} of {control.source}, {' and '.join(lacking)} would not "
                    f"have both genders in {language}; choose another fraction, or 0"
                )
    return errors


def _with_both_genders(part: pd.DataFrame) -> list[str]:
    """The languages in which both genders speak."""
    genders = part[part["gender"].isin(GENDERS)].groupby("language")["gender"].nunique()
    return [str(language) for language in genders.index[genders == 2]]


def transcript_errors(corpus: Corpus, modalities: tuple[str, ...]) -> list[str]:
    """A language without any transcript can be heard, but not read."""
    if Modality.SPEECH_TEXT not in modalities:
        return []
    silent = (corpus.utterances["transcript"] == "").groupby(corpus.utterances["language"]).all()
    return [
        f"--modalities speech+text: the corpus has no transcripts of language {language}; add a transcript column, or "
        "use --modalities speech"
        for language in silent.index[silent]
    ]
