"""The data of a run. A process caches it, so that the next run with the same corpus, backbone and prompt reuses it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from study.common.groups import LANGUAGES, Cell, cells
from study.config.settings import ControlSplit, Prompt
from study.data import features
from study.data.control_split import rows_of_splits
from study.data.examples import Examples, answer_ids
from study.models.pretrained import load_processor
from study.storage.schemas import UTTERANCE_COLUMNS


@dataclass(frozen=True)
class RunData:
    """The examples of a run and what describes them.

    Attributes:
        utterances: the corpus's table, with the columns of the records.
        cells: the C cells in use.
        examples: by split: ``train``, ``dev``, ``test`` and ``control``.
        answers: token ids of each label word and the end-of-turn token, in the order of ``EMOTIONS``.
    """

    utterances: pd.DataFrame
    cells: tuple[Cell, ...]
    examples: dict[str, Examples]
    answers: list[list[int]]
    pad_token_id: int


@lru_cache(maxsize=1)
def read_run_data(
    features_folder: Path, backbone: str, prompt: Prompt, modalities: tuple[str, ...], control: ControlSplit
) -> RunData:
    """Build the examples of a corpus.

    Args:
        features_folder: written by ``study.data.features.build``; its name is a hash of its content.
        backbone: a hub id or a folder.
    """
    dataset = features.load(features_folder)
    utterances = dataset.select_columns(list(UTTERANCE_COLUMNS)).to_pandas()
    languages = [language for language in LANGUAGES if language in set(utterances["language"])]
    cells_in_use = cells(languages, modalities)
    processor = load_processor(backbone)
    return RunData(
        utterances=utterances,
        cells=cells_in_use,
        examples={
            split: Examples.of_rows(dataset, rows, cells_in_use, prompt, processor)
            for split, rows in rows_of_splits(utterances, control).items()
        },
        answers=answer_ids(prompt, processor),
        pad_token_id=processor.tokenizer.pad_token_id,
    )
