"""Run under torchrun by ``test_gradients``: write the gradients of training steps, gathered from all workers.

usage: worker_gradient.py PLAN_JSON OUT.npz
"""

from __future__ import annotations

import sys

import numpy as np
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad

import study.training.train_step
from study.config.settings import Settings
from study.data.samplers import balanced_batches
from study.losses.base import PenalisedLoss
from study.training.engine import join_process_group
from study.training.trainer import Trainer
from tests.study.training.worker_plan import read_plan


def main() -> None:
    join_process_group()
    plan, spec = read_plan(sys.argv[1])
    study.training.train_step.OVERHEAD = 20  # tokens; makes short clips worth a bucket of their own
    trainer = Trainer(plan, seed=0)
    examples = trainer.step.examples
    groups = examples.groups
    size = plan.settings.optimisation.batch_size
    first, second = balanced_batches(groups, size, np.random.default_rng(0))[:2]
    if spec["order"] != "drawn":  # keep that order instead of sorting by length
        examples.lengths[:] = 1
    order = {"drawn": lambda group: 0, "gender": lambda group: group % 2, "cell": lambda group: group // 2}[
        spec["order"]
    ]

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
    for name, tree in spec["losses"].items():  # noqa: B007  (the closure above reads it)
        loss = Settings.model_validate({**spec["settings"], "loss": tree}).loss
        trainer.step.loss = trainer.fairness.loss = loss
        trainer.state.loss_state = {}
        trainer.fairness.measure_control_split()
        weights: tuple[float, ...] = ()
        if isinstance(loss, PenalisedLoss):
            weights = (2.0, 1.0, 3.0)[: loss.n_fairness_weights(len(trainer.data.cells))]
        for batch in (first, second):  # the gradients of the second step are kept: it uses the loss state of the first
            # sorted by gender (or cell), each worker and micro-batch holds a single one
            batch = batch[np.argsort([order(group) for group in groups[batch]], kind="stable")]
            shares = np.split(batch, trainer.num_workers)
            micro_batches = trainer.step.collate(shares, trainer.state.micro_batch_tokens)
            assert sum(map(len, micro_batches)) > 1 or not plan.settings.computation.length_buckets
            value, _ = trainer.step(micro_batches, weights, trainer.state.loss_state, epoch=1)
            trainer.state.loss_state = value.state
        gradients |= {f"{name}:penalty": np.array(float(value.penalty)), f"{name}:total": np.array(float(value.total))}
    if trainer.rank == 0:
        np.savez(sys.argv[2], **gradients)
    engine.step = engine_step
    trainer.close()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
