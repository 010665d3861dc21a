"""The whole configuration of a run, as frozen models that refuse unknown keys and name every fault at once.

``Settings`` is what decides a result. Where it runs (ranks, ZeRO stage, storage) is ``Placement``: it changes no result
beyond rounding and no ``config_id``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from study.groups import EMOTIONS, Cell, Language, Modality, cells

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class SettingsError(ValueError):
    """Every fault of a plan, one a line, each with the knob and the remedy."""

    def __init__(self, faults: Sequence[str]):
        self.faults = tuple(faults)
        super().__init__("\n".join(faults))


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_enum_values=True)


class ConstantWeight(Frozen):
    """The same fairness weight throughout."""

    schedule: Literal["constant"] = "constant"
    weight: NonNegative


class RampWeight(Frozen):
    """A fairness weight that rises from 0 over the first ``ramp_fraction`` of training."""

    schedule: Literal["linear", "cosine"]
    weight: NonNegative
    ramp_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5


class AdaptiveWeight(Frozen):
    """The multiplier of arXiv 2603.21050, moved after each dev evaluation; step size and start are ours.

    ``driver``: the worst cell's AVG metric gap on dev (a fraction), or its loss gap (nats).
    """

    schedule: Literal["adaptive"] = "adaptive"
    initial: NonNegative = 0.0
    step_size: Positive = 2.0
    tolerance: NonNegative = 0.02
    maximum: Positive = 10.0
    driver: Literal["metric_gap", "loss_gap"] = "metric_gap"


FairnessWeight = Annotated[ConstantWeight | RampWeight | AdaptiveWeight, Field(discriminator="schedule")]


class Coefficients(Frozen):
    """MinMaxGAP coefficients; kappa of a cell is the product of its two, normalised to mean 1. Missing means 1."""

    languages: dict[Language, NonNegative] = {}
    modalities: dict[Modality, NonNegative] = {}

    def kappa(self, cells_in_use: Sequence[Cell]) -> tuple[float, ...]:
        """kappa_c = kappa_language * kappa_modality, scaled to mean 1 over the cells in use (C,).

        Only the product of kappa and lambda is identified, so lambda alone carries the scale.

        Raises:
            ValueError: all are zero.
        """
        raw = [self.languages.get(c.language, 1.0) * self.modalities.get(c.modality, 1.0) for c in cells_in_use]
        mean = sum(raw) / len(raw)
        if mean == 0:
            raise ValueError("every coefficient is 0: set at least one above 0, or use method erm")
        return tuple(value / mean for value in raw)


class ObjectiveSettings(Frozen):
    """What is minimised. ``sampling`` None: natural for ERM, balanced over (cell, gender) otherwise."""

    method: Literal["erm", "minmaxgap"] = "minmaxgap"
    power: Literal[1, 2] = 2
    fairness_weight: FairnessWeight = AdaptiveWeight()
    coefficients: Coefficients = Coefficients()
    sampling: Literal["natural", "balanced"] | None = None

    def balanced(self) -> bool:
        return self.sampling == "balanced" or (self.sampling is None and self.method != "erm")


class CorpusSettings(Frozen):
    """Which utterances. ``plants``: the planted gaps of the embedded corpus; other corpora ignore it."""

    spec: str = "embedded"
    plants: tuple[Literal["scarcity", "prior", "cue"], ...] = ("scarcity", "prior", "cue")

    @model_validator(mode="after")
    def _known(self) -> CorpusSettings:
        if self.spec != "embedded" and not self.spec.startswith(("meld-st:", "manifest:")):
            raise ValueError(f"{self.spec!r} is no corpus: use embedded, meld-st:DIR or manifest:FILE")
        if self.spec == "embedded" and len(set(self.plants)) < len(self.plants):
            raise ValueError(f"a plant is named twice in {self.plants}")
        return self


class BackboneSettings(Frozen):
    """Which speech LLM and what of it is trained. LoRA figures are those of arXiv 2603.21050.

    ``spec``: "tiny" (a small random one of the same class), a hub id or a local folder.
    ``trainable``: modules trained whole beside the LoRA matrices of the language model.
    """

    spec: str = "Qwen/Qwen2-Audio-7B-Instruct"
    lora_rank: Annotated[int, Field(ge=1)] = 16
    lora_alpha: Positive = 32.0
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    lora_targets: Literal["attention", "all"] = "attention"
    trainable: tuple[Literal["projector", "tower"], ...] = ()


class Prompt(Frozen):
    """The conversation; wording is ours (the paper's is not known to us)."""

    system: str = "You are a helpful assistant."
    transcript: str = 'The speaker says: "{transcript}"\n'
    question: str = "Which emotion does the speaker express? Answer with one of: " + ", ".join(EMOTIONS) + "."
    labels: tuple[str, ...] = EMOTIONS

    @model_validator(mode="after")
    def _labels(self) -> Prompt:
        if len(self.labels) != len(EMOTIONS) or len(set(self.labels)) != len(EMOTIONS):
            raise ValueError(f"prompt.labels needs {len(EMOTIONS)} different words, in the order of {EMOTIONS}")
        if not all(label.strip() for label in self.labels):
            raise ValueError("prompt.labels: a label word is empty")
        if self.transcript.count("{transcript}") != 1 or set("{}") & set(self.transcript.replace("{transcript}", "")):
            raise ValueError("prompt.transcript needs {transcript} once, and no other braces")
        if any("<|" in text for text in (self.system, self.transcript, self.question, *self.labels)):
            raise ValueError(
                "prompt: special tokens such as <|AUDIO|> come from the chat template, not from the prompt"
            )
        return self


class Optimisation(Frozen):
    """The training loop; defaults are those of arXiv 2603.21050 where it states them (warm-up and clipping are ours).

    ``micro_batch_size``: utterances a rank takes in one forward pass; None takes its whole share of the batch.
    """

    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=2)] = 64
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Positive = 5e-5
    weight_decay: NonNegative = 0.01
    warmup_fraction: Fraction = 0.1
    gradient_clipping: Positive = 1.0
    patience: Annotated[int, Field(ge=1)] = 5


class Settings(Frozen):
    """Everything that decides the result of a run, save the seed."""

    corpus: CorpusSettings = CorpusSettings()
    backbone: BackboneSettings = BackboneSettings()
    prompt: Prompt = Prompt()
    modalities: tuple[Modality, ...] = (Modality.SPEECH_TEXT,)
    objective: ObjectiveSettings = ObjectiveSettings()
    optimisation: Optimisation = Optimisation()

    @model_validator(mode="after")
    def _modalities(self) -> Settings:
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError("modalities needs one or two different ones of: speech, speech+text")
        return self

    def with_overrides(self, overrides: Mapping[str, Any]) -> Settings:
        """A copy with dotted keys replaced, e.g. ``{"objective.power": 1}``, validated as a whole.

        A union such as ``objective.fairness_weight`` starts afresh when its ``schedule`` is replaced, so the
        parameters of another schedule do not linger.

        Raises:
            SettingsError: an unknown key or a value out of range; every fault is listed.
        """
        tree = self.model_dump(mode="json")
        if "objective.fairness_weight.schedule" in overrides:
            tree["objective"]["fairness_weight"] = {}
        for key, value in overrides.items():
            *parents, leaf = key.split(".")
            branch = tree
            for parent in parents:
                branch = branch.setdefault(parent, {}) if isinstance(branch, dict) else {}
            if isinstance(branch, dict):
                branch[leaf] = value
        return parse(Settings, tree)


TINY: dict[str, Any] = {
    "backbone.spec": "tiny",
    "backbone.lora_targets": "all",
    "backbone.lora_dropout": 0.0,
    "backbone.trainable": ["projector", "tower"],
    "prompt.system": "Listen.",
    "prompt.transcript": "{transcript}\n",
    "prompt.question": "Emotion?",
    "optimisation.learning_rate": 5e-3,
    "optimisation.epochs": 3,
}
"""What differs for the tiny backbone: its weights are random, so tower and projector learn too, from few tokens."""


class Placement(Frozen):
    """Where and how a run is computed; it decides no result beyond rounding.

    ``ranks``: worker processes a trial.  ``zero_stage``: what DeepSpeed shards over them.
    """

    ranks: Annotated[int, Field(ge=1)] = 2
    zero_stage: Literal[0, 1, 2, 3] = 2


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], tree: Any) -> Model:
    """``model.model_validate(tree)`` with every fault in one ``SettingsError``."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(faults_of(error)) from None


def faults_of(error: ValidationError) -> list[str]:
    """One readable line a fault: the dotted knob, what is wrong, what was given."""
    lines = []
    for fault in error.errors():
        knob = ".".join(str(part) for part in fault["loc"]) or "settings"
        if fault["type"] == "extra_forbidden":
            lines.append(f"{knob}: there is no such setting")
        else:
            lines.append(f"{knob}: {fault['msg'].removeprefix('Value error, ')} (given: {fault['input']!r:.80})")
    return lines


def context_faults(settings: Settings, placement: Placement, languages: Sequence[str], cores: int | None) -> list[str]:
    """What is wrong between settings, corpus and machine; empty when nothing is.

    Args:
        languages: those of the corpus.
        cores: CPU cores (or GPUs, where there are any) in reach; None if not known yet.
    """
    faults = []
    objective, batch = settings.objective, settings.optimisation.batch_size
    for language in objective.coefficients.languages:
        if language not in languages:
            faults.append(f"objective.coefficients.languages.{language}: the corpus has only {', '.join(languages)}")
    for modality in objective.coefficients.modalities:
        if modality not in settings.modalities:
            faults.append(
                f"objective.coefficients.modalities.{modality}: this study uses {', '.join(settings.modalities)}"
            )
    try:
        objective.coefficients.kappa(cells(languages, settings.modalities))
    except ValueError as error:
        faults.append(f"objective.coefficients: {error}")
    groups = 2 * len(languages) * len(settings.modalities)
    if objective.balanced() and batch < 2 * groups:
        faults.append(
            f"optimisation.batch_size: {batch} holds fewer than two of each of {groups} groups; "
            f"use {2 * groups} or more"
        )
    if batch % placement.ranks:
        faults.append(f"optimisation.batch_size: {batch} cannot be shared evenly by --ranks {placement.ranks}")
    if cores is not None and placement.ranks > cores:
        faults.append(f"--ranks: {placement.ranks} workers asked for, this machine has {cores} cores (or GPUs, if any)")
    return faults


PENALTY = ("objective.fairness_weight.", "objective.coefficients.", "objective.power")


def config_id(settings: Settings, cells_in_use: Sequence[Cell], corpus_hash: str, backbone_hash: str) -> str:
    """Ten hex digits naming a configuration: what differs from the defaults, and the content it runs on.

    Only differences are hashed, so a new setting with a default changes no id. Where the corpus lies is no part of it.
    Coefficients count as the kappa they give; under ERM nothing of the penalty counts.
    """
    defaults = flatten(Settings().model_dump(mode="json"))
    given = flatten(settings.model_dump(mode="json"))
    changed = {key: value for key, value in given.items() if key not in defaults or value != defaults[key]}
    changed = {key: value for key, value in changed.items() if not key.startswith("corpus.") and key != "backbone.spec"}
    penalty = {key: changed.pop(key) for key in list(changed) if key.startswith(PENALTY)}
    if settings.objective.method != "erm":
        changed |= {key: value for key, value in penalty.items() if "coefficients" not in key}
        kappa = [round(value, 9) for value in settings.objective.coefficients.kappa(cells_in_use)]
        if set(kappa) != {1.0}:
            changed["kappa"] = kappa
    text = json.dumps([changed, corpus_hash, backbone_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys.

    >>> flatten({"objective": {"power": 2}, "modalities": ["speech"]})
    {'objective.power': 2, 'modalities': ['speech']}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
