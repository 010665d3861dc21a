"""The identifier of a configuration, and the settings that differ from their defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from study.common.groups import Cell
from study.config.settings import UNION_TAGS, ControlSplit, Settings
from study.losses.minmaxgap import Coefficients, ErmMinMaxGap


def config_id(settings: Settings, cells_in_use: Sequence[Cell], corpus_hash: str, backbone_hash: str) -> str:
    """Return ten hex digits that identify a configuration: its changed settings, its corpus and its backbone.

    Only settings that differ from their defaults are hashed, so a new setting with a default changes no id. The path of
    the corpus and ``computation`` are not hashed. Nor are settings without effect: coefficients are replaced by their
    kappa, and ``sampling`` counts only if it differs from the loss's own.

    Args:
        settings: of the configuration.
        cells_in_use: cells of the study, in order.
        corpus_hash: content hash of the corpus.
        backbone_hash: content hash of the backbone.
    """
    kappa, loss = None, settings.loss
    if loss.batch_sampling == loss.default_sampling:
        loss = loss.model_copy(update={"sampling": None})
    if isinstance(loss, ErmMinMaxGap):
        kappa = [round(value, 9) for value in loss.coefficients.kappa(cells_in_use)]
        unused = {} if loss.reduction == "softmax" else {"temperature": ErmMinMaxGap().temperature}
        loss = loss.model_copy(update={"coefficients": Coefficients(), **unused})
    control = settings.control if settings.control.fraction else ControlSplit()
    changed = differences(settings.model_copy(update={"loss": loss, "control": control}))
    excluded = ("corpus.", "computation.", "backbone.spec")
    changed = {key: value for key, value in changed.items() if not key.startswith(excluded)}
    if kappa and set(kappa) != {1.0}:
        changed["kappa"] = kappa
    text = json.dumps([changed, corpus_hash, backbone_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def differences(settings: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Return the settings that differ from their defaults, by dotted name, and all ``UNION_TAGS``.

    Settings of a union are compared with the defaults of the chosen member.

    >>> differences(Settings().with_overrides({"loss.method": "group_dro", "loss.step_size": 0.1}))
    {'loss.method': 'group_dro', 'loss.step_size': 0.1}
    """
    changed: dict[str, Any] = {}
    dumped = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value, default = getattr(settings, name), field.get_default(call_default_factory=True)
        if f"{prefix}{name}" in UNION_TAGS:
            changed[f"{prefix}{name}"] = value
        elif value == default:
            continue
        elif isinstance(value, BaseModel):
            changed |= differences(value, f"{prefix}{name}.")
        else:
            changed[f"{prefix}{name}"] = dumped[name]
    return changed
