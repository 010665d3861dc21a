"""The examples of docs/extending.md work as written."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from search_spaces import registry, space_maker
from study.common.groups import Cell
from study.config.settings import CorpusSettings, Settings
from study.data.corpora import list_corpus, load_corpus
from study.data.corpora.registry import CORPORA
from study.losses.base import GlobalBatch, sample_weights
from study.search.optuna_study import SAMPLERS
from tests import REPO
from tests.study.data.corpora.builders import write_wav

TEXT = (REPO / "docs/extending.md").read_text(encoding="utf-8")


def example(title: str, **names) -> SimpleNamespace:
    """Run the Python block whose first line names this file; return its names."""
    (block,) = re.findall(rf"```python\n# {re.escape(title)}\n(.*?)```", TEXT, re.DOTALL)
    scope = {"__name__": "example", **names}
    exec(compile(block, title, "exec", dont_inherit=True), scope)
    return SimpleNamespace(**scope)


def test_the_loss_weights_the_worst_cell_only():
    loss = example("study/losses/worst_cell.py").WorstCell()
    cells = (Cell("en", "speech"), Cell("de", "speech"))
    batch = GlobalBatch(torch.tensor([1.0, 3.0, 4.0, 1.0]), torch.tensor([0, 0, 1, 2]), cells)
    weights, parts = sample_weights(loss, batch, (), {})
    assert float(parts.total) == pytest.approx((1 + 3 + 4) / 3)  # English; German has one loss of 1
    assert weights.losses.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0])


def test_the_corpus_is_listed_and_loaded(tmp_path, monkeypatch):
    monkeypatch.setitem(CORPORA, "folders:DIR", example("study/data/corpora/folders.py").list_folders)
    for number, split in enumerate(("train", "dev", "test")):
        for emotion in ("joy", "anger"):
            (tmp_path / split / emotion).mkdir(parents=True)
            for gender in ("female", "male"):
                write_wav(tmp_path / split / emotion / f"{gender}{number}_{gender}_1.wav")
    settings = CorpusSettings(spec=f"folders:{tmp_path}")
    assert len(list_corpus(settings, tmp_path / "cache").rows) == 12
    corpus = load_corpus(settings, tmp_path / "cache")
    assert corpus.utterances.groupby("split").size().to_dict() == {"dev": 4, "test": 4, "train": 4}
    assert set(corpus.utterances["gender"]) == {"female", "male"}


def test_the_search_spaces_are_found(tmp_path, monkeypatch):
    (block,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    file = Path(tmp_path, "mine.toml")
    file.write_text(block)
    (hyperparameter,) = space_maker(str(file))(("en",), Settings()).hyperparameters
    assert hyperparameter.name == "optimisation.weight_decay"
    monkeypatch.setitem(registry.SPACES, "regularisation", example("search_spaces/builtin.py").regularisation)
    space = space_maker("regularisation")(("en",), Settings())
    assert [each.name for each in space.hyperparameters] == ["backbone.lora_dropout", "optimisation.weight_decay"]


def test_the_sampler_is_made_with_its_seed(monkeypatch):
    samplers = dict(SAMPLERS)
    example("study/search/optuna_study.py", SAMPLERS=samplers)
    assert samplers["patient_tpe"](3)._n_startup_trials == 20


def test_the_section_draws_its_figure():
    points = pd.DataFrame({"seconds": [10.0, 20.0], "dev_w_f1": [0.3, 0.4]})
    context = SimpleNamespace(study=SimpleNamespace(configurations=points))
    (section,) = example("analysis/report/seconds_section.py").seconds_sections(context)
    assert section.title == "Accuracy and cost" and section.blocks[0].svg.startswith(b"<?xml")
