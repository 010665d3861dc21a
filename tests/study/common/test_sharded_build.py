"""Sharded builds: interruption, progress, helpers, and several builders at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from study.common import sharded_build
from study.common.sharded_build import ShardedBuild
from tests import REPO

NAMES = ["0.txt", "1.txt", "2.txt", "3.txt"]


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".lock"}


def test_interrupted_build_resumes_and_leaves_no_partial_file(tmp_path):
    calls = []

    def compute(part: int, path: Path) -> None:
        calls.append(part)
        path.write_text("half")
        if calls == [0, 1, 2]:
            raise KeyboardInterrupt
        path.write_text(f"whole {part}")

    store = ShardedBuild(tmp_path / "store", NAMES)
    with pytest.raises(KeyboardInterrupt):
        store.build("it", compute)
    assert files(store.folder) == {"0.txt": "whole 0", "1.txt": "whole 1"} and store.missing() == [2, 3]
    (store.folder / "2.txt.4711.tmp").write_text("partial file of a killed process")
    store.build("it", compute)
    assert calls == [0, 1, 2, 2, 3]
    assert files(store.folder) == {name: f"whole {part}" for part, name in enumerate(NAMES)}


def test_only_rank_0_prints_progress_size_and_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sharded_build, "PROGRESS_SECONDS", 0.0)
    ShardedBuild(tmp_path / "first", NAMES).build("it", lambda part, path: path.write_text("x" * 5_000_000))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"it: 4 of 4 parts to compute in {tmp_path / 'first'}"
    assert [line.split(",")[0] for line in lines[1:4]] == [f"it: {done} of 4 parts" for done in (1, 2, 3)]
    assert lines[4].startswith("it: complete, 0.02 GB, after ") and lines[4].endswith("; 4 of 4 parts by this process")
    ShardedBuild(tmp_path / "first", NAMES).build("it", lambda part, path: path.write_text("again"))
    monkeypatch.setenv("RANK", "1")
    ShardedBuild(tmp_path / "second", NAMES).build("it", lambda part, path: path.write_text("x"))
    assert capsys.readouterr().out == ""


def test_helpers_share_the_work_and_their_errors_are_raised(tmp_path):
    parent = os.getpid()

    def compute(part: int, path: Path) -> None:
        if os.getpid() == parent:
            while len(store.missing()) > 1:  # until the helper has computed the rest
                time.sleep(0.01)
        path.write_text("parent" if os.getpid() == parent else "helper")

    store = ShardedBuild(tmp_path / "store", NAMES)
    store.build("it", compute, helpers=1)
    assert sorted(files(store.folder).values()) == ["helper"] * 3 + ["parent"]

    def fail(part: int, path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    store = ShardedBuild(tmp_path / "full", NAMES)
    with pytest.raises(OSError, match="No space"):
        store.build("it", fail, helpers=2)
    assert files(store.folder) == {}


BUILDER = """
import sys, time
from pathlib import Path
from study.common.sharded_build import ShardedBuild

def compute(part, path):
    with open(sys.argv[2], "a") as log:
        log.write(f"{part}\\n")
    path.write_text("half")
    time.sleep(0.2)
    path.write_text(f"whole {part}")

store = ShardedBuild(Path(sys.argv[1]), [f"{part}.txt" for part in range(40)])
print("ready", flush=True)
input()
store.build("it", compute, helpers=1)
"""


def test_builders_share_the_work_and_survive_a_killed_one(tmp_path):
    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, "-c", BUILDER, str(tmp_path / "store"), str(tmp_path / name)]
        return subprocess.Popen(command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def computed(name: str) -> list[str]:
        log = tmp_path / name
        return log.read_text().split() if log.exists() else []

    one, other = start("one"), start("other")
    assert [builder.stdout.readline() for builder in (one, other)] == ["ready\n"] * 2
    for builder in (one, other):
        builder.stdin.write("\n")
        builder.stdin.flush()
    while len(computed("one")) < 4 or not computed("other"):
        assert one.poll() is None
        time.sleep(0.01)
    one.kill()
    one.communicate()
    output, _ = other.communicate(timeout=60)
    assert other.returncode == 0 and "it: complete" in output
    assert files(tmp_path / "store") == {f"{part}.txt": f"whole {part}" for part in range(40)}
    both = computed("one") + computed("other")
    assert set(both) == {str(part) for part in range(40)}
    assert len(both) <= 41  # only the part that the killed process was computing
