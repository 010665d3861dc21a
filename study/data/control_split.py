"""Which utterances train, select, control and test."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from study.config.settings import ControlSplit


def rows_of_splits(utterances: pd.DataFrame, control: ControlSplit) -> dict[str, np.ndarray]:
    """Positions of the utterances of ``train``, ``dev``, ``test`` and, taken out of its source, ``control``.

    Whole dialogues go to the control split, in the order of a hash of their names until it has its fraction of each
    language: the same ones for every configuration and seed, and a dialogue in several languages stays together.

    Args:
        utterances: with ``split, language, dialogue, utterance_id``; one without a dialogue is one of its own.
    """
    names = utterances["dialogue"].fillna(utterances["utterance_id"]).astype(str)
    from_source = utterances["split"] == control.source
    sizes = pd.crosstab(names[from_source], utterances.loc[from_source, "language"])
    target, taken, chosen = control.fraction * sizes.sum(), 0 * sizes.sum(), []
    for name in sorted(sizes.index, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if ((taken < target) & (sizes.loc[name] > 0)).any():
            chosen.append(name)
            taken = taken + sizes.loc[name]
    held_out = from_source & names.isin(chosen)
    rows = {split: np.flatnonzero((utterances["split"] == split) & ~held_out) for split in ("train", "dev", "test")}
    return {**rows, "control": np.flatnonzero(held_out)}
