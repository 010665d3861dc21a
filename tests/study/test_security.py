"""Security: network exposure of a private Ray, credentials in URLs, pickles, shells and hostile names."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from analysis.loading.study import load_study
from analysis.report.build import write_report
from study.cli.request import search_request
from study.cli.sweep import make_parser
from study.common.errors import RecordError, SettingsError
from study.config.settings import CorpusSettings, Parallelism
from study.data.corpora import load_corpus
from study.models.adapter import read_adapter
from study.storage.study_folder import StudyFolder
from tests import REPO
from tests.analysis import studies
from tests.study.data.corpora.builders import write_csv, write_wav

PACKAGES = ("study", "analysis", "search_spaces", "cluster")

LOCAL_RAY = """
from study.common.environment import stay_on_loopback
stay_on_loopback()
import contextlib, json, psutil, ray
from study.ray_backend import cluster
cluster.set_environment()
cluster.connect()
ray.get(ray.remote(lambda: 1).remote())
driver = psutil.Process()
addresses = set()
for process in (driver, *driver.children(recursive=True)):
    with contextlib.suppress(psutil.NoSuchProcess):  # it has just exited
        addresses |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
from ray._private.authentication.authentication_utils import is_token_auth_enabled
print(json.dumps([sorted(addresses), is_token_auth_enabled(), cluster.capacity()]))
"""


@pytest.fixture(scope="module")
def local_ray(ray_directory, tmp_path_factory):
    """Start Ray as a sweep does; return its listening addresses, whether it requires a token, and its resources."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_TMPDIR": ray_directory, "HOME": str(tmp_path_factory.mktemp("home"))}
    done = subprocess.run(
        [sys.executable, "-c", LOCAL_RAY], cwd=REPO, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_private_ray_listens_on_loopback_only_and_requires_a_token(local_ray):
    addresses, token_required, _ = local_ray
    assert token_required and addresses
    assert all(address.removeprefix("::ffff:") == "127.0.0.1" or address == "::1" for address in addresses), addresses


def test_gpus_an_autoscaler_may_add_count_towards_concurrent_trials(local_ray):
    from study.ray_backend.cluster import MAX_GPUS_RESOURCE, max_concurrent_trials, with_autoscaled_gpus

    *_, resources = local_ray
    assert "GPU" not in resources and resources["CPU"] >= 1
    head = {**resources, MAX_GPUS_RESOURCE: 24.0}
    grown = with_autoscaled_gpus(head)
    assert grown["GPU"] == 24 and max_concurrent_trials(Parallelism(num_workers=8), grown) == 3
    assert (
        with_autoscaled_gpus({**head, "GPU": 32.0})["GPU"] == 32
    )  # more GPUs are present than the autoscaler's maximum


def test_driver_requests_the_driver_resource_where_a_cluster_offers_it():
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
def test_storage_url_with_a_credential_is_refused_and_not_printed(url):
    with pytest.raises(RecordError, match="environment") as caught:
        search_request(*make_parser().read(["--storage", url]), cores=2)
    assert SECRET not in str(caught.value) and "AKIA" not in str(caught.value)
    with pytest.raises(RecordError):
        load_study(url)


@pytest.mark.parametrize("url", ["s3://bucket/studies?region=eu-west-1", "gs://bucket/a", "hdfs://user@host:9000/a"])
def test_storage_url_without_a_credential_is_accepted(url):
    assert StudyFolder(url).uri == url


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in (REPO / package).rglob("*.py")]


def names_used(path: Path) -> set[str]:
    """Return the dotted names a module imports or calls, e.g. ``torch.load``, and the keyword arguments it passes."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Call):
            names.add(ast.unparse(node.func))
            names |= {f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in node.keywords}
    return names


UNPICKLERS = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch.load", "yaml.load", "read_pickle"}
UNPICKLERS |= {
    "allow_pickle=True",
    "weights_only=False",
    "Tuner.restore",
    "tune.Tuner.restore",
    "trust_remote_code=True",
}


def test_only_deepspeed_checkpoints_are_unpickled():
    loaders = []
    for path in modules():
        names = names_used(path)
        unpicklers = {name for name in names if name in UNPICKLERS or name.split(".")[0] in UNPICKLERS}
        assert not unpicklers and not any(name.endswith("read_pickle") for name in names), path
        if any(name.endswith("load_checkpoint") for name in names):
            loaders.append(path.relative_to(REPO).as_posix())
    assert loaders == ["study/training/checkpointing.py"]


def test_no_shell_is_started():
    spawners = []
    for path in modules():
        names = names_used(path)
        assert not names & {"os.system", "os.popen", "shell=True", "eval", "exec"}, path
        if "subprocess" in names:
            spawners.append(path.relative_to(REPO).as_posix())
    assert spawners == ["study/data/corpora/synthetic/espeak.py"]


class Bomb:
    """Create a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_adapter_is_refused(tmp_path):
    adapter, touched = tmp_path / "adapter", tmp_path / "touched"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "settings.json").write_text("{}")
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(touched)))
    with pytest.raises(SettingsError, match="adapter_model.safetensors"):
        read_adapter(adapter)
    (adapter / "adapter_model.safetensors").write_bytes(pickle.dumps(Bomb(touched)))
    with pytest.raises(SettingsError):
        read_adapter(adapter)
    assert not touched.exists()


HOSTILE = (
    """"><script>alert(1)</script>$(touch pwned)`touch pwned`'; touch pwned; '<img src=x onerror=alert(1)>&{{7*7}}"""
)


def test_hostile_names_are_escaped_in_the_report(tmp_path, monkeypatch):
    folder = studies.write_whole_study(tmp_path / "s", per_cell=12, configurations=2)
    plan = folder.read_json("study.json")
    corpus = plan["corpus"] | {"spec": f"manifest:/data/{HOSTILE}.csv", "name": HOSTILE, "notes": [HOSTILE]}
    corpus |= {"skipped": 1, "skipped_clips": [f"{HOSTILE}.wav"]}
    settings = plan["settings"] | {"prompt": {"labels": [f"{HOSTILE}{i}" for i in range(7)], "question": HOSTILE}}
    plan |= {"name": HOSTILE, "corpus": corpus, "settings": settings, "command": f"python {HOSTILE}"}
    plan["backbone"] = {"spec": f"/models/{HOSTILE}", "hash": "beef"}
    folder.write_json("study.json", plan)
    utterances = folder.read_parquet("utterances.parquet")
    for column in ("speaker", "dialogue"):
        utterances[column] = utterances[column] + HOSTILE
    folder.write_parquet("utterances.parquet", utterances)
    trial = folder.read_json("trials/00001.json")
    folder.write_json(
        "trials/00001.json",
        trial | {"label": HOSTILE, "hyperparameters": trial["hyperparameters"] | {HOSTILE: HOSTILE}},
    )
    studies.write_trial(folder, 8, "failed0", reason=HOSTILE)
    folder.write_bytes("ray/tuner.pkl", pickle.dumps(Bomb(tmp_path / "pwned")))

    monkeypatch.chdir(tmp_path)
    paths = write_report(load_study(folder), permutations=20, resamples=20)
    page, figure = Path(paths.html).read_text(), Path(paths.svg).read_text()
    assert not re.search(r"<script|<img", figure)
    assert "&lt;script&gt;" in page  # shown as text
    assert page.count("<script") == 1 and not re.search(r"<img src=x", page)  # the one script sorts tables
    assert "{{7*7}}" in page  # not evaluated by the template
    assert not list(tmp_path.rglob("pwned"))


def test_hostile_names_in_a_corpus_are_plain_text(tmp_path, monkeypatch):
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
    assert all(pinned), "a line of requirements.lock does not read NAME==VERSION"
    return {canonicalize_name(match[1]): match[2] for match in pinned}


def test_every_dependency_is_locked_to_an_allowed_version():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    versions = locked()
    for requirement in map(Requirement, [*project["dependencies"], *(line for extra in extras for line in extra)]):
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not in requirements.lock: run `make lock`"
        assert requirement.specifier.contains(versions[name]), requirement
