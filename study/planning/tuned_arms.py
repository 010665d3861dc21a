"""What finished searches found, as arms of an ablation: chosen on dev alone, every search within the same budget.

The rule: of the first n trials of a search, that with the smallest dev gap among its own proposals (the configurations
that every study runs first are arms already) whose dev W-F1 is at most ``LOSS`` below that of the same search's ERM;
where there is none, that with the highest dev W-F1. n is the number of trials that every search given has finished, so
that none has had more looks at dev than another; a search with more of them has its later ones left out.
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
from study.storage.records import read_study, read_trials
from study.storage.schemas import OBJECTIVES, objectives_of
from study.storage.study_folder import StudyFolder

LOSS = 0.01
ERM = "ERM"
KINDS = {"languages": "language", "modalities": "modality", "cells": "cell"}


@dataclass(frozen=True)
class TunedArm:
    """One search's choice.

    Attributes:
        reference: the arm; its note says where it comes from.
        uri: of the study.  settings: those that it started from.
    """

    baseline: NamedConfiguration
    uri: str
    settings: dict[str, Any]

    def errors(self, settings: Settings) -> list[str]:
        """What differs from the settings of the ablation beside the objective, so that the arm would not be what was
        found."""
        here, there = flatten(settings.model_dump(mode="json")), flatten(self.settings)
        different = [k for k in here | there if here.get(k) != there.get(k) and not k.startswith("loss.")]
        return [
            f"--from {self.uri}: searched with {key} {there.get(key)!r}, here it is {here.get(key)!r}; --set the same"
            for key in different
        ]

    def arm(self, settings: Settings) -> NamedConfiguration:
        """The arm in an ablation of these settings; its objective whole, if its search started from another."""
        start = parse(Settings, {**settings.model_dump(mode="json"), "loss": self.settings["loss"]})
        if start == settings:
            return self.baseline
        loss = start.with_overrides(self.baseline.fixed).loss.model_dump(mode="json")
        others = {key: value for key, value in self.baseline.fixed.items() if not key.startswith("loss.")}
        return replace(self.baseline, fixed={**others, **flatten({"loss": loss})})


def read_tuned_arms(folders: Sequence[StudyFolder]) -> list[TunedArm]:
    """The arm of each search, all within the trials that every one of them has finished.

    Raises:
        SettingsError: a search that has no ERM or no proposal yet, or other objectives; or searches of different
            corpora, backbones or numbers of seeds.
        RecordError: no study there.
    """
    plans = {folder: read_study(folder) for folder in folders}
    trials = {folder: _finished(folder) for folder in folders}
    budget = min((len(found) for found in trials.values()), default=0)
    errors = []
    for folder, plan in plans.items():
        if objectives_of(plan) != list(OBJECTIVES):
            errors.append(f"--from {folder.uri}: it searched for {plan['objectives']}, not for dev W-F1 and dev gap")
        elif not any(trial["label"] == ERM for trial in trials[folder][:budget]):
            errors.append(f"--from {folder.uri}: there is no ERM among its first {budget} finished trials")
        first = plans[folders[0]]
        for what in ("corpus", "backbone"):
            if plan[what]["hash"] != first[what]["hash"]:
                errors.append(f"--from {folder.uri}: its {what} is another than that of {folders[0].uri}")
        if len(plan["seeds"]) != len(first["seeds"]):
            errors.append(
                f"--from {folder.uri}: {len(plan['seeds'])} seeds a trial, {len(first['seeds'])} in {folders[0].uri}: "
                "the budgets are not equal"
            )
    if errors:
        raise SettingsError(errors)
    found = []
    for folder, plan in plans.items():
        best = choose(trials[folder][:budget])
        if best is None:
            errors.append(f"--from {folder.uri}: there is no proposal among its first {budget} finished trials")
            continue
        within = f"dev W-F1 is at most {100 * LOSS:g} point below ERM's there"
        rule = (
            f"smallest dev gap of the proposals among the first {budget} finished trials whose {within}"
            if best["values"][0] >= _floor(trials[folder][:budget])
            else f"highest dev W-F1 of the proposals among the first {budget} finished trials; of none the {within}"
        )
        note = f"{rule}; searched with seeds {', '.join(map(str, plan['seeds']))}"
        label = f"{coefficients_in_words(plan)} ({plan['name']}, trial {best['number']})"
        found.append(
            TunedArm(NamedConfiguration(label, fixed=best["hyperparameters"], note=note), folder.uri, plan["settings"])
        )
    if errors:
        raise SettingsError(errors)
    return found


def choose(trials: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The trial that the rule takes, None without a proposal. Ties go to the higher W-F1, then to the earlier.

    >>> def trial(number, label, w_f1, gap):
    ...     return {"number": number, "label": label, "values": [w_f1, gap]}
    >>> tried = [trial(0, "ERM", 0.5, 0.08), trial(1, None, 0.495, 0.05), trial(2, None, 0.48, 0.01)]
    >>> choose(tried)["number"]
    1
    """
    proposals = [trial for trial in trials if trial["label"] is None]
    able = [trial for trial in proposals if trial["values"][0] >= _floor(trials)]
    if not able:
        return max(proposals, key=lambda trial: (trial["values"][0], -trial["number"]), default=None)
    return min(able, key=lambda trial: (trial["values"][1], -trial["values"][0], trial["number"]))


def _floor(trials: Sequence[dict[str, Any]]) -> float:
    return float(next(trial["values"][0] for trial in trials if trial["label"] == ERM)) - LOSS


def coefficients_in_words(plan: dict[str, Any]) -> str:
    """Which coefficients a study searched, from its ``study.json``."""
    names = [hyperparameter["name"] for hyperparameter in plan.get("hyperparameters", [])]
    kinds = [words for kind, words in KINDS.items() if any(n.startswith(f"{COEFFICIENTS}.{kind}.") for n in names)]
    return f"{TUNED} {' and '.join(kinds)}" if kinds else UNIFORM


def _finished(folder: StudyFolder) -> list[dict[str, Any]]:
    """In the order in which they were proposed."""
    records = read_trials(folder)
    return [records[number] for number in sorted(records) if records[number]["state"] == "finished"]
