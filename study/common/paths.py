"""The repository as a whole."""

from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
"""The folder that holds ``study/``."""
