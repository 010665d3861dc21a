"""One optimiser step over the global batch."""

from __future__ import annotations


class LossNotFinite(FloatingPointError):
    """The loss of a step was not finite; the message names the epoch and the remedy."""
