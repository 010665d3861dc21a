"""The objective is that of the whole effective batch, however it is split over ranks and micro-batches."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def gradient(small_study, tmp_path_factory):
    """A function that runs one step over some ranks and returns its gradients."""
    plan, prepared = small_study
    folder = tmp_path_factory.mktemp("gradients")

    @functools.cache
    def run(
        ranks: int, zero_stage: int = 0, micro: int | None = None, by_gender: bool = False
    ) -> dict[str, np.ndarray]:
        settings = plan.draft.settings.with_overrides(
            {"optimisation.micro_batch_size": micro, "optimisation.gradient_clipping": 1e9}
        )
        name = f"{ranks}-{zero_stage}-{micro}-{by_gender}"
        spec = {
            "settings": settings.model_dump(mode="json"),
            "placement": {"ranks": ranks, "zero_stage": zero_stage},
            "features": str(prepared.features),
            "backbone": prepared.backbone,
            "folder": str(folder / "study"),
            "by_gender": by_gender,
        }
        (folder / f"{name}.json").write_text(json.dumps(spec))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command += [str(REPO / "tests" / "rank_gradient.py"), str(folder / f"{name}.json"), str(folder / f"{name}.npz")]
        environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(np.load(folder / f"{name}.npz"))

    return run


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys() and len(one) > 10
    assert one["penalty"] > 0  # a gap is there, so the penalty's gradient is tested too
    assert other["total"] == pytest.approx(one["total"], rel=1e-5)
    names = [name for name in one if name not in ("penalty", "total")]
    flat, flat_other = (np.concatenate([part[name].ravel() for name in names]) for part in (one, other))
    assert np.linalg.norm(flat) > 1e-3
    assert np.linalg.norm(flat - flat_other) <= 1e-5 * np.linalg.norm(flat)


@pytest.mark.parametrize("zero_stage", [0, 2])
def test_two_ranks_equal_one(gradient, zero_stage):
    assert_same(gradient(1), gradient(2, zero_stage))


def test_two_ranks_of_one_gender_each_with_accumulation_equal_one(gradient):
    assert_same(gradient(1), gradient(2, zero_stage=2, micro=6, by_gender=True))


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [1, 3])
def test_other_zero_stages_equal_one_rank(gradient, zero_stage):
    assert_same(gradient(1), gradient(2, zero_stage))
    assert_same(gradient(1), gradient(2, zero_stage, micro=4))
