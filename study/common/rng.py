"""Random seeds, and the random state of this process."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, torch.Tensor]:
    """Return PyTorch's random state, which dropout draws from: "cpu", and "gpu" if there is one."""
    state = {"cpu": torch.get_rng_state()}
    return {**state, "gpu": torch.cuda.get_rng_state()} if torch.cuda.is_available() else state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    """Restore a state from ``random_state``."""
    torch.set_rng_state(state["cpu"])
    if "gpu" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["gpu"])
