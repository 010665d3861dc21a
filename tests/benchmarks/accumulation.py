"""What accumulation costs: the same effective batch in one piece and in micro-batches, with its extra forward passes.

``python -m tests.benchmarks.accumulation`` on the synthetic corpus with the tiny backbone, one rank. A step of A
micro-batches is A forward passes without gradient and A with it, so between 1 and 4/3 of the arithmetic of one piece
where a backward pass costs two forward ones.
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


def seconds_a_step(plan: RunPlan) -> float:
    """Median over ``STEPS`` steps after a warm-up."""
    trainer = Trainer(plan, seed=0)
    size = plan.settings.optimisation.batch_size
    batches = balanced_batches(trainer.step.examples.groups, size, np.random.default_rng(0))
    seconds = []
    for rows in batches[: STEPS + WARM_UP]:
        started = time.perf_counter()
        trainer.step(trainer.collate(rows), trainer.fairness.weights(progress=0.0), trainer.state.loss_state, epoch=1)
        seconds.append(time.perf_counter() - started)
    trainer.close()
    return statistics.median(seconds[WARM_UP:])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.accumulation", description=__doc__.split("\n")[0])
    parser.add_argument("--storage", default=None, help="where the corpus is kept (default: a temporary folder)")
    storage = parser.parse_args().storage
    join_process_group()
    with tempfile.TemporaryDirectory() as folder:
        options = make_parser().read(["--storage", storage or folder, "--num-workers", "1"])
        plan = build_plan(search_request(*options, cores=1))
        prepared = prepare(plan)
        whole = 0.0
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
            seconds = seconds_a_step(run_plan)
            whole = whole or seconds
            print(f"{64 // micro} x {micro:2}: {1000 * seconds:6.0f} ms a step, ratio {seconds / whole:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
