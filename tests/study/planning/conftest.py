"""Plans on the small corpus."""

from __future__ import annotations

import pytest

from study.cli.request import search_request
from study.cli.sweep import make_parser
from study.planning.plan import build_plan


@pytest.fixture
def planned(small_corpus, tmp_path):
    """A function that returns the plan of a sweep with the given options."""

    def make(*more):
        given = ["--corpus", f"meld-st:{small_corpus}", "--storage", str(tmp_path), "--num-workers", "2"]
        options = make_parser().read([*given, "--epochs", "3", "--set", "optimisation.batch_size=24", *more])
        return build_plan(search_request(*options, cores=4))

    return make
