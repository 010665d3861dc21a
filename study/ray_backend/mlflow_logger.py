"""Ray's MLflow callback with names that MLflow takes: it refuses an ``@`` or a ``+``, which would end the sweep."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.utils import flatten_dict


class PlainlyNamed(MLflowLoggerCallback):
    """``MLflowLoggerCallback``; names of knobs and metrics pass through :func:`plain_names`."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        super().setup(*args, **kwargs)
        util = self.mlflow_util
        params, metrics = util.log_params, util.log_metrics
        util.log_params = lambda params_to_log, run_id=None: params(plain_names(params_to_log), run_id)
        util.log_metrics = lambda step, metrics_to_log, run_id=None: metrics(step, plain_names(metrics_to_log), run_id)


def plain_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by names of letters, digits and ``/ _ - . :`` or a space, everything else in them an underscore.

    >>> plain_names({"dev_gap@ja/speech+text": 0.1, "config": {"loss.power": 2}})
    {'dev_gap_ja/speech_text': 0.1, 'config/loss.power': 2}
    """
    return {re.sub(r"[^/\w.\- :]", "_", name): value for name, value in flatten_dict(dict(values)).items()}
