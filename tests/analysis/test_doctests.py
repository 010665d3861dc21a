"""The examples in the docstrings of the analysis."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import analysis


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(analysis.__path__)])
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"analysis.{name}")).failed == 0
