"""Which utterances train, select, control and test."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from study.settings import ControlSplit


def rows_of_splits(utterances: pd.DataFrame, control: ControlSplit) -> dict[str, np.ndarray]:
    """Positions of the utterances of ``train``, ``dev``, ``test`` and, taken out of its source, ``control``.

    Whole dialogues go to the control split, in the order of a hash of their names until it has its fraction: the same
    ones for every configuration and seed, and a dialogue that exists in several languages stays together.

    Args:
        utterances: with ``split``, ``dialogue`` and ``utterance_id``; one without a dialogue is one of its own.
    """
    dialogues = utterances["dialogue"].fillna(utterances["utterance_id"]).astype(str)
    from_source = utterances["split"] == control.source
    sizes = dialogues[from_source].value_counts()
    order = sorted(sizes.index, key=lambda name: hashlib.sha256(name.encode()).digest())
    before = sizes[order].cumsum() - sizes[order]
    chosen = before.index[before < control.fraction * from_source.sum()]
    held_out = from_source & dialogues.isin(chosen)
    rows = {split: np.flatnonzero((utterances["split"] == split) & ~held_out) for split in ("train", "dev", "test")}
    return {**rows, "control": np.flatnonzero(held_out)}
