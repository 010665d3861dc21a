"""Run under torchrun by ``test_collectives``: the gradient of one step, gathered from however many ranks there are.

usage: rank_gradient.py PLAN_JSON OUT.npz
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad

from study.batching import balanced_batches
from study.records import StudyFolder
from study.settings import Placement, Settings
from study.trainer import Run, RunPlan, join_process_group


def main() -> None:
    spec, out = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    join_process_group()
    plan = RunPlan(
        settings=Settings.model_validate(spec["settings"]),
        placement=Placement(**spec["placement"]),
        config_id="abc",
        features=Path(spec["features"]),
        backbone=spec["backbone"],
        folder=StudyFolder(spec["folder"]),
    )
    run = Run(plan, seed=0)
    groups = run.examples["train"].groups
    batch = balanced_batches(groups, plan.settings.optimisation.batch_size, np.random.default_rng(0))[0]
    if spec.get("by_gender"):  # the women first: with two ranks, or two micro-batches, each holds one gender only
        batch = batch[np.argsort(groups[batch] % 2, kind="stable")]
        share = len(batch) // run.ranks
        own = batch[run.rank * share : (run.rank + 1) * share]
    else:
        own = batch[run.rank :: run.ranks]

    gradients = {}
    step = run.engine.step

    def keep_gradients_then_step() -> None:
        if run.engine.is_gradient_accumulation_boundary():
            for name, parameter in run.engine.module.named_parameters():
                if parameter.requires_grad:
                    gradients[name] = safe_get_full_grad(parameter).clone().numpy()
        step()

    run.engine.step = keep_gradients_then_step
    parts, _ = run.step(own, weight=2.0)
    if run.rank == 0:
        np.savez(out, penalty=float(parts.penalty), total=float(parts.total), **gradients)
    run.close()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
