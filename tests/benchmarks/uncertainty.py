"""How long the intervals of a whole study take: ``python -m tests.benchmarks.uncertainty``.

Ten configurations of five seeds, 3,000 utterances a split in 500 dialogues, 2,000 resamples of every figure, each
configuration against the first with paired swaps; read from a study on disk.
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


def written(path: Path, configurations: int, seeds: int, per_cell: int) -> StudyFolder:
    """A finished study, later configurations a little less accurate and a little fairer."""
    folder = studies.write_plan(path, range(seeds))
    known = studies.utterances(per_cell, speakers=20)
    folder.write_parquet("utterances.parquet", known)
    for number in range(configurations):
        config_id = f"c{number:04d}"
        label = "ERM" if number == 0 else None
        studies.write_trial(folder, number, config_id, label, {"loss.method": "erm"} if label else {})
        for seed in range(seeds):
            made = studies.predict(known, 0.62 - 0.01 * number, 0.2 - 0.02 * number, seed=100 * number + seed)
            studies.write_predictions(folder, known, config_id, seed, made)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.uncertainty", description=__doc__.split("\n")[0])
    parser.add_argument("--configurations", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-cell", type=int, default=500, help="utterances a language and gender")
    parser.add_argument("--resamples", type=int, default=2000)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        study = load_study(written(Path(place) / "study", flags.configurations, flags.seeds, flags.per_cell))
        print(
            f"{flags.configurations} configurations, {flags.seeds} seeds, {6 * flags.per_cell} utterances a split, "
            f"{flags.resamples} resamples; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        )
        for name, run in (
            ("compare", lambda: compare(study, by="dialogue", resamples=flags.resamples)),
            ("probability_nondominated", lambda: probability_nondominated(study, flags.resamples, by="dialogue")),
        ):
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            print(f"{name}: {time.perf_counter() - wall:.1f} s ({time.process_time() - cpu:.1f} s of CPU)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
