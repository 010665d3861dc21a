"""Turn the best configuration of finished searches into arms of an ablation.

Only dev is used, and every search gets the same budget: the first n trials of each search, where n is the smallest
number of trials that any of the given searches has finished. The selection takes, among the trials that the search
itself proposed (its baselines are arms already), the one with the smallest dev gap whose dev W-F1 is at most
``MAX_W_F1_LOSS`` below that of the search's own ERM. If there is none, it takes the one with the highest dev W-F1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from search_spaces.ablation_arms import TUNED, UNIFORM
from search_spaces.registry import COEFFICIENTS
from search_spaces.space import NamedConfiguration
from study.common.errors import SettingsError
from study.config.settings import Settings, flatten, parse
from study.storage.schemas import OBJECTIVES, objectives_of
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState

MAX_W_F1_LOSS = 0.01
ERM = "ERM"
COEFFICIENT_KINDS = {"languages": "language", "modalities": "modality", "cells": "cell"}


@dataclass(frozen=True)
class TunedArm:
    """The selected configuration of one search.

    Attributes:
        baseline: the arm; its note says how it was selected.
        uri: of the study.
        settings: that the search started from.
    """

    baseline: NamedConfiguration
    uri: str
    settings: dict[str, Any]

    def errors(self, settings: Settings) -> list[str]:
        """List the settings, other than those of the loss, that differ between the search and an ablation."""
        current, searched = flatten(settings.model_dump(mode="json")), flatten(self.settings)
        keys = [key for key in current | searched if not key.startswith("loss.")]
        return [
            f"--from {self.uri}: the search had {key}={searched.get(key)!r}, this call has {current.get(key)!r}; use "
            "--set to make them equal"
            for key in keys
            if current.get(key) != searched.get(key)
        ]

    def arm(self, settings: Settings) -> NamedConfiguration:
        """Return the arm in an ablation of these settings; it sets the whole loss if the search had another one."""
        start = parse(Settings, {**settings.model_dump(mode="json"), "loss": self.settings["loss"]})
        if start == settings:
            return self.baseline
        loss = start.with_overrides(self.baseline.fixed).loss.model_dump(mode="json")
        others = {key: value for key, value in self.baseline.fixed.items() if not key.startswith("loss.")}
        return replace(self.baseline, fixed={**others, **flatten({"loss": loss})})


def read_tuned_arms(folders: Sequence[StudyFolder]) -> list[TunedArm]:
    """Return the arm of each search.

    Raises:
        SettingsError: a search has no finished ERM or proposal, or other search objectives; or the searches differ in
            corpus, backbone or number of seeds.
        RecordError: there is no study in a folder.
    """
    states = [StudyState(folder) for folder in folders]
    budget = min((len(state.finished_trials) for state in states), default=0)
    errors = [message for state in states for message in _comparison_errors(state, states[0], budget)]
    if errors:
        raise SettingsError(errors)
    arms = []
    for state in states:
        plan, trials = state.plan, state.finished_trials[:budget]
        best = choose(trials)
        if best is None:
            errors.append(f"--from {state.folder.uri}: there is no proposal among its first {budget} finished trials")
            continue
        limit = f"dev W-F1 is at most {100 * MAX_W_F1_LOSS:g} point below ERM's"
        rule = (
            f"smallest dev gap among the proposals of the first {budget} finished trials whose {limit}"
            if best["values"][0] >= _lowest_w_f1(trials)
            else f"highest dev W-F1 among the proposals of the first {budget} finished trials, since there is none "
            f"whose {limit}"
        )
        note = f"{rule}; searched with seeds {', '.join(map(str, plan['seeds']))}"
        label = f"{describe_coefficients(plan)} ({plan['name']}, trial {best['number']})"
        baseline = NamedConfiguration(label, fixed=best["hyperparameters"], note=note)
        arms.append(TunedArm(baseline, state.folder.uri, plan["settings"]))
    if errors:
        raise SettingsError(errors)
    return arms


def _comparison_errors(state: StudyState, first: StudyState, budget: int) -> list[str]:
    """List why a search cannot be compared with ERM or with the first search."""
    plan, name = state.plan, f"--from {state.folder.uri}"
    errors = []
    if objectives_of(plan) != list(OBJECTIVES):
        errors.append(f"{name}: its search objectives are {plan['objectives']}, not dev W-F1 and dev gap")
    elif not any(trial["label"] == ERM for trial in state.finished_trials[:budget]):
        errors.append(f"{name}: there is no ERM among its first {budget} finished trials")
    for part in ("corpus", "backbone"):
        if plan[part]["hash"] != first.plan[part]["hash"]:
            errors.append(f"{name}: its {part} differs from that of {first.folder.uri}")
    seeds, first_seeds = len(plan["seeds"]), len(first.plan["seeds"])
    if seeds != first_seeds:
        errors.append(f"{name}: the budgets differ: {seeds} seeds per trial here, {first_seeds} in {first.folder.uri}")
    return errors


def choose(trials: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the selected trial, or None without a proposal. Ties go to the higher W-F1, then to the earlier trial.

    >>> def trial(number, label, w_f1, gap):
    ...     return {"number": number, "label": label, "values": [w_f1, gap]}
    >>> trials = [trial(0, "ERM", 0.5, 0.08), trial(1, None, 0.495, 0.05), trial(2, None, 0.48, 0.01)]
    >>> choose(trials)["number"]
    1
    """
    proposals = [trial for trial in trials if trial["label"] is None]
    accurate = [trial for trial in proposals if trial["values"][0] >= _lowest_w_f1(trials)]
    if not accurate:
        return max(proposals, key=lambda trial: (trial["values"][0], -trial["number"]), default=None)
    return min(accurate, key=lambda trial: (trial["values"][1], -trial["values"][0], trial["number"]))


def _lowest_w_f1(trials: Sequence[dict[str, Any]]) -> float:
    return float(next(trial["values"][0] for trial in trials if trial["label"] == ERM)) - MAX_W_F1_LOSS


def describe_coefficients(plan: dict[str, Any]) -> str:
    """Return which coefficients a study searched, from its ``study.json``."""
    names = [hyperparameter["name"] for hyperparameter in plan.get("hyperparameters", [])]
    searched = [
        noun
        for kind, noun in COEFFICIENT_KINDS.items()
        if any(name.startswith(f"{COEFFICIENTS}.{kind}.") for name in names)
    ]
    return f"{TUNED} {' and '.join(searched)}" if searched else UNIFORM
