"""MO-ASHA as a Ray Tune scheduler; Ray has no early stopping for several objectives.

With several seeds, only the first one is compared at the rungs: seeds run one after the other, so a trial can be
stopped cheaply during the first seed only. Baselines (trials with a label) are never stopped, because every front shows
them, but they count at the rungs like other trials.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from study.search.mo_asha import Objectives, RungDecision, Rungs, minimised

OnStop = Callable[[dict[str, Any], dict[str, Any], RungDecision], None]


class MoAshaScheduler(FIFOScheduler):
    """Stops a trial that is not among the best 1/reduction_factor at a rung.

    Args:
        seed: the seed whose epochs are compared.
        on_stop: called with the trial's suggestion, its last result and the decision, before the trial is stopped and
            the searcher is told.
        selection_metric: selects the epoch of a run.
    """

    def __init__(
        self, rungs: Rungs, objectives: Objectives, seed: int, on_stop: OnStop, selection_metric: str = "dev_w_f1"
    ):
        super().__init__()
        self.rungs, self.objectives, self.seed = rungs, objectives, seed
        self.on_stop, self.selection_metric = on_stop, selection_metric

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        config_id = result["config_id"]
        if result["seed"] != self.seed:
            self.rungs.finish(config_id)
            return TrialScheduler.CONTINUE
        values = minimised(result, self.objectives)
        decision = self.rungs.report(config_id, result["epoch"], result[self.selection_metric], values)
        if decision is None or decision.continues or trial.config["label"]:
            return TrialScheduler.CONTINUE
        self.on_stop(trial.config, result, decision)
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if result.get("complete"):
            self.rungs.finish(result["config_id"])
