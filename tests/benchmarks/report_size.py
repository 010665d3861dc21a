"""Measure time and memory of the report of a large study: ``python -m tests.benchmarks.report_size``.

Writes a finished search of ``--trials`` configurations with one seed and 3,000 dev and 3,000 test predictions each, and
creates the report in a separate process.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna

from search_spaces import space_maker
from study.common.groups import EMOTIONS, LANGUAGES, SCORE_COLUMNS
from study.config.settings import Settings
from study.evaluation.metrics import evaluate
from study.storage.records import run_directory
from study.storage.study_folder import StudyFolder
from tests.analysis import studies

PER_CELL, SPEAKERS, EPOCHS = 500, 50, 20


def write_large_study(path: Path, trials: int) -> StudyFolder:
    """Write a finished search of the space ``fairness``, with ERM and the paper's setting first."""
    space = space_maker("fairness")(LANGUAGES, Settings())
    hyperparameters = [hyperparameter.model_dump(mode="json") for hyperparameter in space.hyperparameters]
    folder = studies.write_plan(path, trials=trials, space=space.name, hyperparameters=hyperparameters)
    utterances = studies.utterances(PER_CELL, SPEAKERS)
    folder.write_parquet("utterances.parquet", utterances)
    rng = np.random.default_rng(0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    proposals = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(trials):
        label, hyperparameters = (
            studies.HYPERPARAMETERS[number] if number < 2 else (None, space.suggest(proposals.ask()))
        )
        config_id = f"{number:010x}"
        studies.write_trial(folder, number, config_id, label, hyperparameters)
        accuracy = 0.3 + 0.3 * rng.random()
        predictions = studies.predict(utterances, accuracy, rng.uniform(-0.2, 0.2), seed=number)
        folder.write_parquet(f"{run_directory(config_id, 0)}/predictions.parquet", predictions)
        labels = np.array(EMOTIONS)[predictions[list(SCORE_COLUMNS)].to_numpy().argmax(axis=1)]
        table = utterances.assign(modality=predictions["modality"], predicted=labels)
        dev, test = (evaluate(table[table["split"] == split]) for split in ("dev", "test"))
        studies.write_run(folder, config_id, 0, dev, test, weights=np.linspace(0, 1, EPOCHS))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--keep", metavar="DIR", help="folder for the study; an existing one is reused")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(options.keep or temporary) / "large"
        start = time.perf_counter()
        if not (path / "study.json").exists():
            write_large_study(path, options.trials)
            print(f"{options.trials} trials written in {time.perf_counter() - start:.0f} s")
        print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "analysis", "report", str(path)], check=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"report: {time.perf_counter() - start:.1f} s of wall clock, {used.ru_utime + used.ru_stime:.1f} s of "
            f"processor time, {used.ru_maxrss / 2**20:.2f} GiB peak, "
            f"{(path / 'report' / 'report.html').stat().st_size / 2**20:.1f} MiB of HTML"
        )


if __name__ == "__main__":
    main()
