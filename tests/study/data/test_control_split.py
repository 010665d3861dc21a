"""The control split: whole dialogues, the same for every configuration."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from study.config.settings import ControlSplit
from study.data.control_split import rows_of_splits


def corpus(n_dialogues: int = 40) -> pd.DataFrame:
    rows = [
        {
            "utterance_id": f"{language}-{split}-{d}-{u}",
            "split": split,
            "language": language,
            "dialogue": f"{split}-{d}",
        }
        for language in ("en", "de")
        for split in ("train", "dev", "test")
        for d in range(n_dialogues)
        for u in range(1 + d % 3)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("source", ["train", "dev"])
def test_control_split_has_its_fraction_in_whole_dialogues(source):
    table = corpus()
    rows = rows_of_splits(table, ControlSplit(source=source, fraction=0.25))
    assert sorted(np.concatenate(list(rows.values()))) == list(range(len(table)))  # each utterance once
    assert set(table["split"].iloc[rows["control"]]) == {source}
    in_control, in_source = (set(table["dialogue"].iloc[rows[name]]) for name in ("control", source))
    assert not in_control & in_source  # all languages of a dialogue are together
    assert len(rows["control"]) == pytest.approx(0.25 * (table["split"] == source).sum(), abs=6)


def test_control_split_has_its_fraction_of_each_language_without_parallel_dialogues():
    table = corpus(12)
    table["dialogue"] = table["language"] + table["dialogue"]
    rows = rows_of_splits(table, ControlSplit(fraction=0.5))
    shares = (
        table.iloc[rows["control"]].groupby("language").size()
        / (table[table["split"] == "dev"]).groupby("language").size()
    )
    assert shares.tolist() == pytest.approx([0.5, 0.5], abs=0.13)  # one dialogue is at most an eighth


def test_control_split_does_not_depend_on_row_order():
    table = corpus()
    shuffled = table.sample(frac=1, random_state=0, ignore_index=True)
    control = ControlSplit(source="dev", fraction=0.5)
    chosen = [set(t["utterance_id"].iloc[rows_of_splits(t, control)["control"]]) for t in (table, shuffled)]
    assert chosen[0] == chosen[1]


def test_no_control_split_by_default_and_utterances_without_dialogue_are_split_singly():
    table = corpus().assign(dialogue=None)
    assert len(rows_of_splits(table, ControlSplit())["control"]) == 0
    assert len(rows_of_splits(table, ControlSplit(fraction=0.5))["control"]) == 2 * 40  # of 79 in each language
