"""The profile of a run: its trace, and a summary with the share of each range in the steps."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch.autograd.profiler_util import FunctionEvent

from study.storage.study_folder import StudyFolder
from study.training.profiler import RANGES, SUMMARY, TRACE, StepProfile, range_seconds
from study.training.trainer import train


def test_profile_writes_a_trace_and_a_summary(run_plan):
    plan = run_plan({"optimisation.epochs": 2})
    train(plan, seed=0, report=lambda row: None, profile=True)
    trace = json.loads(plan.folder.read_bytes(f"runs/abc/0/{TRACE}"))
    names = {event.get("name") for event in trace["traceEvents"]}
    assert set(RANGES) <= names
    summary = plan.folder.read_bytes(f"runs/abc/0/{SUMMARY}").decode()
    shares = {name: float(share) for name, share in re.findall(r"^  (\w[\w ]*?) +(-?[\d.]+) %", summary, re.MULTILINE)}
    assert list(shares) == [*RANGES, "rest"] and abs(sum(shares.values()) - 100) < 0.5
    assert shares["backward"] > 0 and shares["language model"] > 0
    assert "Self CPU" in summary


@pytest.mark.parametrize(("steps", "written"), [(7, False), (8, True)])
def test_run_of_too_few_steps_prints_that_no_profile_was_written(tmp_path, capsys, steps, written):
    folder = StudyFolder.at(str(tmp_path), "study")
    profile = StepProfile(folder, "runs/abc/0", on_gpu=False)
    for _ in range(steps):
        torch.ones(2).sum()
        profile.step()
    profile.close()
    assert folder.exists(f"runs/abc/0/{SUMMARY}") == written
    assert ("not written: it needs 8 steps and the run had 7" in capsys.readouterr().out) != written


def test_gpu_kernels_count_in_the_range_of_their_launch_on_any_thread():
    """By hand: on a GPU the backward pass has its own thread, so its operators are not children of the range."""

    def event(name, start, end, thread, kernel=0.0):
        event = FunctionEvent(id=0, name=name, thread=thread, start_us=start, end_us=end, use_device="cuda")
        if kernel:
            event.append_kernel("gemm", 0, kernel)
        return event

    events = [
        event("data wait", 0, 1000, thread=1),
        event("encoder", 1000, 1500, thread=1),
        event("aten::mm", 1100, 1200, thread=1, kernel=3000),
        event("backward", 2000, 9000, thread=1),
        event("aten::mm", 2500, 2600, thread=2, kernel=7000),
        event("aten::mul", 9500, 9600, thread=1, kernel=400),  # in no range
    ]
    expected = dict.fromkeys(RANGES, 0.0) | {"data wait": 0.001, "encoder": 0.003, "backward": 0.007}
    assert range_seconds(events, on_gpu=True) == pytest.approx(expected)
    on_cpu = dict.fromkeys(RANGES, 0.0) | {"data wait": 0.001, "encoder": 0.0005, "backward": 0.007}
    assert range_seconds(events, on_gpu=False) == pytest.approx(on_cpu)
