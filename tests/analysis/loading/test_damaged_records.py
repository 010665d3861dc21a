"""The report of a damaged study fails with the name of the file and a remedy, never with a traceback.

Files that the report reads last are in the slow tests.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.__main__ import main
from study.storage.study_folder import StudyFolder
from tests.analysis import studies

RUN = "runs/01abcdefabcd/0"
JSON = ("study.json", "trials/00001.json", f"{RUN}/finished.json")
STEPS = pytest.param(f"{RUN}/steps.parquet", marks=pytest.mark.slow)
PARQUET = ("utterances.parquet", f"{RUN}/predictions.parquet", STEPS)
FILES = (*JSON, f"{RUN}/epochs.jsonl", *PARQUET)
REMEDY = re.compile(
    "[Ss]tart the study again|[Mm]ove (it|that run's folder) away|[Rr]estore it from a copy|no study at"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Two configurations, ERM and the paper's setting, with predictions, epochs and steps."""
    return studies.write_whole_study(tmp_path_factory.mktemp("whole") / "s", per_cell=12, configurations=2)


@pytest.fixture
def folder(whole: StudyFolder, tmp_path: Path) -> StudyFolder:
    shutil.copytree(whole.uri, tmp_path / "s")
    return StudyFolder(str(tmp_path / "s"))


def refused(folder: StudyFolder, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Check that the report fails with the file and a remedy, and writes no page; return its message."""
    assert main(["report", folder.uri, "--permutations", "20", "--resamples", "20"]) == 2, name
    message = capsys.readouterr().err
    assert name.rsplit("/", 1)[-1] in message and folder.uri in message, message
    assert REMEDY.search(message), message
    assert not folder.exists("report/report.html")
    return message


def test_undamaged_study_has_a_report(folder: StudyFolder) -> None:
    assert main(["report", folder.uri, "--permutations", "20", "--resamples", "20"]) == 0


@pytest.mark.parametrize("name", FILES)
def test_truncated_empty_and_foreign_files_are_refused(
    folder: StudyFolder, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder.read_bytes(name)
    kinds = [data[: len(data) // 2], data[: len(data) - 3], b"nonsense", b"\xff\xfe\x00", b"[]", b"null", b"3"]
    if not name.endswith(".jsonl"):
        kinds.append(b"")  # no epoch is what an untrained run has
    for kind in kinds:
        folder.write_bytes(name, kind)
        refused(folder, name, capsys)


@pytest.mark.parametrize("name", ["utterances.parquet", f"{RUN}/predictions.parquet", f"{RUN}/epochs.jsonl"])
def test_missing_files_are_refused(folder: StudyFolder, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder.remove(name)
    assert "is missing" in refused(folder, name, capsys)


@pytest.mark.parametrize("name", PARQUET)
def test_missing_and_mistyped_columns_are_refused(
    folder: StudyFolder, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = folder.read_parquet(name)
    needed = [column for column in frame if column not in ("loss", "penalty") and not str(column).startswith("gap/")]
    for column in needed:
        folder.write_parquet(name, frame.drop(columns=column))
        assert f"lacks {column}" in refused(folder, name, capsys)
        if column not in ("speaker", "dialogue", "utterance_id", "active"):
            folder.write_parquet(name, frame.assign(**{str(column): "what is this"}))
            assert column in refused(folder, name, capsys)


def test_duplicate_rows_and_rows_of_another_study_are_refused(
    folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{RUN}/predictions.parquet"
    frame = folder.read_parquet(name)
    folder.write_parquet(name, frame.iloc[[0, *range(len(frame))]])
    assert "twice" in refused(folder, name, capsys)
    folder.write_parquet(name, frame.assign(utterance_id=[f"other {i}" for i in range(len(frame))]))
    assert main(["report", folder.uri]) == 2
    assert "the folder mixes two studies" in capsys.readouterr().err


def key_paths(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the keys that lead to each value of a record, including its dicts."""
    below = [] if not isinstance(value, dict) else [p for key in value for p in key_paths(value[key], (*path, key))]
    return [*([path] if path else []), *below]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*JSON, f"{RUN}/epochs.jsonl"])
def test_any_mistyped_value_is_refused_or_unused(
    folder: StudyFolder, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each value is replaced by a list or removed: an error names the file, or the report is written."""
    text = folder.read_bytes(name).decode()
    record = json.loads(text.splitlines()[0] if name.endswith(".jsonl") else text)
    paths = key_paths(record)
    for path in [paths[i] for i in np.random.default_rng(0).permutation(len(paths))[:25]]:
        for value in ([["?"]], None):
            changed = json.loads(json.dumps(record))
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            if value is None:
                del inner[path[-1]]
            else:
                inner[path[-1]] = value
            folder.write_bytes(name, json.dumps(changed).encode() + b"\n")
            status = main(["report", folder.uri, "--permutations", "20", "--resamples", "20"])
            message = capsys.readouterr().err
            assert status == 0 or (name in message and REMEDY.search(message)) or "schema version" in message, (
                path,
                message,
            )


def test_table_of_several_studies_refuses_damage_too(
    folder: StudyFolder, whole: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "runs/00abcdefabcd/0/predictions.parquet"  # of the first configuration, by which utterances are told
    folder.write_bytes(name, folder.read_bytes(name)[:100])
    assert main(["studies", whole.uri, folder.uri]) == 2
    assert name in capsys.readouterr().err
