"""Progress of a running study: one live line on a terminal, and one line for each trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ray.tune import Callback

if TYPE_CHECKING:
    from rich.progress import Progress


class StudyProgress(Callback):
    """Shows trial, epoch, W-F1, gap and the estimated time left.

    Args:
        bar: shows the live line; trials are printed on its console.
        trials: of the whole study.
        finished: trials that were done before this call.
        epochs_per_trial: the most epochs that a trial can have, over all seeds.
        describe: returns the hyperparameters of a trial in a few words.
    """

    def __init__(
        self,
        bar: Progress,
        trials: int,
        finished: int,
        epochs_per_trial: int,
        describe: Callable[[Mapping[str, Any]], str],
    ):
        self.bar, self.trials, self.finished = bar, trials, finished
        self.epochs_per_trial, self.describe = epochs_per_trial, describe
        self.started = time.monotonic()
        self.completed = 0
        self.failed = 0
        self.epochs: dict[str, int] = {}
        self.task = self.bar.add_task(
            f"trial {finished + 1}/{trials}: starting workers", total=trials * epochs_per_trial
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its callbacks for a restore that is never used, and a bar cannot be."""
        return {}

    def setup(self, *args: Any, **info: Any) -> None:
        self.bar.start()

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        if result.get("complete"):
            return
        self.epochs[trial.trial_id] = self.epochs.get(trial.trial_id, 0) + 1
        self._update(
            f"trial {self._current_trial()}/{self.trials} · epoch {result['epoch']} · "
            f"W-F1 {100 * result['dev_w_f1']:.1f} · gap {points(result['dev_gap'])}"
        )

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        if "config_id" not in result:
            return
        self.completed += 1
        self.epochs.pop(trial.trial_id, None)
        stopped = "" if result["complete"] else f"  stopped after epoch {result['epoch']}"
        self._print(
            f"trial {self.finished + self.completed}/{self.trials}  {result['config_id']}"
            f"  dev W-F1 {100 * result['dev_w_f1']:5.1f}  gap {points(result['dev_gap']):>5}"
            f"{stopped}  {self._description(trial.config)}  [{self._time_left()}]"
        )
        self._update(f"trial {min(self._current_trial(), self.trials)}/{self.trials}: starting workers")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.failed += 1
        self.epochs.pop(trial.trial_id, None)
        self._print(f"trial failed: {self._description(trial.config)}")

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        self.stop()

    def stop(self) -> None:
        self.bar.stop()

    def _print(self, line: str) -> None:
        self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _description(self, suggestion: dict[str, Any]) -> str:
        hyperparameters = {key: value for key, value in suggestion.items() if key not in ("number", "label")}
        return suggestion.get("label") or self.describe(hyperparameters)

    def _current_trial(self) -> int:
        return self.finished + self.completed + self.failed + 1

    def _update(self, text: str) -> None:
        epochs = (self.finished + self.completed) * self.epochs_per_trial + sum(self.epochs.values())
        self.bar.update(self.task, description=f"{text} · {self._time_left()}", completed=epochs)

    def _time_left(self) -> str:
        done = self.completed + sum(self.epochs.values()) / self.epochs_per_trial
        remaining = self.trials - self.finished - done
        if remaining <= 0:
            return "done"
        if not done:
            return "time left unknown"
        seconds = (time.monotonic() - self.started) / done * remaining
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


def points(fraction: float | None) -> str:
    """Format a rate or gap in percentage points.

    >>> points(0.053), points(None)
    ('5.3', '–')
    """
    return "–" if fraction is None else f"{100 * fraction:.1f}"
