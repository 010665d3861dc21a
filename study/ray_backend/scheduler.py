"""MO-ASHA as a scheduler of Ray Tune, which has none for several objectives.

With several seeds a rung compares the first one alone: seeds run one after the other, so only there can a trial still
be stopped before it costs much. References, the trials with a label, are never stopped, since every front shows them;
what they reach counts at the rungs like that of any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from study.search.mo_asha import Objectives, Rungs, Standing, minimised

OnStop = Callable[[dict[str, Any], dict[str, Any], Standing], None]


class MoAsha(FIFOScheduler):
    """Stops a trial that does not stand among the first 1/eta at its rung.

    Args:
        seed: the one whose epochs are compared.
        on_stop: called with suggestion, result and standing of a trial before it is stopped, and so before Optuna hears
            of it.
        selected_by: the metric that selects a run's epoch.
    """

    def __init__(self, rungs: Rungs, objectives: Objectives, seed: int, on_stop: OnStop, selected_by: str = "dev_w_f1"):
        super().__init__()
        self.rungs, self.objectives, self.seed = rungs, objectives, seed
        self.on_stop, self.selected_by = on_stop, selected_by

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        config_id = result["config_id"]
        if result["seed"] != self.seed:
            self.rungs.end(config_id)
            return TrialScheduler.CONTINUE
        values = minimised(result, self.objectives)
        standing = self.rungs.report(config_id, result["epoch"], result[self.selected_by], values)
        if standing is None or standing.goes_on or trial.config["label"]:
            return TrialScheduler.CONTINUE
        self.on_stop(trial.config, result, standing)
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if result.get("complete"):
            self.rungs.end(result["config_id"])
