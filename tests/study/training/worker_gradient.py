"""Run under torchrun by ``test_collectives``: the gradients of steps, gathered from however many ranks there are.

usage: worker_gradient.py PLAN_JSON OUT.npz
"""

from __future__ import annotations

import sys

import numpy as np
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad

import study.training.run
from study.config.settings import Settings
from study.data.samplers import balanced_batches
from study.losses.base import PenalisedLoss
from study.training.engine import join_process_group
from study.training.run import Run
from tests.study.training.worker_plan import read_plan


def main() -> None:
    join_process_group()
    plan, spec = read_plan(sys.argv[1])
    study.training.run.OVERHEAD = 20  # short clips are worth a bucket of their own
    run = Run(plan, seed=0)
    groups = run.examples["train"].groups
    size = plan.settings.optimisation.batch_size
    first, second = balanced_batches(groups, size, np.random.default_rng(0))[:2]
    if spec["order"] != "drawn":  # in that order, not by length
        run.examples["train"].lengths[:] = 1
    order = {"drawn": lambda group: 0, "gender": lambda group: group % 2, "cell": lambda group: group // 2}[
        spec["order"]
    ]

    gradients: dict[str, np.ndarray] = {}
    name = ""
    step = run.engine.step

    def keep_gradients_then_step() -> None:
        if run.engine.is_gradient_accumulation_boundary():
            for parameter_name, parameter in run.engine.module.named_parameters():
                if parameter.requires_grad:
                    gradients[f"{name}:{parameter_name}"] = safe_get_full_grad(parameter).clone().numpy()
        step()

    run.engine.step = keep_gradients_then_step
    for name, tree in spec["objectives"].items():  # noqa: B007  (the closure above reads it)
        run.loss = loss = Settings.model_validate({**spec["settings"], "loss": tree}).loss
        run.loss_state = {}
        run.measure_control()
        weights = ()
        if isinstance(loss, PenalisedLoss):
            weights = (2.0, 1.0, 3.0)[: loss.n_weights(len(run.cells))]
        for batch in (first, second):  # the second step is the one that is kept: memory has something to say in it
            # with one gender (or cell) after the other, each rank and micro-batch holds one only
            batch = batch[np.argsort([order(group) for group in groups[batch]], kind="stable")]
            passes = run.collated(np.split(batch, run.num_workers))
            assert sum(map(len, passes)) > 1 or not plan.settings.computation.length_buckets
            parts, _ = run.step(passes, weights)
        gradients |= {f"{name}:penalty": np.array(float(parts.penalty)), f"{name}:total": np.array(float(parts.total))}
    if run.rank == 0:
        np.savez(sys.argv[2], **gradients)
    run.close()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
