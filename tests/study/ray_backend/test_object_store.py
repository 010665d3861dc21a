"""Studies on an object store: moto's S3 server in this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from study.cli.sweep import main
from study.storage.locks import LEASE
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests import REPO
from tests.conftest import CREDENTIALS, OBJECT_STORE, PATIENCE
from tests.study.ray_backend.sweeps import (
    advanced,
    assert_nothing_lost,
    epochs_of,
    markers_of,
    output_of,
    unfinished,
    wait_for,
)

FAULT_SECONDS = 30.0


class ObjectStore:
    """moto's S3 server. It keeps its content while it is closed, and can refuse writes."""

    def __init__(self):
        self.port, self.refuses_writes = free_port(), False
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.open()

    def __call__(self, request, start_response):
        if self.refuses_writes and request["REQUEST_METHOD"] in ("PUT", "POST", "DELETE"):
            body = b"<Error><Code>ServiceUnavailable</Code></Error>"
            start_response("503 Service Unavailable", [("Content-Length", str(len(body)))])
            return [body]
        return self.moto(request, start_response)

    def open(self):
        class OneRequest(MotoRequestHandler):
            protocol_version = "HTTP/1.0"  # a connection that is kept alive would still be served after close()

            def log(self, *arguments):
                pass

        self.server = make_server("127.0.0.1", self.port, self, threaded=True, request_handler=OneRequest)
        self.thread = Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()

    def refuse_writes(self):
        self.refuses_writes = True

    def accept_writes(self):
        self.refuses_writes = False


@pytest.fixture(scope="module")
def store():
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**CREDENTIALS, **OBJECT_STORE}.items():
            patched.setenv(name, value)
        store = ObjectStore()
        yield store
        store.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def url_of(port, bucket="studies"):
    return f"s3://{bucket}/mine?endpoint_override=127.0.0.1:{port}&scheme=http"


@pytest.fixture(scope="module")
def options(store, tmp_path_factory):
    """Return a function from the name of a machine to the storage and the environment of a sweep on it."""

    def of_machine(name):
        variables = {**OBJECT_STORE, "HOME": str(tmp_path_factory.mktemp(name))}
        return {"storage": url_of(store.port) + "&allow_bucket_creation=true", "variables": variables}

    return of_machine


class Refusing(BaseHTTPRequestHandler):
    """An object store that answers as S3 does to requests without a signature; ``requests`` counts them."""

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

    def log_message(self, *arguments):
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
    ("problem", "words"),
    [
        ("credentials are missing", "ACCESS_DENIED"),
        ("nothing listens", "NETWORK_CONNECTION"),
        ("no bucket", "there is no bucket 'unknown'"),
    ],
)
def test_unusable_object_store_is_an_error_at_the_start(run_here, store, refusing_port, tmp_path, problem, words):
    port = {"credentials are missing": refusing_port, "nothing listens": free_port(), "no bucket": store.port}[problem]
    credentials = dict.fromkeys(CREDENTIALS) if port == refusing_port else {}
    url = url_of(port, bucket="unknown" if problem == "no bucket" else "studies")
    done = run_here(
        main, "--trials", "1", "--study", "denied", storage=url, variables={"HOME": str(tmp_path), **credentials}
    )
    assert done.returncode == 2 and words in done.stderr and "--storage" in done.stderr, done.stderr
    assert "corpus" not in done.stdout
    assert Refusing.requests == (port == refusing_port)  # the request is not repeated
    assert not (tmp_path / ".cache" / "fair-ser").exists()  # nothing was prepared


@pytest.mark.slow
def test_study_on_an_object_store_is_read_and_extended_from_another_machine(run_here, options):
    flags = ("--study", "shared", "--num-workers", "1", "--trials")
    done = run_here(main, *flags, "1", **options("first"))
    assert done.returncode == 0 and "Pareto front on dev" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    folder = StudyFolder.at(options("first")["storage"], "shared")
    before = markers_of(folder)
    assert len(before) == 1 and not folder.exists(LEASE)

    environment = os.environ | options("laptop")["variables"]
    read = partial(subprocess.run, cwd=REPO, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    status = read([sys.executable, "study/sweep.py", "status", folder.uri])
    assert status.returncode == 0 and "1 finished, 0 failed" in status.stdout, status.stderr
    folder.remove("report")
    report = read([sys.executable, "-m", "analysis", "report", folder.uri])
    assert report.returncode == 0 and folder.path("report", "report.html") in report.stdout, report.stderr
    assert {"report.html", "pareto.png", "pareto.svg", "front.csv"} <= set(folder.names("report"))

    done = run_here(main, *flags, "2", **options("second"))
    assert done.returncode == 0 and "trial 2/2" in done.stdout and "trial 1/" not in done.stdout, done.stderr[-3000:]
    assert before.items() < markers_of(folder).items()


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(4 * PATIENCE)
def test_object_store_may_be_away_or_refuse_writes_for_30_seconds(run_sweep, start_sweep, store, options):
    search = ("--sampler", "random", "--space", "schedules", "--num-workers", "1", "--trials", "4")
    search += ("--epochs", "20", "--set", "optimisation.patience=20")
    assert run_sweep(*search, "--study", "undisturbed").returncode == 0
    trials = StudyState(StudyFolder.at(str(run_sweep.storage), "undisturbed")).trials.values()
    expected = {trial["config_id"]: trial["values"] for trial in trials}
    folder = StudyFolder.at(options("first")["storage"], "away")
    process = start_sweep(*search, "--study", "away", **options("first"))
    for begin, end, finished in ((store.close, store.open, 0), (store.refuse_writes, store.accept_writes, 2)):
        # Ray Train writes to the store once, without retries, when each of the two worker groups starts
        config_id = wait_for(partial(unfinished, folder, finished, started=2), process)[0]
        kept, epochs = markers_of(folder), epochs_of(folder, config_id) or 1
        begin()
        time.sleep(FAULT_SECONDS)
        end()
        began = time.monotonic()
        wait_for(partial(advanced, folder, config_id, epochs), process)
        print(f"seconds after {begin.__name__}: {round(time.monotonic() - began, 1)} s")
    assert kept and "Pareto front on dev" in output_of(process)
    assert_nothing_lost(folder, kept, expected)
    assert not folder.exists(LEASE)
