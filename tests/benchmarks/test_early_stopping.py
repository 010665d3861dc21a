"""The early-stopping benchmark on the learning curves of a study."""

from __future__ import annotations

import numpy as np
from optuna.trial import FixedTrial

from tests.analysis import studies
from tests.benchmarks.early_stopping import ENGINES, recorded, simulate


def test_benchmark_replays_the_curves_of_a_study_with_every_engine(tmp_path):
    folder = studies.write_plan(tmp_path / "s", seeds=(0, 1))
    for number in range(6):
        studies.write_trial(folder, number, f"c{number}")
        for seed in (0, 1):
            end = studies.figures(0.3 + 0.05 * number, 0.05 + 0.02 * ((number + seed) % 6))
            studies.write_run(folder, f"c{number}", seed, end, end, weights=[0.1] * 9)
    problem = recorded(folder.uri)
    assert problem.epochs == 9 and "12 curves of 6 configurations" in problem.name
    rng = np.random.default_rng(0)
    ends = {tuple(problem.draw(FixedTrial({"configuration": "c3"}), rng)(9).round(9)) for _ in range(20)}
    assert ends == {(-0.45, 0.11), (-0.45, 0.13)}  # the proposed configuration with either seed
    started = {}
    for engine in ENGINES:
        spent, volumes, started[engine.name] = simulate(problem, engine, seed=0, budget=90)
        assert len(spent) and spent[-1] <= 90 and (np.diff(spent) > 0).all()
        assert (np.diff(volumes) >= 0).all() and 0 < volumes[-1] <= 1
    assert started["random"] == started["TPE"] < started["random, MO-ASHA 3"]
