"""From a study folder to tables: one row a run, one row a configuration, one row a cell.

Only finished runs are read. Figures are fractions, as the records hold them; NaN stands for a gap that is undefined.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.constants import ERM, PAPER, SPLITS
from analysis.loading.records import epochs_of, finished_of, plan_of, predictions_of, steps_of, utterances_of
from study.common.errors import RecordError
from study.evaluation.metrics import GAP_KINDS, ClassAverage, evaluate
from study.storage.records import finished_runs, read_trials, run_directory
from study.storage.study_folder import StudyFolder

FIGURES = (
    "w_f1", "accuracy", "uar", "invalid", "gap", *(f"gap_{kind}" for kind in GAP_KINDS), "gap_standardised",
    "worst_gap", "worst_group_w_f1",
)  # fmt: skip
FIGURE_COLUMNS = tuple(f"{split}_{figure}" for split in SPLITS for figure in FIGURES)
COMPARISON = "comparison method"
OF_MEANS = (
    "Gaps of TPR and FPR are those of the means over emotions, in which opposite ones cancel (--class-average "
    "gap_of_means); epochs and a search's own objectives are as recorded, with the mean of each emotion's gap."
)

_RUN_COLUMNS = (
    "config_id",
    "seed",
    "number",
    "label",
    "name",
    "family",
    "hyperparameters",
    "epoch",
    "epochs_run",
    "seconds",
)
_UNFINISHED_COLUMNS = ("number", "config_id", "label", "reason", "log")


@dataclass(frozen=True)
class Study:
    """A study as tables.

    Attributes:
        folder: where it is.
        plan: ``study.json``.
        runs: one row a finished (config_id, seed): ``config_id, seed, number, label, name, family, knobs, epoch,
            epochs_run, seconds`` and the ``FIGURE_COLUMNS``, such as ``dev_w_f1``.
        configurations: one row a config_id, figures averaged over its finished seeds: ``config_id, number, label,
            name, family, knobs, n_seeds, complete, seconds`` (of all seeds together) and the ``FIGURE_COLUMNS``.
            ``complete`` is true where every seed of the plan has finished, with every modality of the study: the
            figures of an arm that heard one of two are means over other cells.
        cells: one row a (config_id, seed, split, language, modality): ``n_female, n_male, n_unknown, w_f1,
            accuracy, uar, invalid, gap, gap_standardised``, ``signed_``, ``absolute_`` and ``standardised_`` gaps by
            kind, and ``w_f1_``, ``accuracy_``, ``uar_`` and ``invalid_`` of ``female`` and ``male``.
        failed: one row a failed trial of a configuration that has not finished since: ``number, config_id, label,
            reason, log``. Such a configuration is here alone, whatever its seeds left behind.
        pruned: likewise the trials that were stopped early; their figures are those of a part of the training.
        class_average: how the classes' TPR and FPR gaps became one number in these figures.
    """

    folder: StudyFolder
    plan: dict[str, Any]
    runs: pd.DataFrame
    configurations: pd.DataFrame
    cells: pd.DataFrame
    failed: pd.DataFrame
    pruned: pd.DataFrame
    class_average: ClassAverage = "mean_of_gaps"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that every configuration is meant to have."""
        return tuple(self.plan["seeds"])

    @property
    def notes(self) -> list[str]:
        """What a reader of any figure must know: about the corpus, and of another class average than by default."""
        of_corpus = self.plan["corpus"].get("notes", [])
        return [*of_corpus, *([] if self.class_average == "mean_of_gaps" else [OF_MEANS])]

    def configuration(self, label: str) -> pd.Series | None:
        """The row of ``configurations`` with this label (``ERM``, ``PAPER``), if it has finished runs."""
        rows = self.configurations[self.configurations["label"] == label]
        return None if rows.empty else rows.iloc[0]


def open_folder(folder: StudyFolder | str) -> StudyFolder:
    """A study folder from its path (``~`` and relative paths are resolved) or URL."""
    if isinstance(folder, StudyFolder):
        return folder
    return StudyFolder(folder.rstrip("/") if "://" in folder else os.path.abspath(os.path.expanduser(folder)))


def load_study(folder: StudyFolder | str, class_average: ClassAverage = "mean_of_gaps") -> Study:
    """Read a study.

    Args:
        folder: a study folder, or its path or URL.
        class_average: how the classes' TPR and FPR gaps become one number
            (:func:`study.evaluation.metrics.signed_and_absolute_gaps`); other than by default, the figures of every run
            are computed again from its predictions, and everything that follows goes by these.

    Raises:
        RecordError: there is no study there, a file of it is missing, damaged or lacks something, or a run has a seed
            that is not of the plan; the message names the file and the remedy.
    """
    if isinstance(folder, str):
        folder = open_folder(folder)
        folder.require_storage()
    plan = plan_of(folder)
    trials, failed, pruned = _trials(folder, plan["settings"])
    without_figures = {*failed["config_id"], *pruned["config_id"]}
    utterances = None if class_average == "mean_of_gaps" else utterances_of(folder)
    rows, cells = [], []
    for config_id, seed in finished_runs(folder):
        if config_id in without_figures:
            continue
        finished = finished_of(folder, config_id, seed)
        if seed not in plan["seeds"]:
            raise RecordError(
                f"{folder.path(run_directory(config_id, seed))} is of seed {seed}, which study.json does not plan: its "
                f"seeds are {', '.join(map(str, plan['seeds']))}. Add it with --seeds, or move that folder away."
            )
        if utterances is not None:
            for split in SPLITS:
                made = predictions_of(folder, utterances, config_id, seed, split)
                finished[split] = evaluate(made, class_average)
        described = trials.get(config_id) or _describe({"config_id": config_id}, plan["settings"])
        rows.append({**described, **_run_row(finished)})
        cells += _cell_rows(finished)
    runs = pd.DataFrame(rows, columns=[*_RUN_COLUMNS, *FIGURE_COLUMNS])
    runs = runs.astype(dict.fromkeys(FIGURE_COLUMNS, float))
    of_cells = pd.DataFrame(cells)
    configurations = _configurations(runs, plan["seeds"])
    if not of_cells.empty:
        heard = of_cells.groupby("config_id")["modality"].agg(lambda names: set(plan["modalities"]) <= set(names))
        configurations["complete"] &= configurations["config_id"].map(heard).astype(bool)
    return Study(folder, plan, runs, configurations, of_cells, failed, pruned, class_average)


def load_epochs(study: Study) -> pd.DataFrame:
    """What the finished runs logged: one row a (config_id, seed, epoch).

    Returns:
        ``config_id, name, label, family, seed, epoch, loss, fairness_weight, penalty, dev_w_f1, dev_gap``;
        fractions, losses in nats.

    Raises:
        RecordError: an ``epochs.jsonl`` is missing or damaged.
    """
    rows = []
    for run in study.runs.to_dict("records"):
        for epoch in epochs_of(study.folder, run["config_id"], run["seed"], run["epochs_run"]):
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


def load_steps(study: Study, config_id: str, seed: int) -> pd.DataFrame:
    """What the objective of one run saw: the rows of ``steps.parquet``, one a training step; none without training.

    Raises:
        RecordError: the file is damaged.
    """
    return steps_of(study.folder, config_id, seed)


def load_utterances(study: Study) -> pd.DataFrame:
    """The dev and test utterances of a study, as :mod:`study.storage.records` describes them.

    Raises:
        RecordError: ``utterances.parquet`` is missing, damaged or lacks a column.
    """
    return utterances_of(study.folder)


def load_predictions(study: Study, utterances: pd.DataFrame, config_id: str, seed: int, split: str) -> pd.DataFrame:
    """The predictions of one run on one split, joined with what is known of the utterances.

    Args:
        utterances: from :func:`load_utterances`.
        split: "dev" or "test".

    Returns:
        One row an utterance and modality: the columns of ``utterances``, ``modality`` and ``predicted``. Ready for
        :func:`study.evaluation.metrics.evaluate`.

    Raises:
        RecordError: ``predictions.parquet`` is missing, damaged, lacks a column or has nothing on this split; a score
            is not a number; or a prediction is of an utterance that the study does not list.
    """
    return predictions_of(study.folder, utterances, config_id, seed, split)


def family_of(hyperparameters: dict[str, Any], label: str | None, settings: Mapping[str, Any] | None = None) -> str:
    """What kind of configuration it is: what figures tell apart by marker.

    Args:
        settings: of the study, which hold where the knobs are silent.

    Returns:
        ``ERM``; ``PAPER``; ``COMPARISON`` for any other method than ERM-MinMaxGAP (ERM with other draws among them);
        else the schedule of the fairness weight, "default" where neither knobs nor settings name one.

    >>> family_of({"loss.method": "group_dro"}, None), family_of({"fairness_weight.schedule": "linear"}, None)
    ('comparison method', 'linear')
    """
    if label in (ERM, PAPER):
        return str(label)
    objective = (settings or {}).get("loss") or {}
    by_leaf = {"method": objective.get("method", "minmaxgap")} | (objective.get("fairness_weight") or {})
    by_leaf |= {key.rsplit(".", 1)[-1]: value for key, value in hyperparameters.items()}
    if by_leaf["method"] != "minmaxgap":
        return COMPARISON
    return str(by_leaf.get("schedule", "default"))


def _describe(trial: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a configuration from its trial; a run whose trial was never written has only its id."""
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


def _trials(
    folder: StudyFolder, settings: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], pd.DataFrame, pd.DataFrame]:
    """The finished configurations by id, the failed trials, and those that were stopped early.

    A searcher may propose a configuration twice: the first number stands for it, and any label that it has.
    """
    finished: dict[str, dict[str, Any]] = {}
    unfinished: dict[str, list[dict[str, Any]]] = {"failed": [], "pruned": []}
    for trial in read_trials(folder).values():
        if trial["state"] in unfinished:
            row = {column: trial.get(column) for column in _UNFINISHED_COLUMNS}
            unfinished[trial["state"]].append({**row, "reason": row["reason"] or "no reason was recorded"})
            continue
        described = _describe(trial, settings)
        first = finished.setdefault(trial["config_id"], described)
        if first["label"] is None and described["label"] is not None:
            finished[trial["config_id"]] = {**described, "number": first["number"]}
    pruned = [row for row in unfinished["pruned"] if row["config_id"] not in finished]
    worked = {*finished, *(row["config_id"] for row in pruned)}
    failed = [row for row in unfinished["failed"] if row["config_id"] not in worked]  # a retry may have worked
    columns = list(_UNFINISHED_COLUMNS)
    return finished, pd.DataFrame(failed, columns=columns), pd.DataFrame(pruned, columns=columns)


def _run_row(finished: dict[str, Any]) -> dict[str, Any]:
    row = {key: finished.get(key) for key in ("config_id", "seed", "epoch", "epochs_run")}
    row["seconds"] = (finished.get("seconds") or {}).get("total")
    for split in SPLITS:
        row |= {f"{split}_{figure}": finished[split].get(figure) for figure in FIGURES}
    return row


def _cell_rows(finished: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for split in SPLITS:
        for cell, figures in finished[split]["cells"].items():
            language, _, modality = cell.partition("/")
            row = {"config_id": finished["config_id"], "seed": finished["seed"], "split": split}
            row |= {"language": language, "modality": modality}
            row |= {key: value for key, value in figures.items() if not isinstance(value, dict)}
            for kind in ("signed", "absolute", "standardised"):
                row |= {f"{kind}_{gap}": value for gap, value in figures.get(kind, {}).items()}
            for gender, of_group in figures["by_group"].items():
                row |= {f"{figure}_{gender}": value for figure, value in of_group.items()}
            rows.append(row)
    return rows


def _configurations(runs: pd.DataFrame, planned: Sequence[int]) -> pd.DataFrame:
    grouped = runs.groupby("config_id", sort=False)
    described = runs.drop_duplicates("config_id").set_index("config_id")[
        ["number", "label", "name", "family", "hyperparameters"]
    ]
    sizes = grouped.size()
    complete = grouped["seed"].agg(lambda seeds: set(planned) <= set(seeds)).astype(bool)
    # a mean over some of the seeds only would be another figure, so one undefined gap leaves it undefined
    means = grouped[list(FIGURE_COLUMNS)].mean(skipna=False)
    frame = described.assign(n_seeds=sizes, complete=complete, seconds=grouped["seconds"].sum())
    return frame.join(means).reset_index().sort_values("number", ignore_index=True)
