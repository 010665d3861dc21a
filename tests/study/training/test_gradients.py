"""The gradients of a step do not depend on the split of the global batch into workers, micro-batches and buckets."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import REPO

LOSSES = {
    "paper": {"method": "minmaxgap"},
    "softmax-ema-p1": {
        "method": "minmaxgap",
        "power": 1,
        "reduction": "softmax",
        "estimator": {"kind": "ema", "decay": 0.9},
        "coefficients": {"languages": {"de": 3.0}},
    },
    "held-out-floor": {"method": "minmaxgap", "estimator": {"kind": "held_out"}, "min_sample_weight": 0.0},
    "per-cell": {"method": "minmaxgap", "fairness_weight": {"schedule": "adaptive", "per_cell": True}},
    "group-dro": {"method": "group_dro", "step_size": 1.0},
    "v-rex": {"method": "v_rex"},
    "cvar": {"method": "cvar_dro"},
    "mmd": {"method": "min_diff"},
}


@pytest.fixture(scope="module")
def gradient(small_study, tmp_path_factory):
    """A function that does two steps of every loss over some workers and returns the gradients of the second step."""
    plan, prepared = small_study
    folder = tmp_path_factory.mktemp("gradients")

    @functools.cache
    def run(
        num_workers: int,
        zero_stage: int = 0,
        micro: int | None = None,
        order: str = "drawn",
        tokens: int | None = None,
        buckets: bool = False,
    ) -> dict[str, np.ndarray]:
        settings = plan.request.settings.with_overrides(
            {
                "optimisation.micro_batch_size": micro,
                "computation.micro_batch_tokens": tokens,
                "computation.length_buckets": buckets,
                "optimisation.gradient_clipping": 1e9,
                "optimisation.learning_rate": 1e-12,  # steps do not change the weights
                "control.fraction": 0.5,
            }
        )
        name = f"{num_workers}-{zero_stage}-{micro}-{order}-{tokens}-{buckets}"
        spec = {
            "settings": settings.model_dump(mode="json"),
            "losses": LOSSES,
            "parallelism": {"num_workers": num_workers, "zero_stage": zero_stage},
            "features": str(prepared.features),
            "backbone": prepared.backbone,
            "folder": str(folder / "study"),
            "order": order,
        }
        (folder / f"{name}.json").write_text(json.dumps(spec))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_workers)]
        command += [
            str(REPO / "tests/study/training/worker_gradient.py"),
            str(folder / f"{name}.json"),
            str(folder / f"{name}.npz"),
        ]
        environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(np.load(folder / f"{name}.npz"))

    return run


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    directions = []
    for loss, tree in LOSSES.items():
        part, other_part = (
            {key.split(":")[1]: value for key, value in gradients.items() if key.startswith(f"{loss}:")}
            for gradients in (one, other)
        )
        if tree["method"] in ("minmaxgap", "v_rex", "min_diff"):
            assert part["penalty"] > 0, loss  # so the gradient of the penalty is tested too
        assert other_part["total"] == pytest.approx(part["total"], rel=1e-5), loss
        names = [name for name in part if name not in ("penalty", "total")]
        flat, flat_other = (np.concatenate([p[name].ravel() for name in names]) for p in (part, other_part))
        assert len(names) > 10 and np.linalg.norm(flat) > 1e-3, loss
        assert np.linalg.norm(flat - flat_other) <= 1e-5 * np.linalg.norm(flat), loss
        directions.append(flat / np.linalg.norm(flat))
    similar = np.array(directions) @ np.array(directions).T - np.eye(len(directions))
    assert similar.max() < 1 - 1e-6  # the losses have different gradients


@pytest.mark.parametrize("zero_stage", [0, 2])
def test_two_workers_equal_one(gradient, zero_stage):
    assert_same(gradient(1), gradient(2, zero_stage))


def test_two_workers_of_one_gender_each_with_accumulation_equal_one(gradient):
    assert_same(gradient(1), gradient(2, zero_stage=2, micro=6, order="gender"))


@pytest.mark.parametrize(("num_workers", "zero_stage", "tokens"), [(1, 0, None), (2, 2, 400)])
def test_buckets_and_micro_batches_by_tokens_equal_one(gradient, num_workers, zero_stage, tokens):
    assert_same(gradient(1), gradient(num_workers, zero_stage, tokens=tokens, buckets=True))


@pytest.mark.slow
@pytest.mark.parametrize(("zero_stage", "tokens"), [(1, 400), (3, 400), (3, None)])
def test_buckets_and_micro_batches_equal_one_at_every_zero_stage(gradient, zero_stage, tokens):
    assert_same(gradient(1), gradient(2, zero_stage, tokens=tokens, buckets=True))


@pytest.mark.slow
def test_micro_batches_of_one_cell_each_equal_one(gradient):
    assert_same(gradient(1), gradient(1, zero_stage=0, micro=8, order="cell"))
    assert_same(gradient(1), gradient(2, zero_stage=2, micro=5, order="cell"))  # the last one is smaller


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [1, 3])
def test_other_zero_stages_equal_one_worker(gradient, zero_stage):
    assert_same(gradient(1), gradient(2, zero_stage))
    assert_same(gradient(1), gradient(2, zero_stage, micro=4))
