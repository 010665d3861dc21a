"""The identifier of a configuration, and the settings that differ from their defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from study.common.groups import Cell
from study.config.settings import CHOICES, ControlSplit, Settings
from study.losses.minmaxgap import Coefficients, ErmMinMaxGap


def config_id(settings: Settings, cells_in_use: Sequence[Cell], corpus_hash: str, backbone_hash: str) -> str:
    """Ten hex digits naming a configuration: what differs from the defaults, and the content it runs on.

    Only differences are hashed, so a new setting with a default changes no id. Where the corpus lies, and how a step is
    computed, is no part of it.
    What has no effect does not count: coefficients count as their kappa, the method's own sampling as none.
    """
    kappa, loss = None, settings.loss
    if loss.batch_sampling == loss.default_sampling:
        loss = loss.model_copy(update={"sampling": None})
    if isinstance(loss, ErmMinMaxGap):
        kappa = [round(value, 9) for value in loss.coefficients.kappa(cells_in_use)]
        inert = {} if loss.reduction == "softmax" else {"temperature": ErmMinMaxGap().temperature}
        loss = loss.model_copy(update={"coefficients": Coefficients(), **inert})
    control = settings.control if settings.control.fraction else ControlSplit()
    changed = differences(settings.model_copy(update={"loss": loss, "control": control}))
    apart = ("corpus.", "computation.", "backbone.spec")
    changed = {key: value for key, value in changed.items() if not key.startswith(apart)}
    if kappa and set(kappa) != {1.0}:
        changed["kappa"] = kappa
    text = json.dumps([changed, corpus_hash, backbone_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def differences(settings: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Dotted knobs that differ from their defaults, those of the member chosen where there is a choice.

    >>> differences(Settings().with_overrides({"loss.method": "group_dro", "loss.step_size": 0.1}))
    {'loss.method': 'group_dro', 'loss.step_size': 0.1}
    """
    changed: dict[str, Any] = {}
    plain = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value, default = getattr(settings, name), field.get_default(call_default_factory=True)
        if f"{prefix}{name}" in CHOICES:
            changed[f"{prefix}{name}"] = value
        elif value == default:
            continue
        elif isinstance(value, BaseModel):
            changed |= differences(value, f"{prefix}{name}.")
        else:
            changed[f"{prefix}{name}"] = plain[name]
    return changed
