"""The configuration of a run, as frozen pydantic models that reject unknown names and report every error at once.

``Settings`` decides the result of a run. ``Parallelism`` says where it is computed; it changes no result beyond
rounding and is not part of a ``config_id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from study.common.base_model import Fraction, Frozen, NonNegative, Positive
from study.common.errors import SettingsError
from study.common.groups import EMOTIONS, Modality
from study.losses.baselines import LOSSES, AnyLoss
from study.losses.minmaxgap import ErmMinMaxGap


class CorpusSettings(Frozen):
    """Which utterances are used, and how they are prepared.

    Attributes:
        spec: such as ``meld-st:DIR``; ``study.data.corpora.registry`` has all corpora, and checks it.
        planted_gaps: the planted gaps of the synthetic corpus; other corpora ignore it.
        split: "parallel" is the corpus's own split with parallel utterances on one side, "official" is the authors'
            split unchanged, "speaker" holds speakers out. For the synthetic corpus all three are the same. A manifest
            with a split column uses it for the first two; one without is split by speaker. "none" puts everything into
            test, for evaluation only.
        unknown_gender: whether utterances of unknown gender are used for training; they never count in a gap.
        loudness: "as_recorded", because loudness carries emotion, or "rms", which scales every clip to one level, for
            corpora whose parts were recorded at different levels.
    """

    spec: str = "synthetic"
    planted_gaps: tuple[Literal["scarcity", "prior", "cue"], ...] = ("scarcity", "prior", "cue")
    split: Literal["parallel", "official", "speaker", "none"] = "parallel"
    unknown_gender: Literal["leave_out", "train"] = "leave_out"
    loudness: Literal["as_recorded", "rms"] = "as_recorded"

    @field_validator("planted_gaps")
    @classmethod
    def _unique(cls, planted_gaps: tuple[str, ...]) -> tuple[str, ...]:
        return _without_duplicates(planted_gaps)


def _without_duplicates(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ValueError("contains a value twice")
    return values


class BackboneSettings(Frozen):
    """The speech LLM and which of its weights are trained. LoRA defaults are those of arXiv 2603.21050.

    Attributes:
        spec: "tiny" (a small random model of the same class), a hub id or a local folder.
        trainable: modules that are trained in full, besides the LoRA matrices of the language model.
        attention: attention kernel of the language model in training; "sdpa" picks a flash kernel itself where one
            fits. The audio encoder and label scoring use custom masks, hence always sdpa.
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
    def _unique(cls, trainable: tuple[str, ...]) -> tuple[str, ...]:
        return _without_duplicates(trainable)


LABEL_WORDS: dict[str, tuple[str, ...]] = {
    "en": EMOTIONS,
    "ja": ("中立", "喜び", "驚き", "怒り", "悲しみ", "嫌悪", "恐れ"),
    "de": ("neutral", "Freude", "Überraschung", "Ärger", "Trauer", "Ekel", "Angst"),
}


class Prompt(Frozen):
    """The conversation. The wording is ours; the paper's is not known to us.

    Attributes:
        question: ``{labels}`` in it is replaced by the label words.
        labels: one word per emotion, in the order of ``EMOTIONS``; or a language of ``LABEL_WORDS``, such as "ja". They
            are the same for clips of every language.
    """

    system: str = "You are a helpful assistant."
    transcript: str = 'The speaker says: "{transcript}"\n'
    question: str = "Which emotion does the speaker express? Answer with one of: {labels}."
    labels: tuple[str, ...] = EMOTIONS

    @field_validator("labels", mode="before")
    @classmethod
    def _label_words(cls, labels: Any) -> Any:
        if isinstance(labels, str) and labels not in LABEL_WORDS:
            raise ValueError(f"must be a list of words or one of the languages {', '.join(LABEL_WORDS)}")
        return LABEL_WORDS[labels] if isinstance(labels, str) else labels

    def question_with_labels(self) -> str:
        """Return the question with the label words in it."""
        return self.question.replace("{labels}", ", ".join(self.labels))

    @model_validator(mode="after")
    def _usable(self) -> Prompt:
        if len(self.labels) != len(EMOTIONS) or len(set(self.labels)) != len(EMOTIONS):
            raise ValueError(f"prompt.labels needs {len(EMOTIONS)} different words, in the order of {EMOTIONS}")
        if len({label.strip().casefold() for label in self.labels}) != len(EMOTIONS):
            raise ValueError("prompt.labels: two words differ only in case or spaces, so answers would be ambiguous")
        if not all(label.strip() for label in self.labels):
            raise ValueError("prompt.labels: a label word is empty")
        if self.transcript.count("{transcript}") != 1 or set("{}") & set(self.transcript.replace("{transcript}", "")):
            raise ValueError("prompt.transcript must contain {transcript} exactly once, and no other braces")
        if set("{}") & set(self.question.replace("{labels}", "")):
            raise ValueError("prompt.question may contain {labels}, and no other braces")
        if any("<|" in text for text in (self.system, self.transcript, self.question, *self.labels)):
            raise ValueError("prompt: must not contain special tokens such as <|AUDIO|>; the chat template adds them")
        return self


class Optimisation(Frozen):
    """The training loop. Defaults are those of arXiv 2603.21050 where it states them; warm-up and clipping are ours.

    Attributes:
        epochs: maximum number of epochs; 0 evaluates the untrained backbone.
        micro_batch_size: utterances per forward and backward pass of a worker; None fits as many of its share of the
            global batch as memory allows, see ``Computation``.
        patience: epochs without improvement on dev after which training stops.
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
    """How a step is computed. It changes no result beyond rounding, and no ``config_id``.

    Attributes:
        length_buckets: whether a pass processes its utterances in groups of similar length, or all at once.
        encoder_states: those of a frozen audio encoder are read from disk, where all trials share them ("cached"), or
            recomputed in every pass ("computed"); "auto" caches them if the disk has space. An encoder that is trained,
            or uses dropout, is always recomputed.
        micro_batch_tokens: tokens, padding included, per forward and backward pass of a worker; a larger share of the
            global batch is cut into several passes. None fits as many as free memory allows, unless
            ``optimisation.micro_batch_size`` is given, which counts utterances.
        encoder_input: length of the audio encoder's input. "30_seconds" pads as the stock model does, for comparison.
            Encoder states are then not cached, and the memory estimate does not cover it.
        head: positions at which the vocabulary head is computed. "every_position" is the stock model's way, for
            comparison; the memory estimate does not cover it.
    """

    length_buckets: bool = True
    encoder_states: Literal["auto", "cached", "computed"] = "auto"
    micro_batch_tokens: Annotated[int, Field(ge=1)] | None = None
    encoder_input: Literal["true_length", "30_seconds"] = "true_length"
    head: Literal["answers", "every_position"] = "answers"


class ControlSplit(Frozen):
    """Dialogues held out to measure gaps on, separate from those used for selection.

    ``loss.estimator.kind`` "held_out", and adaptive weights with ``split`` "control", use it. It is the same for every
    configuration and seed.

    Attributes:
        source: the split that the dialogues are taken from.
        fraction: minimum fraction of the utterances of ``source`` in each language; 0 for no control split.
    """

    source: Literal["train", "dev"] = "dev"
    fraction: Annotated[float, Field(ge=0.0, le=0.9)] = 0.0


class Settings(Frozen):
    """Everything that decides the result of a run except the seed; and ``computation``, which does not change it."""

    corpus: CorpusSettings = CorpusSettings()
    backbone: BackboneSettings = BackboneSettings()
    prompt: Prompt = Prompt()
    modalities: tuple[Modality, ...] = (Modality.SPEECH_TEXT,)
    control: ControlSplit = ControlSplit()
    loss: AnyLoss = ErmMinMaxGap()
    optimisation: Optimisation = Optimisation()
    computation: Computation = Computation()

    @field_validator("modalities")
    @classmethod
    def _modalities(cls, modalities: tuple[Modality, ...]) -> tuple[Modality, ...]:
        if not modalities or len(set(modalities)) < len(modalities):
            raise ValueError("needs one or two different modalities: speech, speech+text")
        return modalities

    def with_overrides(self, overrides: Mapping[str, Any]) -> Settings:
        """Return a copy with settings replaced by their dotted names, e.g. ``{"loss.power": 1}``, and validate it.

        Choosing another member of a union (``UNION_TAGS``) starts it with that member's defaults; none of the previous
        member's values remain. Choosing the current member changes nothing.

        Raises:
            SettingsError: lists every unknown name and every invalid value.
        """
        tree, errors = self.model_dump(mode="json"), []
        tags = [tag for tag in UNION_TAGS if tag in overrides]
        for name in dict.fromkeys([*tags, *overrides]):
            *parents, key = name.split(".")
            group: Any = tree
            for parent in parents:
                group = group.setdefault(parent, {}) if isinstance(group, dict) else None
            if not isinstance(group, dict):
                errors.append(f"{name}: there is no such setting")
                continue
            if name in tags and group.get(key) != overrides[name]:
                group.clear()
                if name == "loss.method" and str(overrides[name]) in LOSSES:
                    group |= LOSSES[str(overrides[name])]().model_dump(mode="json")
            group[key] = overrides[name]
        if errors:
            raise SettingsError(errors)
        return parse(Settings, tree)


UNION_TAGS = ("loss.method", "loss.fairness_weight.schedule", "loss.estimator.kind")
"""Settings that choose a member of a union, outer ones first."""


class Parallelism(Frozen):
    """Where a run is computed; it changes no result beyond rounding.

    Attributes:
        num_workers: worker processes per trial.
        zero_stage: DeepSpeed ZeRO stage, what is sharded over the workers.
    """

    num_workers: Annotated[int, Field(ge=1)] = 2
    zero_stage: Literal[0, 1, 2, 3] = 2


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], tree: Any) -> Model:
    """Validate ``tree`` as ``model``.

    Raises:
        SettingsError: lists every error, one per line.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(
            [f"{_dotted_name(detail['loc']) or 'settings'}: {error_message(detail)}" for detail in error.errors()]
        ) from None


def error_message(detail: ErrorDetails) -> str:
    """Return what is wrong, with the given value if it is short."""
    if detail["type"] == "extra_forbidden":
        return "there is no such setting"
    message, value = detail["msg"].removeprefix("Value error, "), repr(detail["input"])
    return message if len(value) > 60 or detail["type"] == "missing" else f"{message} (given: {value})"


def _dotted_name(location: tuple[int | str, ...]) -> str:
    """Return the dotted name of a setting; pydantic inserts the tag of a union's member after the union."""
    unions = {tag.split(".")[-2] for tag in UNION_TAGS}
    return ".".join(str(part) for i, part in enumerate(location) if not (i and location[i - 1] in unions))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names.

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
