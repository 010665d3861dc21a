"""The knobs of the method: the schedule of the fairness weight, and the MinMaxGAP coefficients.

kappa is normalised to mean 1 over the cells, so the schedule's weight carries the scale and a coefficient says how one
language or modality counts against the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.knobs import Knob, Reference, Space

WEIGHT = "objective.fairness_weight"
RAMPS = ("linear", "cosine")

SCHEDULE = (
    Knob(
        f"{WEIGHT}.schedule",
        "what the paper leaves open beside its adaptive weight",
        choices=("constant", *RAMPS, "adaptive"),
    ),
    Knob(
        f"{WEIGHT}.weight",
        "from a penalty hardly felt to one that rivals the risk; the paper reports collapse at 5",
        low=0.03,
        high=3.0,
        log=True,
        unit="1/nat",
        when=(f"{WEIGHT}.schedule", ("constant", *RAMPS)),
    ),
    Knob(
        f"{WEIGHT}.ramp_fraction",
        "accuracy first, fairness later: how much later",
        low=0.1,
        high=1.0,
        unit="of training",
        when=(f"{WEIGHT}.schedule", RAMPS),
    ),
    Knob(
        f"{WEIGHT}.initial",
        "the paper's start is not stated",
        low=0.0,
        high=1.0,
        unit="1/nat",
        when=(f"{WEIGHT}.schedule", ("adaptive",)),
    ),
    Knob(
        f"{WEIGHT}.step_size",
        "a dev gap of 10 points moves the weight by a hundredth to one an epoch",
        low=0.1,
        high=10.0,
        log=True,
        unit="1/nat per unit of gap",
        when=(f"{WEIGHT}.schedule", ("adaptive",)),
    ),
)


def coefficients(kind: str, names: Sequence[str]) -> tuple[Knob, ...]:
    """One coefficient for each name, none where there is only one: it would be normalised to 1."""
    if len(names) < 2:
        return ()
    return tuple(
        Knob(f"objective.coefficients.{kind}.{name}", f"whose gap counts more: {name}", low=0.25, high=4.0, log=True)
        for name in names
    )


def references(knobs: Sequence[Knob]) -> tuple[Reference, ...]:
    """Plain ERM; the paper's setting, adaptive from 0 with every coefficient 1 (its step size is our guess); and ERM on
    the balanced batches of the group methods, since gains of a group loss are often the sampler's."""
    paper = {
        f"{WEIGHT}.schedule": "adaptive",
        f"{WEIGHT}.initial": 0.0,
        f"{WEIGHT}.step_size": 2.0,
        **{knob.name: 1.0 for knob in knobs if ".coefficients." in knob.name},
    }
    balanced = {"objective.method": "erm", "objective.sampling": "balanced"}
    return (
        Reference("ERM", fixed={"objective.method": "erm"}),
        Reference("paper's setting", knobs=paper),
        Reference("ERM, balanced", fixed=balanced),
    )


def fairness(languages: Sequence[str], modalities: Sequence[str]) -> Space:
    """Schedule and coefficients together: the default space."""
    knobs = (*SCHEDULE, *coefficients("languages", languages), *coefficients("modalities", modalities))
    return Space("fairness", knobs, references(knobs))


def schedules(languages: Sequence[str], modalities: Sequence[str]) -> Space:
    """The schedule alone, every coefficient 1."""
    return Space("schedules", SCHEDULE, references(SCHEDULE))
