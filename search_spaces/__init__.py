"""Search spaces by name: functions of the languages and modalities a study has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search_spaces.ablations import ablation
from search_spaces.fairness import fairness, schedules
from search_spaces.knobs import Knob, Reference, Space

SpaceMaker = Callable[[Sequence[str], Sequence[str]], Space]

SPACES: dict[str, SpaceMaker] = {"fairness": fairness, "schedules": schedules, "ablation": ablation}

__all__ = ["SPACES", "Knob", "Reference", "Space", "SpaceMaker", "ablation"]
