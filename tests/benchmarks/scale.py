"""Cost of a large study: ``python -m tests.benchmarks.scale``, or with ``--loop`` for Ray Tune's loop.

Trials train nothing: each is proposed, gets invented metrics, its record is written, and Optuna is told. At each of
``SIZES`` trials a line shows what a trial costs by then, and what a new start costs. The records up to there are those
of a random search, because TPE alone would take too long. Times are CPU seconds: wall-clock time says little on a
shared machine. ``--scheduler`` reports to the rungs of MO-ASHA instead. With ``--loop``, trials go through the study's
own tuner and driver, which find every run finished.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import optuna

from analysis.loading.study import load_study
from analysis.pareto.front import front
from search_spaces import space_maker
from study.common.groups import LANGUAGES, cells
from study.config.presets import TINY
from study.config.settings import Parallelism, Settings
from study.ray_backend import cluster, tuner
from study.search.mo_asha import MoAshaConfig, Rungs
from study.search.optuna_study import SAMPLERS, Proposer, Search
from study.search.random_search import random_points
from study.search.trial_records import (
    TrialTemplate,
    read_finished_runs,
    result_record,
    trial_record,
    trials_with_missing_seeds,
    unrecorded_points,
    update_trial_records,
)
from study.storage.records import run_directory, write_trial
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.analysis import studies

SIZES = (100, 1000, 3000, 10000)
WINDOW = 10  # proposals of each sampler at a size; times are their means
SETTINGS = Settings().with_overrides(TINY)


def finish(folder: StudyFolder, config_id: str, number: int) -> None:
    """Write the ``finished.json`` of seed 0 with invented metrics."""
    rng = np.random.default_rng(number)
    dev, test = (studies.figures(rng.uniform(0.2, 0.6), rng.uniform(0.0, 0.2)) for _ in range(2))
    finished = {"config_id": config_id, "seed": 0, "epoch": 1, "epochs_run": 1, "dev": dev, "test": test}
    folder.write_json(f"{run_directory(config_id, 0)}/finished.json", {**finished, "seconds": {"total": 1.0}})


class InstantDriver(tuner.TrialDriver):
    """The study's driver; every run has finished when it looks for it."""

    def _prepare(self, suggestion: dict) -> None:
        record = trial_record(suggestion, self.template)
        finish(self.template.folder, record["config_id"], record["number"])
        super()._prepare(suggestion)


def make_study(path: Path, space_name: str, sampler: str = "random") -> tuple[TrialTemplate, Search]:
    """Return an empty study of a space, and its search."""
    space = space_maker(space_name)(LANGUAGES, SETTINGS)
    folder = studies.write_plan(
        path, hyperparameters=[hyperparameter.model_dump(mode="json") for hyperparameter in space.hyperparameters]
    )
    of_study = cells(LANGUAGES, SETTINGS.modalities)
    template = TrialTemplate(
        settings=SETTINGS,
        parallelism=Parallelism(num_workers=1),
        seeds=(0,),
        features=path,
        backbone="tiny",
        cells=of_study,
        corpus_hash="",
        backbone_hash="",
        folder=folder,
        use_gpu=False,
    )
    return template, Search(path.name, space, SETTINGS, sampler=sampler, cells=of_study)


def simulate(template: TrialTemplate, search: Search, samplers: list[str], sizes: list[int]) -> None:
    """Print, at every size, the cost of a proposal of each sampler and of a new start."""
    for size in sizes:
        fill(template, search, size)
        for sampler in samplers:
            records = StudyState(template.folder).trials
            proposer = Proposer(replace(search, sampler=sampler), records)
            for _ in search.space.baselines:  # they are queued
                proposer.fail(proposer.propose().trial)
            first: dict[str, float] = {}
            run_trial(proposer, template, first)
            spent: dict[str, float] = {}
            for _ in range(WINDOW):
                run_trial(proposer, template, spent)
            each = ", ".join(f"{name} {1000 * value / WINDOW:.1f}" for name, value in spent.items())
            first_proposal = f"first proposal of a start {first['propose']:.2f} s"
            print(f"{size:6} trials, {sampler:7} | ms per trial: {each} | {first_proposal}", flush=True)
        print(
            f"{size:6} trials | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB peak | "
            f"journal {len(proposer.journal()) / 2**20:.1f} MiB | {start(template, search)}",
            flush=True,
        )


def run_trial(proposer: Proposer, template: TrialTemplate, spent: dict[str, float]) -> None:
    """Propose a trial, write its record, tell Optuna and export the journal; add the CPU seconds of each."""
    with clock(spent, "propose"):
        proposal = proposer.propose()
    assert proposal is not None, "the space is infinite"
    suggestion = {**proposal.hyperparameters, "number": proposal.number, "label": proposal.label}
    record = trial_record(suggestion, template)
    finish(template.folder, record["config_id"], record["number"])
    with clock(spent, "record"):
        values = write_finished_trial(template, record)
    with clock(spent, "tell"):
        proposer.finish(proposal.trial, {"dev_w_f1": values[0], "dev_gap": values[1]})
    with clock(spent, "export"):
        template.folder.write_bytes(tuner.JOURNAL, proposer.journal())


def fill(template: TrialTemplate, search: Search, size: int) -> None:
    """Write runs and records of finished trials at random points, up to ``size`` trials."""
    existing = len(template.folder.names("trials"))
    for number, point in zip(range(existing, size), random_points(search.space, existing), strict=False):
        record = trial_record({**point, "number": number, "label": None}, template)
        finish(template.folder, record["config_id"], number)
        write_finished_trial(template, record)


def write_finished_trial(template: TrialTemplate, record: dict) -> list[float]:
    """Write the record of a finished trial and return its objectives."""
    runs = read_finished_runs(template, record["config_id"])
    result = result_record(template.search_objectives, runs)
    write_trial(template.folder, {**record, "state": "finished", "reason": None, "seconds": 1.0, **result})
    return result["values"]


def start(template: TrialTemplate, search: Search) -> str:
    """Return the CPU seconds of a new start, and of the tables and front that a report begins with."""
    spent: dict[str, float] = {}
    state = StudyState(template.folder)
    with clock(spent, "records"):
        trials = state.trials
    with clock(spent, "seeds"):
        trials_with_missing_seeds(template, state)
        update_trial_records(template, state)
    with clock(spent, "interrupted trials"):
        unrecorded = unrecorded_points(template, search, state)
    with clock(spent, "Optuna study"):
        Proposer(search, trials, unrecorded)
    with clock(spent, "load_study and front"):
        front(load_study(template.folder).configurations)
    return "CPU seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in spent.items())


def loop(template: TrialTemplate, search: Search, trials: int) -> None:
    """Print how many trials per second Tune runs, one at a time, in ten parts.

    With several at a time, Tune would drop drivers that are still starting (3 CPU seconds each) for one that has become
    free. With trials that take no time, that would dominate.
    """
    template = replace(template, parallelism=Parallelism(num_workers=os.cpu_count() or 1))
    path = Path(template.folder.uri)
    cluster.set_environment()
    cluster.connect()
    start = time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_SELF)
    with mock.patch.object(tuner, "TrialDriver", InstantDriver):
        tuner.run_trials(template, search, StudyState(template.folder), trials, [])
    wall = time.perf_counter() - start
    now = resource.getrusage(resource.RUSAGE_SELF)
    written = sorted(file.stat().st_mtime for file in (path / "trials").glob("*.json"))
    part = max(1, len(written) // 10)
    rates = [part / (written[i + part - 1] - written[i - 1]) for i in range(part, len(written) - part + 1, part)]
    print(
        f"{search.sampler}: {len(written)} trials through Tune in {wall:.0f} s; "
        "trials per second in each tenth from the second:"
    )
    print(" ".join(f"{rate:.1f}" for rate in rates))
    print(
        f"driver process: {now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime:.0f} CPU seconds, "
        f"{now.ru_maxrss / 2**10:.0f} MiB peak; Tune's own files "
        f"{sum(file.stat().st_size for file in (path / 'ray').rglob('*') if file.is_file()) / 2**20:.1f} MiB"
    )


def schedule(folder: StudyFolder, sizes: list[int]) -> None:
    """Print the cost of a report to the first rung, by the number of trials there, and of loading them at a start."""
    rng = np.random.default_rng(0)
    rungs = Rungs(MoAshaConfig(), 20)
    for size in sizes:
        first = len(rungs.reached[1])
        for i in range(first, size):
            row = {"epoch": 1, "dev": {"w_f1": rng.random(), "gap": rng.random()}}
            folder.write_jsonl(f"{run_directory(str(i), 0)}/epochs.jsonl", [row])
        for i in range(first, size - WINDOW):
            rungs.record(str(i), 1, 0.0, tuple(rng.random(2)))
        spent: dict[str, float] = {}
        for i in range(size - WINDOW, size):
            with clock(spent, "report"):
                rungs.report(str(i), 1, 0.0, tuple(rng.random(2)))
        with clock(spent, "load"):
            Rungs(MoAshaConfig(), 20).load(StudyState(folder), 0, [("dev_w_f1", "max"), ("dev_gap", "min")])
        print(
            f"MO-ASHA{size:7} trials at a rung | {1000 * spent['report'] / WINDOW:.2f} ms per report | "
            f"{spent['load']:.2f} s to load them at a start",
            flush=True,
        )


@contextlib.contextmanager
def clock(spent: dict[str, float], name: str) -> Iterator[None]:
    """Add the CPU seconds of this process."""
    start = time.process_time()
    yield
    spent[name] = spent.get(name, 0.0) + time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--samplers", default="random,tpe,nsga2")
    parser.add_argument("--space", default="fairness")
    parser.add_argument("--trials", type=int, default=SIZES[-1])
    parser.add_argument("--scheduler", action="store_true", help="only the rungs of MO-ASHA")
    parser.add_argument("--loop", action="store_true", help="through Ray Tune")
    flags = parser.parse_args()
    names = flags.samplers.split(",")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if unknown := set(names) - {*SAMPLERS, "random"}:
        parser.error(f"--samplers: {', '.join(sorted(unknown))}; choose from random, {', '.join(SAMPLERS)}")
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores", flush=True)
    sizes = [size for size in SIZES if size < flags.trials] + [flags.trials]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        template, search = make_study(Path(temporary) / "scale", flags.space, names[0])
        if flags.scheduler:
            schedule(template.folder, sizes)
        elif flags.loop:
            loop(template, search, flags.trials)
        else:
            simulate(template, search, names, sizes)


if __name__ == "__main__":
    main()
