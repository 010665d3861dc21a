"""Doors and secrets: who can connect, what is repeated of a credential, what is run of another's files."""

from __future__ import annotations

import argparse
import ast
import os
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.constraints import Constraint
from packaging.utils import canonicalize_name

from analysis.loading.study import load_study
from analysis.report.build import write_report
from study.cli.options import add_search_flags, add_study_flags, read_flags
from study.common.errors import RecordError, SettingsError
from study.models.adapter import read_adapter
from study.storage.study_folder import StudyFolder
from tests import REPO
from tests.analysis import studies

ROOMS = ("study", "analysis", "search_spaces", "cluster")

LOCAL_RAY = """
from study.common.environment import stay_on_loopback
stay_on_loopback()
import contextlib, json, os, psutil, ray
from study.ray_backend import cluster
cluster.set_environment()
cluster.connect()
ray.get(ray.remote(lambda: 1).remote())
own = psutil.Process()
open_doors = set()
for process in (own, *own.children(recursive=True)):
    with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
        open_doors |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
from ray._private.authentication.authentication_utils import is_token_auth_enabled
print(json.dumps([sorted(open_doors), is_token_auth_enabled(), cluster.capacity()]))
"""


@pytest.fixture(scope="module")
def local_ray(ray_directory, tmp_path_factory):
    """Of a Ray that a sweep starts: addresses it listens on, whether it asks for a token, what it can hold."""
    import json

    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_TMPDIR": ray_directory, "HOME": str(tmp_path_factory.mktemp("home"))}
    done = subprocess.run(
        [sys.executable, "-c", LOCAL_RAY], cwd=REPO, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_private_ray_listens_on_this_machine_only_and_asks_for_a_token(local_ray):
    addresses, token, _ = local_ray
    assert token and addresses
    assert all(address.removeprefix("::ffff:") == "127.0.0.1" or address == "::1" for address in addresses), addresses


def test_gpus_that_an_autoscaler_may_bring_count_before_they_are_there(local_ray):
    from study.config.settings import Parallelism
    from study.ray_backend.cluster import GPUS_AT_MOST, concurrent_trials, grown

    *_, resources = local_ray
    assert "GPU" not in resources and resources["CPU"] >= 1
    head = {**resources, GPUS_AT_MOST: 24.0}
    assert grown(head)["GPU"] == 24 and concurrent_trials(Parallelism(num_workers=8), grown(head)) == 3
    assert grown({**head, "GPU": 32.0})["GPU"] == 32  # some were started by hand


def test_a_driver_asks_for_its_place_where_a_cluster_offers_one():
    from study.ray_backend.cluster import DRIVER, driver_resources

    assert driver_resources({"CPU": 4, "driver": 1000}) == {**DRIVER, "driver": 1}
    assert driver_resources({"CPU": 4}) == DRIVER


SECRET = "wJalrXUtnFEMI/K7MDENG+bPx"


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@bucket/studies",
        f"S3://AKIAIOSFODNN7EXAMPLE:{SECRET.replace('/', '%2F')}@bucket/studies",
        f"abfs://box@account/studies?client_secret={SECRET}",
        f"abfs://box@account/studies?a=b&sig={SECRET}",
    ],
)
def test_a_storage_url_with_a_credential_is_refused_and_not_repeated(url):
    parser = argparse.ArgumentParser()
    add_study_flags(parser)
    add_search_flags(parser)
    with pytest.raises(RecordError, match="environment") as caught:
        read_flags(parser.parse_args(["--storage", url]), cores=2)
    assert SECRET not in str(caught.value) and "AKIA" not in str(caught.value)
    with pytest.raises(RecordError):
        load_study(url)


@pytest.mark.parametrize("url", ["s3://bucket/studies?region=eu-west-1", "gs://bucket/a", "hdfs://user@host:9000/a"])
def test_other_urls_are_taken(url):
    assert StudyFolder(url).uri == url


def modules() -> list[Path]:
    return [path for room in ROOMS for path in (REPO / room).rglob("*.py")]


def names_used(path: Path) -> set[str]:
    """Dotted names that a module imports or calls, e.g. ``torch.load``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Call):
            found.add(ast.unparse(node.func))
            found |= {f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in node.keywords}
    return found


UNPICKLES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch.load", "yaml.load", "read_pickle"}
UNPICKLES |= {
    "allow_pickle=True",
    "weights_only=False",
    "Tuner.restore",
    "tune.Tuner.restore",
    "trust_remote_code=True",
}


def test_nothing_here_unpickles_but_deepspeeds_checkpoints_of_ones_own_study():
    for path in modules():
        used = {name for name in names_used(path) if name in UNPICKLES or name.split(".")[0] in UNPICKLES}
        assert not used and not any(name.endswith("read_pickle") for name in names_used(path)), path
        if any(name.endswith("load_checkpoint") for name in names_used(path)):
            assert path == REPO / "study" / "checkpoints.py"


def test_no_shell_is_started():
    for path in modules():
        used = names_used(path)
        assert not used & {"os.system", "os.popen", "shell=True", "eval", "exec"}, path
        if "subprocess" in used:
            assert path == REPO / "study" / "corpora" / "espeak.py"


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


def test_an_adapter_of_pickles_is_refused(tmp_path):
    adapter, gone_off = tmp_path / "adapter", tmp_path / "gone-off"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "settings.json").write_text("{}")
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(gone_off)))
    with pytest.raises(SettingsError, match="adapter_model.safetensors"):
        read_adapter(adapter)
    (adapter / "adapter_model.safetensors").write_bytes(pickle.dumps(Bomb(gone_off)))
    with pytest.raises(SettingsError):
        read_adapter(adapter)
    assert not gone_off.exists()


HOSTILE = (
    """"><script>alert(1)</script>$(touch pwned)`touch pwned`'; touch pwned; '<img src=x onerror=alert(1)>&{{7*7}}"""
)


def test_a_study_of_hostile_names_makes_a_harmless_report(tmp_path, monkeypatch):
    folder = studies.write_whole_study(tmp_path / "s", per_cell=12, configurations=2)
    plan = folder.read_json("study.json")
    corpus = plan["corpus"] | {"spec": f"manifest:/data/{HOSTILE}.csv", "name": HOSTILE, "notes": [HOSTILE]}
    corpus |= {"skipped": 1, "skipped_clips": [f"{HOSTILE}.wav"]}
    settings = plan["settings"] | {"prompt": {"labels": [f"{HOSTILE}{i}" for i in range(7)], "question": HOSTILE}}
    plan |= {"name": HOSTILE, "corpus": corpus, "settings": settings, "command": f"python {HOSTILE}"}
    plan["backbone"] = {"spec": f"/models/{HOSTILE}", "hash": "beef"}
    folder.write_json("study.json", plan)
    table = folder.read_parquet("utterances.parquet")
    for column in ("speaker", "dialogue"):
        table[column] = table[column] + HOSTILE
    folder.write_parquet("utterances.parquet", table)
    trial = folder.read_json("trials/00001.json")
    folder.write_json(
        "trials/00001.json",
        trial | {"label": HOSTILE, "hyperparameters": trial["hyperparameters"] | {HOSTILE: HOSTILE}},
    )
    studies.write_trial(folder, 8, "failed0", reason=HOSTILE)
    folder.write_bytes("ray/tuner.pkl", pickle.dumps(Bomb(tmp_path / "pwned")))

    monkeypatch.chdir(tmp_path)
    paths = write_report(folder, permutations=20, resamples=20)
    page, figure = Path(paths.html).read_text(), Path(paths.svg).read_text()
    assert not re.search(r"<script|<img", figure)
    assert "&lt;script&gt;" in page  # it is shown, as text
    assert page.count("<script") == 1 and not re.search(r"<img src=x", page)  # the one that sorts tables
    assert "{{7*7}}" in page  # not computed by the template
    assert not list(tmp_path.rglob("pwned"))


def test_a_corpus_of_hostile_names_is_read_as_names(tmp_path, monkeypatch):
    from study.config.settings import CorpusSettings
    from study.data.corpora import load_corpus
    from tests.study.data.corpora.builders import write_csv, write_wav

    monkeypatch.chdir(tmp_path)
    hostile = "$(touch pwned);`touch pwned`|<script>&'.wav"
    rows = []
    for i in range(20):
        path = f"{i}{hostile}"
        write_wav(tmp_path / path)
        rows.append({"path": path, "transcript": HOSTILE, "emotion": "joy" if i % 2 else "sadness", "language": "de"})
        rows[-1] |= {"speaker": f"{i // 2}{HOSTILE}", "gender": "female" if i < 10 else "male"}
    write_csv(tmp_path / "m.csv", rows)
    corpus = load_corpus(CorpusSettings(spec=f"manifest:{tmp_path / 'm.csv'}"), tmp_path / "cache")
    assert len(corpus.utterances) == 20 and not corpus.skipped
    assert set(corpus.utterances["transcript"]) == {HOSTILE}
    assert not list(tmp_path.rglob("pwned"))


def locked() -> dict[str, str]:
    lines = (REPO / "requirements.lock").read_text().splitlines()
    pinned = [re.fullmatch(r"([\w.-]+)==([\w.!]+)", line) for line in lines]
    assert all(pinned), "a line is no NAME==VERSION"
    return {canonicalize_name(match[1]): match[2] for match in pinned}


def test_every_dependency_is_locked_to_a_version_that_it_allows():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    versions = locked()
    for constraint in map(Constraint, asked):
        name = canonicalize_name(constraint.name)
        assert name in versions, f"{name} is not in requirements.lock: run `make lock`"
        assert constraint.specifier.contains(versions[name]), constraint
