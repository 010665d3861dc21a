"""Trackers that are told of trials: what MLflow is told has names that it takes."""

from __future__ import annotations

import sys
from types import ModuleType

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.experiment import Trial

from study.ray_backend.loggers import make_trackers


def test_mlflow_is_told_knobs_and_metrics_by_names_that_it_takes(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    monkeypatch.setattr(MLflowLoggerCallback, "setup", lambda self: None)
    (callback,) = make_trackers(["mlflow"], "study", ".")
    told = []
    callback.mlflow_util.log_params = lambda params, run_id: told.append(params)
    callback.mlflow_util.log_metrics = lambda step, metrics, run_id: told.append((step, metrics))
    callback.setup()
    hyperparameters = {"loss.coefficients.cells.de/speech+text": 2.0}
    trial = Trial("trainable", stub=True, config=hyperparameters)
    callback._trial_runs = {trial: "run"}
    callback.log_trial_start(trial)
    callback.log_trial_result(1, trial, {"dev_gap@de": 0.1, "config": hyperparameters, "training_iteration": 1})
    hyperparameter = "loss.coefficients.cells.de/speech_text"
    assert told == [
        {hyperparameter: 2.0},
        (1, {"dev_gap_de": 0.1, f"config/{hyperparameter}": 2.0, "training_iteration": 1}),
    ]
