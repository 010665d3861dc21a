"""What a study searches: hyperparameters, named search spaces, and the arms of an ablation."""

from __future__ import annotations

from search_spaces.ablation_arms import ablation
from search_spaces.registry import SPACES, SpaceMaker, space_maker, split_overrides
from search_spaces.space import Hyperparameter, NamedConfiguration, Space

__all__ = [
    "SPACES",
    "Hyperparameter",
    "NamedConfiguration",
    "Space",
    "SpaceMaker",
    "ablation",
    "space_maker",
    "split_overrides",
]
