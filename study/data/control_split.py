"""Which utterances are in train, dev, test and the control split."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from study.config.settings import ControlSplit


def rows_of_splits(utterances: pd.DataFrame, control: ControlSplit) -> dict[str, np.ndarray]:
    """Return the positions of the utterances of ``train``, ``dev``, ``test`` and ``control``.

    The control split takes whole dialogues out of its source, ordered by a hash of their names, until it has its
    fraction of each language. So it is the same for every configuration and seed, and a dialogue in several languages
    stays together.

    Args:
        utterances: with columns split, language, dialogue, utterance_id. An utterance without a dialogue is one of its
            own.
    """
    dialogues = utterances["dialogue"].fillna(utterances["utterance_id"]).astype(str)
    in_source = utterances["split"] == control.source
    sizes = pd.crosstab(dialogues[in_source], utterances.loc[in_source, "language"])
    target, taken, chosen = control.fraction * sizes.sum(), 0 * sizes.sum(), []
    for name in sorted(sizes.index, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if ((taken < target) & (sizes.loc[name] > 0)).any():
            chosen.append(name)
            taken = taken + sizes.loc[name]
    in_control = in_source & dialogues.isin(chosen)
    rows = {split: np.flatnonzero((utterances["split"] == split) & ~in_control) for split in ("train", "dev", "test")}
    return {**rows, "control": np.flatnonzero(in_control)}
