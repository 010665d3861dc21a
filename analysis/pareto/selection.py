"""Model selection: rules that choose a configuration by dev figures (``python -m analysis select STUDY_DIR``).

A rule receives a table without test figures. The test figures of its choice are looked up afterwards, once, as in the
model selection methods of DomainBed (Gulrajani and Lopez-Paz 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import moocore
import pandas as pd

from analysis.constants import ERM, MAX_GAP, MAX_W_F1_LOSS
from analysis.formatting import POINTS
from analysis.loading.study import Study
from analysis.pareto.front import REFERENCE_POINT, eligible, front

COLUMNS = (
    "rule", "config_id", "name", "dev_w_f1", "dev_gap", "test_w_f1", "test_gap", "optimism_w_f1", "optimism_gap",
    "reason",
)  # fmt: skip


class NoChoice(ValueError):
    """No configuration satisfies a rule; the message states why."""


class Rule(Protocol):
    """A rule that selects a configuration."""

    @property
    def description(self) -> str:
        """The rule in a few words."""
        ...

    def pick(self, dev: pd.DataFrame) -> str:
        """Return the config_id of the selected configuration.

        Args:
            dev: output of :func:`analysis.pareto.front.eligible`.

        Raises:
            NoChoice: no configuration satisfies the rule.
        """
        ...


@dataclass(frozen=True)
class WithinGap:
    """Select the best W-F1 among configurations with a gap of at most ``limit`` (a fraction)."""

    limit: float = MAX_GAP

    @property
    def description(self) -> str:
        return f"best W-F1 with a gap of at most {POINTS * self.limit:.1f} points"

    def pick(self, dev: pd.DataFrame) -> str:
        fitting = dev[dev["dev_gap"] <= self.limit]
        if fitting.empty:
            raise NoChoice(f"the smallest dev gap is {POINTS * dev['dev_gap'].min():.1f} points")
        return _first(fitting, ["dev_w_f1", "dev_gap"], [False, True])


@dataclass(frozen=True)
class WithinAccuracy:
    """Select the smallest gap among configurations with a W-F1 at most ``loss`` (a fraction) below that of ERM.

    ERM itself is a candidate.
    """

    loss: float = MAX_W_F1_LOSS

    @property
    def description(self) -> str:
        return f"smallest gap with W-F1 at most {POINTS * self.loss:.1f} points below ERM"

    def pick(self, dev: pd.DataFrame) -> str:
        erm = dev.loc[dev["label"] == ERM, "dev_w_f1"]
        if erm.empty:
            raise NoChoice("ERM has not finished every seed, or has no gap")
        fitting = dev[dev["dev_w_f1"] >= erm.iloc[0] - self.loss]
        return _first(fitting, ["dev_gap", "dev_w_f1"], [True, False])


@dataclass(frozen=True)
class Knee:
    """Select the configuration of the front with the largest distance from the line between the front's two ends.

    W-F1 and gap are scaled to the range of the front (Das 1999, "On characterizing the knee of the Pareto curve based
    on normal-boundary intersection").
    """

    @property
    def description(self) -> str:
        return "knee of the front"

    def pick(self, dev: pd.DataFrame) -> str:
        chosen = _ordered_front(dev)
        if len(chosen) < 3:
            raise NoChoice("the front has fewer than three distinct points, so it has no knee")
        w_f1, gap = (chosen[name].to_numpy(dtype=float) for name in ("dev_w_f1", "dev_gap"))
        # scaled to 0 … 1 along the front, both ends lie on the line w_f1 = gap
        distance = (w_f1 - w_f1[0]) / (w_f1[-1] - w_f1[0]) - (gap - gap[0]) / (gap[-1] - gap[0])
        if distance.max() <= 1e-12:
            raise NoChoice("no point of the front is above the line between its ends, so it has no knee")
        return str(chosen["config_id"].iloc[int(distance.argmax())])


@dataclass(frozen=True)
class HypervolumeContribution:
    """Select the configuration whose removal reduces the hypervolume most.

    The contributions of the two ends depend on :data:`analysis.pareto.front.REFERENCE_POINT`.
    """

    @property
    def description(self) -> str:
        return "largest contribution to the hypervolume"

    def pick(self, dev: pd.DataFrame) -> str:
        chosen = _ordered_front(dev)
        points = chosen[["dev_w_f1", "dev_gap"]].to_numpy(dtype=float)
        added = moocore.hv_contributions(points, ref=REFERENCE_POINT, maximise=[True, False])
        if not (added > 0).any():
            raise NoChoice(f"every dev gap is above {POINTS * REFERENCE_POINT[1]:.0f} points")
        return str(chosen["config_id"].iloc[int(added.argmax())])


RULES: tuple[Rule, ...] = (WithinGap(), WithinAccuracy(), Knee(), HypervolumeContribution())


def choose(study: Study, rules: Sequence[Rule] = RULES) -> pd.DataFrame:
    """Apply selection rules on dev and look up the test figures of each choice.

    Args:
        study: a study with its configurations.
        rules: in the order of the rows.

    Returns:
        One row per rule, with ``COLUMNS``; fractions. ``optimism_`` is dev minus test: dev figures were optimistic if
        it is positive for W-F1 or negative for the gap. If a rule selects nothing, ``reason`` states why, the
        configuration is ``None`` and the figures are NaN.
    """
    dev = eligible(study.configurations)
    rows = []
    for rule in rules:
        row = dict.fromkeys(COLUMNS) | {"rule": rule.description}
        try:
            if dev.empty:
                raise NoChoice("no configuration has finished every seed with a gender gap")
            config_id = rule.pick(dev)
        except NoChoice as none:
            rows.append(row | {"reason": str(none)})
            continue
        chosen = study.configurations.set_index("config_id").loc[config_id]
        row |= {"config_id": config_id, "name": chosen["name"]}
        for figure in ("w_f1", "gap"):
            of_dev, of_test = chosen[f"dev_{figure}"], chosen[f"test_{figure}"]
            row |= {f"dev_{figure}": of_dev, f"test_{figure}": of_test, f"optimism_{figure}": of_dev - of_test}
        rows.append(row)
    figures = [name for name in COLUMNS if name.endswith(("w_f1", "gap"))]
    # the object type keeps None
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object).astype(dict.fromkeys(figures, float))


def selection_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the output of :func:`choose` for display: figures in points, the reason in place of a configuration."""
    named = [f"none: {reason}" if name is None else name for name, reason in table[["name", "reason"]].to_numpy()]
    out = pd.DataFrame({"rule": table["rule"], "configuration": named})
    for split in ("dev", "test"):
        out[f"{split} W-F1"] = POINTS * table[f"{split}_w_f1"]
        out[f"{split} gap"] = POINTS * table[f"{split}_gap"]
    out["dev − test W-F1"] = POINTS * table["optimism_w_f1"]
    out["dev − test gap"] = POINTS * table["optimism_gap"]
    return out


def _ordered_front(dev: pd.DataFrame) -> pd.DataFrame:
    """Return the distinct points of the front, sorted by gap; of identical points, the first trial."""
    marked = front(dev)
    return marked[marked["on_front"]].drop_duplicates(["dev_w_f1", "dev_gap"]).sort_values("dev_gap")


def _first(rows: pd.DataFrame, by: list[str], ascending: list[bool]) -> str:
    """Return the config_id of the first row in this order; ties go to the earlier trial."""
    return str(rows.sort_values([*by, "number"], ascending=[*ascending, True])["config_id"].iloc[0])
