"""Several studies in one table: ``python -m analysis studies STUDY_DIR STUDY_DIR [--csv FILE]``.

Figures of two studies are comparable only if both were evaluated on the same utterances. Rows with the same number in
``comparable_dev`` (or ``comparable_test``) are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from analysis.loading.study import FIGURE_COLUMNS, SPLITS, Study
from analysis.pareto.front import front
from study.config.settings import flatten

COLUMNS = (
    "study", "config_id", "name", "label", "family", "hyperparameters", "n_seeds", "complete", "on_front", "seconds",
    *FIGURE_COLUMNS, "comparable_dev", "comparable_test",
)  # fmt: skip
_NOT_RECORDED = "not recorded"


def side_by_side(studies: Sequence[Study]) -> pd.DataFrame:
    """List the configurations of several studies in one table.

    Args:
        studies: in the order of the rows.

    Returns:
        One row per (study, configuration), with ``COLUMNS``: ``study`` is a unique name, ``on_front`` refers to the
        front of that study, figures are fractions. Rows with the same number in ``comparable_dev`` or
        ``comparable_test`` were evaluated on the same corpus, utterances, labels and modalities. A study without a
        finished run has no rows.
    """
    names = _names(studies)
    sets = {split: _numbered([_evaluated(study, split) for study in studies]) for split in SPLITS}
    frames = []
    for i, study in enumerate(studies):
        rows = front(study.configurations)
        compared = {f"comparable_{split}": sets[split][i] for split in SPLITS}
        frames.append(rows.assign(study=names[i], **compared)[list(COLUMNS)])
    return pd.concat([frame for frame in frames if not frame.empty] or frames, ignore_index=True)


def differences(studies: Sequence[Study]) -> list[str]:
    """Return the differences in corpus, backbone, space, seeds, settings and versions, one sentence each."""
    names = _names(studies)
    sentences = []
    for fact, values in _facts(studies).items():
        if len({_canonical(value) for value in values}) > 1:
            each = "; ".join(
                f"{'none' if value is None else value} in {name}" for name, value in zip(names, values, strict=True)
            )
            sentences.append(f"{fact} differs: {each}.")
    return sentences


def settings_that_differ(studies: Sequence[Study]) -> list[str]:
    """Return the dotted names of settings in which the plans differ; hyperparameters of trials are not compared."""
    trees = [flatten(study.plan["settings"]) for study in studies]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    return [key for key in keys if len({_canonical(tree.get(key, _NOT_RECORDED)) for tree in trees}) > 1]


def _facts(studies: Sequence[Study]) -> dict[str, list[Any]]:
    plans = [study.plan for study in studies]
    facts = {
        "The corpus": [f"{plan['corpus']['spec']} (hash {plan['corpus']['hash']})" for plan in plans],
        "The backbone": [f"{plan['backbone']['spec']} (hash {plan['backbone']['hash']})" for plan in plans],
        "The space": [plan["space"] for plan in plans],
    }
    for name, key in (("The list of seeds", "seeds"), ("The list of languages", "languages")):
        facts[name] = [", ".join(map(str, plan[key])) for plan in plans]
    facts["The list of modalities"] = [" and ".join(plan["modalities"]) for plan in plans]
    for key in settings_that_differ(studies):
        facts[f"The setting {key}"] = [flatten(plan["settings"]).get(key, _NOT_RECORDED) for plan in plans]
    for package in dict.fromkeys(name for plan in plans for name in plan["versions"]):
        facts[f"The version of {package}"] = [plan["versions"].get(package, _NOT_RECORDED) for plan in plans]
    return facts


def _evaluated(study: Study, split: str) -> Hashable:
    """Return a key of the utterances that the first finished run was evaluated on; ``None`` without a run."""
    if study.runs.empty:
        return None
    run = study.runs.iloc[0]
    predictions = study.predictions(run["config_id"], run["seed"], split)
    rows = predictions[["utterance_id", "modality", "language", "gender", "emotion"]]
    rows = rows.sort_values(["utterance_id", "modality"])
    digest = hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()
    return study.plan["corpus"]["hash"], digest


def _numbered(keys: Sequence[Hashable]) -> list[int]:
    """Number distinct keys from 1; ``None`` becomes 0."""
    known = list(dict.fromkeys(key for key in keys if key is not None))
    return [0 if key is None else 1 + known.index(key) for key in keys]


def _names(studies: Sequence[Study]) -> list[str]:
    """Return the names of the plans, or the study folders if two names are equal."""
    names = [str(study.plan["name"]) for study in studies]
    return names if len(set(names)) == len(names) else [study.folder.uri for study in studies]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
