"""What the user asks for, before the corpus is read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from study.config.settings import Parallelism, Settings
from study.search.mo_asha import MoAshaConfig
from study.search.objectives import SearchObjectives
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState

SINGLE = "single"
"""Name of the space of a study with one configuration (``study/train.py``)."""
NAMED_SPACES = (SINGLE, "ablation", "confirm")
"""Names of spaces that consist of named configurations; the command makes them, ``--space`` cannot choose them."""
SAMPLERS = ("tpe", "nsga2", "nsga3", "random", "grid")
GRID_POINTS = 3
"""Values of each numeric hyperparameter that ``--sampler grid`` tries."""


@dataclass(frozen=True)
class StudyRequest:
    """The options of a command, parsed and checked one by one.

    Attributes:
        folder: the study folder.
        name: name of the study.
        settings: the base configuration; each trial overrides some of its settings.
        parallelism: workers per trial and ZeRO stage.
        space: name of the search space.
        trials: number of trials the study shall have in total.
        seeds: seeds of every configuration.
        cache: folder of the corpus, the features and the tiny backbone; studies share it.
        cores: CPU cores available to workers, or GPUs where there are any; None if unknown.
        fixed: names of the settings given by ``--set``; they are not searched.
        errors: everything wrong so far; ``study.planning.plan.build_plan`` adds to it and raises.
        pinned: values given by ``--set`` for conditional hyperparameters, such as the ramp of a searched schedule.
            Every trial in which the hyperparameter applies takes the given value.
        search_objectives: objectives and constraints of the search.
        sampler: one of ``SAMPLERS``.
        sampler_seed: seed of the sampler.
        retries: how often a failed trial is retried within one call.
        budget: upper limit in worker-hours; None for no limit.
        early_stopping: rule that stops trials early; None trains every trial to its end.
        trackers: experiment trackers that receive the results, besides the study folder.
        profile: whether each trial profiles a few steps of its first seed.
    """

    folder: StudyFolder
    name: str
    settings: Settings
    parallelism: Parallelism
    space: str
    trials: int
    seeds: tuple[int, ...]
    cache: Path
    cores: int | None
    fixed: tuple[str, ...]
    errors: tuple[str, ...]
    pinned: dict[str, Any] = field(default_factory=dict)
    search_objectives: SearchObjectives = SearchObjectives()
    sampler: str = "tpe"
    sampler_seed: int = 0
    retries: int = 1
    budget: float | None = None
    early_stopping: MoAshaConfig | None = None
    trackers: tuple[str, ...] = ()
    profile: bool = False

    def for_labels(self, labels: tuple[str, ...], state: StudyState) -> StudyRequest:
        """Return the request with as many trials as named configurations.

        Args:
            labels: of the configurations that this call wants.
            state: records of the study; configurations that have finished count too.
        """
        finished = [trial["label"] for trial in state.finished_trials]
        return replace(self, trials=len(finished) + len(set(labels) - set(finished)))
