"""Names and default values that the command line and the computations share; importing them loads no library."""

from __future__ import annotations

SPLITS = ("dev", "test")
ERM, PAPER = "ERM", "paper's setting"
"""Labels of the two baseline configurations that every study trains."""

MAX_GAP = 0.05
MAX_W_F1_LOSS = 0.02
"""Default limits of the selection rules, as fractions."""
