"""The fairness weight during training: its current value, and its updates from held-out gaps."""

from __future__ import annotations

import torch

from study.losses.base import Loss, PenalisedLoss
from study.losses.gap_estimators import HeldOutGaps
from study.losses.minmaxgap import ErmMinMaxGap
from study.losses.schedules import AdaptiveWeight
from study.training.evaluator import Evaluator
from study.training.run_state import RunState


class FairnessWeightController:
    """Gives the fairness weights of each step, and does the fairness updates.

    Args:
        state: its dual variables and loss state are set and updated here.
    """

    def __init__(self, loss: Loss, state: RunState, evaluator: Evaluator, device: torch.device):
        self.loss, self.state, self.evaluator, self.device = loss, state, evaluator, device
        if isinstance(loss, PenalisedLoss) and isinstance(loss.fairness_weight, AdaptiveWeight):
            n_weights = loss.n_fairness_weights(len(evaluator.data.cells))
            state.dual_variables = [loss.fairness_weight.initial] * n_weights

    @property
    def updates_per_epoch(self) -> int:
        return self.loss.fairness_updates_per_epoch if isinstance(self.loss, PenalisedLoss) else 1

    def weights(self, progress: float) -> tuple[float, ...]:
        """Return lambda_t of the coming step: none, one, or one a cell.

        Args:
            progress: the share of all training steps that is done, in [0, 1].
        """
        if not isinstance(self.loss, PenalisedLoss):
            return ()
        schedule = self.loss.fairness_weight
        if isinstance(schedule, AdaptiveWeight):
            return tuple(self.state.dual_variables)
        return (schedule.at(progress),)

    def update(self) -> None:
        """Do one fairness update: measure the held-out gaps, and move the dual variables and the loss state by them."""
        if isinstance(self.loss, PenalisedLoss) and isinstance(self.loss.fairness_weight, AdaptiveWeight):
            schedule = self.loss.fairness_weight
            gaps = self.evaluator.gaps(schedule.split, schedule.driver)
            if len(self.state.dual_variables) == 1:
                gaps = [max((gap for gap in gaps if gap is not None), default=None)]
            self.state.dual_variables = [
                value if gap is None else schedule.updated(value, gap)
                for value, gap in zip(self.state.dual_variables, gaps, strict=True)
            ]
        self.measure_control_split()

    def measure_control_split(self) -> None:
        """Set the loss state from the control split, if the loss estimates its gaps there."""
        if isinstance(self.loss, ErmMinMaxGap) and isinstance(self.loss.estimator, HeldOutGaps):
            loss_state = self.loss.estimator.measure(self.evaluator.global_batch("control"))
            self.state.loss_state = {name: value.to(self.device) for name, value in loss_state.items()}
