"""The machine and the repository that a script runs on, and settings to make before large libraries are imported."""

from __future__ import annotations

import glob
import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
"""The folder that contains ``study/``."""

LIBRARIES = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Environment variables that silence libraries."""

LOOPBACK = {
    # documented for systems on which Ray makes no cluster: all its services then listen on 127.0.0.1 only
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
"""Environment variables that keep a Ray of one machine off the network."""


def quiet_libraries() -> None:
    """Set ``LIBRARIES`` in this process. Call this before the libraries are imported."""
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)


def stay_on_loopback() -> None:
    """Set ``LOOPBACK``, unless a running cluster will be joined. Call this before Ray is imported."""
    if not os.environ.get("RAY_ADDRESS"):
        os.environ |= LOOPBACK


def gpus() -> int:
    """Return the number of GPUs of this machine, without importing a library."""
    return len(glob.glob("/dev/nvidia[0-9]*"))


def free_memory() -> float:
    """Return the bytes that this process and its children may still allocate, within the limit of its container."""
    import psutil

    free = float(psutil.virtual_memory().available)
    container = Path("/sys/fs/cgroup")
    try:
        limit, used = ((container / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        return min(free, float(limit) - float(used))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free


def rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes under torchrun; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
