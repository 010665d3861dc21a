"""Successive halving for several objectives: at which epochs configurations are compared, and which of them go on.

MO-ASHA (Schmucker et al., arXiv 2106.12639) in its stopping form: at each rung a configuration is ranked among those
that were there before it, at once and without waiting for others, and it goes on if it is in the first
1/reduction_factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from study.common.base_model import Frozen
from study.common.errors import SettingsError
from study.config.settings import parse
from study.search.dominance import place
from study.search.objectives import epoch_metrics
from study.storage.records import run_directory
from study.storage.study_folder import StudyFolder

NAME = "mo-asha"
Objectives = Sequence[tuple[str, str]]
"""(metric, "max" | "min")."""


class HalvingRule(Frozen):
    """``eta``: one in so many goes on at a rung.  ``grace``: the epoch of the first rung."""

    reduction_factor: Annotated[int, Field(ge=2)] = 3
    grace_period: Annotated[int, Field(ge=1)] = 1

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """The epochs before the last one at which is decided: grace * eta^k.

        >>> HalvingRule().rungs(20), HalvingRule(reduction_factor=4, grace_period=2).rungs(20)
        ((1, 3, 9), (2, 8))
        """
        rungs, rung = [], self.grace_period
        while rung < epochs:
            rungs.append(rung)
            rung *= self.reduction_factor
        return tuple(rungs)

    def places(self, reached: int) -> int:
        """How many of those that reached a rung go on from it: a part 1/eta, rounded up."""
        return -(-reached // self.reduction_factor)


def read_rule(text: str) -> HalvingRule | None:
    """The rule of ``--early-stopping``: ``none``, ``mo-asha`` or ``mo-asha:reduction_factor=4,grace_period=2``.

    Raises:
        SettingsError: it is not such a rule.

    >>> read_rule("mo-asha:reduction_factor=4")
    HalvingRule(reduction_factor=4, grace_period=1)
    """
    name, _, settings = text.partition(":")
    if text == "none":
        return None
    if name != NAME:
        raise SettingsError([f"there is no {text!r}; choose none, {NAME} or {NAME}:reduction_factor=3,grace_period=1"])
    pairs = (item.partition("=") for item in settings.split(",") if item)
    return parse(HalvingRule, {key: value for key, _, value in pairs})


@dataclass(frozen=True)
class Standing:
    """Where a configuration stands at a rung: its place (from 1) among those that reached it, and how many go on."""

    epoch: int
    place: int
    reached: int
    places: int

    @property
    def goes_on(self) -> bool:
        return self.place <= self.places

    def __str__(self) -> str:
        go = "1 goes on" if self.places == 1 else f"{self.places} go on"
        return f"epoch {self.epoch}: place {self.place} of {self.reached}, {go}"


class Rungs:
    """What every configuration had reached at each rung: the figures of its selected epoch so far.

    These are what the search would be told if training ended there; the selected epoch is that of
    ``study.training.trainer.train``, the first with the highest score.
    """

    def __init__(self, halving: HalvingRule, epochs: int):
        self.halving = halving
        self.reached: dict[int, dict[str, tuple[float, ...]]] = {epoch: {} for epoch in halving.rungs(epochs)}
        self.selected: dict[str, tuple[float, tuple[float, ...]]] = {}

    def report(self, config_id: str, epoch: int, score: float, values: tuple[float, ...]) -> Standing | None:
        """Note the end of an epoch.

        Args:
            score: what selects the epoch, higher is better.
            values: the objectives, to be minimised; NaN where undefined.

        Returns:
            Where the configuration stands, None if this epoch is no rung.
        """
        self.note(config_id, epoch, score, values)
        if epoch not in self.reached:
            return None
        rung = self.reached[epoch]
        before = place(np.array(list(rung.values())), list(rung).index(config_id))
        return Standing(epoch, before + 1, len(rung), self.halving.places(len(rung)))

    def note(self, config_id: str, epoch: int, score: float, values: tuple[float, ...]) -> None:
        """``report`` without asking where the configuration stands, which takes sorting all that reached the rung."""
        best = self.selected.get(config_id)
        if best is None or epoch == 1 or score > best[0]:
            self.selected[config_id] = score, values
        if epoch in self.reached:
            self.reached[epoch][config_id] = self.selected[config_id][1]

    def end(self, config_id: str) -> None:
        """Note that training has ended, perhaps for want of progress: the figures stand at the later rungs too."""
        if config_id in self.selected:
            for rung in self.reached.values():
                rung.setdefault(config_id, self.selected[config_id][1])

    def refill(self, folder: StudyFolder, seed: int, objectives: Objectives) -> None:
        """Take in what the runs of one seed left on disk, so that those of earlier calls count.

        Runs whose records lack an objective are left out.
        """
        names = [metric for metric, _ in objectives]
        for config_id in folder.names("runs"):
            directory = run_directory(config_id, seed)
            if not folder.exists(f"{directory}/epochs.jsonl"):
                continue
            for row in folder.read_jsonl(f"{directory}/epochs.jsonl"):
                try:
                    figures = epoch_metrics(names, row)
                except KeyError:  # from before all figures of dev were kept
                    continue
                self.note(config_id, row["epoch"], row["dev"]["w_f1"], minimised(figures, objectives))
            if folder.exists(f"{directory}/finished.json"):
                self.end(config_id)


def minimised(figures: Mapping[str, Any], objectives: Objectives) -> tuple[float, ...]:
    """The objectives with their signs turned where more is better; NaN where undefined.

    >>> minimised({"dev_w_f1": 0.5, "dev_gap": None}, [("dev_w_f1", "max"), ("dev_gap", "min")])
    (-0.5, nan)
    """
    values = (math.nan if figures[metric] is None else float(figures[metric]) for metric, _ in objectives)
    return tuple(-value if mode == "max" else value for value, (_, mode) in zip(values, objectives, strict=True))
