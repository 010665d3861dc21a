"""Settings that depend on the backbone."""

from __future__ import annotations

from typing import Any

from study.config.settings import Settings, flatten

TINY: dict[str, Any] = {
    "backbone.spec": "tiny",
    "backbone.lora_targets": "all",
    "backbone.lora_dropout": 0.0,
    "backbone.trainable": ["projector", "audio_encoder"],
    "prompt.system": "Listen.",
    "prompt.transcript": "{transcript}\n",
    "prompt.question": "Emotion?",
    "optimisation.learning_rate": 5e-3,
    "optimisation.epochs": 3,
}
"""Settings of the tiny backbone. Its weights are random, so its audio encoder and projector are trained too; a short
prompt keeps it fast."""


def on_backbone(settings: Settings, spec: str) -> Settings:
    """Return the settings for another backbone.

    Between the tiny backbone and another one, settings that still have the preset value of the old backbone take that
    of the new one; changed settings stay.
    """
    if settings.backbone.spec == spec:
        return settings
    if "tiny" not in (settings.backbone.spec, spec):
        return settings.with_overrides({"backbone.spec": spec})
    defaults = flatten(Settings().model_dump(mode="json"))
    old, new = (TINY, defaults) if settings.backbone.spec == "tiny" else (defaults, TINY)
    current = flatten(settings.model_dump(mode="json"))
    preset = {key: new[key] for key in TINY if current[key] == old[key]}
    return settings.with_overrides({**preset, "backbone.spec": spec})
