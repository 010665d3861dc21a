"""Where a large study bends: ``python -m tests.benchmarks.scale``, or with ``--loop`` for Ray Tune's loop.

Searcher, journal and records with trials that train nothing: each is suggested, gets made-up figures, its record is
written, and the searcher is told. At each of ``SIZES`` a row says what a trial costs by then and what a new start does.
Up to there, proposals of a random search are put into journal and records without asking the searcher: only so does
TPE get to thousands. Times are of the processor, since on a machine shared with others wall clock says little.
``--scheduler`` reports to the rungs of MO-ASHA instead; with ``--loop`` trials go through the study's own Tuner and
driver, which find every run finished.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import tempfile
import time
import uuid
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
from study.ray_backend.searcher import StudySearch, make_searcher
from study.search.mo_asha import MoAshaConfig, Rungs
from study.search.optuna_study import SAMPLERS, Search, open_journal, open_study, reconcile
from study.search.trial_records import TrialTemplate, refresh_trials, result_record, trial_record, trials_without_seeds
from study.storage.records import read_trials, run_directory, write_trial
from study.storage.study_folder import StudyFolder
from tests.analysis import studies

SIZES = (100, 1000, 3000, 10000)
WINDOW = 10  # suggestions of each sampler at a size, over which its times are means
SETTINGS = Settings().with_overrides(TINY)


def finish(folder: StudyFolder, config_id: str, number: int) -> None:
    """Write what a run of seed 0 leaves last, with made-up figures."""
    rng = np.random.default_rng(number)
    dev, test = (studies.figures(rng.uniform(0.2, 0.6), rng.uniform(0.0, 0.2)) for _ in range(2))
    finished = {"config_id": config_id, "seed": 0, "epoch": 1, "epochs_run": 1, "dev": dev, "test": test}
    folder.write_json(f"{run_directory(config_id, 0)}/finished.json", {**finished, "seconds": {"total": 1.0}})


class InstantDriver(tuner.TrialDriver):
    """The study's driver; every run that it looks for has finished."""

    def _take(self, suggestion: dict) -> None:
        record = trial_record(suggestion, self.template)
        finish(self.template.folder, record["config_id"], record["number"])
        super()._take(suggestion)


def make_study(path: Path, space_name: str, sampler: str = "random") -> tuple[TrialTemplate, Search]:
    """An empty study of a space and what searches it."""
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
    """Print at every size what a suggestion of each sampler costs, and then what the study does."""
    journal = template.folder.path("journal.log")
    storage = open_journal(journal)
    study = open_study(storage, search, {})
    for reference in range(len(search.space.references)):  # they are queued, and would be the first suggestions
        study.tell(study.ask().number, [0.3 + reference / 100, 0.1])
    for size in sizes:
        fill(study, template, search, size)
        for sampler in samplers:
            found = len(study.get_trials(deepcopy=False))
            searcher = make_searcher(storage, replace(search, sampler=sampler), seed=found)
            first: dict[str, float] = {}
            ask(searcher, template, first)
            spent: dict[str, float] = {}
            for _ in range(WINDOW):
                ask(searcher, template, spent)
            each = ", ".join(f"{name} {1000 * value / WINDOW:.1f}" for name, value in spent.items())
            of_first = f"first suggestion of a start {first['suggest']:.2f} s"
            print(f"{size:6} trials, {sampler:7} | ms a trial: {each} | {of_first}", flush=True)
        print(
            f"{size:6} trials | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB at most | "
            f"journal {os.path.getsize(journal) / 2**20:.1f} MiB | {starting_again(template, search, journal)}",
            flush=True,
        )


def ask(searcher: StudySearch, template: TrialTemplate, spent: dict[str, float]) -> None:
    """One trial: suggested, its record written, told."""
    trial_id = uuid.uuid4().hex
    with clock(spent, "suggest"):
        suggestion = searcher.suggest(trial_id)
    if not isinstance(suggestion, dict):
        raise RuntimeError("the searcher gave no suggestion, though the space is infinite")
    record = trial_record(suggestion, template)
    finish(template.folder, record["config_id"], record["number"])
    with clock(spent, "record"):
        values = keep(template, record)["values"]
    with clock(spent, "tell"):
        result = {"dev_w_f1": values[0], "dev_gap": values[1], "complete": True, "done": True}
        searcher.on_trial_complete(trial_id, result)


def fill(study: optuna.Study, template: TrialTemplate, search: Search, size: int) -> None:
    """Put finished trials into journal, runs and records; their knobs are drawn by the space itself."""
    found = len(study.get_trials(deepcopy=False))
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=found))
    for number in range(found, size):
        trial = drawn.ask()
        hyperparameters = search.space.suggest(trial)
        record = trial_record({**hyperparameters, "number": number, "label": None}, template)
        finish(template.folder, record["config_id"], number)
        outcome = keep(template, record)
        study.add_trial(
            optuna.trial.create_trial(values=outcome["values"], params=trial.params, distributions=trial.distributions)
        )


def keep(template: TrialTemplate, record: dict) -> dict:
    """Write the record of a finished trial; its outcome."""
    outcome = {"state": "finished", "reason": None, "seconds": 1.0, **result_record(template, record["config_id"])}
    write_trial(template.folder, {**record, **outcome})
    return outcome


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


def rebuild(template: TrialTemplate, search: Search) -> None:
    """Print what a journal that is written anew from the records of a study costs."""
    spent: dict[str, float] = {}
    records = read_trials(template.folder)
    with clock(spent, "rebuilt"):
        open_study(open_journal(template.folder.path("journal-anew.log")), search, records)
    print(f"{len(records):6} trials: journal from records {spent['rebuilt']:.1f} s of processor", flush=True)


def loop(template: TrialTemplate, search: Search, trials: int) -> None:
    """Print how many trials a second Tune starts and ends, in ten parts; one at a time.

    Of several at a time Tune gives up drivers that are still starting, 3 s of processor each, for one that has become
    free: with trials that take no time that would be all there is to see.
    """
    template = replace(template, parallelism=Parallelism(num_workers=os.cpu_count() or 1))
    path = Path(template.folder.uri)
    cluster.set_environment()
    cluster.connect()
    start = time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_SELF)
    with mock.patch.object(tuner, "TrialDriver", InstantDriver):
        tuner.run_trials(template, search, trials, [])
    wall = time.perf_counter() - start
    now = resource.getrusage(resource.RUSAGE_SELF)
    written = sorted(file.stat().st_mtime for file in (path / "trials").glob("*.json"))
    part = max(1, len(written) // 10)
    rates = [part / (written[i + part - 1] - written[i - 1]) for i in range(part, len(written) - part + 1, part)]
    print(f"{search.sampler}: {len(written)} trials through Tune in {wall:.0f} s; a second by tenth from the second:")
    print(" ".join(f"{rate:.1f}" for rate in rates))
    print(
        f"driver process: {now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime:.0f} s of processor, "
        f"{now.ru_maxrss / 2**10:.0f} MiB at most; Tune's own files "
        f"{sum(file.stat().st_size for file in (path / 'ray').rglob('*') if file.is_file()) / 2**20:.1f} MiB"
    )


def schedule(folder: StudyFolder, sizes: list[int]) -> None:
    """Print what a report to the first rung costs when so many trials have reached it, and reading them at a start."""
    rng = np.random.default_rng(0)
    rungs = Rungs(MoAshaConfig(), 20)
    for size in sizes:
        first = len(rungs.reached[1])
        for i in range(first, size):
            row = {"epoch": 1, "dev": {"w_f1": rng.random(), "gap": rng.random()}}
            folder.write_jsonl(f"{run_directory(str(i), 0)}/epochs.jsonl", [row])
        for i in range(first, size - WINDOW):
            rungs.note(str(i), 1, 0.0, tuple(rng.random(2)))
        spent: dict[str, float] = {}
        for i in range(size - WINDOW, size):
            with clock(spent, "report"):
                rungs.report(str(i), 1, 0.0, tuple(rng.random(2)))
        with clock(spent, "refill"):
            Rungs(MoAshaConfig(), 20).refill(folder, 0, [("dev_w_f1", "max"), ("dev_gap", "min")])
        print(
            f"MO-ASHA{size:7} trials at a rung | {1000 * spent['report'] / WINDOW:.2f} ms a report | "
            f"{spent['refill']:.2f} s to read them at a start",
            flush=True,
        )


@contextlib.contextmanager
def clock(spent: dict[str, float], name: str) -> Iterator[None]:
    """Add the processor seconds of this process."""
    start = time.process_time()
    yield
    spent[name] = spent.get(name, 0.0) + time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--samplers", default="random,tpe,nsga2")
    parser.add_argument("--space", default="fairness")
    parser.add_argument("--trials", type=int, default=SIZES[-1])
    parser.add_argument("--scheduler", action="store_true", help="MO-ASHA's rungs alone")
    parser.add_argument("--loop", action="store_true", help="through Ray Tune")
    flags = parser.parse_args()
    names = flags.samplers.split(",")
    if unknown := set(names) - set(SAMPLERS):
        parser.error(f"--samplers: {', '.join(sorted(unknown))}; there are {', '.join(SAMPLERS)}")
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
            rebuild(template, search)


if __name__ == "__main__":
    main()
