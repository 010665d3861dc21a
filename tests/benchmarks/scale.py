"""Where a large study bends: ``python -m tests.benchmarks.scale``, or with ``--loop`` for Ray Tune's loop.

Searcher, journal and records with trials that train nothing: each is suggested, gets made-up figures, its record is
written, and the searcher is told. At each of ``SIZES`` a row says what a trial costs by then and what a new start does.
With ``--loop`` the trials go through the study's own Tuner and driver instead, which find every run finished.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from analysis.load import load_study
from analysis.pareto import front
from search_spaces import space_maker
from study import connection, orchestration
from study.groups import LANGUAGES, cells
from study.records import StudyFolder, read_trials, run_directory, write_trial
from study.searcher import SAMPLERS, Search, make_searcher, open_journal, open_study, reconcile
from study.settings import TINY, Placement, Settings
from study.trials import TrialTemplate, refresh_trials, result_record, trial_record, trials_without_seeds
from tests.analysis import studies

SIZES = (100, 1000, 3000, 10000)
WINDOW = 50  # the last trials before a size, over which its rates are means
SETTINGS = Settings().with_overrides(TINY)


def finish(folder: StudyFolder, config_id: str, number: int) -> None:
    """Write what a run of seed 0 leaves last, with made-up figures."""
    rng = np.random.default_rng(number)
    dev, test = (studies.figures(rng.uniform(0.2, 0.6), rng.uniform(0.0, 0.2)) for _ in range(2))
    finished = {"config_id": config_id, "seed": 0, "epoch": 1, "epochs_run": 1, "dev": dev, "test": test}
    folder.write_json(f"{run_directory(config_id, 0)}/finished.json", {**finished, "seconds": {"total": 1.0}})


class InstantDriver(orchestration.TrialDriver):
    """The study's driver; every run that it looks for has finished."""

    def _take(self, suggestion: dict) -> None:
        record = trial_record(suggestion, self.template)
        finish(self.template.folder, record["config_id"], record["number"])
        super()._take(suggestion)


def make_study(path: Path, sampler: str) -> tuple[TrialTemplate, Search]:
    """An empty study of the space ``fairness`` and what searches it."""
    space = space_maker("fairness")(LANGUAGES, SETTINGS)
    folder = studies.write_plan(path, knobs=[knob.model_dump(mode="json") for knob in space.knobs])
    of_study = cells(LANGUAGES, SETTINGS.modalities)
    template = TrialTemplate(
        settings=SETTINGS,
        placement=Placement(ranks=1),
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


def simulate(sampler: str, path: Path, sizes: list[int], seconds: float) -> None:
    """Print a row at every size that is reached in time."""
    template, search = make_study(path, sampler)
    journal = str(path / "journal.log")
    storage = open_journal(journal)
    open_study(storage, search, {})
    searcher = make_searcher(storage, search, seed=0)
    start = time.perf_counter()
    spent = dict.fromkeys(("suggest", "record", "tell"), 0.0)
    for done in range(1, sizes[-1] + 1):
        if time.perf_counter() - start > seconds:
            print(f"{sampler:7}{done - 1:7} trials after {seconds:.0f} s: stopped", flush=True)
            return
        if any(done == max(size - WINDOW, 0) + 1 for size in sizes):
            spent = dict.fromkeys(spent, 0.0)
        with clock(spent, "suggest"):
            suggestion = searcher.suggest(str(done))
        if not isinstance(suggestion, dict):
            raise RuntimeError(f"{sampler} gave no suggestion after {done - 1} trials")
        record = trial_record(suggestion, template)
        finish(template.folder, record["config_id"], record["number"])
        with clock(spent, "record"):
            outcome = result_record(template, record["config_id"])
            write_trial(template.folder, {**record, "state": "finished", "reason": None, "seconds": 1.0, **outcome})
        with clock(spent, "tell"):
            figures = {"dev_w_f1": outcome["values"][0], "dev_gap": outcome["values"][1]}
            searcher.on_trial_complete(str(done), {**figures, "complete": True, "done": True})
        if done in sizes:
            wall = time.perf_counter() - start
            each = ", ".join(f"{name} {1000 * value / min(WINDOW, done):.1f}" for name, value in spent.items())
            print(
                f"{sampler:7}{done:7} trials, {wall:.0f} s so far | ms of processor a trial: {each} | "
                f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB at most | "
                f"journal {os.path.getsize(journal) / 2**20:.1f} MiB | {starting_again(template, search, journal)}",
                flush=True,
            )


def starting_again(template: TrialTemplate, search: Search, journal: str) -> str:
    """Seconds of processor for the parts of a new start, and for the tables and front that a report begins with."""
    spent: dict[str, float] = {}
    with clock(spent, "read_trials"):
        records = read_trials(template.folder)
    with clock(spent, "seeds"):
        trials_without_seeds(template)
        refresh_trials(template)
    with clock(spent, "journal"):
        storage = open_journal(journal)
        study = open_study(storage, search, records)
        reconcile(study, records)
    with clock(spent, "searcher"):
        make_searcher(storage, search, seed=len(records))
    with clock(spent, "load_study and front"):
        front(load_study(template.folder).configurations)
    return "s of processor: " + ", ".join(f"{name} {value:.2f}" for name, value in spent.items())


def rebuild(sampler: str, path: Path) -> None:
    """Print what a journal that is written anew from the records of a study costs."""
    template, search = make_study(path, sampler)
    spent: dict[str, float] = {}
    records = read_trials(template.folder)
    with clock(spent, "rebuilt"):
        open_study(open_journal(str(path / "journal-anew.log")), search, records)
    print(f"{sampler:7}{len(records):7} trials: journal from records {spent['rebuilt']:.1f} s of processor", flush=True)


def loop(sampler: str, path: Path, trials: int) -> None:
    """Print how many trials a second Tune starts and ends, in ten parts."""
    connection.set_environment()
    template, search = make_study(path, sampler)
    connection.connect(stops_trials=False)
    start = time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_SELF)
    with mock.patch.object(orchestration, "TrialDriver", InstantDriver):
        orchestration.run_trials(template, search, trials, [])
    wall = time.perf_counter() - start
    now = resource.getrusage(resource.RUSAGE_SELF)
    written = sorted(file.stat().st_mtime for file in (path / "trials").glob("*.json"))
    part = max(1, len(written) // 10)
    rates = [part / (written[i + part - 1] - written[i - 1]) for i in range(part, len(written) - part + 1, part)]
    print(f"{sampler}: {len(written)} trials through Tune in {wall:.0f} s; trials a second by tenth, from the second: ")
    print(" ".join(f"{rate:.1f}" for rate in rates))
    print(
        f"driver process: {now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime:.0f} s of processor, "
        f"{now.ru_maxrss / 2**10:.0f} MiB at most; Tune's own files "
        f"{sum(file.stat().st_size for file in (path / 'ray').rglob('*') if file.is_file()) / 2**20:.1f} MiB"
    )


@contextlib.contextmanager
def clock(spent: dict[str, float], name: str) -> Iterator[None]:
    """Add the processor seconds of this process: on a machine shared with others wall clock says little."""
    start = time.process_time()
    yield
    spent[name] = spent.get(name, 0.0) + time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--samplers", default="random,nsga2,tpe")
    parser.add_argument("--trials", type=int, default=SIZES[-1])
    parser.add_argument("--seconds", type=float, default=900.0, help="of wall clock for each sampler")
    parser.add_argument("--loop", action="store_true", help="through Ray Tune")
    parser.add_argument("--rebuild", action="store_true", help="also write the journal anew from the records")
    flags = parser.parse_args()
    names = flags.samplers.split(",")
    if unknown := set(names) - set(SAMPLERS):
        parser.error(f"--samplers: {', '.join(sorted(unknown))}; there are {', '.join(SAMPLERS)}")
    if len(names) > 1:  # each in a process of its own, for its memory
        for name in names:
            others = [argument for argument in sys.argv[1:] if argument != flags.samplers and argument != "--samplers"]
            subprocess.run([sys.executable, "-m", "tests.benchmarks.scale", *others, "--samplers", name], check=True)
        return
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "scale"
        if flags.loop:
            loop(names[0], path, flags.trials)
            return
        sizes = [size for size in SIZES if size < flags.trials] + [flags.trials]
        simulate(names[0], path, sizes, flags.seconds)
        if flags.rebuild:
            rebuild(names[0], path)


if __name__ == "__main__":
    main()
