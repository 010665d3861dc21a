"""Run under torchrun by ``test_gradients``: write the gradients of training steps, gathered from all workers.

usage: worker_gradient.py CASE.json ...   (the gradients of CASE.json go to CASE.npz)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad

import study.training.train_step
from study.config.settings import Settings
from study.data.samplers import balanced_batches
from study.losses.base import PenalisedLoss
from study.training.engine import join_process_group
from study.training.run_plan import RunPlan
from study.training.trainer import Trainer
from tests.study.training.worker_plan import read_plan

GROUP_ORDER = {"drawn": lambda group: 0, "gender": lambda group: group % 2, "cell": lambda group: group // 2}
"""Sort keys of a batch. Sorted by gender (or cell), each worker and micro-batch holds a single one."""


def second_step_gradients(plan: RunPlan, losses: dict[str, Any], order: str) -> dict[str, np.ndarray]:
    """Do two steps of every loss and return the gradients of the second, which depend on the loss state of the first.

    Returns:
        By ``LOSS:PARAMETER``, ``LOSS:penalty`` and ``LOSS:total``; the same on every worker.
    """
    trainer = Trainer(plan, seed=0)
    examples = trainer.step.examples
    groups, lengths = examples.groups, examples.lengths.copy()
    first, second = balanced_batches(groups, plan.settings.optimisation.batch_size, np.random.default_rng(0))[:2]
    if order != "drawn":  # equal lengths keep that order
        examples.lengths[:] = 1
    gradients: dict[str, np.ndarray] = {}
    name = ""
    engine = trainer.engine.deepspeed
    engine_step = engine.step

    def keep_gradients_then_step() -> None:
        if engine.is_gradient_accumulation_boundary():
            for parameter_name, parameter in engine.module.named_parameters():
                if parameter.requires_grad:
                    gradients[f"{name}:{parameter_name}"] = safe_get_full_grad(parameter).clone().numpy()
        engine_step()

    engine.step = keep_gradients_then_step
    for name, tree in losses.items():  # noqa: B007  (the closure above reads it)
        loss = Settings.model_validate({**plan.settings.model_dump(mode="json"), "loss": tree}).loss
        trainer.step.loss = trainer.fairness.loss = loss
        trainer.state.loss_state = {}
        trainer.fairness.measure_control_split()
        weights: tuple[float, ...] = ()
        if isinstance(loss, PenalisedLoss):
            weights = (2.0, 1.0, 3.0)[: loss.n_fairness_weights(len(trainer.data.cells))]
        for batch in (first, second):
            batch = batch[np.argsort([GROUP_ORDER[order](group) for group in groups[batch]], kind="stable")]
            shares = np.split(batch, trainer.num_workers)
            micro_batches = trainer.step.collate(shares, trainer.state.micro_batch_tokens)
            assert sum(map(len, micro_batches)) > 1 or not plan.settings.computation.length_buckets
            value, _ = trainer.step(micro_batches, weights, trainer.state.loss_state, epoch=1)
            trainer.state.loss_state = value.state
        gradients |= {f"{name}:penalty": np.array(float(value.penalty)), f"{name}:total": np.array(float(value.total))}
    engine.step = engine_step
    trainer.close()
    examples.lengths[:] = lengths  # the process caches the examples
    return gradients


def main() -> None:
    join_process_group()
    study.training.train_step.OVERHEAD = 20  # tokens; makes short clips worth a bucket of their own
    for case in map(Path, sys.argv[1:]):
        plan, spec = read_plan(str(case))
        gradients = second_step_gradients(plan, spec["losses"], spec["order"])
        if dist.get_rank() == 0:
            np.savez(case.with_suffix(".npz"), **gradients)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
