"""What a sweep loses when its world breaks: nothing. Each fault is inflicted on a real sweep, which then has to end
with the configurations and values of one that was left alone, without having run a finished trial again."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import psutil
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from study.records import StudyFolder, finished_runs, read_trials
from tests.conftest import PLANTED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FLAGS = ("--sampler", "random", "--space", "schedules", "--trials", "5", "--epochs", "4")
FLAGS += ("--fix", "optimisation.patience=4", "--ranks", "1")
FINISHED = 99
OF_STORE = {**PLANTED, "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def undisturbed(sweep):
    """The values of each configuration of a sweep that nothing happened to."""
    done = sweep(*FLAGS, "--study", "undisturbed")
    assert done.returncode == 0, done.stderr[-3000:]
    values = values_of(StudyFolder.at(str(sweep.storage), "undisturbed"))
    assert len(values) == 5
    return values


@pytest.fixture
def begin(sweep):
    """Starts a sweep and returns while it runs; one that a failing test leaves is ended."""
    begun = []

    def start(*flags, **options):
        begun.append(sweep(*FLAGS, *flags, wait=False, **options))
        return begun[-1]

    yield start
    for process in begun:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=120)


def values_of(folder):
    trials = read_trials(folder).values()
    return {trial["config_id"]: trial["values"] for trial in trials if trial["state"] == "finished"}


def kept_files(folder):
    """The bytes of the markers of all finished runs; they hold how long each took, so no second run repeats them."""
    return {run: folder.read_bytes(f"runs/{run[0]}/{run[1]}/finished.json") for run in finished_runs(folder)}


def assert_nothing_lost(folder, before, expected):
    """All trials are there, with their values, and those that had finished before a fault are the same files."""
    assert {run: content for run, content in kept_files(folder).items() if run in before} == before
    found = values_of(folder)
    assert found.keys() == expected.keys() and len(finished_runs(folder)) == len(expected)
    for config_id, values in expected.items():
        assert found[config_id] == pytest.approx(values, abs=1e-6)


def epochs_of(folder, config_id):
    """Epochs that a run can go on from; FINISHED once it has finished."""
    place = f"runs/{config_id}/0"
    if folder.exists(f"{place}/finished.json"):
        return FINISHED
    try:
        return len(folder.read_json(f"{place}/checkpoint.json")["epochs"])
    except FileNotFoundError:
        return 0


def progress_of(folder):
    return {config_id: epochs_of(folder, config_id) for config_id in folder.names("runs")}


def middle_of_a_trial(process, folder, finished=1, seconds=400):
    """Wait until so many runs have finished and another has an epoch behind it and more to come; its configuration."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        progress = progress_of(folder)
        halfway = [config_id for config_id, epochs in progress.items() if 1 <= epochs <= 2]
        if halfway and sum(epochs == FINISHED for epochs in progress.values()) >= finished:
            return halfway[0]
        time.sleep(0.1)
    raise AssertionError(f"no trial was halfway: {process.poll()}")


def seconds_until_all_go_on(process, folder, before, limit=400):
    """How long after now each run that had not finished has an epoch more."""
    began = time.monotonic()
    while any(now <= before.get(run, FINISHED) < FINISHED for run, now in progress_of(folder).items()):
        assert time.monotonic() - began < limit, f"it did not go on: {before}, {progress_of(folder)}"
        assert process.poll() in (None, 0), process.communicate()
        time.sleep(0.2)
    return round(time.monotonic() - began, 1)


def descendants(process, *words):
    """Processes that a sweep has started, whose command has one of the words."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if any(word in " ".join(child.cmdline()) for word in words or ("",)):
                found.append(child)
        except psutil.Error:  # it has just ended
            continue
    return found


def worker_of(process, config_id):
    """The worker that trains a configuration: its output goes to that run's folder."""
    for worker in descendants(process, "RayTrainWorker"):
        if config_id in os.readlink(f"/proc/{worker.pid}/fd/1"):
            return worker
    raise AssertionError("no worker trains it")


def ended(process, seconds=280):
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, out[-3000:] + err[-3000:]
    return out


def test_a_worker_ten_times_slower_and_then_one_killed(sweep, begin, undisturbed, record_property):
    folder = StudyFolder.at(str(sweep.storage), "worker")
    process = begin("--study", "worker")
    slow = worker_of(process, middle_of_a_trial(process, folder, finished=0))
    for _ in range(10):
        slow.suspend()
        time.sleep(0.9)
        slow.resume()
        time.sleep(0.1)
    hit = middle_of_a_trial(process, folder, finished=1)
    progress, before = progress_of(folder), kept_files(folder)
    worker_of(process, hit).kill()
    record_property("seconds_to_recover", seconds_until_all_go_on(process, folder, progress))
    out = ended(process)
    assert "failed" not in out
    assert_nothing_lost(folder, before, undisturbed)


def test_the_driver_is_killed_and_a_second_sweep_refused(sweep, begin, undisturbed, record_property):
    folder = StudyFolder.at(str(sweep.storage), "driver")
    process = begin("--study", "driver")
    middle_of_a_trial(process, folder, finished=0)
    refused = sweep(*FLAGS, "--study", "driver")
    assert refused.returncode == 2
    assert f"is being written by process {process.pid} on {socket.gethostname()}" in refused.stderr
    middle_of_a_trial(process, folder)
    everything = descendants(process)
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(everything, timeout=60)
    record_property("left_after_60_s", [" ".join(child.cmdline())[:80] for child in left])
    for child in left:
        child.kill()
    process.communicate()
    progress, before = progress_of(folder), kept_files(folder)
    again = begin("--study", "driver")
    record_property("seconds_to_recover", seconds_until_all_go_on(again, folder, progress))
    ended(again)
    assert not left
    assert_nothing_lost(folder, before, undisturbed)


def test_a_worker_that_hangs(sweep, begin, undisturbed, record_property):
    folder = StudyFolder.at(str(sweep.storage), "hangs")
    process = begin("--study", "hangs", variables={"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "10"})
    hit = middle_of_a_trial(process, folder)
    progress, before = progress_of(folder), kept_files(folder)
    worker_of(process, hit).suspend()
    record_property("seconds_to_recover", seconds_until_all_go_on(process, folder, progress))
    ended(process)
    assert_nothing_lost(folder, before, undisturbed)


def test_a_trials_driver_is_killed(sweep, begin, undisturbed, record_property):
    folder = StudyFolder.at(str(sweep.storage), "trial-driver")
    process = begin("--study", "trial-driver")
    middle_of_a_trial(process, folder)
    progress, before = progress_of(folder), kept_files(folder)
    for driver in descendants(process, "TrialDriver", "ResourceTrainable"):
        driver.kill()  # all: places that one of them did not give back would otherwise only halve the pace
    record_property("seconds_to_recover", seconds_until_all_go_on(process, folder, progress))
    ended(process)
    assert_nothing_lost(folder, before, undisturbed)


class ObjectStore:
    """moto's S3 in this process, which keeps what it holds while its server is stopped."""

    def __init__(self):
        self.port = free_port()
        self.start()

    def start(self):
        class OneRequest(MotoRequestHandler):
            protocol_version = "HTTP/1.0"  # a connection kept alive would be served on after the stop

            def log(self, *words):
                pass

        app = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", self.port, app, threaded=True, request_handler=OneRequest)
        Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def store(monkeypatch):
    for name, value in OF_STORE.items():
        monkeypatch.setenv(name, value)
    store = ObjectStore()
    yield store
    store.stop()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def url_of(port):
    return f"s3://studies/x?endpoint_override=127.0.0.1:{port}&scheme=http&allow_bucket_creation=true"


def test_an_object_store_away_for_30_seconds_and_a_new_head(
    sweep, begin, undisturbed, store, tmp_path, record_property
):
    folder = StudyFolder.at(url_of(store.port), "away")
    options = {"storage": url_of(store.port), "variables": {**OF_STORE, "HOME": str(tmp_path / "first")}}
    process = begin("--study", "away", **options)
    middle_of_a_trial(process, folder)
    progress, before = progress_of(folder), kept_files(folder)
    store.stop()
    time.sleep(30)
    store.start()
    record_property("seconds_to_recover", seconds_until_all_go_on(process, folder, progress))
    ended(process)
    assert_nothing_lost(folder, before, undisturbed)
    assert list((tmp_path / "first").glob(".cache/fair-ser/journals/*"))
    before = kept_files(folder)
    options["variables"]["HOME"] = str(tmp_path / "second")
    began = time.monotonic()
    ended(begin("--trials", "6", "--study", "away", **options))
    record_property("seconds_of_a_new_head_with_one_more_trial", round(time.monotonic() - began, 1))
    after = values_of(folder)
    assert len(after) == 6 and {run: kept_files(folder)[run] for run in before} == before
    assert {run: after[run] for run in undisturbed} == pytest.approx(undisturbed, abs=1e-6)


class Refusing(BaseHTTPRequestHandler):
    """An object store that answers as S3 does to requests without a signature; ``asked`` counts them."""

    asked = 0

    def answer(self):
        Refusing.asked += 1
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = answer

    def log_message(self, *words):
        pass


def test_an_object_store_without_credentials_is_told_at_the_start(sweep, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    variables = OF_STORE | dict.fromkeys(PLANTED) | {"HOME": str(tmp_path)}
    done = sweep(*FLAGS, "--study", "denied", storage=url_of(server.server_port), variables=variables)
    server.shutdown()
    server.server_close()
    assert done.returncode == 2 and "ACCESS_DENIED" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert Refusing.asked == 1  # nothing was prepared or started before, and it was not asked again and again


NODES = """
import sys
from ray.cluster_utils import Cluster
small = {"object_store_memory": 100 * 1024**2}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "resources": {"driver": 100}, **small})
nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(0), allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus=1, **small))
    print("replaced", flush=True)
cluster.shutdown()
"""


def test_a_node_is_removed_and_another_added(sweep, begin, undisturbed, ray_directory, record_property):
    variables = {"RAY_TMPDIR": ray_directory, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    nodes = subprocess.Popen(
        [sys.executable, "-c", NODES], env=os.environ | variables,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        address = next(line for line in nodes.stdout if line.count(":") == 1).strip()
        folder = StudyFolder.at(str(sweep.storage), "nodes")
        process = begin("--study", "nodes", variables={**variables, "RAY_ADDRESS": address})
        middle_of_a_trial(process, folder)
        progress, before = progress_of(folder), kept_files(folder)
        nodes.stdin.write("replace\n")
        nodes.stdin.flush()
        record_property("seconds_to_recover", seconds_until_all_go_on(process, folder, progress))
        ended(process)
        assert_nothing_lost(folder, before, undisturbed)
    finally:
        nodes.stdin.close()
        nodes.wait(timeout=60)
