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
STUDY = os.environ.get("STUDY", str(ROOT / "results" / "synthetic-fairness"))  # the folder that contains study.json

# %% [markdown]
# # The Pareto front of a study
# Open it with Jupyter and jupytext, or convert it with `jupytext --to ipynb pareto.py`. Set `STUDY` above.

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
# configuration on test. A model blind to gender would show a gap inside the shaded band by chance.

# %%
Image(render(context.pareto, "png"), width=860)

# %%
formatted(front_table(points))

# %%
formatted(configurations_table(points, len(study.seeds), uncertainty.intervals))

# %% [markdown]
# ## Selection rules
# Each rule selects on dev only. The test figures of its choice are looked up once.

# %%
formatted(selection_table(choose(study)))

# %% [markdown]
# ## Stability of the front
# The table says in how many resamples of speakers or dialogues, and of training seeds, a configuration is on the front.
# The figure needs two seeds. It shows what 25 %, 50 % and 75 % of the seeds' fronts attain. If its lines lie far apart,
# the front depends on the seed.

# %%
probability_nondominated(study).sort_values("probability", ascending=False)

# %%
surfaces = attainment(study)
if not surfaces.empty:
    display(Image(render(attainment_figure(surfaces, len(study.seeds)), "png"), width=720))

# %% [markdown]
# ## Hypervolume of the front
# The area that the front dominates, over trials and over hours. Where the curve is flat, further trials did not improve
# the front.

# %%
history = hypervolume_history(study)
if not history.empty:
    display(Image(render(hypervolume_figure(history), "png"), width=860))

# %% [markdown]
# ## By language and modality
# Each panel shows one cell with its noise floor; black outlines mark the study's front. In the table, signed gaps are
# women minus men, in points. Read each beside its numbers of utterances.

# %%
Image(render(cells_figure(cells_info(study, uncertainty.floors)), "png"), width=1000)

# %%
formatted(cells_table(study, points.loc[points["on_front"], "config_id"].tolist(), "test"))

# %% [markdown]
# ## Training
# Each line is a configuration on dev over the epochs; ERM and the paper's setting are bold. The right panel shows the
# fairness weight.

# %%
Image(render(training_figure(training_lines(load_epochs(study))), "png"), width=1000)
