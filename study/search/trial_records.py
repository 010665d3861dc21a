"""The records of trials: what is known of one before it runs, what came out, and which seeds it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

from study.common.groups import Cell
from study.config.config_id import config_id
from study.config.settings import Parallelism, Settings
from study.search.objectives import SearchObjectives, mean_metrics
from study.storage.records import read_trials, run_directory, write_trial
from study.storage.study_folder import StudyFolder


@dataclass(frozen=True)
class TrialTemplate:
    """What all trials of a study share; plain data, so that it travels.

    Attributes:
        profile: whether a trial leaves a profile of its first seed's steps.
    """

    settings: Settings
    parallelism: Parallelism
    seeds: tuple[int, ...]
    features: Path
    backbone: str
    cells: tuple[Cell, ...]
    corpus_hash: str
    backbone_hash: str
    folder: StudyFolder
    use_gpu: bool
    search_objectives: SearchObjectives = SearchObjectives()
    profile: bool = False


def trial_record(suggestion: dict[str, Any], template: TrialTemplate) -> dict[str, Any]:
    """What is known of a trial from its suggestion: number, label, knobs, and the configuration's name."""
    hyperparameters = {key: value for key, value in suggestion.items() if key not in ("number", "label")}
    settings = template.settings.with_overrides(hyperparameters)
    return {
        "number": suggestion["number"],
        "label": suggestion["label"],
        "hyperparameters": hyperparameters,
        "config_id": config_id(settings, template.cells, template.corpus_hash, template.backbone_hash),
    }


def result_record(template: TrialTemplate, identity: str) -> dict[str, Any]:
    """What a trial's record holds of its outcome: the objectives on dev, averaged over the seeds, of each seed, and
    their standard deviation (None of a single seed); and by how much the requirements are missed."""
    runs, search_objectives = finished_figures(template, identity), template.search_objectives
    names = [metric for metric, _ in search_objectives.objectives]
    means = mean_metrics(search_objectives.metrics, runs)
    by_seed = {str(run["seed"]): list(mean_metrics(names, [run]).values()) for run in runs}
    return {
        "values": [means[name] for name in names],
        "by_seed": by_seed,
        "spread": [stdev(values) for values in zip(*by_seed.values(), strict=True)] if len(runs) > 1 else None,
        "violations": search_objectives.violations(means),
    }


def finished_figures(template: TrialTemplate, identity: str) -> list[dict[str, Any]]:
    return [template.folder.read_json(f"{run_directory(identity, seed)}/finished.json") for seed in template.seeds]


def seeds_to_run(template: TrialTemplate, identity: str) -> list[int]:
    """The seeds of a configuration that have not finished."""
    exists = template.folder.exists
    return [seed for seed in template.seeds if not exists(f"{run_directory(identity, seed)}/finished.json")]


def trials_without_seeds(template: TrialTemplate) -> list[dict[str, Any]]:
    """The records of finished trials that lack seeds of the study, which has got more since; one a configuration."""
    lacking = {
        record["config_id"]: record
        for record in read_trials(template.folder).values()
        if record["state"] == "finished" and seeds_to_run(template, record["config_id"])
    }
    return sorted(lacking.values(), key=lambda record: record["number"])


def refresh_trials(template: TrialTemplate) -> None:
    """Bring records up to the seeds that have finished: a configuration may stand under two numbers, and a call may be
    cut off between a run and its record."""
    seeds = {str(seed) for seed in template.seeds}
    for record in read_trials(template.folder).values():
        behind = record["state"] == "finished" and set(record.get("by_seed", {})) != seeds
        if behind and not seeds_to_run(template, record["config_id"]):
            whole = {key: value for key, value in record.items() if key != "failed_seeds"}
            write_trial(template.folder, {**whole, **result_record(template, record["config_id"])})
