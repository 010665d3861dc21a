"""A profile of a few training steps: torch's trace, and one page that says where the time of a step goes."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, schedule

from study.storage.study_folder import StudyFolder

WARM_UP, RECORDED = 3, 4  # steps; one more warms the profiler up
NEEDED = WARM_UP + 1 + RECORDED
TRACE, SUMMARY = "profile/trace.json", "profile/summary.txt"
RANGES = {
    "data wait": "for the next batch, which is put together aside",
    "encoder": "tower and projector, forward",
    "language model": "forward",
    "head": "logits at the answers and their losses, forward",
    "collectives": "the losses of all ranks",
    "backward": "of everything; DeepSpeed sends gradients in it",
    "optimiser": "gradients of all ranks, clipping, AdamW",
}
"""The ranges that ``study.training.run`` and ``study.models.qwen2_audio`` mark, and what they hold."""


class StepProfile:
    """Records ``RECORDED`` steps of a run; ``step`` is called after each one, ``close`` at the end.

    Args:
        folder, directory: of the run.
        on_gpu: times are those of kernels there, else of the processor.
    """

    def __init__(self, folder: StudyFolder, directory: str, on_gpu: bool):
        self.folder, self.directory, self.on_gpu = folder, directory, on_gpu
        self.steps = 0
        self.profiler = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])],
            schedule=schedule(wait=WARM_UP, warmup=1, active=RECORDED, repeat=1),
            on_trace_ready=self._keep,
            acc_events=True,
        )
        self.profiler.start()

    def step(self) -> None:
        self.steps += 1
        self.profiler.step()

    def close(self) -> None:
        self.profiler.stop()
        if self.steps < NEEDED:
            print(f"profile: none was left: it takes {NEEDED} steps, and here were {self.steps}", flush=True)

    def _keep(self, profiler: torch.profiler.profile) -> None:
        if self.steps < NEEDED:  # stopped: what came after the last step would be counted as one
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
    """Seconds of each of ``RANGES``: of the processor, or of the kernels that were launched within it.

    Launched by any thread: PyTorch sends a GPU's backward pass from one of its own, which a range that the main thread
    opens does not count as its child. Waiting for data is no kernel's work, so its clock is the processor's.
    """
    own = sorted(
        (event for event in events if event.name in RANGES and event.device_type.name == "CPU"),
        key=lambda event: event.time_range.start,
    )
    seconds = dict.fromkeys(RANGES, 0.0)
    for event in own:
        if not on_gpu or event.name == "data wait":
            seconds[event.name] += event.cpu_time_total / 1e6
    if on_gpu:
        starts = [event.time_range.start for event in own]
        for event in events:
            at = bisect_right(starts, event.time_range.start) - 1
            if event.kernels and at >= 0 and event.time_range.start < own[at].time_range.end:
                seconds[own[at].name] += sum(kernel.duration for kernel in event.kernels) / 1e6
    return seconds


def summary(seconds: Mapping[str, float], wall: float, steps: int) -> str:
    """Shares of the time of some steps.

    Args:
        seconds: of each of ``RANGES``, over all steps.  wall: seconds of these steps.

    >>> seconds = dict.fromkeys(RANGES, 0.0) | {"encoder": 0.2, "backward": 1.0}
    >>> print(summary(seconds, wall=2.0, steps=4))  # doctest: +NORMALIZE_WHITESPACE
    4 steps of 500 ms
      data wait         0.0 %      0.0 ms  for the next batch, which is put together aside
      encoder          10.0 %     50.0 ms  tower and projector, forward
      language model    0.0 %      0.0 ms  forward
      head              0.0 %      0.0 ms  logits at the answers and their losses, forward
      collectives       0.0 %      0.0 ms  the losses of all ranks
      backward         50.0 %    250.0 ms  of everything; DeepSpeed sends gradients in it
      optimiser         0.0 %      0.0 ms  gradients of all ranks, clipping, AdamW
      rest             40.0 %    200.0 ms
    """
    each = {**seconds, "rest": wall - sum(seconds.values())}
    lines = [f"{steps} steps of {1000 * wall / max(steps, 1):.0f} ms"]
    for name, value in each.items():
        share, milliseconds = value / wall if wall else 0.0, 1000 * value / max(steps, 1)
        lines.append(f"  {name:16} {100 * share:5.1f} % {milliseconds:8.1f} ms  {RANGES.get(name, '')}".rstrip())
    return "\n".join(lines)
