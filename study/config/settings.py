"""The whole configuration of a run, as frozen models that refuse unknown keys and name every fault at once.

``Settings`` is what decides a result. Where it runs (ranks, ZeRO stage, storage) is ``Placement``: it changes no result
beyond rounding and no ``config_id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from study.common.base_model import Fraction, Frozen, NonNegative, Positive
from study.common.errors import SettingsError
from study.common.groups import EMOTIONS, Modality
from study.losses.baselines import LOSSES, AnyLoss
from study.losses.gap_estimators import GapEstimator
from study.losses.minmaxgap import ErmMinMaxGap
from study.losses.schedules import FairnessWeight


class CorpusSettings(Frozen):
    """Which utterances, and how they are heard.

    ``plants``: the planted gaps of the synthetic corpus; other corpora ignore it.
    ``split``: "parallel" is the corpus's own split with parallel utterances on one side, "official" the authors' as it
    is, "speaker" holds speakers out. The synthetic corpus's own split is all three; a manifest's own split is taken for
    the first two, and without one its speakers are divided. "none" puts everything into test: for scoring only.
    ``unknown_gender``: whether utterances without a known gender are trained on; they never enter a gap.
    ``loudness``: "as_recorded", since how loud a voice is tells of its emotion, or "rms", one level for all clips, for
    corpora whose parts were recorded at levels of their own.
    """

    spec: str = "synthetic"
    planted_gaps: tuple[Literal["scarcity", "prior", "cue"], ...] = ("scarcity", "prior", "cue")
    split: Literal["parallel", "official", "speaker", "none"] = "parallel"
    unknown_gender: Literal["leave_out", "train"] = "leave_out"
    loudness: Literal["as_recorded", "rms"] = "as_recorded"

    @model_validator(mode="after")
    def _known(self) -> CorpusSettings:
        if self.spec != "synthetic" and not self.spec.startswith(("meld-st:", "manifest:")):
            raise ValueError(f"{self.spec!r} is no corpus: use synthetic, meld-st:DIR or manifest:FILE")
        if self.spec == "synthetic" and len(set(self.planted_gaps)) < len(self.planted_gaps):
            raise ValueError(f"a plant is named twice in {self.planted_gaps}")
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
    trainable: tuple[Literal["projector", "audio_encoder"], ...] = ()
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

    ``encoder_states``: those of a frozen tower, kept on disk and shared by all trials ("cached") or computed in every
    pass; "auto" keeps them where the disk has room. A tower that is trained, or drops activations, is always computed.

    ``length_buckets``: whether a training pass goes through its utterances in groups of like length, or all at once.
    ``micro_batch_tokens``: tokens, padding included, that a rank takes in one training pass; a share of more is cut
    into several. None takes as many as free memory has room for, unless ``optimisation.micro_batch_size``, which counts
    utterances, is given.
    ``encoder_input``, ``head``: what the tower hears and where the vocabulary head is computed. "30_seconds" and
    "every_position" are what the stock model does, to measure against; the memory that they take is not counted, and
    with "30_seconds" no tower states are kept.
    """

    length_buckets: bool = True
    encoder_states: Literal["auto", "cached", "computed"] = "auto"
    micro_batch_tokens: Annotated[int, Field(ge=1)] | None = None
    encoder_input: Literal["true_length", "30_seconds"] = "true_length"
    head: Literal["answers", "every_position"] = "answers"


class ControlSplit(Frozen):
    """Dialogues held out to measure gaps on, apart from those that select (``loss.estimator`` held_out, or an
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
    loss: AnyLoss = ErmMinMaxGap()
    optimisation: Optimisation = Optimisation()
    computation: Computation = Computation()

    @model_validator(mode="after")
    def _modalities(self) -> Settings:
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError("modalities needs one or two different ones of: speech, speech+text")
        return self

    def with_overrides(self, overrides: Mapping[str, Any]) -> Settings:
        """A copy with dotted keys replaced, e.g. ``{"loss.power": 1}``, validated as a whole.

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
                method = LOSSES.get(str(overrides[key])) if key == "loss.method" else None
                branch |= method().model_dump(mode="json") if method else {}
            if isinstance(branch, dict):
                branch[leaf] = overrides[key]
            else:
                strangers.append(f"{key}: there is no such setting")
        if strangers:
            raise SettingsError(strangers)
        return parse(Settings, tree)


CHOICES = ("loss.method", "loss.fairness_weight.schedule", "loss.estimator.kind")
"""The knobs that choose a member of a union, outer ones first."""


class Parallelism(Frozen):
    """Where and how a run is computed; it decides no result beyond rounding.

    ``ranks``: worker processes a trial.  ``zero_stage``: what DeepSpeed shards over them.
    """

    num_workers: Annotated[int, Field(ge=1)] = 2
    zero_stage: Literal[0, 1, 2, 3] = 2


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], tree: Any) -> Model:
    """``model.model_validate(tree)`` with every fault in one ``SettingsError``."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(errors_of(error)) from None


def errors_of(error: ValidationError) -> list[str]:
    """One readable line a fault: the dotted knob, what is wrong, what was given."""
    lines = []
    for message in error.errors():
        hyperparameter = _dotted_name(message["loc"]) or "settings"
        if message["type"] == "extra_forbidden":
            lines.append(f"{hyperparameter}: there is no such setting")
        else:
            lines.append(
                f"{hyperparameter}: {message['msg'].removeprefix('Value error, ')} (given: {message['input']!r:.80})"
            )
    return lines


def _dotted_name(location: tuple[int | str, ...]) -> str:
    """The dotted knob of a fault; pydantic names the chosen member of a union behind it, which is no part of a knob."""
    unions = {key.split(".")[-2] for key in CHOICES}
    return ".".join(
        str(part) for i, part in enumerate(location) if not (i and location[i - 1] in unions and _is_tag(part))
    )


def _is_tag(part: int | str) -> bool:
    members = [*LOSSES.values(), *get_args(get_args(FairnessWeight)[0]), *get_args(get_args(GapEstimator)[0])]
    tags = {"method", "schedule", "kind"}
    return any(part in get_args(m.model_fields[tag].annotation) for m in members for tag in tags & set(m.model_fields))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys.

    >>> flatten({"loss": {"power": 2}, "modalities": ["speech"]})
    {'loss.power': 2, 'modalities': ['speech']}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
