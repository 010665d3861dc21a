"""Measure how long the confidence intervals of a whole study take: ``python -m tests.benchmarks.uncertainty``.

Ten configurations with five seeds, 3,000 utterances per split in 500 dialogues, 2,000 resamples of every metric, each
configuration compared with the first by a paired permutation test. The study is read from disk.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from analysis.comparison.paired import compare
from analysis.loading.study import load_study
from analysis.pareto.attainment import probability_nondominated
from study.storage.study_folder import StudyFolder
from tests.analysis import studies


def write_study(path: Path, configurations: int, seeds: int, per_cell: int) -> StudyFolder:
    """Write a finished study whose later configurations are slightly less accurate and slightly fairer."""
    folder = studies.write_plan(path, range(seeds))
    utterances = studies.utterances(per_cell, speakers=20)
    folder.write_parquet("utterances.parquet", utterances)
    for number in range(configurations):
        config_id = f"c{number:04d}"
        label = "ERM" if number == 0 else None
        studies.write_trial(folder, number, config_id, label, {"loss.method": "erm"} if label else {})
        for seed in range(seeds):
            predictions = studies.predict(
                utterances, 0.62 - 0.01 * number, 0.2 - 0.02 * number, seed=100 * number + seed
            )
            studies.write_predictions(folder, utterances, config_id, seed, predictions)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.uncertainty", description=__doc__.split("\n")[0])
    parser.add_argument("--configurations", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-cell", type=int, default=500, help="utterances per language and gender")
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = load_study(write_study(Path(folder) / "study", options.configurations, options.seeds, options.per_cell))
        print(
            f"{options.configurations} configurations, {options.seeds} seeds, {6 * options.per_cell} utterances per "
            f"split, {options.resamples} resamples; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        )
        for name, run in (
            ("compare", lambda: compare(study, by="dialogue", resamples=options.resamples)),
            ("probability_nondominated", lambda: probability_nondominated(study, options.resamples, by="dialogue")),
        ):
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            print(f"{name}: {time.perf_counter() - wall:.1f} s ({time.process_time() - cpu:.1f} s of CPU)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
