"""Which configuration to take: rules that look at dev alone, and the single look at test that each one earns.

``python -m analysis select STUDY_DIR`` prints one row a rule. A rule is given a table without test figures, so it
cannot choose by them; what it chose is then looked up once (the manner of DomainBed's selection methods).
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
    """Nothing fits a rule; the message says why."""


class Rule(Protocol):
    """A rule of choice."""

    @property
    def words(self) -> str:
        """The rule, as a reader would say it."""
        ...

    def pick(self, dev: pd.DataFrame) -> str:
        """The config_id of the choice.

        Args:
            dev: output of :func:`eligible`.

        Raises:
            NoChoice: nothing fits.
        """
        ...


@dataclass(frozen=True)
class WithinGap:
    """The best W-F1 among configurations whose gap is at most ``limit`` (a fraction)."""

    limit: float = MAX_GAP

    @property
    def words(self) -> str:
        return f"best W-F1 with a gap of at most {POINTS * self.limit:.1f} points"

    def pick(self, dev: pd.DataFrame) -> str:
        fitting = dev[dev["dev_gap"] <= self.limit]
        if fitting.empty:
            raise NoChoice(f"the smallest dev gap is {POINTS * dev['dev_gap'].min():.1f} points")
        return _first(fitting, ["dev_w_f1", "dev_gap"], [False, True])


@dataclass(frozen=True)
class WithinAccuracy:
    """The smallest gap among configurations whose W-F1 is at most ``loss`` (a fraction) below that of ERM.

    ERM fits its own rule, so it is the choice where nothing else is as fair and as good.
    """

    loss: float = MAX_W_F1_LOSS

    @property
    def words(self) -> str:
        return f"smallest gap with W-F1 at most {POINTS * self.loss:.1f} points below ERM"

    def pick(self, dev: pd.DataFrame) -> str:
        erm = dev.loc[dev["label"] == ERM, "dev_w_f1"]
        if erm.empty:
            raise NoChoice("ERM has not finished every seed, or has no gap")
        fitting = dev[dev["dev_w_f1"] >= erm.iloc[0] - self.loss]
        return _first(fitting, ["dev_gap", "dev_w_f1"], [True, False])


@dataclass(frozen=True)
class Knee:
    """The configuration of the front that bulges farthest over the line between the front's two ends.

    W-F1 and gap are first scaled to the range of the front, so the distance has no unit (Das 1999, "On characterizing
    the knee of the Pareto curve based on normal-boundary intersection").
    """

    @property
    def words(self) -> str:
        return "knee of the front"

    def pick(self, dev: pd.DataFrame) -> str:
        chosen = _ordered_front(dev)
        if len(chosen) < 3:
            raise NoChoice("the front has fewer than three different configurations, so no knee")
        w_f1, gap = (chosen[name].to_numpy(dtype=float) for name in ("dev_w_f1", "dev_gap"))
        # both ends lie on w_f1 = gap once each is scaled to 0 … 1 along the front
        bulge = (w_f1 - w_f1[0]) / (w_f1[-1] - w_f1[0]) - (gap - gap[0]) / (gap[-1] - gap[0])
        if bulge.max() <= 1e-12:
            raise NoChoice("the front bulges nowhere over the line between its ends, so no knee")
        return str(chosen["config_id"].iloc[int(bulge.argmax())])


@dataclass(frozen=True)
class HypervolumeContribution:
    """The configuration without which the hypervolume would fall most.

    What the two ends contribute depends on the reference point, :data:`analysis.pareto.front.REFERENCE_POINT`.
    """

    @property
    def words(self) -> str:
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
    """What each rule chooses on dev, with its one look at test.

    Args:
        rules: in the order of the rows.

    Returns:
        One row a rule, with ``COLUMNS``; fractions. ``optimism_`` is dev minus test: above 0 for W-F1 and below 0 for
        the gap, dev promised more than test keeps. Where a rule cannot choose, ``reason`` says why, the choice is
        ``None`` and the figures are NaN.
    """
    dev = eligible(study.configurations)
    rows = []
    for rule in rules:
        row = dict.fromkeys(COLUMNS) | {"rule": rule.words}
        try:
            if dev.empty:
                raise NoChoice("no configuration has finished every seed with a gender gap")
            config_id = rule.pick(dev)
        except NoChoice as none:
            rows.append(row | {"reason": str(none)})
            continue
        found = study.configurations.set_index("config_id").loc[config_id]
        row |= {"config_id": config_id, "name": found["name"]}
        for figure in ("w_f1", "gap"):
            of_dev, of_test = found[f"dev_{figure}"], found[f"test_{figure}"]
            row |= {f"dev_{figure}": of_dev, f"test_{figure}": of_test, f"optimism_{figure}": of_dev - of_test}
        rows.append(row)
    figures = [name for name in COLUMNS if name.endswith(("w_f1", "gap"))]
    # as objects, so that None stays None
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object).astype(dict.fromkeys(figures, float))


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The choices as a reader wants them: points, words for names, the reason in place of a configuration."""
    named = [f"none: {reason}" if name is None else name for name, reason in table[["name", "reason"]].to_numpy()]
    out = pd.DataFrame({"rule": table["rule"], "configuration": named})
    for split in ("dev", "test"):
        out[f"{split} W-F1"] = POINTS * table[f"{split}_w_f1"]
        out[f"{split} gap"] = POINTS * table[f"{split}_gap"]
    out["dev − test W-F1"] = POINTS * table["optimism_w_f1"]
    out["dev − test gap"] = POINTS * table["optimism_gap"]
    return out


def _ordered_front(dev: pd.DataFrame) -> pd.DataFrame:
    """The front from the fairest to the most accurate; of equal points, the first trial."""
    marked = front(dev)
    return marked[marked["on_front"]].drop_duplicates(["dev_w_f1", "dev_gap"]).sort_values("dev_gap")


def _first(rows: pd.DataFrame, by: list[str], ascending: list[bool]) -> str:
    """The first row in this order; ties go to the earlier trial."""
    return str(rows.sort_values([*by, "number"], ascending=[*ascending, True])["config_id"].iloc[0])
