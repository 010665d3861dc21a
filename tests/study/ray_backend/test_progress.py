"""The progress lines of a running study."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from study.cli.run_study import progress_bar
from study.ray_backend import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when ``seconds`` is set."""
    clock = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.seconds)
    return clock


def trial_of(trial_id, label=None, **result):
    config = {"number": 0, "label": label, "loss.power": 2}
    return SimpleNamespace(trial_id=trial_id, config=config, last_result={"config_id": trial_id, **result})


def test_progress_of_finished_stopped_and_failed_trials(clock):
    out = io.StringIO()
    shown = progress.StudyProgress(
        progress_bar(Console(file=out)), 4, 1, 2, lambda hyperparameters: f"power {hyperparameters['loss.power']}"
    )
    metrics = {"dev_w_f1": 0.456, "dev_gap": 0.051, "epoch": 1}
    for _ in range(2):
        shown.on_trial_result(1, [], trial_of("aa"), metrics)
    clock.seconds = 60.0
    shown.on_trial_complete(1, [], trial_of("aa", "ERM", complete=True, **metrics))
    shown.on_trial_result(1, [], trial_of("bb"), metrics)
    clock.seconds = 75.0
    shown.on_trial_complete(1, [], trial_of("bb", complete=False, **{**metrics, "dev_gap": None}))
    shown.on_trial_error(1, [], trial_of("cc"))
    assert out.getvalue().splitlines() == [
        "trial 2/4  aa  dev W-F1  45.6  gap   5.1  ERM  [about 2 min left]",
        "trial 3/4  bb  dev W-F1  45.6  gap     –  stopped after epoch 1  power 2  [about 38 s left]",
        "trial failed: power 2",
    ]


def test_time_left_is_unknown_before_the_first_epoch(clock):
    shown = progress.StudyProgress(progress_bar(Console(file=io.StringIO())), 2, 0, 2, str)
    assert shown._time_left() == "time left unknown"
    clock.seconds = 10.0
    shown.on_trial_result(1, [], trial_of("aa"), {"dev_w_f1": 0.4, "dev_gap": 0.1, "epoch": 1})
    assert shown._time_left() == "about 30 s left"
