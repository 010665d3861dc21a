"""The whole configuration of a run, as frozen models that refuse unknown keys and name every fault at once.

``Settings`` is what decides a result. Where it runs (ranks, ZeRO stage, storage) is ``Placement``: it changes no result
beyond rounding and no ``config_id``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from study.frozen import Fraction, Frozen, NonNegative, Positive
from study.groups import EMOTIONS, Cell, Modality, cells
from study.methods import METHODS, Method
from study.objective import Coefficients, ErmMinMaxGap, Estimator, HeldOutGaps, Penalised
from study.schedules import AdaptiveWeight, FairnessWeight


class SettingsError(ValueError):
    """Every fault of a plan, one a line, each with the knob and the remedy."""

    def __init__(self, faults: Sequence[str]):
        self.faults = tuple(faults)
        super().__init__("\n".join(faults))


class CorpusSettings(Frozen):
    """Which utterances, and how they are heard.

    ``plants``: the planted gaps of the embedded corpus; other corpora ignore it.
    ``split``: "parallel" is the corpus's own split with parallel utterances on one side, "official" the authors' as it
    is, "speaker" holds speakers out. The embedded corpus's own split is all three; a manifest's own split is taken for
    the first two, and without one its speakers are divided. "none" puts everything into test: for scoring only.
    ``unknown_gender``: whether utterances without a known gender are trained on; they never enter a gap.
    ``loudness``: "as_recorded", since how loud a voice is tells of its emotion, or "rms", one level for all clips, for
    corpora whose parts were recorded at levels of their own.
    """

    spec: str = "embedded"
    plants: tuple[Literal["scarcity", "prior", "cue"], ...] = ("scarcity", "prior", "cue")
    split: Literal["parallel", "official", "speaker", "none"] = "parallel"
    unknown_gender: Literal["leave_out", "train"] = "leave_out"
    loudness: Literal["as_recorded", "rms"] = "as_recorded"

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
    ``attention``: of the language model in training; sdpa chooses a flash kernel by itself where one fits. The tower
    and the scoring of labels take masks of their own, so they use sdpa whatever is set here.
    """

    spec: str = "Qwen/Qwen2-Audio-7B-Instruct"
    lora_rank: Annotated[int, Field(ge=1)] = 16
    lora_alpha: Positive = 32.0
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    lora_targets: Literal["attention", "all"] = "attention"
    trainable: tuple[Literal["projector", "tower"], ...] = ()
    attention: Literal["sdpa", "flash_attention_2", "eager"] = "sdpa"

    @field_validator("trainable")
    @classmethod
    def _once(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(parts)) < len(parts):
            raise ValueError("a part is named twice")
        return parts


LABEL_WORDS: dict[str, tuple[str, ...]] = {
    "en": EMOTIONS,
    "ja": ("中立", "喜び", "驚き", "怒り", "悲しみ", "嫌悪", "恐れ"),
    "de": ("neutral", "Freude", "Überraschung", "Ärger", "Trauer", "Ekel", "Angst"),
}


class Prompt(Frozen):
    """The conversation; wording is ours (the paper's is not known to us).

    ``question``: ``{labels}`` in it stands for the label words.
    ``labels``: a word each emotion, in the order of ``EMOTIONS``; or a language of ``LABEL_WORDS``, such as "ja". They
    are the same for clips of every language.
    """

    system: str = "You are a helpful assistant."
    transcript: str = 'The speaker says: "{transcript}"\n'
    question: str = "Which emotion does the speaker express? Answer with one of: {labels}."
    labels: tuple[str, ...] = EMOTIONS

    @field_validator("labels", mode="before")
    @classmethod
    def _words_of_a_language(cls, labels: Any) -> Any:
        if isinstance(labels, str) and labels not in LABEL_WORDS:
            raise ValueError(f"no list of words, and no language of which we have words: {', '.join(LABEL_WORDS)}")
        return LABEL_WORDS[labels] if isinstance(labels, str) else labels

    def asked(self) -> str:
        """The question with the label words in it."""
        return self.question.replace("{labels}", ", ".join(self.labels))

    @model_validator(mode="after")
    def _labels(self) -> Prompt:
        if len(self.labels) != len(EMOTIONS) or len(set(self.labels)) != len(EMOTIONS):
            raise ValueError(f"prompt.labels needs {len(EMOTIONS)} different words, in the order of {EMOTIONS}")
        if len({label.strip().casefold() for label in self.labels}) != len(EMOTIONS):
            raise ValueError("prompt.labels: two words differ in case or blanks only, so an answer would name both")
        if not all(label.strip() for label in self.labels):
            raise ValueError("prompt.labels: a label word is empty")
        if self.transcript.count("{transcript}") != 1 or set("{}") & set(self.transcript.replace("{transcript}", "")):
            raise ValueError("prompt.transcript needs {transcript} once, and no other braces")
        if set("{}") & set(self.question.replace("{labels}", "")):
            raise ValueError("prompt.question may hold {labels}, and no other braces")
        if any("<|" in text for text in (self.system, self.transcript, self.question, *self.labels)):
            raise ValueError(
                "prompt: special tokens such as <|AUDIO|> come from the chat template, not from the prompt"
            )
        return self


class Optimisation(Frozen):
    """The training loop; defaults are those of arXiv 2603.21050 where it states them (warm-up and clipping are ours).

    ``epochs``: at most so many; 0 scores the backbone as it is.
    ``micro_batch_size``: utterances a rank takes in one training pass; None takes as many of its share of the batch as
    memory has room for, see ``computation``.
    """

    epochs: Annotated[int, Field(ge=0)] = 20
    batch_size: Annotated[int, Field(ge=2)] = 64
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Positive = 5e-5
    weight_decay: NonNegative = 0.01
    warmup_fraction: Fraction = 0.1
    gradient_clipping: Positive = 1.0
    patience: Annotated[int, Field(ge=1)] = 5


class Computation(Frozen):
    """How a step is computed: changes no result beyond rounding, and no ``config_id``.

    ``tower_states``: those of a frozen tower, kept on disk and shared by all trials ("cached") or computed in every
    pass; "auto" keeps them where the disk has room. A tower that is trained, or drops activations, is always computed.

    ``length_buckets``: whether a training pass goes through its utterances in groups of like length, or all at once.
    ``micro_batch_tokens``: tokens, padding included, that a rank takes in one training pass; a share of more is cut
    into several. None takes as many as free memory has room for, unless ``optimisation.micro_batch_size``, which counts
    utterances, is given.
    ``tower_input``, ``head``: what the tower hears and where the vocabulary head is computed. "30_seconds" and
    "every_position" are what the stock model does, to measure against; the memory that they take is not counted, and
    with "30_seconds" no tower states are kept.
    """

    length_buckets: bool = True
    tower_states: Literal["auto", "cached", "computed"] = "auto"
    micro_batch_tokens: Annotated[int, Field(ge=1)] | None = None
    tower_input: Literal["true_length", "30_seconds"] = "true_length"
    head: Literal["answers", "every_position"] = "answers"


class ControlSplit(Frozen):
    """Dialogues held out to measure gaps on, apart from those that select (``objective.estimator`` held_out, or an
    adaptive weight with ``split`` control). The same for every configuration and seed.

    ``source``: the split that they are taken from.
    ``fraction``: of its utterances in each language, at least; 0 is none.
    """

    source: Literal["train", "dev"] = "dev"
    fraction: Annotated[float, Field(ge=0.0, le=0.9)] = 0.0


class Settings(Frozen):
    """Everything that decides the result of a run, save the seed; and ``computation``, which decides none."""

    corpus: CorpusSettings = CorpusSettings()
    backbone: BackboneSettings = BackboneSettings()
    prompt: Prompt = Prompt()
    modalities: tuple[Modality, ...] = (Modality.SPEECH_TEXT,)
    control: ControlSplit = ControlSplit()
    objective: Method = ErmMinMaxGap()
    optimisation: Optimisation = Optimisation()
    computation: Computation = Computation()

    @model_validator(mode="after")
    def _modalities(self) -> Settings:
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError("modalities needs one or two different ones of: speech, speech+text")
        return self

    def with_overrides(self, overrides: Mapping[str, Any]) -> Settings:
        """A copy with dotted keys replaced, e.g. ``{"objective.power": 1}``, validated as a whole.

        Choosing another member of a union (``CHOICES``) starts it afresh with that member's defaults, so nothing of
        the one before lingers; naming the one that it is changes nothing.

        Raises:
            SettingsError: an unknown key or a value out of range; every fault is listed.
        """
        tree = self.model_dump(mode="json")
        chosen, strangers = [key for key in CHOICES if key in overrides], []
        for key in [*chosen, *(key for key in overrides if key not in chosen)]:
            *parents, leaf = key.split(".")
            branch = tree
            for parent in parents:
                branch = branch.setdefault(parent, {}) if isinstance(branch, dict) else {}
            if key in CHOICES and isinstance(branch, dict) and branch.get(leaf) != overrides[key]:
                branch.clear()
                method = METHODS.get(str(overrides[key])) if key == "objective.method" else None
                branch |= method().model_dump(mode="json") if method else {}
            if isinstance(branch, dict):
                branch[leaf] = overrides[key]
            else:
                strangers.append(f"{key}: there is no such setting")
        if strangers:
            raise SettingsError(strangers)
        return parse(Settings, tree)


CHOICES = ("objective.method", "objective.fairness_weight.schedule", "objective.estimator.kind")
"""The knobs that choose a member of a union, outer ones first."""


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
        knob = _knob(fault["loc"]) or "settings"
        if fault["type"] == "extra_forbidden":
            lines.append(f"{knob}: there is no such setting")
        else:
            lines.append(f"{knob}: {fault['msg'].removeprefix('Value error, ')} (given: {fault['input']!r:.80})")
    return lines


def _knob(location: tuple[int | str, ...]) -> str:
    """The dotted knob of a fault; pydantic names the chosen member of a union behind it, which is no part of a knob."""
    unions = {key.split(".")[-2] for key in CHOICES}
    return ".".join(
        str(part) for i, part in enumerate(location) if not (i and location[i - 1] in unions and _is_tag(part))
    )


def _is_tag(part: int | str) -> bool:
    members = [*METHODS.values(), *get_args(get_args(FairnessWeight)[0]), *get_args(get_args(Estimator)[0])]
    tags = {"method", "schedule", "kind"}
    return any(part in get_args(m.model_fields[tag].annotation) for m in members for tag in tags & set(m.model_fields))


def context_faults(settings: Settings, placement: Placement, languages: Sequence[str], cores: int | None) -> list[str]:
    """What is wrong between settings, corpus and machine; empty when nothing is.

    Args:
        languages: those of the corpus.
        cores: CPU cores (or GPUs, where there are any) in reach; None if not known yet.
    """
    faults = []
    objective, batch = settings.objective, settings.optimisation.batch_size
    in_use = cells(languages, settings.modalities)
    if isinstance(objective, ErmMinMaxGap):
        faults += _coefficient_faults(objective, in_use)
    if isinstance(objective, Penalised):
        faults += _control_faults(objective, settings.control)
    groups = 2 * len(in_use)
    if objective.sampled() == "balanced" and batch < 2 * groups:
        faults.append(
            f"optimisation.batch_size: {batch} holds fewer than two of each of {groups} groups; "
            f"use {2 * groups} or more"
        )
    if batch % placement.ranks:
        faults.append(f"optimisation.batch_size: {batch} cannot be shared evenly by --ranks {placement.ranks}")
    if cores is not None and placement.ranks > cores:
        faults.append(f"--ranks: {placement.ranks} workers asked for, this machine has {cores} cores (or GPUs, if any)")
    return faults


def _coefficient_faults(objective: ErmMinMaxGap, in_use: Sequence[Cell]) -> list[str]:
    coefficients = objective.coefficients
    known = {
        "languages": list(dict.fromkeys(cell.language for cell in in_use)),
        "modalities": list(dict.fromkeys(cell.modality for cell in in_use)),
        "cells": [str(cell) for cell in in_use],
    }
    faults = [
        f"objective.coefficients.{kind}.{name}: this study has only {', '.join(names)}"
        for kind, names in known.items()
        for name in getattr(coefficients, kind)
        if name not in names
    ]
    try:
        coefficients.kappa(in_use)
    except ValueError as error:
        faults.append(f"objective.coefficients: {error}")
    return faults


def _control_faults(objective: Penalised, control: ControlSplit) -> list[str]:
    """Who needs a control split, and whether a weight a cell has cells to act on."""
    weight = objective.fairness_weight
    adaptive = isinstance(weight, AdaptiveWeight)
    needs = {
        "objective.estimator.kind": isinstance(objective, ErmMinMaxGap)
        and isinstance(objective.estimator, HeldOutGaps),
        "objective.fairness_weight.split": adaptive and weight.split == "control",
    }
    faults = [
        f"{knob}: needs a control split: set control.fraction, e.g. 0.5 of dev"
        for knob, needed in needs.items()
        if needed and not control.fraction
    ]
    if adaptive and weight.per_cell and not isinstance(objective, ErmMinMaxGap):
        faults.append(
            f"objective.fairness_weight.per_cell: only minmaxgap has a penalty a cell, not {objective.method}"
        )
    return faults


def config_id(settings: Settings, cells_in_use: Sequence[Cell], corpus_hash: str, backbone_hash: str) -> str:
    """Ten hex digits naming a configuration: what differs from the defaults, and the content it runs on.

    Only differences are hashed, so a new setting with a default changes no id. Where the corpus lies, and how a step is
    computed, is no part of it.
    What has no effect does not count: coefficients count as their kappa, the method's own sampling as none.
    """
    kappa, objective = None, settings.objective
    if objective.sampled() == objective.own_sampling:
        objective = objective.model_copy(update={"sampling": None})
    if isinstance(objective, ErmMinMaxGap):
        kappa = [round(value, 9) for value in objective.coefficients.kappa(cells_in_use)]
        inert = {} if objective.reduction == "softmax" else {"temperature": ErmMinMaxGap().temperature}
        objective = objective.model_copy(update={"coefficients": Coefficients(), **inert})
    control = settings.control if settings.control.fraction else ControlSplit()
    changed = differences(settings.model_copy(update={"objective": objective, "control": control}))
    apart = ("corpus.", "computation.", "backbone.spec")
    changed = {key: value for key, value in changed.items() if not key.startswith(apart)}
    if kappa and set(kappa) != {1.0}:
        changed["kappa"] = kappa
    text = json.dumps([changed, corpus_hash, backbone_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def differences(settings: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Dotted knobs that differ from their defaults, those of the member chosen where there is a choice.

    >>> differences(Settings().with_overrides({"objective.method": "group_dro", "objective.step_size": 0.1}))
    {'objective.method': 'group_dro', 'objective.step_size': 0.1}
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
