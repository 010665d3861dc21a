"""Experiment trackers: MLflow gets valid names."""

from __future__ import annotations

import sys
from types import ModuleType

from ray.air._internal.mlflow import _MLflowLoggerUtil
from ray.tune.experiment import Trial

from study.ray_backend.loggers import make_trackers


def test_mlflow_gets_valid_names_of_hyperparameters_and_metrics(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    logged = []
    monkeypatch.setattr(_MLflowLoggerUtil, "setup_mlflow", lambda self, **options: None)
    monkeypatch.setattr(_MLflowLoggerUtil, "log_params", lambda self, params, run_id: logged.append(params))
    monkeypatch.setattr(
        _MLflowLoggerUtil, "log_metrics", lambda self, step, metrics, run_id: logged.append((step, metrics))
    )
    (callback,) = make_trackers(["mlflow"], "study", ".")
    callback.setup()
    hyperparameters = {"loss.coefficients.cells.de/speech+text": 2.0}
    trial = Trial("trainable", stub=True, config=hyperparameters)
    callback._trial_runs = {trial: "run"}
    callback.log_trial_start(trial)
    callback.log_trial_result(1, trial, {"dev_gap@de": 0.1, "config": hyperparameters, "training_iteration": 1})
    valid_name = "loss.coefficients.cells.de/speech_text"
    assert logged == [
        {valid_name: 2.0},
        (1, {"dev_gap_de": 0.1, f"config/{valid_name}": 2.0, "training_iteration": 1}),
    ]
