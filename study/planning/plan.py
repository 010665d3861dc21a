"""From flags to a plan, with every fault named at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from search_spaces import Space
from study.config.settings import Parallelism, Settings
from study.data.corpora import Corpus
from study.search.mo_asha import HalvingRule
from study.search.objectives import SearchObjectives
from study.storage.records import read_trials
from study.storage.study_folder import StudyFolder

SINGLE = "single"
"""What stands for the space of a study that is one configuration."""
NAMED = (SINGLE, "ablation", "confirm")
"""What stands for the space of a study of named configurations, which its script makes."""
SAMPLERS = ("tpe", "nsga2", "nsga3", "random", "grid")
GRID_POINTS = 3


@dataclass(frozen=True)
class Draft:
    """What the flags say, before the corpus is read.

    Attributes:
        settings: the base configuration; a trial overrides some of it.
        space: name of what is searched.
        cache: where corpus, features and tiny backbone are kept, shared by studies.
        fixed: settings given by ``--set``, which the space then does not search.
        held: those of ``--set`` that only some configurations have, such as the ramp of a schedule that is searched.
        goals: what the search looks for.
        sampler: which of ``SAMPLERS`` proposes configurations.  sampler_seed: of it.
        retries: how often a trial that fails is tried again within one call.
        budget: worker-hours that the study may take, None for any.
        faults: what is wrong so far; ``complete`` adds to them and raises.
        trackers: where trials are sent besides the study's own records.
        early_stopping: the rule that stops trials early, None if every trial is trained to its end.
        profile: whether each trial leaves a profile of its first seed's steps.
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
    held: dict[str, Any] = field(default_factory=dict)
    search_objectives: SearchObjectives = SearchObjectives()
    sampler: str = "tpe"
    sampler_seed: int = 0
    retries: int = 1
    budget: float | None = None
    early_stopping: HalvingRule | None = None
    trackers: tuple[str, ...] = ()
    profile: bool = False

    def for_labels(self, labels: tuple[str, ...]) -> Draft:
        """The draft of a study of named trials, which is to have these beside those that it has."""
        there = [t["label"] for t in read_trials(self.folder).values() if t["state"] == "finished"]
        return replace(self, trials=len(there) + len(set(labels) - set(there)))


@dataclass(frozen=True)
class StudyPlan:
    """A draft without faults, with its corpus and the space for that corpus."""

    draft: Draft
    corpus: Corpus
    languages: tuple[str, ...]
    space: Space

    def counts(self) -> dict[str, int]:
        """Utterances of each split."""
        return {split: int((self.corpus.utterances["split"] == split).sum()) for split in ("train", "dev", "test")}
