"""Faults of object stores and Ray clusters.

Sweeps run on an object store, on a Ray cluster of several nodes and as a Ray job. In the middle of each, the storage is
unavailable, a node fails or is slow, or the job is stopped. Each sweep must end with the metrics of an undisturbed
sweep on one machine, without repeating a finished trial.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import psutil
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from study.common.errors import RecordError
from study.storage.locks import LEASE
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests import REPO
from tests.conftest import PLANTED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SEARCH = ("--set", "optimisation.patience=20", "--epochs", "20")  # long enough for a fault in the middle
SEARCH += ("--sampler", "random", "--space", "schedules", "--num-workers", "1", "--trials")
TRIALS = 4
STORE_VARIABLES = {**PLANTED, "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1"}
AWAY_SECONDS = 30.0
SLOW_SECONDS = 20.0


def values_of(folder):
    """Return the objectives of each finished trial, by config_id."""
    trials = StudyState(folder).trials.values()
    return {trial["config_id"]: trial["values"] for trial in trials if trial["state"] == "finished"}


def finished_bytes(folder):
    """Return the bytes of each ``finished.json``. They contain seconds, so a repeated run would change them."""
    return {run: folder.read_bytes(f"runs/{run[0]}/{run[1]}/finished.json") for run in StudyState(folder).finished_runs}


def epochs_of(folder, config_id):
    """Return the number of epochs in the checkpoint of an unfinished run; None if it is being rewritten."""
    try:
        return len(folder.read_json(f"runs/{config_id}/0/checkpoint.json")["epochs"])
    except FileNotFoundError:
        return 0
    except RecordError:  # the object has grown between the request for its size and the read
        return None


def wait_for(condition, process, seconds=500):
    """Wait until a condition is true while a process runs; returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)
    return value


def unfinished_runs(folder, finished=1, begun=1):
    """Return the configurations between their first and tenth epoch.

    The list is empty until ``finished`` runs have finished and ``begun`` runs have completed an epoch.
    """
    done = {config_id for config_id, _ in StudyState(folder).finished_runs}
    epochs = {name: epochs_of(folder, name) or 0 for name in folder.names("runs") if name not in done}
    enough = len(done) >= finished and len(done) + sum(map(bool, epochs.values())) >= begun
    return [name for name, number in epochs.items() if 1 <= number <= 10] if enough else []


def has_progressed(folder, config_id, epochs):
    """Return whether a run has more than ``epochs`` epochs; raises if it has fewer."""
    if (config_id, 0) in StudyState(folder).finished_runs:
        return True
    if (current := epochs_of(folder, config_id)) is None:
        return False
    assert current >= epochs or (config_id, 0) in StudyState(folder).finished_runs, (
        f"{current} of {epochs} epochs are left"
    )
    return current > epochs


def assert_nothing_lost(folder, before, expected):
    """Check that exactly the expected trials have finished, and that no run that had finished before was repeated."""
    assert {run: content for run, content in finished_bytes(folder).items() if run in before} == before
    values = values_of(folder)
    assert values.keys() == expected.keys() and len(StudyState(folder).finished_runs) == len(expected)
    for config_id in expected:
        assert values[config_id] == pytest.approx(expected[config_id], abs=1e-6)


def output_of(process, seconds=500):
    """Wait for the end of a sweep without errors; returns its output."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, out[-3000:] + err[-3000:]
    assert "failed" not in out and "Traceback" not in err, out[-3000:] + err[-3000:]
    return out


@pytest.fixture(scope="module")
def undisturbed(sweep):
    """The objectives of each configuration of a sweep without a fault, in the order of trial numbers."""
    done = sweep(*SEARCH, str(TRIALS + 1), "--study", "undisturbed")
    assert done.returncode == 0, done.stderr[-3000:]
    folder = StudyFolder.at(str(sweep.storage), "undisturbed")
    trials = StudyState(folder).trials
    return {trials[number]["config_id"]: trials[number]["values"] for number in range(TRIALS + 1)}


@pytest.fixture(scope="module")
def expected(undisturbed):
    """The same for a sweep with one trial less."""
    return dict([*undisturbed.items()][:TRIALS])


class ObjectStore:
    """moto's S3 server in this process. It keeps its objects while it is closed."""

    def __init__(self):
        self.port, self.read_only = free_port(), False
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.open()

    def __call__(self, request, start_response):
        if self.read_only and request["REQUEST_METHOD"] in ("PUT", "POST", "DELETE"):
            body = b"<Error><Code>ServiceUnavailable</Code></Error>"
            start_response("503 Service Unavailable", [("Content-Length", str(len(body)))])
            return [body]
        return self.moto(request, start_response)

    def open(self):
        class OneRequest(MotoRequestHandler):
            protocol_version = "HTTP/1.0"  # a kept-alive connection would still be served after close

            def log(self, *args):
                pass

        self.server = make_server("127.0.0.1", self.port, self, threaded=True, request_handler=OneRequest)
        self.thread = Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()

    def refuse_writes(self):
        self.read_only = True

    def accept_writes(self):
        self.read_only = False


@pytest.fixture(scope="module")
def store():
    with pytest.MonkeyPatch.context() as patched:
        for name, value in STORE_VARIABLES.items():
            patched.setenv(name, value)
        store = ObjectStore()
        yield store
        store.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def url_of(port, *options):
    return "&".join([f"s3://studies/mine?endpoint_override=127.0.0.1:{port}", "scheme=http", *options])


@pytest.fixture(scope="module")
def on_store(store, tmp_path_factory):
    """Return storage and environment of a sweep on the object store, from a head with its own home folder."""

    def options_of(head):
        variables = {**STORE_VARIABLES, "HOME": str(tmp_path_factory.mktemp(head))}
        return {"storage": url_of(store.port, "allow_bucket_creation=true"), "variables": variables}

    return options_of


@pytest.fixture(scope="module")
def study_on_store(sweep, on_store, store):
    """A study on an object store that was unavailable during the first trials and refused writes during later ones.

    Returns the folder, the bytes of the runs that had finished before the second fault, and the output.
    """
    options = on_store("first")
    folder = StudyFolder.at(options["storage"], "away")
    process = sweep(*SEARCH, str(TRIALS), "--study", "away", wait=False, **options)
    try:
        for fault, end, finished in ((store.close, store.open, 0), (store.refuse_writes, store.accept_writes, 2)):
            # Ray Train writes to the store once, without retries, when each of the two worker groups starts
            config_id = wait_for(partial(unfinished_runs, folder, finished, begun=2), process)[0]
            before, epochs = finished_bytes(folder), epochs_of(folder, config_id) or 1
            fault()
            time.sleep(AWAY_SECONDS)
            end()
            started = time.monotonic()
            wait_for(partial(has_progressed, folder, config_id, epochs), process)
            print(f"seconds after {fault.__name__}: {round(time.monotonic() - started, 1)} s")
        out = output_of(process)
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)
    return folder, before, out


def test_object_store_may_be_away_or_refuse_writes_for_30_seconds(study_on_store, expected):
    folder, before, out = study_on_store
    assert before and "Pareto front on dev" in out
    assert_nothing_lost(folder, before, expected)
    assert not folder.exists(LEASE) and folder.read_bytes("journal.log").count(b"\n") > TRIALS


def test_status_and_report_read_an_object_store(study_on_store, on_store):
    folder, _, _ = study_on_store
    environment = os.environ | on_store("laptop")["variables"]
    read = partial(subprocess.run, cwd=REPO, env=environment, capture_output=True, text=True, timeout=100)
    status = read([sys.executable, "study/sweep.py", "status", folder.uri])
    assert status.returncode == 0 and f"{TRIALS} finished, 0 failed" in status.stdout, status.stderr
    folder.remove("report")
    report = read([sys.executable, "-m", "analysis", "report", folder.uri])
    assert report.returncode == 0 and folder.path("report", "report.html") in report.stdout, report.stderr
    assert {"report.html", "pareto.png", "pareto.svg", "front.csv"} <= set(folder.names("report"))


def test_new_head_resumes_from_the_records_of_an_object_store(study_on_store, begin, on_store, undisturbed, expected):
    folder, _, _ = study_on_store
    before = finished_bytes(folder)
    options = on_store("second")
    out = output_of(begin(*SEARCH, str(TRIALS + 1), "--study", "away", **options))
    assert f"trial {TRIALS + 1}/{TRIALS + 1}" in out and f"trial {TRIALS}/" not in out
    assert before.keys() == {(config_id, 0) for config_id in expected}
    assert_nothing_lost(folder, before, undisturbed)


class Refusing(BaseHTTPRequestHandler):
    """An object store that rejects requests as S3 does without a signature, and counts them."""

    requests = 0

    def answer(self):
        Refusing.requests += 1
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = answer

    def log_message(self, *args):
        pass


@pytest.fixture
def refusing_port():
    Refusing.requests = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("store_kind", "message"),
    [
        ("refusing", "ACCESS_DENIED"),
        ("closed port", "NETWORK_CONNECTION"),
        ("no bucket", "there is no bucket 'nobodys'"),
    ],
)
def test_unusable_object_store_is_an_error_at_the_start(sweep, store, refusing_port, tmp_path, store_kind, message):
    port = {"refusing": refusing_port, "closed port": free_port(), "no bucket": store.port}[store_kind]
    url = url_of(port).replace("studies", "nobodys" if store_kind == "no bucket" else "studies")
    credentials = dict.fromkeys(PLANTED) if store_kind == "refusing" else {}
    variables = {**STORE_VARIABLES, **credentials, "HOME": str(tmp_path)}
    done = sweep(*SEARCH, "1", "--study", "denied", storage=url, variables=variables)
    assert done.returncode == 2 and message in done.stderr and "--storage" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "corpus" not in done.stdout
    assert Refusing.requests == (store_kind == "refusing")  # no retries
    assert not (tmp_path / ".cache" / "fair-ser").exists()  # nothing was prepared


NODES = """
import json, sys
from ray.cluster_utils import Cluster
small = {"object_store_memory": 100 * 1024**2}
head = {"num_cpus": 0, "resources": {"driver": 100}, "include_dashboard": True, "dashboard_port": int(sys.argv[1])}
head["dashboard_agent_listen_port"] = int(sys.argv[2])  # jobs need it
cluster = Cluster(initialize_head=True, head_node_args={**head, **small})
nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
def print_state():
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
print_state()
for line in sys.stdin:
    cluster.remove_node(nodes.pop(int(line)), allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus=1, **small))
    print_state()
cluster.shutdown()
"""
"""A head for drivers and two nodes with one core each. An index on stdin replaces that node by a new one."""


@pytest.fixture(scope="module")
def cluster(ray_directory):
    """A running cluster: the environment of its clients, the process ids of its raylets, and ``replace(index)``."""
    variables = {"RAY_TMPDIR": ray_directory, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    variables |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # also of jobs
    dashboard = free_port()
    nodes = subprocess.Popen(
        [sys.executable, "-c", NODES, str(dashboard), str(free_port())],
        env={key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | variables,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip

    def read_state():
        return json.loads(next(line for line in nodes.stdout if line.startswith("{")))

    first = read_state()

    def replace(index):
        nodes.stdin.write(f"{index}\n")
        nodes.stdin.flush()
        return read_state()["raylets"]

    yield SimpleNamespace(
        variables=variables,
        address=first["address"],
        jobs=f"http://127.0.0.1:{dashboard}",
        raylets=first["raylets"],
        replace=replace,
    )
    nodes.stdin.close()
    nodes.wait(timeout=180)
    nodes.stdout.close()


def trained_under(raylet):
    """Return the configuration that a node trains, found by the log file of its worker; None if there is none."""
    for worker in psutil.Process(raylet).children(recursive=True):
        try:
            path = Path(os.readlink(f"/proc/{worker.pid}/fd/1"))
        except OSError:  # it has ended
            continue
        if path.name == "worker-0.log":
            return path.parent.name
    return None


def test_node_is_removed_and_another_added(sweep, begin, expected, cluster):
    folder = StudyFolder.at(str(sweep.storage), "nodes")
    process = begin(
        *SEARCH, str(TRIALS), "--study", "nodes", variables={**cluster.variables, "RAY_ADDRESS": cluster.address}
    )

    def run_on_first_node():
        name = trained_under(cluster.raylets[0])
        return name if name in unfinished_runs(folder) else None

    config_id = wait_for(run_on_first_node, process)
    before, epochs = finished_bytes(folder), epochs_of(folder, config_id)
    started = time.monotonic()
    cluster.raylets = cluster.replace(0)
    assert (config_id, 0) not in StudyState(folder).finished_runs
    wait_for(partial(has_progressed, folder, config_id, epochs), process)
    print(f"seconds to recover: {round(time.monotonic() - started, 1)} s")
    out = output_of(process)
    assert "the Ray cluster: 2 cores" in out
    assert_nothing_lost(folder, before, expected)


OTHER_USER = """
import sys, ray
ray.init("auto", log_to_driver=False, logging_level="ERROR")
ray.get(ray.util.placement_group([{"CPU": 1}]).ready())
print("taken", flush=True)
sys.stdin.read()
"""
"""Another user of the cluster, who holds one of its two cores."""


def test_workers_that_cannot_start_fail_their_trial(sweep, cluster):
    variables = {**cluster.variables, "RAY_ADDRESS": cluster.address}
    limit = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3"}
    flags = ("--study", "never", "--trials", "1", "--retries", "0", "--num-workers", "2", "--space", "schedules")
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_USER], env=os.environ | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert b"taken" in other.stdout.readline()
        done = sweep(*flags, variables=variables | limit)
        other.stdin.close()
    (trial,) = StudyState(StudyFolder.at(str(sweep.storage), "never")).trials.values()
    assert done.returncode == 1 and "no run has finished" in done.stdout and "Traceback" not in done.stderr
    assert trial["state"] == "failed" and "timed out" in trial["reason"] and trial["reason"] in done.stdout


def slow_down(processes, seconds):
    """Let processes run for a tenth of the time only."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for signal, pause in (("suspend", 0.9), ("resume", 0.1)):
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    getattr(process, signal)()
            time.sleep(pause)


def test_node_is_ten_times_slower_for_a_while(sweep, begin, expected, cluster):
    folder = StudyFolder.at(str(sweep.storage), "slow")
    process = begin(
        *SEARCH, str(TRIALS), "--study", "slow", variables={**cluster.variables, "RAY_ADDRESS": cluster.address}
    )
    wait_for(partial(unfinished_runs, folder), process)
    before = finished_bytes(folder)
    raylet = psutil.Process(cluster.raylets[0])
    slow_down([raylet, *raylet.children(recursive=True)], SLOW_SECONDS)
    output_of(process)
    assert_nothing_lost(folder, before, expected)


def test_job_is_stopped_and_submitted_again(sweep, small_corpus, expected, cluster):
    folder = StudyFolder.at(str(sweep.storage), "job")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | cluster.variables

    def job(command, *args):
        line = ["ray", "job", command, "--address", cluster.jobs, *args]
        done = subprocess.run(line, cwd=REPO, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def submit(name, *args):
        job(
            "submit", "--working-dir", ".", "--submission-id", name, *args, "--",
            "python", "study/sweep.py", *SEARCH, str(TRIALS), "--set", "optimisation.batch_size=24",
            "--study", "job", "--storage", str(sweep.storage), "--corpus", f"meld-st:{small_corpus}",
        )  # fmt: skip

    submit("first", "--no-wait")
    deadline = time.monotonic() + 500
    while not (open_runs := unfinished_runs(folder)):
        assert time.monotonic() < deadline, job("logs", "first")
        time.sleep(0.1)
    started = time.monotonic()
    job("stop", "first")
    print(f"seconds to stop: {round(time.monotonic() - started, 1)} s")
    assert "was stopped" in job("status", "first") and "the Ray cluster: 2 cores" in job("logs", "first")
    before, epochs = finished_bytes(folder), {name: epochs_of(folder, name) for name in open_runs}
    assert len(before) < TRIALS
    submit("second", "--no-wait")
    started = time.monotonic()
    while not all(has_progressed(folder, name, epochs[name]) for name in open_runs):
        assert time.monotonic() < started + 500, job("logs", "second")
        time.sleep(0.1)
    print(f"seconds to recover: {round(time.monotonic() - started, 1)} s")
    while not any(word in (status := job("status", "second")) for word in ("succeeded", "failed", "stopped")):
        time.sleep(0.5)
    assert "succeeded" in status and "Pareto front on dev" in job("logs", "second")
    assert_nothing_lost(folder, before, expected)
