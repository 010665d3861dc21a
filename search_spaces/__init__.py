"""What a study searches: knobs, spaces of them by name, and the arms of an ablation."""

from __future__ import annotations

from search_spaces.ablations import ablation
from search_spaces.knobs import Knob, Reference, Space
from search_spaces.spaces import SPACES, SpaceMaker, space_maker, split_fixed

__all__ = ["SPACES", "Knob", "Reference", "Space", "SpaceMaker", "ablation", "space_maker", "split_fixed"]
