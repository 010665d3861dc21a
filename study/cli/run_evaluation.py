"""An exported adapter on any corpus: its predictions, by label likelihoods or by free answers."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from study.common.errors import SettingsError
from study.common.groups import LANGUAGES, MODALITIES, cells
from study.config.settings import CorpusSettings, Parallelism, parse
from study.data.corpora import list_corpus, load_corpus
from study.data.corpus_checks import transcript_errors
from study.planning.paths import resolved, resolved_backbone
from study.storage.schemas import UTTERANCE_COLUMNS
from study.storage.study_folder import StudyFolder


@dataclass(frozen=True)
class Scored:
    """What an adapter said.

    Attributes:
        predictions: one row an utterance and modality, with the columns that ``study.evaluation.metrics.evaluate``
        needs and, by
            how they were made, seven scores or the answer.
        part: ``train``, ``dev`` or ``test`` of the corpus, or ``all`` of it.
        notes: the corpus's.
    """

    predictions: pd.DataFrame
    part: str
    notes: tuple[str, ...]


def score_adapter(flags: argparse.Namespace, console: Console) -> Scored:
    """The adapter ``flags.adapter`` on the part ``flags.subset`` of ``flags.corpus``.

    Raises:
        SettingsError, CorpusError: the adapter, its backbone, a flag or the corpus is faulty.
    """
    import torch  # here and below: not for --help

    from study.data import features
    from study.data.examples import Examples
    from study.evaluation.generation import answer_frame, generate_answers
    from study.evaluation.label_likelihood import prediction_frame, score_examples
    from study.models.adapter import load_adapter, read_adapter
    from study.planning.memory_check import load_of, require_room

    place = Path(flags.adapter).expanduser()
    settings, backbone = read_adapter(place)
    source = resolved_backbone(flags.backbone or backbone["spec"])
    modalities = flags.modalities.split(",") if flags.modalities else settings.modalities
    if set(modalities) - set(MODALITIES):
        raise SettingsError([f"--modalities {flags.modalities}: use speech, speech+text or both"])
    if flags.batch_size < 1:
        raise SettingsError([f"--batch-size {flags.batch_size}: at least 1"])
    untrained = {"modalities": list(modalities), "backbone.spec": source, "optimisation.epochs": 0}
    settings = settings.with_overrides(untrained)
    cache = Path(flags.storage).expanduser().resolve() / "cache"
    heard, part = _heard(flags, settings.corpus, cache)
    split = "test" if part == "all" else part
    corpus = load_corpus(heard, cache, parts=(split,))
    for line in corpus.clips_in_words():
        console.print(line)
    errors = transcript_errors(corpus, settings.modalities)
    if errors:
        raise SettingsError(errors)
    load = replace(load_of(settings, corpus.utterances, num_workers=1), scored=flags.batch_size)
    require_room(settings, Parallelism(num_workers=1, zero_stage=0), load, 1, console)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, processor = load_adapter(place, source, device)
    folder = features.build(corpus.utterances, corpus.content_hash, processor.feature_extractor, cache, heard.loudness)
    dataset = features.load(folder)
    utterances = dataset.select_columns(list(UTTERANCE_COLUMNS)).to_pandas()
    spoken = set(utterances["language"])
    in_use = cells([language for language in LANGUAGES if language in spoken], settings.modalities)
    rows = np.flatnonzero(utterances["split"] == split)
    examples = Examples.of_rows(dataset, rows, in_use, settings.prompt, processor)
    if flags.generate:
        answers = generate_answers(model, examples, processor.tokenizer, flags.batch_size, device)
        frame = answer_frame(examples, answers, settings.prompt.labels, utterances)
    else:
        frame = prediction_frame(examples, score_examples(model, examples, flags.batch_size, device), utterances)
    return Scored(frame, part, corpus.notes)


def _heard(flags: argparse.Namespace, own: CorpusSettings, cache: Path) -> tuple[CorpusSettings, str]:
    """How the corpus is read, and which part of it is scored.

    As loud as the adapter heard its own corpus. Divided as ``flags.split`` says, as the adapter's where it is the same
    corpus, else by the corpus's own split; one that has none is scored as a whole.
    """

    def divided(split: str) -> CorpusSettings:
        return parse(CorpusSettings, {**own.model_dump(), "spec": resolved(flags.corpus), "split": split})

    whole = divided("none")
    if flags.subset == "all":
        if flags.split:
            raise SettingsError([f"--subset all: takes every utterance, so --split {flags.split} has nothing to say"])
        return whole, "all"
    if flags.split:
        return divided(flags.split), flags.subset or "test"
    if whole.spec == own.spec:
        return own, flags.subset or "test"
    if (list_corpus(whole, cache).rows["official"] != "").any():
        return divided("parallel"), flags.subset or "test"
    if flags.subset:
        raise SettingsError(
            [f"--subset {flags.subset}: {flags.corpus} has no split; add --split speaker, or use --subset all"]
        )
    return whole, "all"


def write_predictions(path: Path, predictions: pd.DataFrame) -> None:
    """Keep predictions as Parquet, written aside and renamed."""
    StudyFolder(os.path.dirname(os.path.abspath(path))).write_parquet(path.name, predictions)
