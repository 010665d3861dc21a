"""The profile of a run: its trace, and a summary whose shares are those of the steps."""

from __future__ import annotations

import json
import re

from study.profiling import RANGES, SUMMARY, TRACE
from study.trainer import train


def test_a_profile_leaves_a_trace_and_a_page(run_plan):
    plan = run_plan({"optimisation.epochs": 1})
    train(plan, seed=0, report=lambda row: None, profile=True)
    trace = json.loads(plan.folder.read_bytes(f"runs/abc/0/{TRACE}"))
    names = {event.get("name") for event in trace["traceEvents"]}
    assert set(RANGES) <= names
    page = plan.folder.read_bytes(f"runs/abc/0/{SUMMARY}").decode()
    shares = {name: float(share) for name, share in re.findall(r"^  (\w[\w ]*?) +(-?[\d.]+) %", page, re.MULTILINE)}
    assert list(shares) == [*RANGES, "rest"] and abs(sum(shares.values()) - 100) < 0.5
    assert shares["backward"] > 0 and shares["language model"] > 0
    assert "Self CPU" in page
