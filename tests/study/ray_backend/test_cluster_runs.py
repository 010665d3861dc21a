"""Sweeps on an object store, on a Ray cluster of several nodes, and as a job of it, with a fault in the middle of each:
the storage is away, a node goes or is slow, the job is stopped. Each has to end with the figures of a sweep on one
machine that nothing happened to, without having run a finished trial again."""

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
from study.storage.records import finished_runs, read_trials
from study.storage.study_folder import StudyFolder
from tests import REPO
from tests.conftest import PLANTED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SEARCH = ("--set", "optimisation.patience=20", "--epochs", "20")  # long enough to be hit in the middle
SEARCH += ("--sampler", "random", "--space", "schedules", "--num-workers", "1", "--trials")
TRIALS = 4
OF_STORE = {**PLANTED, "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1"}
AWAY_SECONDS = 30.0
SLOW_SECONDS = 20.0


def values_of(folder):
    trials = read_trials(folder).values()
    return {trial["config_id"]: trial["values"] for trial in trials if trial["state"] == "finished"}


def markers_of(folder):
    """The bytes that finished runs end with; they hold how long a run took, so no second run repeats them."""
    return {run: folder.read_bytes(f"runs/{run[0]}/{run[1]}/finished.json") for run in finished_runs(folder)}


def epochs_of(folder, config_id):
    """Epochs that the checkpoint of an unfinished run holds; None where it is being written anew as it is read."""
    try:
        return len(folder.read_json(f"runs/{config_id}/0/checkpoint.json")["epochs"])
    except FileNotFoundError:
        return 0
    except RecordError:  # an object store's file has grown between the question for its size and its reading
        return None


def wait_for(find, process, seconds=500):
    """What ``find`` returns, once that is something, while a process runs."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found


def halfway(folder, finished=1, begun=1):
    """The configurations whose runs have an epoch behind them and many to come; none before some have finished, or as
    many have an epoch at least."""
    done = {config_id for config_id, _ in finished_runs(folder)}
    epochs = {name: epochs_of(folder, name) or 0 for name in folder.names("runs") if name not in done}
    enough = len(done) >= finished and len(done) + sum(map(bool, epochs.values())) >= begun
    return [name for name, number in epochs.items() if 1 <= number <= 10] if enough else []


def further(folder, config_id, epochs):
    """Whether a run has got further than so many epochs; it must never fall behind them."""
    if (config_id, 0) in finished_runs(folder):
        return True
    if (now := epochs_of(folder, config_id)) is None:
        return False
    assert now >= epochs or (config_id, 0) in finished_runs(folder), f"{now} of {epochs} epochs are left"
    return now > epochs


def assert_nothing_lost(folder, kept, expected):
    """Exactly the expected trials have finished, with their values, and what had finished before is untouched."""
    assert {run: content for run, content in markers_of(folder).items() if run in kept} == kept
    found = values_of(folder)
    assert found.keys() == expected.keys() and len(finished_runs(folder)) == len(expected)
    for config_id, values in expected.items():
        assert found[config_id] == pytest.approx(values, abs=1e-6)


def ended(process, seconds=500):
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, out[-3000:] + err[-3000:]
    assert "failed" not in out and "Traceback" not in err, out[-3000:] + err[-3000:]
    return out


@pytest.fixture(scope="module")
def undisturbed(sweep):
    """The values of each configuration of a sweep that nothing happened to, in the order of their numbers."""
    done = sweep(*SEARCH, str(TRIALS + 1), "--study", "undisturbed")
    assert done.returncode == 0, done.stderr[-3000:]
    folder = StudyFolder.at(str(sweep.storage), "undisturbed")
    trials = read_trials(folder)
    return {trials[number]["config_id"]: trials[number]["values"] for number in range(TRIALS + 1)}


@pytest.fixture(scope="module")
def expected(undisturbed):
    """The first of them, which a study with a trial less has."""
    return dict([*undisturbed.items()][:TRIALS])


class ObjectStore:
    """moto's S3 in this process, which keeps what it holds while its door is closed."""

    def __init__(self):
        self.port, self.refuses = free_port(), False
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.open()

    def __call__(self, request, start_response):
        if self.refuses and request["REQUEST_METHOD"] in ("PUT", "POST", "DELETE"):
            body = b"<Error><Code>ServiceUnavailable</Code></Error>"
            start_response("503 Service Unavailable", [("Content-Length", str(len(body)))])
            return [body]
        return self.moto(request, start_response)

    def open(self):
        class OneRequest(MotoRequestHandler):
            protocol_version = "HTTP/1.0"  # a connection that is kept alive would be served on behind a closed door

            def log(self, *words):
                pass

        self.server = make_server("127.0.0.1", self.port, self, threaded=True, request_handler=OneRequest)
        self.thread = Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()

    def refuse_writes(self):
        self.refuses = True

    def take_writes(self):
        self.refuses = False


@pytest.fixture(scope="module")
def store():
    with pytest.MonkeyPatch.context() as patched:
        for name, value in OF_STORE.items():
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
    """Storage and environment of a sweep on the object store, by a head with a home folder of its own."""

    def of_head(name):
        variables = {**OF_STORE, "HOME": str(tmp_path_factory.mktemp(name))}
        return {"storage": url_of(store.port, "allow_bucket_creation=true"), "variables": variables}

    return of_head


@pytest.fixture(scope="module")
def kept_on_store(sweep, on_store, store):
    """A study on an object store that was away in the middle of the first trials and refused writes in that of later
    ones, what had finished before the second fault, and what was printed."""
    options = on_store("first")
    folder = StudyFolder.at(options["storage"], "away")
    process = sweep(*SEARCH, str(TRIALS), "--study", "away", wait=False, **options)
    try:
        for message, end, finished in ((store.close, store.open, 0), (store.refuse_writes, store.take_writes, 2)):
            # Train writes to the store once, without patience, as each of the two worker groups begins
            config_id = wait_for(partial(halfway, folder, finished, begun=2), process)[0]
            kept, epochs = markers_of(folder), epochs_of(folder, config_id) or 1
            message()
            time.sleep(AWAY_SECONDS)
            end()
            began = time.monotonic()
            wait_for(partial(further, folder, config_id, epochs), process)
            print(f"seconds after {message.__name__}: {round(time.monotonic() - began, 1)} s")
        out = ended(process)
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)
    return folder, kept, out


def test_an_object_store_may_be_away_or_refuse_writes_for_30_seconds(kept_on_store, expected):
    folder, kept, out = kept_on_store
    assert kept and "Pareto front on dev" in out
    assert_nothing_lost(folder, kept, expected)
    assert not folder.exists(LEASE) and folder.read_bytes("journal.log").count(b"\n") > TRIALS


def test_status_and_report_read_an_object_store(kept_on_store, on_store):
    folder, _, _ = kept_on_store
    environment = os.environ | on_store("laptop")["variables"]
    read = partial(subprocess.run, cwd=REPO, env=environment, capture_output=True, text=True, timeout=100)
    status = read([sys.executable, "study/sweep.py", "status", folder.uri])
    assert status.returncode == 0 and f"{TRIALS} finished, 0 failed" in status.stdout, status.stderr
    folder.remove("report")
    report = read([sys.executable, "-m", "analysis", "report", folder.uri])
    assert report.returncode == 0 and folder.path("report", "report.html") in report.stdout, report.stderr
    assert {"report.html", "pareto.png", "pareto.svg", "front.csv"} <= set(folder.names("report"))


def test_a_new_head_goes_on_from_the_records_of_an_object_store(kept_on_store, begin, on_store, undisturbed, expected):
    folder, _, _ = kept_on_store
    before = markers_of(folder)
    options = on_store("second")
    out = ended(begin(*SEARCH, str(TRIALS + 1), "--study", "away", **options))
    assert f"trial {TRIALS + 1}/{TRIALS + 1}" in out and f"trial {TRIALS}/" not in out
    assert before.keys() == {(config_id, 0) for config_id in expected}
    assert_nothing_lost(folder, before, undisturbed)


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


@pytest.fixture
def refusing_port():
    Refusing.asked = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("refusing", "ACCESS_DENIED"),
        ("nobody", "NETWORK_CONNECTION"),
        ("no bucket", "there is no bucket 'nobodys'"),
    ],
)
def test_an_object_store_that_cannot_be_used_is_told_at_the_start(sweep, store, refusing_port, tmp_path, what, words):
    port = {"refusing": refusing_port, "nobody": free_port(), "no bucket": store.port}[what]
    url = url_of(port).replace("studies", "nobodys" if what == "no bucket" else "studies")
    credentials = dict.fromkeys(PLANTED) if what == "refusing" else {}
    variables = {**OF_STORE, **credentials, "HOME": str(tmp_path)}
    done = sweep(*SEARCH, "1", "--study", "denied", storage=url, variables=variables)
    assert done.returncode == 2 and words in done.stderr and "--storage" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "corpus" not in done.stdout
    assert Refusing.asked == (what == "refusing")  # it was not asked again and again
    assert not (tmp_path / ".cache" / "fair-ser").exists()  # nothing was prepared


NODES = """
import json, sys
from ray.cluster_utils import Cluster
small = {"object_store_memory": 100 * 1024**2}
head = {"num_cpus": 0, "resources": {"driver": 100}, "include_dashboard": True, "dashboard_port": int(sys.argv[1])}
head["dashboard_agent_listen_port"] = int(sys.argv[2])  # jobs need it
cluster = Cluster(initialize_head=True, head_node_args={**head, **small})
nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
def tell():
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
tell()
for line in sys.stdin:
    cluster.remove_node(nodes.pop(int(line)), allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus=1, **small))
    tell()
cluster.shutdown()
"""
"""A head for drivers and two nodes with a core each; a line names the one to be taken away, and another is added."""


@pytest.fixture(scope="module")
def cluster(ray_directory):
    """Environment of a client of a running cluster, its nodes' raylets (process ids), and ``replace(index)``."""
    variables = {"RAY_TMPDIR": ray_directory, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    variables |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # of jobs too
    dashboard = free_port()
    nodes = subprocess.Popen(
        [sys.executable, "-c", NODES, str(dashboard), str(free_port())],
        env={key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | variables,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip

    def told():
        return json.loads(next(line for line in nodes.stdout if line.startswith("{")))

    first = told()

    def replace(index):
        nodes.stdin.write(f"{index}\n")
        nodes.stdin.flush()
        return told()["raylets"]

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
    """The configuration that a node trains, by where its worker's output goes; None while there is none."""
    for worker in psutil.Process(raylet).children(recursive=True):
        try:
            path = Path(os.readlink(f"/proc/{worker.pid}/fd/1"))
        except OSError:  # it has just ended
            continue
        if path.name == "worker-0.log":
            return path.parent.name
    return None


def test_a_node_is_removed_and_another_added(sweep, begin, expected, cluster):
    folder = StudyFolder.at(str(sweep.storage), "nodes")
    process = begin(
        *SEARCH, str(TRIALS), "--study", "nodes", variables={**cluster.variables, "RAY_ADDRESS": cluster.address}
    )

    def on_the_first_node():
        name = trained_under(cluster.raylets[0])
        return name if name in halfway(folder) else None

    hit = wait_for(on_the_first_node, process)
    kept, epochs = markers_of(folder), epochs_of(folder, hit)
    began = time.monotonic()
    cluster.raylets = cluster.replace(0)
    assert (hit, 0) not in finished_runs(folder)
    wait_for(partial(further, folder, hit, epochs), process)
    print(f"seconds to recover: {round(time.monotonic() - began, 1)} s")
    out = ended(process)
    assert "the Ray cluster: 2 cores" in out
    assert_nothing_lost(folder, kept, expected)


PLACE_TAKEN = """
import sys, ray
ray.init("auto", log_to_driver=False, logging_level="ERROR")
ray.get(ray.util.placement_group([{"CPU": 1}]).ready())
print("taken", flush=True)
sys.stdin.read()
"""
"""Another user of the cluster, who has one of its two cores."""


def test_workers_that_never_start_fail_their_trial_and_nothing_worked(sweep, cluster):
    variables = {**cluster.variables, "RAY_ADDRESS": cluster.address}
    limit = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3"}
    flags = ("--study", "never", "--trials", "1", "--retries", "0", "--num-workers", "2", "--space", "schedules")
    with subprocess.Popen(
        [sys.executable, "-c", PLACE_TAKEN], env=os.environ | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert b"taken" in other.stdout.readline()
        done = sweep(*flags, variables=variables | limit)
        other.stdin.close()
    (trial,) = read_trials(StudyFolder.at(str(sweep.storage), "never")).values()
    assert done.returncode == 1 and "no run has finished" in done.stdout and "Traceback" not in done.stderr
    assert trial["state"] == "failed" and "timed out" in trial["reason"] and trial["reason"] in done.stdout


def slow_down(processes, seconds):
    """Let processes run a tenth of the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for signal, pause in (("suspend", 0.9), ("resume", 0.1)):
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    getattr(process, signal)()
            time.sleep(pause)


def test_a_node_is_ten_times_slower_for_a_while(sweep, begin, expected, cluster):
    folder = StudyFolder.at(str(sweep.storage), "slow")
    process = begin(
        *SEARCH, str(TRIALS), "--study", "slow", variables={**cluster.variables, "RAY_ADDRESS": cluster.address}
    )
    wait_for(partial(halfway, folder), process)
    kept = markers_of(folder)
    raylet = psutil.Process(cluster.raylets[0])
    slow_down([raylet, *raylet.children(recursive=True)], SLOW_SECONDS)
    ended(process)
    assert_nothing_lost(folder, kept, expected)


def test_a_job_is_stopped_and_submitted_again(sweep, small_corpus, expected, cluster):
    folder = StudyFolder.at(str(sweep.storage), "job")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | cluster.variables

    def job(command, *words):
        given = ["ray", "job", command, "--address", cluster.jobs, *words]
        done = subprocess.run(given, cwd=REPO, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def submit(name, *words):
        job(
            "submit", "--working-dir", ".", "--submission-id", name, *words, "--",
            "python", "study/sweep.py", *SEARCH, str(TRIALS), "--set", "optimisation.batch_size=24",
            "--study", "job", "--storage", str(sweep.storage), "--corpus", f"meld-st:{small_corpus}",
        )  # fmt: skip

    submit("first", "--no-wait")
    deadline = time.monotonic() + 500
    while not (open_runs := halfway(folder)):
        assert time.monotonic() < deadline, job("logs", "first")
        time.sleep(0.1)
    began = time.monotonic()
    job("stop", "first")
    print(f"seconds to stop: {round(time.monotonic() - began, 1)} s")
    assert "was stopped" in job("status", "first") and "the Ray cluster: 2 cores" in job("logs", "first")
    kept, epochs = markers_of(folder), {name: epochs_of(folder, name) for name in open_runs}
    assert len(kept) < TRIALS
    submit("second", "--no-wait")
    began = time.monotonic()
    while not all(further(folder, name, epochs[name]) for name in open_runs):
        assert time.monotonic() < began + 500, job("logs", "second")
        time.sleep(0.1)
    print(f"seconds to recover: {round(time.monotonic() - began, 1)} s")
    while not any(word in (said := job("status", "second")) for word in ("succeeded", "failed", "stopped")):
        time.sleep(0.5)
    assert "succeeded" in said and "Pareto front on dev" in job("logs", "second")
    assert_nothing_lost(folder, kept, expected)
