"""An exported adapter on any corpus: its predictions, by label likelihoods or by free answers."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from study.checks import transcript_faults
from study.corpora import SPLITS, load_corpus
from study.groups import LANGUAGES, MODALITIES, cells
from study.planning import resolved
from study.records import UTTERANCE_COLUMNS, StudyFolder
from study.settings import CorpusSettings, SettingsError, parse


def score_adapter(flags: argparse.Namespace) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Predictions of the adapter ``flags.adapter`` on the part ``flags.on`` of ``flags.corpus``.

    Returns:
        One row an utterance and modality, with the columns that ``study.metrics.evaluate`` needs and, by how they were
        made, seven scores or the answer; and the corpus's notes.

    Raises:
        SettingsError, CorpusError: the adapter, its backbone, a flag or the corpus is faulty.
    """
    import torch  # here and below: not for --help

    from study import features
    from study.adapter import load_adapter
    from study.batching import Examples
    from study.evaluation import prediction_frame, score_examples
    from study.generation import answer_frame, generate_answers

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    modalities = flags.modalities.split(",") if flags.modalities else None
    if modalities and set(modalities) - set(MODALITIES):
        raise SettingsError([f"--modalities {flags.modalities}: use speech, speech+text or both"])
    if flags.batch_size < 1:
        raise SettingsError([f"--batch-size {flags.batch_size}: at least 1"])
    model, processor, settings = load_adapter(Path(flags.adapter).expanduser(), flags.backbone, device)
    heard = settings.corpus
    corpus_settings = parse(
        CorpusSettings,
        {**heard.model_dump(), "spec": resolved(flags.corpus)},  # as loud, and divided as the adapter's own
    )
    cache = Path(flags.storage).expanduser().resolve() / "cache"
    corpus = load_corpus(corpus_settings, cache)
    faults = transcript_faults(corpus, tuple(modalities or settings.modalities))
    if faults:
        raise SettingsError(faults)
    folder = features.build(
        corpus.utterances, corpus.content_hash, processor.feature_extractor, cache, corpus_settings.loudness
    )
    dataset = features.load(folder)
    utterances = dataset.select_columns(list(UTTERANCE_COLUMNS)).to_pandas()
    parts = SPLITS if flags.on == "all" else (flags.on,)
    rows = np.flatnonzero(utterances["split"].isin(parts))
    in_use = cells(
        [language for language in LANGUAGES if language in set(utterances["language"])],
        modalities or settings.modalities,
    )
    examples = Examples.of_rows(dataset, rows, in_use, settings.prompt, processor)
    if flags.generate:
        answers = generate_answers(model, examples, processor.tokenizer, flags.batch_size, device)
        frame = answer_frame(examples, answers, settings.prompt.labels, utterances)
    else:
        frame = prediction_frame(examples, score_examples(model, examples, flags.batch_size, device), utterances)
    return frame, corpus.notes


def write_predictions(path: Path, predictions: pd.DataFrame) -> None:
    """Keep predictions as Parquet, written aside and renamed."""
    StudyFolder(os.path.dirname(os.path.abspath(path))).write_parquet(path.name, predictions)
