# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The Pareto front of a study
# Open with Jupyter and jupytext, or turn it into a notebook with `jupytext --to ipynb pareto.py`. Set `STUDY` to the
# folder that holds `study.json`.

# %%
import os
import sys
from pathlib import Path

ROOT = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "pyproject.toml").exists())
sys.path.insert(0, str(ROOT))  # Jupyter starts in the notebook's folder

from IPython.display import Image

from analysis.chance import uncertainty_of
from analysis.drawing import render
from analysis.figures import pareto_figure, training_figure
from analysis.findings import answer, warnings_of
from analysis.load import load_epochs, load_study
from analysis.pareto import front, pareto_info
from analysis.report import require_finished_runs
from analysis.tables import cells_table, configurations_table, formatted, front_table

STUDY = os.environ.get("STUDY", str(ROOT / "results" / "embedded-fairness"))

# %%
study = load_study(STUDY)
require_finished_runs(study)
points = front(study.configurations)
chance = uncertainty_of(study)
print(answer(points))
for warning in warnings_of(study, points, chance):
    print("·", warning)

# %% [markdown]
# ## Accuracy against the gender gap
# Each filled marker is a configuration on dev, where the front (the line) is chosen; a thin line leads to the same
# configuration on test. A gap inside the shaded band is one that a model blind to gender would show by chance.

# %%
Image(render(pareto_figure(pareto_info(study, chance.floor)), "png"), width=860)

# %%
formatted(front_table(points))

# %%
formatted(configurations_table(points, len(study.seeds), chance.intervals))

# %% [markdown]
# ## By language and modality
# Signed gaps are women minus men, in points. Read each beside its numbers of utterances.

# %%
formatted(cells_table(study, points.loc[points["on_front"], "config_id"].tolist(), "test"))

# %% [markdown]
# ## Training
# Each line is a configuration on dev, epoch by epoch; the bold ones are ERM and the paper's setting. The right panel
# shows how much the gap counted in the objective at that time.

# %%
Image(render(training_figure(load_epochs(study)), "png"), width=1000)
