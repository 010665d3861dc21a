"""A profile of a few training steps: a torch trace, and one page with the share of each part of a step."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, schedule

from study.storage.study_folder import StudyFolder

WARM_UP, RECORDED = 3, 4  # steps; one step between them warms up the profiler
REQUIRED_STEPS = WARM_UP + 1 + RECORDED
TRACE, SUMMARY = "profile/trace.json", "profile/summary.txt"
RANGES = {
    "data wait": "for the next batch, collated in the background",
    "encoder": "audio encoder and projector, forward",
    "language model": "forward",
    "head": "answer logits and losses, forward",
    "collectives": "gathering the losses of all workers",
    "backward": "whole model; includes DeepSpeed's gradient communication",
    "optimiser": "gradient reduction, clipping, AdamW",
}
"""The profiled ranges of ``study.training`` and ``study.models.qwen2_audio``, with their descriptions."""


class StepProfile:
    """Records ``RECORDED`` steps of a run. Call ``step`` after each step and ``close`` at the end.

    Args:
        directory: the run's directory inside the study folder.
        on_gpu: whether to measure GPU kernels instead of CPU time.
    """

    def __init__(self, folder: StudyFolder, directory: str, on_gpu: bool):
        self.folder, self.directory, self.on_gpu = folder, directory, on_gpu
        self.steps = 0
        self.profiler = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])],
            schedule=schedule(wait=WARM_UP, warmup=1, active=RECORDED, repeat=1),
            on_trace_ready=self._write,
            acc_events=True,
        )
        self.profiler.start()

    def step(self) -> None:
        self.steps += 1
        self.profiler.step()

    def close(self) -> None:
        self.profiler.stop()
        if self.steps < REQUIRED_STEPS:
            print(f"profile: not written: it needs {REQUIRED_STEPS} steps and the run had {self.steps}", flush=True)

    def _write(self, profiler: torch.profiler.profile) -> None:
        if self.steps < REQUIRED_STEPS:  # stopped early: the time after the last step would count as a step
            return
        with tempfile.TemporaryDirectory() as local:
            trace = Path(local, "trace.json")
            profiler.export_chrome_trace(str(trace))
            self.folder.write_bytes(f"{self.directory}/{TRACE}", trace.read_bytes())
        events = profiler.events() or []
        steps = [event for event in events if event.name.startswith("ProfilerStep")]
        seconds = range_seconds(events, self.on_gpu)
        cpu_steps = [event for event in steps if event.device_type.name == "CPU"]
        wall = sum(event.cpu_time_total for event in cpu_steps) / 1e6
        operators = profiler.key_averages().table(
            sort_by="self_device_time_total" if self.on_gpu else "self_cpu_time_total", row_limit=15
        )
        text = summary(seconds, wall, len(cpu_steps)) + f"\n{operators}\n"
        self.folder.write_bytes(f"{self.directory}/{SUMMARY}", text.encode())


def range_seconds(events: Sequence[FunctionEvent], on_gpu: bool) -> dict[str, float]:
    """Return the seconds of each of ``RANGES``: CPU time, or the time of the kernels launched within the range.

    Kernels count whatever thread launched them: PyTorch launches a GPU's backward pass from a thread of its own, whose
    operators are not children of a range opened by the main thread. "data wait" launches no kernels, so it is always
    measured on the CPU.
    """
    ranges = sorted(
        (event for event in events if event.name in RANGES and event.device_type.name == "CPU"),
        key=lambda event: event.time_range.start,
    )
    seconds = dict.fromkeys(RANGES, 0.0)
    for event in ranges:
        if not on_gpu or event.name == "data wait":
            seconds[event.name] += event.cpu_time_total / 1e6
    if on_gpu:
        starts = [event.time_range.start for event in ranges]
        for event in events:
            at = bisect_right(starts, event.time_range.start) - 1
            if event.kernels and at >= 0 and event.time_range.start < ranges[at].time_range.end:
                seconds[ranges[at].name] += sum(kernel.duration for kernel in event.kernels) / 1e6
    return seconds


def summary(seconds: Mapping[str, float], wall: float, steps: int) -> str:
    """Return a page with the share of each range in the time of some steps.

    Args:
        seconds: of each of ``RANGES``, over all steps.
        wall: total seconds of these steps.

    >>> seconds = dict.fromkeys(RANGES, 0.0) | {"encoder": 0.2, "backward": 1.0}
    >>> print(summary(seconds, wall=2.0, steps=4))  # doctest: +NORMALIZE_WHITESPACE
    4 steps of 500 ms
      data wait         0.0 %      0.0 ms  for the next batch, collated in the background
      encoder          10.0 %     50.0 ms  audio encoder and projector, forward
      language model    0.0 %      0.0 ms  forward
      head              0.0 %      0.0 ms  answer logits and losses, forward
      collectives       0.0 %      0.0 ms  gathering the losses of all workers
      backward         50.0 %    250.0 ms  whole model; includes DeepSpeed's gradient communication
      optimiser         0.0 %      0.0 ms  gradient reduction, clipping, AdamW
      rest             40.0 %    200.0 ms
    """
    parts = {**seconds, "rest": wall - sum(seconds.values())}
    lines = [f"{steps} steps of {1000 * wall / max(steps, 1):.0f} ms"]
    for name, value in parts.items():
        share, milliseconds = value / wall if wall else 0.0, 1000 * value / max(steps, 1)
        lines.append(f"  {name:16} {100 * share:5.1f} % {milliseconds:8.1f} ms  {RANGES.get(name, '')}".rstrip())
    return "\n".join(lines)
