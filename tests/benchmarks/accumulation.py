"""Measure the cost of gradient accumulation: the same global batch in one piece and in micro-batches.

``python -m tests.benchmarks.accumulation`` uses the synthetic corpus and the tiny backbone, with one worker. A step of
A micro-batches has A forward passes without gradient and A with it. If a backward pass costs two forward passes, that
is at most 4/3 of the arithmetic of one piece.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time

import numpy as np

from study.cli.request import search_request
from study.cli.sweep import make_parser
from study.config.settings import Parallelism
from study.data.samplers import balanced_batches
from study.planning.plan import build_plan
from study.planning.prepare import prepare
from study.storage.study_folder import StudyFolder
from study.training.engine import join_process_group
from study.training.run_plan import RunPlan
from study.training.trainer import Trainer

STEPS, WARM_UP = 12, 3


def seconds_per_step(plan: RunPlan) -> float:
    """Return the median over ``STEPS`` steps after a warm-up."""
    trainer = Trainer(plan, seed=0)
    size = plan.settings.optimisation.batch_size
    batches = balanced_batches(trainer.step.examples.groups, size, np.random.default_rng(0))
    seconds = []
    for rows in batches[: STEPS + WARM_UP]:
        start = time.perf_counter()
        trainer.step(trainer.collate(rows), trainer.fairness.weights(progress=0.0), trainer.state.loss_state, epoch=1)
        seconds.append(time.perf_counter() - start)
    trainer.close()
    return statistics.median(seconds[WARM_UP:])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.accumulation", description=__doc__.split("\n")[0])
    parser.add_argument("--storage", default=None, help="folder for the corpus (default: a temporary one)")
    storage = parser.parse_args().storage
    join_process_group()
    with tempfile.TemporaryDirectory() as folder:
        options = make_parser().read(["--storage", storage or folder, "--num-workers", "1"])
        plan = build_plan(search_request(*options, cores=1))
        prepared = prepare(plan)
        unsplit = 0.0
        for micro in (64, 32, 16, 8):
            settings = plan.request.settings.with_overrides({"optimisation.micro_batch_size": micro})
            run_plan = RunPlan(
                settings=settings,
                parallelism=Parallelism(num_workers=1, zero_stage=0),
                config_id="accumulation",
                features=prepared.features,
                backbone=prepared.backbone,
                folder=StudyFolder.at(folder, "accumulation"),
            )
            seconds = seconds_per_step(run_plan)
            unsplit = unsplit or seconds
            print(f"{64 // micro} x {micro:2}: {1000 * seconds:6.0f} ms per step, ratio {seconds / unsplit:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
