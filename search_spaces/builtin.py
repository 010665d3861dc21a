"""The hyperparameters of the built-in search spaces, each declared once.

kappa is normalised to mean 1 over the cells. The fairness weight therefore sets the scale of the penalty, and a
coefficient weighs one language, modality or cell relative to the others. Of K coefficients only K - 1 are free: the
first is fixed to 1, so that no two points of a space are the same configuration.
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
        reason="alternatives to the paper's adaptive weight",
        default="adaptive",
        choices=("constant", *RAMPS, "step", "adaptive"),
    ),
    Hyperparameter(
        name=f"{WEIGHT}.weight",
        reason="from a negligible penalty to one as large as the risk; the paper reports collapse at 5",
        default=0.3,
        low=0.03,
        high=3.0,
        scale="log",
        unit="1/nat",
        when={f"{WEIGHT}.schedule": ("constant", *RAMPS, "step")},
    ),
    Hyperparameter(
        name=f"{WEIGHT}.ramp_fraction",
        reason="how slowly the weight rises, since accuracy may have to come before fairness",
        default=0.5,
        low=0.1,
        high=1.0,
        unit="of training",
        when={f"{WEIGHT}.schedule": RAMPS},
    ),
    Hyperparameter(
        name=f"{WEIGHT}.start_fraction",
        reason="when the penalty starts; before that the model is fine-tuned without it",
        default=0.5,
        low=0.1,
        high=0.9,
        unit="of training",
        when={f"{WEIGHT}.schedule": ("step",)},
    ),
    Hyperparameter(
        name=f"{WEIGHT}.initial",
        reason="the paper does not state its initial weight",
        default=0.0,
        low=0.0,
        high=1.0,
        unit="1/nat",
        when={f"{WEIGHT}.schedule": ("adaptive",)},
    ),
    Hyperparameter(
        name=f"{WEIGHT}.step_size",
        reason="a dev gap of 10 points changes the weight by 0.01 to 1 per epoch",
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
        reason="the paper uses 2, which makes small gaps negligible; its ablation uses 1",
        default=2,
        choices=(1, 2),
    ),
    Hyperparameter(
        name=REDUCTION,
        reason="only the worst cell counts (the paper), or all of them",
        default="max",
        choices=("max", "mean", "softmax"),
    ),
    Hyperparameter(
        name="loss.temperature",
        reason="from almost the maximum to almost the mean",
        default=0.1,
        low=0.01,
        high=1.0,
        scale="log",
        unit="nat^p",
        when={REDUCTION: ("softmax",)},
    ),
)


def schedules(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """Schedule of the fairness weight and its parameters."""
    return SCHEDULE


def coefficients_per_language(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """MinMaxGAP coefficient of each language except the first, relative to the first."""
    return _coefficients("languages", languages)


def coefficients_per_modality(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """MinMaxGAP coefficient of the second modality, relative to the first."""
    return _coefficients("modalities", settings.modalities)


def coefficients_per_cell(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """MinMaxGAP coefficient of each (language, modality) cell except the first, relative to the first."""
    return _coefficients("cells", [str(cell) for cell in cells(languages, settings.modalities)])


def training(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """Learning rate, LoRA rank and batch size, around the study's own values."""
    rate, rank, batch = (
        settings.optimisation.learning_rate,
        settings.backbone.lora_rank,
        settings.optimisation.batch_size,
    )
    return (
        Hyperparameter(
            name="optimisation.learning_rate",
            reason="1/5 to 5 times the study's own, so that a better learning rate is not mistaken for fairness",
            default=rate,
            low=rate / 5,
            high=rate * 5,
            scale="log",
        ),
        Hyperparameter(
            name="backbone.lora_rank",
            reason="capacity: 1/4 to 4 times the study's own",
            default=rank,
            low=max(1, rank // 4),
            high=4 * rank,
            scale="log",
            integer=True,
        ),
        Hyperparameter(
            name="optimisation.batch_size",
            reason="small batches make the gap noisy; large batches leave fewer steps per epoch",
            default=batch,
            choices=(batch, 2 * batch),
            unit="utterances",
        ),
    )


def penalty(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """Power of the penalty, its reduction over cells, and its gap estimator.

    The held-out estimator is a choice only if the study has a control split.
    """
    held_out = ("held_out",) if settings.control.fraction else ()
    estimator = (
        Hyperparameter(
            name=KIND,
            reason="the gap of a batch is noisy, and the gap on training utterances can have the wrong sign",
            default="batch",
            choices=("batch", "ema", *held_out),
        ),
        Hyperparameter(
            name="loss.estimator.decay",
            reason="averages over 2 to 100 batches",
            default=0.9,
            low=0.5,
            high=0.99,
            when={KIND: ("ema",)},
        ),
    )
    return (*PENALTY, *estimator)


def fairness(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """Schedule, and coefficients per language and per modality (the default space)."""
    return (
        *SCHEDULE,
        *coefficients_per_language(languages, settings),
        *coefficients_per_modality(languages, settings),
    )


def full(languages: Sequence[str], settings: Settings) -> tuple[Hyperparameter, ...]:
    """Schedule, coefficients per cell, penalty and training."""
    makers = (schedules, coefficients_per_cell, penalty, training)
    return tuple(hyperparameter for make in makers for hyperparameter in make(languages, settings))


def _coefficients(kind: str, names: Sequence[str]) -> tuple[Hyperparameter, ...]:
    return tuple(
        Hyperparameter(
            name=f"{COEFFICIENTS}.{kind}.{name}",
            reason=f"weight of the gap of {name} relative to that of {names[0]} (1)",
            default=1.0,
            low=0.25,
            high=4.0,
            scale="log",
            unit=f"× {names[0]}",
        )
        for name in names[1:]
    )
