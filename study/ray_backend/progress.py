"""What a user sees while a study runs: one live line on a terminal, one line a trial in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class StudyProgress(Callback):
    """Ray Tune's reports as trial, epoch, W-F1, gap and time left.

    Args:
        trials: of the whole study.
        finished: those done before this call.
        epochs_a_trial: at most, over all seeds.
        describe: the knobs of a trial in a few words.
    """

    def __init__(
        self,
        console: Console,
        trials: int,
        finished: int,
        epochs_a_trial: int,
        describe: Callable[[Mapping[str, Any]], str],
    ):
        self.console, self.trials, self.finished = console, trials, finished
        self.epochs_a_trial, self.describe = epochs_a_trial, describe
        self.started = time.monotonic()
        self.done_here = 0
        self.failed = 0
        self.epochs: dict[str, int] = {}
        self.bar = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(f"trial {finished + 1}/{trials}: starting workers", total=trials * epochs_a_trial)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that we do not use; a terminal cannot be."""
        return {}

    def setup(self, **info: Any) -> None:
        self.bar.start()

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        if result.get("complete"):
            return
        self.epochs[trial.trial_id] = self.epochs.get(trial.trial_id, 0) + 1
        self._show(
            f"trial {self._ordinal()}/{self.trials} · epoch {result['epoch']} · W-F1 {100 * result['dev_w_f1']:.1f} · "
            f"gap {points(result['dev_gap'])}"
        )

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        if "config_id" not in result:
            return
        self.done_here += 1
        self.epochs.pop(trial.trial_id, None)
        stopped = "" if result["complete"] else f"  stopped after epoch {result['epoch']}"
        self.console.print(
            f"trial {self.finished + self.done_here}/{self.trials}  {result['config_id']}"
            f"  dev W-F1 {100 * result['dev_w_f1']:5.1f}  gap {points(result['dev_gap']):>5}"
            f"{stopped}  {self._words(trial.config)}  [{self._left()}]",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        self._show(f"trial {min(self._ordinal(), self.trials)}/{self.trials}: starting workers")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.failed += 1
        self.epochs.pop(trial.trial_id, None)
        self.console.print(f"trial failed: {self._words(trial.config)}", highlight=False, markup=False, soft_wrap=True)

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        self.stop()

    def stop(self) -> None:
        self.bar.stop()

    def _words(self, config: dict[str, Any]) -> str:
        hyperparameters = {key: value for key, value in config.items() if key not in ("number", "label")}
        return config.get("label") or self.describe(hyperparameters)

    def _ordinal(self) -> int:
        return self.finished + self.done_here + self.failed + 1

    def _show(self, text: str) -> None:
        done = (self.finished + self.done_here) * self.epochs_a_trial + sum(self.epochs.values())
        self.bar.update(self.task, description=f"{text} · {self._left()}", completed=done)

    def _left(self) -> str:
        done = self.done_here + sum(self.epochs.values()) / self.epochs_a_trial
        remaining = self.trials - self.finished - done
        if remaining <= 0 or not done:
            return "done" if remaining <= 0 else "time left not known yet"
        seconds = (time.monotonic() - self.started) / done * remaining
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


def points(fraction: float | None) -> str:
    """A rate or gap in percentage points."""
    return "–" if fraction is None else f"{100 * fraction:.1f}"
