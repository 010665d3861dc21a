"""The examples in the docstrings of the analysis."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import analysis


@pytest.mark.parametrize("name", [module.name for module in pkgutil.walk_packages(analysis.__path__, "analysis.")])
def test_doctests(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
