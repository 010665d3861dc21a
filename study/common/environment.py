"""What the scripts ask of the machine that they run on, before any large library is imported."""

from __future__ import annotations

import glob
import os
from pathlib import Path

LIBRARIES = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Environment variables that quiet the libraries."""

LOOPBACK = {
    # Ray's switch for systems that it makes no cluster on: all its services then listen on 127.0.0.1 only
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
"""Environment variables that keep a Ray of one machine off its network."""


def quiet_libraries() -> None:
    """Set ``LIBRARIES`` in this process; to be called before they are imported."""
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)


def stay_on_loopback() -> None:
    """Set ``LOOPBACK``, unless a running cluster is to be joined; to be called before Ray is imported."""
    if not os.environ.get("RAY_ADDRESS"):
        os.environ |= LOOPBACK


def gpus() -> int:
    """GPUs of this machine, found without any library."""
    return len(glob.glob("/dev/nvidia[0-9]*"))


def free_memory() -> float:
    """Bytes that this process and its children may still take: of the machine, or of its container if that is less."""
    import psutil

    free = float(psutil.virtual_memory().available)
    container = Path("/sys/fs/cgroup")
    try:
        limit, used = ((container / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        return min(free, float(limit) - float(used))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free


def rank_and_world_size() -> tuple[int, int]:
    """This process's place among those that torchrun started; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
