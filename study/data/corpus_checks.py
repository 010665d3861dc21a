"""Check that a study can train on a corpus and measure gaps on it."""

from __future__ import annotations

import pandas as pd

from study.common.groups import GENDERS, Modality
from study.config.settings import ControlSplit, Settings
from study.data.control_split import rows_of_splits
from study.data.corpora import SPLITS, Corpus


def corpus_errors(corpus: Corpus, settings: Settings) -> list[str]:
    """Return what the corpus lacks for these settings."""
    errors = split_errors(corpus, settings.control) + transcript_errors(corpus, settings.modalities)
    examples = len(rows_of_splits(corpus.utterances, settings.control)["train"]) * len(settings.modalities)
    batch_size = settings.optimisation.batch_size
    if settings.optimisation.epochs and batch_size > examples:
        errors.append(f"optimisation.batch_size: {batch_size} is more than the {examples} training examples; reduce it")
    return errors


def split_errors(corpus: Corpus, control: ControlSplit) -> list[str]:
    """Return an error for each split without both genders in some language, since it has no gap.

    The control split needs both genders in each language in which its source has both, and its source must keep them.
    """
    table = corpus.utterances
    without_control, with_control = (
        {split: _languages_with_both_genders(table.iloc[rows]) for split, rows in rows_of_splits(table, c).items()}
        for c in (ControlSplit(), control)
    )
    errors = [
        f"--corpus {corpus.name}: no language has both genders in {split}, so there is no gap to measure; add "
        "utterances of the other gender, or choose another --split"
        for split in SPLITS
        if not without_control[split]
    ]
    if control.fraction and not errors:
        for language in without_control[control.source]:
            lacking = [split for split in ("control", control.source) if language not in with_control[split]]
            if lacking:
                errors.append(
                    f"control.fraction: with {control.fraction} of {control.source}, {' and '.join(lacking)} would "
                    f"lack a gender in {language}; choose another fraction, or 0"
                )
    return errors


def _languages_with_both_genders(utterances: pd.DataFrame) -> list[str]:
    genders = utterances[utterances["gender"].isin(GENDERS)].groupby("language")["gender"].nunique()
    return [str(language) for language in genders.index[genders == 2]]


def transcript_errors(corpus: Corpus, modalities: tuple[str, ...]) -> list[str]:
    """Return an error for each language without any transcript, if the modalities include text."""
    if Modality.SPEECH_TEXT not in modalities:
        return []
    has_none = (corpus.utterances["transcript"] == "").groupby(corpus.utterances["language"]).all()
    return [
        f"--modalities speech+text: the corpus has no transcripts of language {language}; add a transcript column, or "
        "use --modalities speech"
        for language in has_none.index[has_none]
    ]
