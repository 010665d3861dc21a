"""Sweeps on an object store that is away in the middle, has a new head, or cannot be used. Each has to end with the
figures of a sweep on one machine that nothing happened to, without having run a finished trial again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from study.holding import LEASE
from study.records import StudyFolder, finished_runs, read_trials
from tests.conftest import PLANTED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
REPO = Path(__file__).resolve().parent.parent
SEARCH = ("--sampler", "random", "--space", "schedules", "--ranks", "1", "--epochs", "4", "--trials")
TRIALS = 4
OF_STORE = {**PLANTED, "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": "us-east-1"}
AWAY_SECONDS = 30.0


def values_of(folder):
    trials = read_trials(folder).values()
    return {trial["config_id"]: trial["values"] for trial in trials if trial["state"] == "finished"}


def markers_of(folder):
    """The bytes that finished runs end with; they hold how long a run took, so no second run repeats them."""
    return {run: folder.read_bytes(f"runs/{run[0]}/{run[1]}/finished.json") for run in finished_runs(folder)}


def epochs_of(folder, config_id):
    """Epochs that the checkpoint of an unfinished run holds."""
    try:
        return len(folder.read_json(f"runs/{config_id}/0/checkpoint.json")["epochs"])
    except FileNotFoundError:
        return 0


def wait_for(find, process, seconds=150):
    """What ``find`` returns, once that is something, while a process runs."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found


def halfway(folder, finished=1):
    """The configurations whose runs have an epoch behind them and one to come; none before some have finished."""
    done = {config_id for config_id, _ in finished_runs(folder)}
    begun = [name for name in folder.names("runs") if name not in done]
    return [name for name in begun if 1 <= epochs_of(folder, name) <= 2] if len(done) >= finished else []


def further(folder, config_id, epochs):
    """Whether a run has got further than so many epochs; it must never fall behind them."""
    if (config_id, 0) in finished_runs(folder):
        return True
    now = epochs_of(folder, config_id)
    assert now >= epochs or (config_id, 0) in finished_runs(folder), f"{now} of {epochs} epochs are left"
    return now > epochs


def assert_nothing_lost(folder, kept, expected):
    """Exactly the expected trials have finished, with their values, and what had finished before is untouched."""
    assert {run: content for run, content in markers_of(folder).items() if run in kept} == kept
    found = values_of(folder)
    assert found.keys() == expected.keys() and len(finished_runs(folder)) == len(expected)
    for config_id, values in expected.items():
        assert found[config_id] == pytest.approx(values, abs=1e-6)


def ended(process, seconds=200):
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


@pytest.fixture
def begin(sweep):
    """Starts a sweep and returns while it runs; one that a failing test leaves is ended."""
    begun = []

    def start(*flags, **options):
        begun.append(sweep(*SEARCH, *flags, wait=False, **options))
        return begun[-1]

    yield start
    for process in begun:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


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
def kept_on_store(sweep, on_store, store, record_testsuite_property):
    """A study on an object store that was away in the middle of the first trials and refused writes in that of later
    ones, what had finished before the second fault, and what was printed."""
    options = on_store("first")
    folder = StudyFolder.at(options["storage"], "away")
    process = sweep(*SEARCH, str(TRIALS), "--study", "away", wait=False, **options)
    try:
        for fault, end, finished in ((store.close, store.open, 0), (store.refuse_writes, store.take_writes, 2)):
            config_id = wait_for(partial(halfway, folder, finished), process)[0]
            kept, epochs = markers_of(folder), epochs_of(folder, config_id)
            fault()
            time.sleep(AWAY_SECONDS)
            end()
            began = time.monotonic()
            wait_for(partial(further, folder, config_id, epochs), process)
            record_testsuite_property(f"seconds_after_{fault.__name__}", round(time.monotonic() - began, 1))
        out = ended(process)
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)
    assert list(Path(options["variables"]["HOME"]).glob(".cache/fair-ser/journals/*"))
    return folder, kept, out


def test_an_object_store_may_be_away_or_refuse_writes_for_30_seconds(kept_on_store, expected):
    folder, kept, out = kept_on_store
    assert kept and "Pareto front on dev" in out
    assert_nothing_lost(folder, kept, expected)
    assert not folder.exists(LEASE) and not folder.exists("journal.log")


def test_status_and_report_read_an_object_store(kept_on_store, on_store):
    folder, _, _ = kept_on_store
    environment = os.environ | on_store("laptop")["variables"]
    read = partial(subprocess.run, cwd=REPO, env=environment, capture_output=True, text=True, timeout=100)
    status = read([sys.executable, "study/sweep.py", "status", folder.uri])
    assert status.returncode == 0 and f"{TRIALS} finished, 0 failed" in status.stdout, status.stderr
    folder.remove("report")
    report = read([sys.executable, "-m", "analysis.report", folder.uri])
    assert report.returncode == 0 and folder.path("report", "report.html") in report.stdout, report.stderr
    assert {"report.html", "pareto.png", "pareto.svg", "front.csv"} <= set(folder.names("report"))


def test_a_new_head_goes_on_from_the_records_of_an_object_store(kept_on_store, begin, on_store, undisturbed, expected):
    folder, _, _ = kept_on_store
    before = markers_of(folder)
    options = on_store("second")
    out = ended(begin(str(TRIALS + 1), "--study", "away", **options))
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
