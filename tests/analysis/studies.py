"""Synthetic study folders in the layout of :mod:`study.storage.records`.

``write_plan``, ``write_trial`` and ``write_run`` write figures that the test chooses, so that its numbers can be
checked by hand. ``write_whole_study`` also writes random predictions with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.common.groups import EMOTIONS, GENDERS, LANGUAGES, SCORE_COLUMNS
from study.evaluation.metrics import GAP_KINDS, evaluate
from study.storage.records import run_directory
from study.storage.schemas import SCHEMA_VERSION
from study.storage.study_folder import StudyFolder

NOTE = "The gaps of this corpus are planted, so it says nothing about people."


def write_plan(path: Path, seeds: Sequence[int] = (0,), **changes: Any) -> StudyFolder:
    """Write ``study.json`` of a study on the synthetic corpus."""
    folder = StudyFolder(str(path))
    plan = {
        "schema_version": SCHEMA_VERSION,
        "name": path.name,
        "corpus": {
            "spec": "synthetic",
            "name": "synthetic",
            "hash": "c0ffee",
            "counts": {"train": 100, "dev": 60, "test": 60},
            "skipped": 0,
            "notes": [NOTE],
        },
        "backbone": {"spec": "tiny", "hash": "beef"},
        "languages": list(LANGUAGES),
        "modalities": ["speech+text"],
        "space": "fairness",
        "hyperparameters": [
            {"name": "loss.fairness_weight.weight", "reason": "-", "default": 1.0, "low": 0.01, "high": 100.0}
        ],
        "trials": 8,
        "seeds": list(seeds),
        "settings": {"optimisation": {"epochs": 6, "learning_rate": 0.005}, "modalities": ["speech+text"]},
        "versions": {"torch": "2.13.0", "ray": "2.59.0"},
        "command": "python study/sweep.py",
        "created": "2026-01-02T03:04:05+00:00",
    }
    folder.write_json("study.json", plan | changes)
    return folder


def write_trial(
    folder: StudyFolder,
    number: int,
    config_id: str,
    label: str | None = None,
    hyperparameters: dict[str, Any] | None = None,
    reason: str | None = None,
) -> None:
    """Write a trial: failed if there is a reason, else finished with fixed objectives."""
    trial = {
        "number": number,
        "config_id": config_id,
        "label": label,
        "hyperparameters": hyperparameters or {},
        "seconds": 20.0,
    }
    outcome = {"state": "failed", "reason": reason} if reason else {"state": "finished", "values": [0.5, 0.1]}
    folder.write_json(f"trials/{number:05d}.json", trial | outcome)


def figures(w_f1: float, gap: float | None) -> dict[str, Any]:
    """Return figures of one cell as :func:`study.evaluation.metrics.evaluate` does; all four gaps are equal."""
    gaps = dict.fromkeys(GAP_KINDS, gap)
    overall = {"w_f1": w_f1, "accuracy": w_f1, "uar": w_f1, "gap": gap}
    group = {"w_f1": w_f1, "accuracy": w_f1}
    cell = {
        "n_female": 30,
        "n_male": 28,
        "n_unknown": 2,
        **overall,
        "signed": gaps,
        "absolute": gaps,
        "by_group": {"female": group, "male": group},
    }
    summary = overall | {"worst_gap": gap} | {f"gap_{kind}": gap for kind in GAP_KINDS}
    return summary | {"cells": {"en/speech+text": cell}}


STEPS_AN_EPOCH = 10


def steps(weights: Sequence[float]) -> pd.DataFrame:
    """Return the steps of a run with one fairness weight per epoch; en and de alternate as the active cell."""
    count = STEPS_AN_EPOCH * len(weights)
    step = np.arange(1, count + 1)
    active = np.where(step % 2 == 0, "en/speech+text", "de/speech+text")
    return pd.DataFrame(
        {
            "epoch": np.repeat(np.arange(1, len(weights) + 1), STEPS_AN_EPOCH),
            "step": step,
            "loss": 2.0,
            "penalty": 0.05,
            "fairness_weight": np.repeat(weights, STEPS_AN_EPOCH),
            "gap/en/speech+text": np.where(step % 2 == 0, -0.4, 0.2),
            "gap/de/speech+text": np.where(step == 1, np.nan, 0.3),
            "active": active,
            "negative_weights": 0.25,
        }
    )


def write_run(
    folder: StudyFolder,
    config_id: str,
    seed: int,
    dev: dict[str, Any],
    test: dict[str, Any],
    marker: bool = True,
    weights: Sequence[float] = (0.1, 0.2),
) -> None:
    """Write a run with one epoch per weight, the last one selected; without ``marker`` it is unfinished."""
    directory = run_directory(config_id, seed)
    epochs = [
        {
            "epoch": epoch,
            "loss": 2.0 / epoch,
            "fairness_weight": float(weights[epoch - 1]),
            "penalty": 0.05,
            "gaps": {"en/speech+text": 0.2},
            "dev": {"w_f1": share * dev["w_f1"], "accuracy": share * dev["accuracy"], "gap": dev["gap"]},
            "seconds": 1.0,
        }
        for epoch, share in enumerate(np.linspace(0.5, 1.0, len(weights)).tolist(), start=1)
    ]
    folder.write_jsonl(f"{directory}/epochs.jsonl", epochs)
    folder.write_parquet(f"{directory}/steps.parquet", steps(weights))
    if marker:
        finished = {
            "config_id": config_id,
            "seed": seed,
            "epoch": len(epochs),
            "epochs_run": len(epochs),
            "dev": dev,
            "test": test,
        }
        finished["seconds"] = {"total": 10.0, "train": 7.0, "evaluate": 3.0}
        folder.write_json(f"{directory}/finished.json", finished)


def utterances(per_cell: int, speakers: int, seed: int = 0) -> pd.DataFrame:
    """Return ``per_cell`` utterances of each language, gender and split by ``speakers`` speakers."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "utterance_id": f"{split}-{language}-{gender[0]}-{i}",
            "split": split,
            "language": language,
            "gender": gender,
            "speaker": f"{split}-{language}-{gender[0]}{i % speakers}",
            "dialogue": f"{split}-{i}",
            "emotion": str(rng.choice(EMOTIONS)),
        }
        for split in ("dev", "test")
        for language in LANGUAGES
        for gender in GENDERS
        for i in range(per_cell)
    ]
    return pd.DataFrame(rows)


def predict(
    frame: pd.DataFrame, accuracy: float, male_advantage: float = 0.0, seed: int = 0, modality: str = "speech+text"
) -> pd.DataFrame:
    """Return predictions that are right with probability ``accuracy`` plus or minus half the advantage."""
    rng = np.random.default_rng(seed)
    chance = accuracy + np.where(frame["gender"] == "male", 0.5, -0.5) * male_advantage
    true = pd.Index(EMOTIONS).get_indexer(pd.Index(frame["emotion"]))
    wrong = (true + rng.integers(1, len(EMOTIONS), len(frame))) % len(EMOTIONS)
    predicted = np.where(rng.random(len(frame)) < chance, true, wrong)
    scores = np.full((len(frame), len(EMOTIONS)), -3.0)
    scores[np.arange(len(frame)), predicted] = -0.2
    out = frame[["utterance_id", "split"]].assign(modality=modality)
    out[list(SCORE_COLUMNS)] = scores
    return out


HYPERPARAMETERS: tuple[tuple[str | None, dict[str, Any]], ...] = (
    ("ERM", {"loss.method": "erm"}),
    ("paper's setting", {"schedule": "adaptive", "initial": 0.0, "step_size": 2.0}),
    (None, {"schedule": "constant", "weight": 0.35}),
    (None, {"schedule": "linear", "weight": 1.2, "ramp_fraction": 0.5}),
    (None, {"schedule": "cosine", "weight": 0.8, "ramp_fraction": 0.3}),
    (None, {"schedule": "adaptive", "initial": 0.4, "step_size": 5.5}),
    (None, {"schedule": "constant", "weight": 2.9}),
    (None, {"schedule": "linear", "weight": 0.06, "ramp_fraction": 0.9}),
)


def write_whole_study(
    path: Path,
    per_cell: int = 40,
    speakers: int = 5,
    seeds: Sequence[int] = (0,),
    configurations: int = 8,
    modalities: Sequence[str] = ("speech+text",),
) -> StudyFolder:
    """Write a finished study with predictions; later trials are slightly less accurate and slightly fairer."""
    folder = write_plan(path, seeds, modalities=list(modalities))
    known = utterances(per_cell, speakers)
    folder.write_parquet("utterances.parquet", known)
    for number, (label, hyperparameters) in enumerate(HYPERPARAMETERS[:configurations]):
        if label != "ERM":
            hyperparameters = {f"loss.fairness_weight.{key}": value for key, value in hyperparameters.items()}
            scale = 1.0 if label else 1.0 + 0.1 * number
            hyperparameters |= {f"loss.coefficients.languages.{name}": scale for name in LANGUAGES}
        config_id = f"{number:02d}{'abcdef' * 2}"[:12]
        write_trial(folder, number, config_id, label, hyperparameters)
        for seed in seeds:
            model = (0.62 - 0.015 * number, 0.22 - 0.03 * number, 100 * number + seed)
            made = pd.concat([predict(known, *model, modality) for modality in modalities])
            write_predictions(folder, known, config_id, seed, made, (0.0, 0.0) if label == "ERM" else (0.1, 0.2))
    return folder


def write_predictions(
    folder: StudyFolder,
    known: pd.DataFrame,
    config_id: str,
    seed: int,
    made: pd.DataFrame,
    weights: Sequence[float] = (0.1, 0.2),
) -> None:
    """Write a run with the predictions ``made`` (from :func:`predict`) and their figures."""
    folder.write_parquet(f"{run_directory(config_id, seed)}/predictions.parquet", made)
    labels = np.array(EMOTIONS)[made[list(SCORE_COLUMNS)].to_numpy().argmax(axis=1)]
    whole = made[["utterance_id", "modality"]].assign(predicted=labels).merge(known, on="utterance_id")
    dev, test = (evaluate(whole[whole["split"] == split]) for split in ("dev", "test"))
    write_run(folder, config_id, seed, dev, test, weights=weights)
