"""Every knob of the spaces that ship, declared once.

kappa is normalised to mean 1 over the cells, so the schedule's weight carries the scale and a coefficient says how one
language, modality or cell counts against the others. Of K coefficients K - 1 are free: the first is held at 1 and the
others are searched against it, so that no two points of a space are the same configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.space import Hyperparameter
from study.common.groups import cells
from study.config.settings import Settings

WEIGHT = "loss.fairness_weight"
COEFFICIENTS = "loss.coefficients"
KIND = "loss.estimator.kind"
REDUCTION = "loss.reduction"
RAMPS = ("linear", "cosine")

SCHEDULE = (
    Hyperparameter(
        name=f"{WEIGHT}.schedule",
        reason="what the paper leaves open beside its adaptive weight",
        default="adaptive",
        choices=("constant", *RAMPS, "step", "adaptive"),
    ),
    Hyperparameter(
        name=f"{WEIGHT}.weight",
        reason="from a penalty hardly felt to one that rivals the risk; the paper reports collapse at 5",
        default=0.3,
        low=0.03,
        high=3.0,
        scale="log",
        unit="1/nat",
        when={f"{WEIGHT}.schedule": ("constant", *RAMPS, "step")},
    ),
    Hyperparameter(
        name=f"{WEIGHT}.ramp_fraction",
        reason="accuracy first, fairness later: how much later",
        default=0.5,
        low=0.1,
        high=1.0,
        unit="of training",
        when={f"{WEIGHT}.schedule": RAMPS},
    ),
    Hyperparameter(
        name=f"{WEIGHT}.start_fraction",
        reason="a fine-tuned model first, then the penalty at once: how late",
        default=0.5,
        low=0.1,
        high=0.9,
        unit="of training",
        when={f"{WEIGHT}.schedule": ("step",)},
    ),
    Hyperparameter(
        name=f"{WEIGHT}.initial",
        reason="the paper's start is not stated",
        default=0.0,
        low=0.0,
        high=1.0,
        unit="1/nat",
        when={f"{WEIGHT}.schedule": ("adaptive",)},
    ),
    Hyperparameter(
        name=f"{WEIGHT}.step_size",
        reason="a dev gap of 10 points moves the weight by a hundredth to one an epoch",
        default=2.0,
        low=0.1,
        high=10.0,
        scale="log",
        unit="1/nat per unit of gap",
        when={f"{WEIGHT}.schedule": ("adaptive",)},
    ),
)

PENALTY = (
    Hyperparameter(
        name="loss.power",
        reason="the paper's 2 hardly feels small gaps; its ablation is 1",
        default=2,
        choices=(1, 2),
    ),
    Hyperparameter(
        name=REDUCTION,
        reason="the worst cell alone (the paper), or all of them",
        default="max",
        choices=("max", "mean", "softmax"),
    ),
    Hyperparameter(
        name="loss.temperature",
        reason="from nearly the max to nearly the mean",
        default=0.1,
        low=0.01,
        high=1.0,
        scale="log",
        unit="nat^p",
        when={REDUCTION: ("softmax",)},
    ),
)


def schedules(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """The schedule of the fairness weight and its parameters."""
    return SCHEDULE


def coefficients_per_language(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """A MinMaxGAP coefficient for each language but the first, against the first's."""
    return _coefficients("languages", languages)


def coefficients_per_modality(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """A MinMaxGAP coefficient for the second modality, against the first's."""
    return _coefficients("modalities", settings.modalities)


def coefficients_per_cell(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """A MinMaxGAP coefficient for each (language, modality) but the first, against the first's."""
    return _coefficients("cells", [str(cell) for cell in cells(languages, settings.modalities)])


def training(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """Learning rate, LoRA rank and batch size, around those of the study."""
    rate, rank, batch = (
        settings.optimisation.learning_rate,
        settings.backbone.lora_rank,
        settings.optimisation.batch_size,
    )
    return (
        Hyperparameter(
            name="optimisation.learning_rate",
            reason="a fifth to five times the study's own: fairness must not be confused with a better learning rate",
            default=rate,
            low=rate / 5,
            high=rate * 5,
            scale="log",
        ),
        Hyperparameter(
            name="backbone.lora_rank",
            reason="capacity: a quarter to four times the study's own",
            default=rank,
            low=max(1, rank // 4),
            high=4 * rank,
            scale="log",
            integer=True,
        ),
        Hyperparameter(
            name="optimisation.batch_size",
            reason="the gap of a batch is mostly noise when it is small; steps an epoch are fewer when it is large",
            default=batch,
            choices=(batch, 2 * batch),
            unit="utterances",
        ),
    )


def penalty(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """The form of the penalty: its power, its reduction over cells, and where gaps are measured.

    Gaps on held-out utterances are among the choices where the study has a control split.
    """
    held_out = ("held_out",) if settings.control.fraction else ()
    estimator = (
        Hyperparameter(
            name=KIND,
            reason="the gap of a batch is noisy, and that of trained utterances can have the wrong sign",
            default="batch",
            choices=("batch", "ema", *held_out),
        ),
        Hyperparameter(
            name="loss.estimator.decay",
            reason="a memory of 2 to 100 batches",
            default=0.9,
            low=0.5,
            high=0.99,
            when={KIND: ("ema",)},
        ),
    )
    return (*PENALTY, *estimator)


def fairness(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """Schedule, and coefficients by language and by modality: the default."""
    return (
        *SCHEDULE,
        *coefficients_per_language(languages, settings),
        *coefficients_per_modality(languages, settings),
    )


def full(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """Schedule, coefficients by cell, the form of the penalty, and training."""
    makers = (schedules, coefficients_per_cell, penalty, training)
    return tuple(hyperparameter for make in makers for hyperparameter in make(languages, settings))


def _coefficients(kind: str, names: Sequence[str]) -> tuple[Hyperparameter, ...]:
    return tuple(
        Hyperparameter(
            name=f"{COEFFICIENTS}.{kind}.{name}",
            reason=f"whose gap counts more: that of {name}, or that of {names[0]} (1)",
            default=1.0,
            low=0.25,
            high=4.0,
            scale="log",
            unit=f"of {names[0]}'s",
        )
        for name in names[1:]
    )
