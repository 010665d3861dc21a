"""Settings that go with a backbone."""

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
"""What differs for the tiny backbone: its weights are random, so tower and projector learn too, from few tokens."""


def on_backbone(settings: Settings, spec: str) -> Settings:
    """The settings on another backbone: what ``TINY`` set, and nobody changed, comes and goes with the tiny one."""
    if settings.backbone.spec == spec:
        return settings
    if "tiny" not in (settings.backbone.spec, spec):
        return settings.with_overrides({"backbone.spec": spec})
    plain = Settings().model_dump(mode="json")
    defaults = {key: value for key, value in flatten(plain).items() if key in TINY}
    here, there = (TINY, defaults) if settings.backbone.spec == "tiny" else (defaults, TINY)
    now = flatten(settings.model_dump(mode="json"))
    return settings.with_overrides({key: there[key] for key in TINY if now[key] == here[key]} | {"backbone.spec": spec})
