"""``python study/sweep.py`` puts ``study/`` first on ``sys.path``, so a name in it must not hide another module."""

from __future__ import annotations

import sys
from importlib.metadata import packages_distributions

from tests import REPO


def test_no_name_in_study_hides_a_standard_module_or_an_installed_library():
    names = {path.stem for path in (REPO / "study").iterdir() if not path.name.startswith("__")}
    assert {"sweep", "losses"} <= names
    assert not names & (set(sys.stdlib_module_names) | set(packages_distributions()))
