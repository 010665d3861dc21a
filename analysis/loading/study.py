"""Load a study folder as tables: one row per run, per configuration and per cell.

Only finished runs are loaded. Figures are fractions, as in the records; an undefined gap is NaN.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.constants import ERM, PAPER, SPLITS
from analysis.loading.records import StudyRecords, read_finished, read_plan
from study.common.errors import RecordError
from study.common.groups import Cell
from study.evaluation.metrics import GAP_KINDS, ClassAverage, evaluate
from study.storage.records import run_directory
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState

FIGURES = (
    "w_f1", "accuracy", "uar", "invalid", "gap", *(f"gap_{kind}" for kind in GAP_KINDS), "gap_standardised",
    "worst_gap", "worst_group_w_f1",
)  # fmt: skip
FIGURE_COLUMNS = tuple(f"{split}_{figure}" for split in SPLITS for figure in FIGURES)
COMPARISON = "comparison method"
GAP_OF_MEANS_NOTE = (
    "TPR and FPR gaps are gaps of the means over emotions, in which gaps of opposite sign cancel (--class-average "
    "gap_of_means). Training curves and the study's own search objectives keep the recorded figures, which average the "
    "absolute gaps of the emotions."
)

_TRIAL_COLUMNS = ("number", "label", "name", "family", "hyperparameters")
_RUN_COLUMNS = (
    "config_id", "seed", *_TRIAL_COLUMNS, "epoch", "epochs_run", "seconds", "train_seconds", "evaluate_seconds",
    "startup",
)  # fmt: skip
_UNFINISHED_COLUMNS = ("number", "config_id", "label", "reason", "log")

CachedCounts = tuple[tuple[Cell, ...], tuple[str, ...], tuple[int, ...], NDArray[np.uint16]]


@dataclass(frozen=True, eq=False)
class Study:
    """A study as tables.

    Attributes:
        plan: ``study.json``.
        trials: the records of all trials, by ascending number.
        runs: one row per finished (config_id, seed): ``config_id, seed, number, label, name, family, hyperparameters,
            epoch, epochs_run``, ``seconds`` (in total), ``train_seconds``, ``evaluate_seconds``, ``startup`` (seconds
            of each phase before the first step, a dict) and the ``FIGURE_COLUMNS``, such as ``dev_w_f1``.
        configurations: one row per config_id, figures averaged over its finished seeds: ``config_id, number, label,
            name, family, hyperparameters, n_seeds, complete, seconds`` (summed over seeds) and the ``FIGURE_COLUMNS``.
            ``complete`` is true if every planned seed has finished and the configuration was trained on every modality
            of the study; otherwise its figures are means over other seeds or cells.
        cells: one row per (config_id, seed, split, language, modality): ``n_female, n_male, n_unknown, w_f1,
            accuracy, uar, invalid, gap, gap_standardised``, ``signed_``, ``absolute_`` and ``standardised_`` gaps by
            kind, and ``w_f1_``, ``accuracy_``, ``uar_`` and ``invalid_`` of ``female`` and ``male``.
        failed: one row per failed trial whose configuration has not finished since: ``number, config_id, label,
            reason, log``. Runs of such a configuration appear in no other table.
        pruned: the same for trials that were stopped early.
        records: the utterances, predictions, epochs and steps, read when needed.
        class_average: how the TPR and FPR gaps of the classes were averaged in these figures.
        cluster_counts: cache of :func:`analysis.stats.cluster_counts.counts_of`, by (config_id, split, cluster).
    """

    plan: dict[str, Any]
    trials: tuple[dict[str, Any], ...]
    runs: pd.DataFrame
    configurations: pd.DataFrame
    cells: pd.DataFrame
    failed: pd.DataFrame
    pruned: pd.DataFrame
    records: StudyRecords
    class_average: ClassAverage = "mean_of_gaps"
    cluster_counts: dict[tuple[str, str, str], CachedCounts] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> StudyFolder:
        """Where the study is stored."""
        return self.records.folder

    @property
    def seeds(self) -> tuple[int, ...]:
        """The planned training seeds."""
        return tuple(self.plan["seeds"])

    @property
    def notes(self) -> list[str]:
        """What a reader of any figure must know about the corpus and the class average, one sentence or two each."""
        of_corpus = self.plan["corpus"].get("notes", [])
        return [*of_corpus, *([] if self.class_average == "mean_of_gaps" else [GAP_OF_MEANS_NOTE])]

    def configuration(self, label: str) -> pd.Series | None:
        """Return the row of ``configurations`` with this label; ``None`` if it has no finished run."""
        rows = self.configurations[self.configurations["label"] == label]
        return None if rows.empty else rows.iloc[0]

    def seeds_of(self, config_id: str) -> list[int]:
        """Return the finished seeds of a configuration."""
        return [int(seed) for seed in self.runs.loc[self.runs["config_id"] == config_id, "seed"]]

    def predictions(self, config_id: str, seed: int, split: str) -> pd.DataFrame:
        """Return the predictions of one run; see :meth:`analysis.loading.records.StudyRecords.predictions`."""
        return self.records.predictions(config_id, seed, split)


def open_folder(folder: StudyFolder | str) -> StudyFolder:
    """Return a study folder from its path or URL; ``~`` and relative paths are resolved."""
    if isinstance(folder, StudyFolder):
        return folder
    return StudyFolder(folder.rstrip("/") if "://" in folder else os.path.abspath(os.path.expanduser(folder)))


def load_study(source: StudyState | StudyFolder | str, class_average: ClassAverage = "mean_of_gaps") -> Study:
    """Load a study.

    Args:
        source: a study folder, its path or URL, or records that have been read already.
        class_average: how the TPR and FPR gaps of the classes are averaged
            (:func:`study.evaluation.metrics.signed_and_absolute_gaps`). With another value than the default, the
            figures of every run are computed again from its predictions.

    Raises:
        RecordError: there is no study, a file is missing or damaged, or a run has a seed that is not planned; the
            message names the file and the remedy.
    """
    if isinstance(source, str):
        source = open_folder(source)
        source.require_storage()
    state = source if isinstance(source, StudyState) else StudyState(source)
    folder = state.folder
    plan = read_plan(state)
    described, failed, pruned = _describe_trials(state.trials.values(), plan["settings"])
    unfinished = {*failed["config_id"], *pruned["config_id"]}
    records = StudyRecords(folder)
    runs, cells = [], []
    for config_id, seed in state.finished_runs:
        if config_id in unfinished:
            continue
        finished = read_finished(state, config_id, seed)
        if seed not in plan["seeds"]:
            raise RecordError(
                f"{folder.path(run_directory(config_id, seed))} has seed {seed}, which study.json does not plan: its "
                f"seeds are {', '.join(map(str, plan['seeds']))}. Add it with --seeds, or move that folder away."
            )
        if class_average != "mean_of_gaps":
            figures = {s: evaluate(records.predictions(config_id, seed, s), class_average) for s in SPLITS}
            finished = finished | figures
        trial = described.get(config_id) or _describe({"config_id": config_id}, plan["settings"])
        runs.append({**trial, **_run_row(finished)})
        cells += _cell_rows(finished)
    run_table = pd.DataFrame(runs, columns=[*_RUN_COLUMNS, *FIGURE_COLUMNS])
    run_table = run_table.astype(dict.fromkeys(FIGURE_COLUMNS, float))
    cell_table = pd.DataFrame(cells)
    configurations = _configurations(run_table, plan["seeds"])
    if not cell_table.empty:
        has_all = cell_table.groupby("config_id")["modality"].agg(lambda names: set(plan["modalities"]) <= set(names))
        configurations["complete"] &= configurations["config_id"].map(has_all).astype(bool)
    return Study(
        plan=plan,
        trials=tuple(state.trials.values()),
        runs=run_table,
        configurations=configurations,
        cells=cell_table,
        failed=failed,
        pruned=pruned,
        records=records,
        class_average=class_average,
    )


def load_epochs(study: Study) -> pd.DataFrame:
    """Return the epochs of all finished runs, one row per (config_id, seed, epoch).

    Returns:
        ``config_id, name, label, family, seed, epoch, loss, fairness_weight, penalty, dev_w_f1, dev_gap``;
        fractions, losses in nats.

    Raises:
        RecordError: an ``epochs.jsonl`` is missing or damaged.
    """
    rows = []
    for run in study.runs.to_dict("records"):
        for epoch in study.records.epochs(run["config_id"], run["seed"], run["epochs_run"]):
            dev = epoch.get("dev") or {}
            rows.append(
                {
                    **{key: run[key] for key in ("config_id", "name", "label", "family", "seed")},
                    **{key: epoch.get(key) for key in ("epoch", "loss", "fairness_weight", "penalty")},
                    "dev_w_f1": dev.get("w_f1"),
                    "dev_gap": dev.get("gap"),
                }
            )
    figures = ["loss", "fairness_weight", "penalty", "dev_w_f1", "dev_gap"]
    columns = ["config_id", "name", "label", "family", "seed", "epoch", *figures]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(figures, float))


def family_of(hyperparameters: dict[str, Any], label: str | None, settings: Mapping[str, Any] | None = None) -> str:
    """Return the family of a configuration, which figures show by marker and colour.

    Args:
        settings: of the study; they apply where the hyperparameters name no value.

    Returns:
        ``ERM``; ``PAPER``; ``COMPARISON`` for a method other than ERM-MinMaxGAP (also for ERM with another sampler);
        else the schedule of the fairness weight, or "default" if nothing names one.

    >>> family_of({"loss.method": "group_dro"}, None), family_of({"fairness_weight.schedule": "linear"}, None)
    ('comparison method', 'linear')
    """
    if label in (ERM, PAPER):
        return str(label)
    loss = (settings or {}).get("loss") or {}
    by_leaf = {"method": loss.get("method", "minmaxgap")} | (loss.get("fairness_weight") or {})
    by_leaf |= {key.rsplit(".", 1)[-1]: value for key, value in hyperparameters.items()}
    if by_leaf["method"] != "minmaxgap":
        return COMPARISON
    return str(by_leaf.get("schedule", "default"))


def _describe(trial: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config_id`` and ``_TRIAL_COLUMNS``; a run without a trial record has only its config_id."""
    hyperparameters, label, number = trial.get("hyperparameters") or {}, trial.get("label"), trial.get("number")
    fallback = f"run {trial['config_id'][:6]}" if number is None else f"trial {number}"
    return {
        "config_id": trial["config_id"],
        "number": number,
        "label": label,
        "name": label or fallback,
        "family": family_of(hyperparameters, label, settings),
        "hyperparameters": hyperparameters,
    }


def _describe_trials(
    trials: Iterable[Mapping[str, Any]], settings: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], pd.DataFrame, pd.DataFrame]:
    """Return the finished configurations by config_id, the failed trials and the pruned trials.

    A configuration that was proposed twice has its first number, and a label if either trial has one.
    """
    finished: dict[str, dict[str, Any]] = {}
    unfinished: dict[str, list[dict[str, Any]]] = {"failed": [], "pruned": []}
    for trial in trials:
        if trial["state"] in unfinished:
            row = {column: trial.get(column) for column in _UNFINISHED_COLUMNS}
            unfinished[trial["state"]].append({**row, "reason": row["reason"] or "no reason was recorded"})
            continue
        described = _describe(trial, settings)
        first = finished.setdefault(trial["config_id"], described)
        if first["label"] is None and described["label"] is not None:
            finished[trial["config_id"]] = {**described, "number": first["number"]}
    pruned = [row for row in unfinished["pruned"] if row["config_id"] not in finished]
    ended = {*finished, *(row["config_id"] for row in pruned)}
    failed = [row for row in unfinished["failed"] if row["config_id"] not in ended]  # others succeeded when retried
    columns = list(_UNFINISHED_COLUMNS)
    return finished, pd.DataFrame(failed, columns=columns), pd.DataFrame(pruned, columns=columns)


def _run_row(finished: Mapping[str, Any]) -> dict[str, Any]:
    row = {key: finished.get(key) for key in ("config_id", "seed", "epoch", "epochs_run", "startup")}
    seconds = finished.get("seconds") or {}
    row |= {"seconds": seconds.get("total")}
    row |= {f"{part}_seconds": seconds.get(part, np.nan) for part in ("train", "evaluate")}
    for split in SPLITS:
        row |= {f"{split}_{figure}": finished[split].get(figure) for figure in FIGURES}
    return row


def _cell_rows(finished: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for split in SPLITS:
        for cell, figures in finished[split]["cells"].items():
            language, _, modality = cell.partition("/")
            row = {"config_id": finished["config_id"], "seed": finished["seed"], "split": split}
            row |= {"language": language, "modality": modality}
            row |= {key: value for key, value in figures.items() if not isinstance(value, dict)}
            for kind in ("signed", "absolute", "standardised"):
                row |= {f"{kind}_{gap}": value for gap, value in figures.get(kind, {}).items()}
            for gender, group_figures in figures["by_group"].items():
                row |= {f"{figure}_{gender}": value for figure, value in group_figures.items()}
            rows.append(row)
    return rows


def _configurations(runs: pd.DataFrame, planned: Sequence[int]) -> pd.DataFrame:
    grouped = runs.groupby("config_id", sort=False)
    described = runs.drop_duplicates("config_id").set_index("config_id")[list(_TRIAL_COLUMNS)]
    sizes = grouped.size()
    complete = grouped["seed"].agg(lambda seeds: set(planned) <= set(seeds)).astype(bool)
    # one undefined gap makes the mean undefined: a mean over some of the seeds would be another figure
    means = grouped[list(FIGURE_COLUMNS)].mean(skipna=False)
    frame = described.assign(n_seeds=sizes, complete=complete, seconds=grouped["seconds"].sum())
    return frame.join(means).reset_index().sort_values("number", ignore_index=True)
