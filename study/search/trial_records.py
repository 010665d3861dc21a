"""Trial records: what they hold, which seeds they lack, and which trials were cut off before they had one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

from study.common.groups import Cell
from study.config.config_id import config_id
from study.config.settings import Parallelism, Settings, flatten
from study.search.objectives import SearchObjectives, mean_metrics
from study.search.optuna_study import Search
from study.storage.records import run_directory
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState


@dataclass(frozen=True)
class TrialTemplate:
    """What all trials of a study share. It is pickled and sent to the trial drivers and their workers.

    Attributes:
        settings: of every trial, before its hyperparameters are applied.
        features: the folder of the cached features.
        backbone: the folder or hub name of the backbone.
        profile: whether the first seed of a trial is profiled for a few steps.
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

    def config_id(self, hyperparameters: Mapping[str, Any]) -> str:
        """Return the id of the configuration with these hyperparameters."""
        settings = self.settings.with_overrides(hyperparameters)
        return config_id(settings, self.cells, self.corpus_hash, self.backbone_hash)


def trial_record(suggestion: Mapping[str, Any], template: TrialTemplate) -> dict[str, Any]:
    """Return the part of a trial record that is known before the trial runs.

    Args:
        suggestion: number, label and hyperparameters, as the searcher gives them to Ray Tune.
    """
    hyperparameters = {key: value for key, value in suggestion.items() if key not in ("number", "label")}
    return {
        "number": suggestion["number"],
        "label": suggestion["label"],
        "hyperparameters": hyperparameters,
        "config_id": template.config_id(hyperparameters),
    }


def result_record(search_objectives: SearchObjectives, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the part of a trial record that holds its results on dev.

    Args:
        runs: the ``finished.json`` of each seed.

    Returns:
        values: each objective, averaged over the seeds.
        by_seed: each objective by seed.
        spread: the standard deviation of each objective over the seeds; None for a single seed.
        violations: by how much each constraint is violated.
    """
    objectives = [metric for metric, _ in search_objectives.objectives]
    means = mean_metrics(search_objectives.metrics, runs)
    by_seed = {str(run["seed"]): list(mean_metrics(objectives, [run]).values()) for run in runs}
    return {
        "values": [means[metric] for metric in objectives],
        "by_seed": by_seed,
        "spread": [stdev(values) for values in zip(*by_seed.values(), strict=True)] if len(runs) > 1 else None,
        "violations": search_objectives.violations(means),
    }


def read_finished_runs(template: TrialTemplate, config_id: str) -> list[dict[str, Any]]:
    """Return the ``finished.json`` of each seed of a configuration."""
    return [template.folder.read_json(f"{run_directory(config_id, seed)}/finished.json") for seed in template.seeds]


def unfinished_seeds(template: TrialTemplate, config_id: str) -> list[int]:
    """Return the seeds of a configuration that have not finished."""
    exists = template.folder.exists
    return [seed for seed in template.seeds if not exists(f"{run_directory(config_id, seed)}/finished.json")]


def trials_with_missing_seeds(template: TrialTemplate, state: StudyState) -> list[dict[str, Any]]:
    """Return the records of finished trials that lack seeds of the study, one for each configuration.

    Trials lack seeds when the study was given more of them later.
    """
    missing = state.missing_seeds(template.seeds)
    latest = {record["config_id"]: record for record in state.finished_trials if record["config_id"] in missing}
    return sorted(latest.values(), key=lambda record: record["number"])


def update_trial_records(template: TrialTemplate, state: StudyState) -> None:
    """Rewrite the records of finished trials whose runs have more seeds by now.

    A configuration may have two records, of which only one was rewritten when its seeds finished, and a call may be
    interrupted between the last run of a trial and its record.
    """
    seeds = {str(seed) for seed in template.seeds}
    missing = state.missing_seeds(template.seeds)
    for record in state.finished_trials:
        if set(record.get("by_seed", {})) != seeds and record["config_id"] not in missing:
            runs = [state.finished(record["config_id"], seed) for seed in template.seeds]
            updated = {key: value for key, value in record.items() if key != "failed_seeds"}
            state.write_trial({**updated, **result_record(template.search_objectives, runs)})


def unrecorded_points(template: TrialTemplate, search: Search, state: StudyState) -> list[dict[str, Any]]:
    """Return the points of the space that have begun to train and have no trial record.

    Their trial was cut off, or its damaged record was moved away. Baselines outside the space are not among them; they
    run again by their label.
    """
    recorded = {record["config_id"] for record in state.trials.values()}
    begun = {
        config_id: seed
        for (config_id, seed), files in state.run_files.items()
        if "settings.json" in files and config_id not in recorded
    }
    points = []
    for identifier, seed in begun.items():
        saved = state.folder.read_json(f"{run_directory(identifier, seed)}/settings.json")
        point = search.point_with(flatten(saved["settings"]))
        if point is not None and template.config_id(point) == identifier:
            points.append(point)
    return points
