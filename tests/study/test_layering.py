"""Who may import whom: analysis needs no torch and no Ray, the trainer needs no Ray, nothing imports a script."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests import REPO

SCRIPTS = {"study.sweep", "study.ablation", "study.train", "study.evaluate"}
ANALYSIS_MAY_USE = {
    "study.storage.records",
    "study.evaluation.metrics",
    "study.common",
    "study.storage",
    "study.config.settings",
    "study.common.groups",
    "study.search.objectives",
    "study.losses.baselines",
    "search_spaces",
}


def modules() -> dict[str, Path]:
    found = {}
    for room in ("study", "analysis", "search_spaces"):
        for path in (REPO / room).rglob("*.py"):
            if "notebooks" not in path.parts:
                found[".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", [name for name in modules() if name.startswith("analysis.")])
def test_analysis_reads_records_only(name):
    ours = {i for i in imports_of(modules()[name]) if i.startswith(("study", "search_spaces"))}
    assert all(any(i == m or i.startswith(f"{m}.") for m in ANALYSIS_MAY_USE) for i in ours), ours


def test_analysis_loads_neither_torch_nor_ray():
    loaded = loaded_after("import analysis.report.build")
    assert "pandas" in loaded and not loaded & {"torch", "ray", "transformers", "deepspeed"}


def test_settings_and_records_load_no_torch():
    assert not loaded_after(
        "import study.config.settings, study.storage.records, study.evaluation.metrics, search_spaces"
    ) & {"torch", "ray"}


def test_the_trainer_loads_no_ray():
    loaded = loaded_after("import study.training.trainer, study.cli.run_single, study.train, study.evaluate")
    assert "deepspeed" in loaded and "ray" not in loaded


def test_nothing_imports_a_script_and_only_scripts_know_both_rooms():
    for name, path in modules().items():
        imported = imports_of(path)
        assert not imported & SCRIPTS, name
        if name not in SCRIPTS and name.startswith("study"):
            assert not any(i.split(".")[0] == "analysis" for i in imported), name
