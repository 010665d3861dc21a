"""Search spaces by name: functions of the languages and modalities a study has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search_spaces.fairness import fairness, schedules
from search_spaces.knobs import Knob, Reference, Space

SPACES: dict[str, Callable[[Sequence[str], Sequence[str]], Space]] = {"fairness": fairness, "schedules": schedules}

__all__ = ["SPACES", "Knob", "Reference", "Space"]
