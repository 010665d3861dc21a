"""Ray's MLflow callback with valid names: MLflow raises on ``@`` or ``+`` in a name, which would end the sweep.

``_MLflowLoggerUtil`` is private; this was written for ray 2.60.0. ``tests/study/ray_backend/test_loggers.py`` fails if
the callback uses its client in another way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ray.air._internal.mlflow import _MLflowLoggerUtil
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.utils import flatten_dict


class MlflowLogger(MLflowLoggerCallback):
    """``MLflowLoggerCallback`` with valid names of hyperparameters and metrics."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        self.mlflow_util = _ValidNamesClient()
        super().setup(*args, **kwargs)


class _ValidNamesClient(_MLflowLoggerUtil):
    def log_params(self, params_to_log: Mapping[str, Any], run_id: str | None = None) -> None:
        super().log_params(valid_names(params_to_log), run_id)

    def log_metrics(self, step: int, metrics_to_log: Mapping[str, Any], run_id: str | None = None) -> None:
        super().log_metrics(step, valid_names(metrics_to_log), run_id)


def valid_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested values; replace all but letters, digits, spaces and ``/ _ - . :`` in their names by underscores.

    >>> valid_names({"dev_gap@ja/speech+text": 0.1, "config": {"loss.power": 2}})
    {'dev_gap_ja/speech_text': 0.1, 'config/loss.power': 2}
    """
    return {re.sub(r"[^/\w.\- :]", "_", name): value for name, value in flatten_dict(dict(values)).items()}
