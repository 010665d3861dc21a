"""The cluster files against Ray's own schema, and a real job server on one machine."""

from __future__ import annotations

import copy
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from study.records import StudyFolder, read_trials

REPO = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", ["aws.yaml", "on-prem.yaml"])
def test_ray_accepts_the_cluster_file(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((REPO / "cluster" / name).read_text())
    validate_config(prepare_config(copy.deepcopy(config)))
    assert not any("0.0.0.0" in command for command in config["head_start_ray_commands"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_a_job_runs_the_sweep_on_a_running_cluster(small_corpus, tmp_path):
    temporary = tempfile.mkdtemp(prefix="r", dir="/tmp")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_TMPDIR": temporary, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    dashboard = free_port()
    head = subprocess.Popen(
        ["ray", "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={temporary}", f"--port={free_port()}"]
        + [f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port", str(free_port())],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    command = ["ray", "job", "submit", "--address", address, "--working-dir", ".", "--"]
    command += ["python", "study/sweep.py", "--corpus", f"meld-st:{small_corpus}", "--storage", str(tmp_path)]
    command += ["--study", "job", "--trials", "1", "--epochs", "1", "--fix", "optimisation.batch_size=24"]
    try:
        deadline = time.monotonic() + 90
        while subprocess.run(
            ["ray", "job", "list", "--address", address], env=environment, capture_output=True
        ).returncode:
            assert time.monotonic() < deadline, "the job server did not come up"
            time.sleep(1)
        done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert "the Ray cluster: 2 cores" in done.stdout
        (trial,) = read_trials(StudyFolder.at(str(tmp_path), "job")).values()
        assert trial["state"] == "finished"
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(timeout=60)
        shutil.rmtree(temporary, ignore_errors=True)
