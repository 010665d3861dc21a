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

# %%
import os
import sys
from pathlib import Path

ROOT = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "pyproject.toml").exists())
sys.path.insert(0, str(ROOT))  # Jupyter starts in the notebook's folder
STUDY = os.environ.get("STUDY", str(ROOT / "results" / "synthetic-fairness"))  # the folder that holds study.json

# %% [markdown]
# # The Pareto front of a study
# Open with Jupyter and jupytext, or turn it into a notebook with `jupytext --to ipynb pareto.py`. Set `STUDY` above.

# %%
from IPython.display import Image, display

from analysis.formatting import formatted
from analysis.loading.study import load_epochs, load_study
from analysis.pareto.attainment import attainment, hypervolume_history, probability_nondominated
from analysis.pareto.selection import choose, selection_table
from analysis.plots.pareto import cells_figure, cells_info
from analysis.plots.search import attainment_figure, hypervolume_figure
from analysis.plots.style import render
from analysis.plots.training import training_figure, training_lines
from analysis.report.build import make_context, require_finished_runs
from analysis.report.headline import caveats, headline
from analysis.tables.configurations import cells_table, configurations_table, front_table

study = load_study(STUDY)
require_finished_runs(study)
context = make_context(study, permutations=200, resamples=300, seed=0)
points, uncertainty = context.points, context.uncertainty
print(headline(context))
for caveat in caveats(context):
    print("·", caveat)

# %% [markdown]
# ## Accuracy against the gender gap
# Each filled marker is a configuration on dev, where the front (the line) is chosen; a thin line leads to the same
# configuration on test. A gap inside the shaded band is one that a model blind to gender would show by chance.

# %%
Image(render(context.pareto, "png"), width=860)

# %%
formatted(front_table(points))

# %%
formatted(configurations_table(points, len(study.seeds), uncertainty.intervals))

# %% [markdown]
# ## Choices
# Each rule sees dev alone; test is what its choice then showed, once.

# %%
formatted(selection_table(choose(study)))

# %% [markdown]
# ## How sure the front is
# The table says in how many resamples of speakers or dialogues, and of training seeds, a configuration is on the front.
# The figure, for which two seeds are needed, shows what a quarter, half and three quarters of the seeds' fronts attain.
# Where its lines lie far apart, the front is a matter of the seed.

# %%
probability_nondominated(study).sort_values("probability", ascending=False)

# %%
surfaces = attainment(study)
if not surfaces.empty:
    display(Image(render(attainment_figure(surfaces, len(study.seeds)), "png"), width=720))

# %% [markdown]
# ## How the front grew
# The area that the front beats, over the trials and over the hours that they took. Where it is flat, more trials found
# nothing that counts.

# %%
history = hypervolume_history(study)
if not history.empty:
    display(Image(render(hypervolume_figure(history), "png"), width=860))

# %% [markdown]
# ## By language and modality
# Each panel is the front's figure for one cell, with the noise floor of that cell; black rims mark the study's front.
# In the table signed gaps are women minus men, in points: read each beside its numbers of utterances.

# %%
Image(render(cells_figure(cells_info(study, uncertainty.floors)), "png"), width=1000)

# %%
formatted(cells_table(study, points.loc[points["on_front"], "config_id"].tolist(), "test"))

# %% [markdown]
# ## Training
# Each line is a configuration on dev, epoch by epoch; the bold ones are ERM and the paper's setting. The right panel
# shows how much the gap counted in the objective at that time.

# %%
Image(render(training_figure(training_lines(load_epochs(study))), "png"), width=1000)
