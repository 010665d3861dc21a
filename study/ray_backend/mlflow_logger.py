"""Ray's MLflow callback with valid names: MLflow raises on ``@`` or ``+`` in a name, which would end the sweep.

The callback keeps its client as ``mlflow_util`` (ray 2.60.0). ``tests/study/ray_backend/test_loggers.py`` fails if that
or the arguments of its methods change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.utils import flatten_dict


class MlflowLogger(MLflowLoggerCallback):
    """``MLflowLoggerCallback`` with names of hyperparameters and metrics passed through :func:`valid_names`."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        super().setup(*args, **kwargs)
        util = self.mlflow_util
        params, metrics = util.log_params, util.log_metrics
        util.log_params = lambda params_to_log, run_id=None: params(valid_names(params_to_log), run_id)
        util.log_metrics = lambda step, metrics_to_log, run_id=None: metrics(step, valid_names(metrics_to_log), run_id)


def valid_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested values; replace all but letters, digits, spaces and ``/ _ - . :`` in their names by underscores.

    >>> valid_names({"dev_gap@ja/speech+text": 0.1, "config": {"loss.power": 2}})
    {'dev_gap_ja/speech_text': 0.1, 'config/loss.power': 2}
    """
    return {re.sub(r"[^/\w.\- :]", "_", name): value for name, value in flatten_dict(dict(values)).items()}
