"""Showing a study: what is printed, how often its files are read, and what is imported."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from rich.console import Console

from study.cli import sweep
from study.cli.request import search_request
from study.cli.run_study import StudyCommand, _plan_study
from study.common.errors import RecordError
from study.search.objectives import SearchObjectives
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests import REPO
from tests.analysis.studies import figures, write_plan, write_run, write_trial
from tests.study.storage.test_status import trial
from tests.study.storage.test_study_state import count_requests


def write_complete_study(storage, trials, *options):
    """Write a study of this many finished trials, with a report; return the options of its command."""
    arguments = ["--storage", str(storage), "--study", "s", "--trials", str(trials), "--num-workers", "1", *options]
    request = search_request(*sweep.make_parser().read(arguments), cores=2)
    settings, parallelism = request.settings.model_dump(mode="json"), request.parallelism.model_dump()
    plan = {"settings": settings, "trials": trials, "parallelism": parallelism, "hyperparameters": []}
    folder = write_plan(storage / "s", **plan)
    for number in range(trials):
        write_trial(folder, number, f"c{number}")
        write_run(folder, f"c{number}", 0, figures(0.5, 0.05), figures(0.45, 0.06))
    folder.write_bytes("report/report.html", b"")
    return arguments


@pytest.fixture
def reads(monkeypatch):
    """The requests to study folders, by (method, path)."""
    requests = Counter()
    count_requests(monkeypatch, requests)
    return requests


def require_single_requests(requests, trials):
    """Check that each file was read and each request made at most once."""
    repeated = {request: number for request, number in requests.items() if number > 1}
    assert not repeated
    assert sum("/trials/" in path for method, path in requests if method == "read_bytes") == trials


@pytest.mark.parametrize("trials", [1, 5])
def test_showing_a_complete_study_reads_each_file_once(tmp_path, reads, capsys, trials):
    arguments = write_complete_study(tmp_path, trials)
    reads.clear()
    assert sweep.main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"study s is complete: {trials} trial{'s' if trials > 1 else ''}\n" in printed
    assert "Pareto front on dev" in printed
    require_single_requests(reads, trials)
    assert sum(path.endswith("finished.json") for method, path in reads if method == "read_bytes") == trials


@pytest.mark.parametrize("trials", [1, 5])
def test_status_reads_each_file_once(tmp_path, reads, capsys, trials):
    write_complete_study(tmp_path, trials)
    reads.clear()
    assert sweep.main(["status", "s", "--storage", str(tmp_path)]) == 0
    assert f"{trials} finished, 0 failed" in capsys.readouterr().out
    require_single_requests(reads, trials)


@pytest.mark.parametrize("trials", [1, 5])
def test_planning_another_trial_reads_each_file_once(small_corpus, tmp_path, reads, trials):
    options = ("--corpus", f"meld-st:{small_corpus}", "--set", "optimisation.batch_size=24")
    arguments = write_complete_study(tmp_path, trials, *options)
    request = search_request(*sweep.make_parser().read([*arguments, "--trials", str(trials + 1)]), cores=2)
    reads.clear()
    state = StudyState(request.folder)
    plan = _plan_study(request, state, StudyCommand(None, (), str, sweep.show), Console(quiet=True))
    assert plan.request.trials == trials + 1
    require_single_requests(Counter({key: n for key, n in reads.items() if str(tmp_path / "s") in key[1]}), trials)


def test_showing_a_complete_study_imports_neither_torch_nor_ray(tmp_path):
    arguments = write_complete_study(tmp_path, 2)
    code = (
        "import sys\nfrom study.cli.sweep import main\nassert main(sys.argv[1:]) == 0\n"
        "print('imported:', sorted({'torch', 'ray', 'transformers', 'datasets', 'optuna', 'sklearn'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "study s is complete" in done.stdout and "imported: []" in done.stdout


@pytest.mark.parametrize(("finished", "status"), [(2, 0), (0, 1)])
def test_failed_trials_are_counted_and_named(tmp_path, capsys, finished, status):
    folder = write_plan(tmp_path / "s")
    for number in range(3):
        if number < finished:
            write_trial(folder, number, f"c{number}")
            write_run(folder, f"c{number}", 0, figures(0.5, 0.05), figures(0.45, 0.06))
        else:
            trial(folder, number, f"c{number}", "failed", reason="killed: no memory", log="worker.log")
    request = SimpleNamespace(folder=folder, trials=3, search_objectives=SearchObjectives(), profile=False)
    assert sweep.show(Console(soft_wrap=True), request, StudyState(folder), write=False) == status
    printed = capsys.readouterr().out
    assert f"{finished} of 3 trials are done, {3 - finished} failed; the same command runs the others" in printed
    assert "trial 2 failed: killed: no memory (logs: worker.log)" in printed
    assert ("Pareto front" in printed) == (finished > 0)


def test_confirmation_checks_the_storage_first(monkeypatch):
    def fail(uri):
        raise OSError("When resolving region for bucket 'bucket': AWS Error NETWORK_CONNECTION during HeadBucket")

    monkeypatch.setattr("study.storage.study_folder.fs.FileSystem", SimpleNamespace(from_uri=fail))
    monkeypatch.setattr("tenacity.nap.time.sleep", None)  # the check is not retried
    request = SimpleNamespace(folder=StudyFolder("s3://bucket/a"))
    monkeypatch.setattr(sweep, "search_request", lambda *options: request)
    with pytest.raises(RecordError, match=r"--storage: cannot read s3://bucket/a: When resolving"):
        sweep.run(SimpleNamespace(confirm_seeds=(10,)), [], Console())
