"""Predictions of an exported adapter on any corpus, by label likelihoods or by generated answers."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from study.cli.options import EvaluationOptions
from study.common.errors import SettingsError
from study.common.groups import LANGUAGES, MODALITIES, cells
from study.config.settings import CorpusSettings, Parallelism, parse
from study.data.corpora import list_corpus, load_corpus
from study.data.corpus_checks import transcript_errors
from study.planning.paths import absolute_backbone, absolute_corpus, default_storage
from study.storage.schemas import UTTERANCE_COLUMNS
from study.storage.study_folder import StudyFolder


@dataclass(frozen=True)
class Evaluation:
    """Predictions of an adapter.

    Attributes:
        predictions: one row per utterance and modality, with the columns that ``study.evaluation.metrics.evaluate``
            needs, and the seven label scores or the generated answer.
        subset: ``train``, ``dev`` or ``test`` of the corpus, or ``all`` of it.
        notes: notes of the corpus.
    """

    predictions: pd.DataFrame
    subset: str
    notes: tuple[str, ...]


def evaluate_adapter(options: EvaluationOptions, console: Console) -> Evaluation:
    """Predict the emotions of a subset of a corpus.

    Raises:
        SettingsError: the adapter, its backbone or an option is invalid.
        CorpusError: the corpus is invalid.
    """
    import torch  # here and below: not for --help

    from study.data import features
    from study.data.examples import Examples
    from study.evaluation.generation import answer_frame, generate_answers
    from study.evaluation.label_likelihood import prediction_frame, score_examples
    from study.models.adapter import load_adapter, read_adapter
    from study.planning.memory_check import largest_workload, require_memory

    directory = Path(options.adapter).expanduser()
    settings, recorded = read_adapter(directory)
    backbone = absolute_backbone(options.backbone or recorded["spec"])
    modalities = options.modalities or settings.modalities
    if set(modalities) - set(MODALITIES):
        raise SettingsError([f"--modalities {','.join(modalities)}: use speech, speech+text or both"])
    settings = settings.with_overrides(
        {"modalities": list(modalities), "backbone.spec": backbone, "optimisation.epochs": 0}
    )
    cache = Path(options.storage or default_storage()).expanduser().resolve() / "cache"
    corpus_settings, subset = _choose_subset(options, settings.corpus, cache)
    split = "test" if subset == "all" else subset
    corpus = load_corpus(corpus_settings, cache, required_splits=(split,))
    for line in corpus.clip_messages():
        console.print(line)
    errors = transcript_errors(corpus, settings.modalities)
    if errors:
        raise SettingsError(errors)
    load = replace(largest_workload(settings, corpus.utterances, num_workers=1), scored=options.batch_size)
    require_memory(settings, Parallelism(num_workers=1, zero_stage=0), load, 1, console)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, processor = load_adapter(directory, backbone, device)
    folder = features.build(
        corpus.utterances, corpus.content_hash, processor.feature_extractor, cache, corpus_settings.loudness
    )
    dataset = features.load(folder)
    utterances = dataset.select_columns(list(UTTERANCE_COLUMNS)).to_pandas()
    spoken = set(utterances["language"])
    in_use = cells([language for language in LANGUAGES if language in spoken], settings.modalities)
    rows = np.flatnonzero(utterances["split"] == split)
    examples = Examples.of_rows(dataset, rows, in_use, settings.prompt, processor)
    if options.generate:
        answers = generate_answers(model, examples, processor.tokenizer, options.batch_size, device)
        frame = answer_frame(examples, answers, settings.prompt.labels, utterances)
    else:
        frame = prediction_frame(examples, score_examples(model, examples, options.batch_size, device), utterances)
    return Evaluation(frame, subset, corpus.notes)


def _choose_subset(options: EvaluationOptions, own: CorpusSettings, cache: Path) -> tuple[CorpusSettings, str]:
    """Return how to read the corpus, and which subset of it to evaluate.

    The loudness is that of the adapter's own corpus, ``own``. The split is ``--split``, else that of the adapter if
    the corpus is its own, else that of the corpus; a corpus without a split is evaluated as a whole.
    """

    def with_split(split: str) -> CorpusSettings:
        return parse(CorpusSettings, {**own.model_dump(), "spec": absolute_corpus(options.corpus), "split": split})

    undivided = with_split("none")
    if options.subset == "all":
        if options.split:
            raise SettingsError([f"--subset all: takes every utterance; leave out --split {options.split}"])
        return undivided, "all"
    if options.split:
        return with_split(options.split), options.subset or "test"
    if undivided.spec == own.spec:
        return own, options.subset or "test"
    if (list_corpus(undivided, cache).rows["official_split"] != "").any():
        return with_split("parallel"), options.subset or "test"
    if options.subset:
        raise SettingsError(
            [f"--subset {options.subset}: {options.corpus} has no split; add --split speaker, or use --subset all"]
        )
    return undivided, "all"


def write_predictions(path: Path, predictions: pd.DataFrame) -> None:
    """Write predictions as Parquet, atomically."""
    StudyFolder(os.path.dirname(os.path.abspath(path))).write_parquet(path.name, predictions)
