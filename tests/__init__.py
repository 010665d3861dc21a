"""Tests; the tree mirrors the packages."""

from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
