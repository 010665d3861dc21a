"""The notebooks run from top to bottom on a small study."""

from __future__ import annotations

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

from tests import REPO
from tests.analysis import studies


@pytest.mark.slow
@pytest.mark.parametrize(("name", "figures"), [("pareto", 5), ("ablation", 4)])
def test_notebook(name: str, figures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = (("power 1", {"weight": 0.5}), ("mean over cells", {"weight": 0.6}))  # which leave one part out
    monkeypatch.setattr(studies, "HYPERPARAMETERS", (*studies.HYPERPARAMETERS[:2], *arms))
    folder = studies.write_whole_study(tmp_path / "s", per_cell=20, seeds=(0, 1), configurations=4)
    notebook = jupytext.read(REPO / "analysis" / "notebooks" / f"{name}.py")
    assert notebook.cells[0].cell_type == "code" and "STUDY = " in notebook.cells[0].source
    monkeypatch.setenv("STUDY", folder.uri)
    monkeypatch.delenv("PYTHONPATH", raising=False)

    resources = {"metadata": {"path": str(REPO / "analysis" / "notebooks")}}  # where Jupyter starts it
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == figures
    assert any(studies.NOTE in output.get("text", "") for output in outputs)
